// Elements and the keyboard. Text goes in through textContent only: nothing of a stranger is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name === "hidden") element.hidden = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const make = (tag, attributes = {}, ...children) => dress(document.createElement(tag), attributes, children);
export const draw = (tag, attributes = {}, ...children) => dress(document.createElementNS(SVG, tag), attributes, children);

// Makes the elements of `items()` one stop of the Tab key, which `focused` is; returns it.
export function rove(items, focused) {
  const stop = items.includes(focused) ? focused : items[0];
  for (const item of items) item.tabIndex = item === stop ? 0 : -1;
  return stop;
}

// The element to which an arrow key, Home or End leads from `from`; undefined for other keys.
export function neighbour(items, from, key) {
  const index = items.indexOf(from);
  const next = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: items.length - 1 }[key];
  return next === undefined ? undefined : items[Math.min(Math.max(next, 0), items.length - 1)];
}

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export function bringIntoView(element) {
  element.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
}
