// The text as words: a click, a drag or Shift and arrow keys mark those that name something.

import { at, make, neighbour, rove } from "./dom.js";
import { typeName } from "./labels.js";
import { addEntity, entityOver, onChange, removeEntity, select, selects, session, words } from "./session.js";

// Marks that stand close to the word before or after them.
const CLOSING = /^([.,;:!?…)\]}%]|['’]s)$/u, OPENING = /^[([{]$/u;

const list = at("words");
let shown = null, anchor = null, range = null, dragging = null, say = () => {};

export function startWords(saying) {
  say = saying;
  onChange(render);
  list.addEventListener("pointerdown", begin);
  list.addEventListener("pointermove", go);
  list.addEventListener("pointerup", end);
  list.addEventListener("pointercancel", () => { dragging = null; choose(null); });
  list.addEventListener("keydown", keys);
  list.addEventListener("focusin", (event) => rove(all(), event.target));
}

const all = () => [...list.querySelectorAll(".word")];
const indexOf = (element) => Number(element.dataset.index);
export const wordElements = ({ start, end }) => all().slice(start, end);

// -- drawing on the page

function render(doc) {
  if (doc === null) return;
  if (shown !== doc.tokens) {
    shown = doc.tokens;
    [anchor, range] = [null, null];
    list.replaceChildren(...shown.flatMap((token, index) => {
      const word = make("span", { class: "word", role: "button", "data-index": index, text: token });
      const close = index === 0 || CLOSING.test(token) || OPENING.test(shown[index - 1]);
      return [...(close ? [] : [make("span", { class: "gap", text: " " })]), word];
    }));
    rove(all(), null);
  }
  mark(doc);
}

function mark(doc) {
  const elements = all();
  const over = new Map(doc.entities.flatMap((entity) => elements.slice(entity.span.start, entity.span.end).map((word) => [word, entity])));
  elements.forEach((word, index) => {
    const entity = over.get(word);
    word.classList.toggle("marked", Boolean(entity));
    word.classList.toggle("first", entity?.span.start === index);
    word.classList.toggle("last", entity?.span.end === index + 1);
    word.classList.toggle("chosen", range !== null && range[0] <= index && index < range[1]);
    word.setAttribute("aria-pressed", Boolean(entity));
    if (entity) {
      const kind = entity.type ? `, ${typeName(entity.type)}` : "";
      word.setAttribute("aria-label", `${doc.tokens[index]}, in the entity ${words(doc, entity.span)}${kind}`);
    } else word.removeAttribute("aria-label");
    const selected = Boolean(entity) && selects(doc, "entity", entity.id), inside = Boolean(entity) && entity.span.start < index;
    word.toggleAttribute("data-selected", selected);
    const gap = word.previousElementSibling;
    if (!gap?.classList.contains("gap")) return;
    gap.classList.toggle("inside", inside);
    gap.toggleAttribute("data-selected", inside && selected);
  });
}

function choose(next) {
  range = next;
  mark(session.current);
}

const between = (a, b) => [Math.min(a, b), Math.max(a, b) + 1];

function markRange([start, end]) {
  const doc = session.current;
  range = null;
  addEntity(doc, start, end);
  say(`Marked: ${words(doc, { start, end })}.`);
}

function remove(entity) {
  const doc = session.current;
  say(`No longer marked: ${words(doc, entity.span)}.`);
  removeEntity(doc, entity.id);
}

// -- mouse and finger

function begin(event) {
  const word = event.target.closest(".word");
  if (!word || event.button !== 0) return;
  const index = indexOf(word);
  dragging = { from: event.shiftKey && anchor !== null ? anchor : index, to: index, pointer: event.pointerId };
  if (event.shiftKey) choose(between(dragging.from, index));
}

function go(event) {
  if (dragging?.pointer !== event.pointerId) return;
  const word = document.elementFromPoint(event.clientX, event.clientY)?.closest?.(".word");
  if (!word || !list.contains(word) || indexOf(word) === dragging.to) return;
  dragging.to = indexOf(word);
  choose(between(dragging.from, dragging.to));
}

function end(event) {
  if (dragging?.pointer !== event.pointerId) return;
  const { from, to } = dragging, doc = session.current, entity = entityOver(doc, to);
  dragging = null;
  anchor = from;
  all()[to]?.focus({ preventScroll: true });
  if (from !== to || range) return markRange(between(from, to));
  if (!entity) return markRange([from, from + 1]);
  if (selects(doc, "entity", entity.id)) return remove(entity);
  select(doc, "entity", entity.id);
}

// -- keyboard

function keys(event) {
  const word = event.target.closest(".word"), doc = session.current;
  if (!word || event.ctrlKey || event.metaKey || event.altKey) return;
  const index = indexOf(word), entity = entityOver(doc, index);
  if (event.key === "Enter" || event.key === " ") {
    if (range) markRange(range);
    else if (entity) remove(entity);
    else markRange([index, index + 1]);
    anchor = index;
  } else if (event.key === "Escape") {
    choose(null);
    select(doc, null);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    if (entity) remove(entity);
  } else {
    const next = neighbour(all(), word, event.key);
    if (!next) return;
    if (event.shiftKey) {
      if (!range) anchor = index;
      choose(between(anchor, indexOf(next)));
    } else if (range) choose(null);
    next.focus();
  }
  event.preventDefault();
}
