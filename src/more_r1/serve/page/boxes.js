// The picture and its boxes: drawn, moved, resized and removed by mouse, finger or keyboard.

import { at, make, neighbour, rove } from "./dom.js";
import { described, moved, resized, spanned } from "./geometry.js";
import { typeName } from "./labels.js";
import { addObject, onChange, removeObject, select, selects, session, setBox } from "./session.js";

const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 0.01;
// Pixels of the screen below which a drag is a click.
const CLICK = 5;

const frame = at("frame"), image = at("picture"), layer = at("boxes"), tool = at("add-box");
let shown = null, armed = false, drag = null, follow = () => {}, say = () => {};

// `following` is called while a box is on the move; `saying` tells what a key did.
export function startBoxes(following, saying) {
  [follow, say] = [following, saying];
  onChange(render);
  frame.addEventListener("pointerdown", begin);
  frame.addEventListener("pointermove", go);
  frame.addEventListener("pointerup", end);
  frame.addEventListener("pointercancel", cancel);
  frame.addEventListener("dragstart", (event) => event.preventDefault());
  layer.addEventListener("keydown", keys);
  layer.addEventListener("focusin", (event) => rove(all(), event.target));
  image.addEventListener("load", () => follow());
  tool.addEventListener("click", (event) => (event.detail === 0 ? addInTheMiddle() : arm(!armed)));
}

const all = () => [...layer.children];
const objectOf = (element) => session.current.objects.find(({ id }) => id === element.dataset.id);
export const boxElement = (id) => all().find((element) => element.dataset.id === id);
export const objectName = (doc, id) => `Object ${doc.objects.findIndex((each) => each.id === id) + 1}`;

function arm(on) {
  armed = on;
  frame.classList.toggle("armed", on);
  tool.setAttribute("aria-pressed", on);
  if (on) say("Drag across the picture to draw a box.");
}

function addInTheMiddle() {
  const doc = session.current;
  boxElement(addObject(doc, { cx: 0.5, cy: 0.5, w: 0.3, h: 0.3 })).focus();
  say(`${objectName(doc, doc.selected.id)} lies in the middle. Arrow keys move it, Shift and arrow keys resize it.`);
}

// -- drawing on the page

function render(doc) {
  if (doc === null) return;
  if (shown !== doc) {
    shown = doc;
    Object.assign(image, { src: doc.image, width: doc.width, height: doc.height, alt: `Picture ${doc.id}` });
    frame.style.setProperty("--shape", doc.width / doc.height);
    // Small pictures are not blown up without end.
    frame.style.setProperty("--natural", `${Math.max(2.2 * doc.width, 320)}px`);
  }
  if (drag?.id && !doc.objects.some(({ id }) => id === drag.id)) drag = null; // removed while it was on the move
  const old = new Map(all().map((element) => [element.dataset.id, element]));
  const held = layer.contains(document.activeElement) ? document.activeElement : null;
  const elements = doc.objects.map((object) => old.get(object.id) ?? fresh(object));
  for (const element of all()) if (!elements.includes(element)) element.remove();
  elements.forEach((element, index) => {
    if (layer.children[index] !== element) layer.insertBefore(element, layer.children[index] ?? null);
    dress(doc, element, index);
  });
  if (held && document.activeElement !== held && held.isConnected) held.focus();
  rove(all(), document.activeElement);
}

function fresh({ id }) {
  const element = make("div", { class: "box", role: "button", "aria-describedby": "box-help", "data-id": id }, make("span", { class: "tag" }));
  element.append(...HANDLES.map((edges) => make("span", { class: `handle ${edges}`, "data-edges": edges })));
  return element;
}

function dress(doc, element, index) {
  const { id, box, type } = doc.objects[index];
  const name = type ? `Object ${index + 1}, ${typeName(type)}` : `Object ${index + 1}`;
  element.querySelector(".tag").textContent = index + 1;
  element.setAttribute("aria-label", `${name}: ${described(box)}`);
  element.setAttribute("aria-pressed", selects(doc, "object", id));
  place(element, box);
}

function place(element, box) {
  const share = (value) => `${100 * value}%`;
  Object.assign(element.style, {
    left: share(box.cx - box.w / 2), top: share(box.cy - box.h / 2), width: share(box.w), height: share(box.h),
    // A box within another can still be reached.
    zIndex: Math.round(1000 * (1 - box.w * box.h)),
  });
}

// -- mouse and finger

const point = (event) => {
  const { left, top, width, height } = image.getBoundingClientRect();
  return [(event.clientX - left) / width, (event.clientY - top) / height];
};

function begin(event) {
  if (event.button !== 0 || drag || layer.closest("[inert]")) return;
  const doc = session.current, element = armed ? null : event.target.closest(".box");
  // A finger on the bare picture scrolls the page, unless it was asked to draw.
  if (!element && event.pointerType === "touch" && !armed) return select(doc, null);
  const [x, y] = point(event);
  drag = { doc, pointer: event.pointerId, from: [x, y], at: [event.clientX, event.clientY], far: false };
  if (element) {
    const { id, box } = objectOf(element);
    Object.assign(drag, { element, id, box, edges: event.target.dataset.edges ?? null });
    if (!selects(doc, "object", id)) select(doc, "object", id);
    element.focus({ preventScroll: true });
  } else if (document.activeElement !== tool) document.activeElement?.blur();
  frame.setPointerCapture(event.pointerId);
  event.preventDefault();
}

function go(event) {
  if (drag?.pointer !== event.pointerId) return;
  drag.far ||= Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) > CLICK;
  if (!drag.far) return;
  const [x, y] = point(event), [x0, y0] = drag.from;
  if (!drag.id) drag.next = spanned(x0, y0, x, y);
  else if (drag.edges) drag.next = resized(drag.box, drag.edges, x - x0, y - y0);
  else drag.next = moved(drag.box, x - x0, y - y0);
  drag.element ??= layer.appendChild(make("div", { class: "box drawing", "aria-hidden": "true" }));
  place(drag.element, drag.next);
  follow();
}

function end(event) {
  if (drag?.pointer !== event.pointerId) return;
  const { doc, id, next, element } = drag;
  drag = null;
  if (element?.classList.contains("drawing")) element.remove();
  if (next && id) setBox(doc, id, next);
  else if (next) {
    arm(false);
    boxElement(addObject(doc, next)).focus({ preventScroll: true });
    say(`${objectName(doc, doc.selected.id)} drawn.`);
  } else if (!id) select(doc, null);
}

function cancel() {
  if (!drag) return;
  if (drag.element?.classList.contains("drawing")) drag.element.remove();
  else if (drag.element) place(drag.element, drag.box);
  drag = null;
  follow();
}

// -- keyboard: arrows go from box to box until Enter takes one up; then they move it, and with Shift resize it

function keys(event) {
  const element = event.target.closest(".box"), doc = session.current;
  if (!element || event.ctrlKey || event.metaKey || event.altKey) return;
  const { id, box } = objectOf(element), taken = selects(doc, "object", id), arrow = ARROWS[event.key];
  if (event.key === "Enter" || event.key === " ") {
    select(doc, taken ? null : "object", id);
    say(taken ? `${objectName(doc, id)} put down.` : `${objectName(doc, id)} taken up. Arrow keys move it, Shift and arrow keys resize it.`);
  } else if (event.key === "Escape") {
    if (drag) cancel();
    else select(doc, null);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    const next = neighbour(all(), element, "ArrowRight") === element ? neighbour(all(), element, "ArrowLeft") : neighbour(all(), element, "ArrowRight");
    say(`${objectName(doc, id)} removed.`);
    removeObject(doc, id);
    (next?.isConnected ? next : tool).focus();
  } else if (taken && arrow) {
    const [dx, dy] = arrow.map((direction) => STEP * direction);
    setBox(doc, id, event.shiftKey ? resized(box, "se", dx, dy) : moved(box, dx, dy), event.repeat);
  } else {
    const next = neighbour(all(), element, event.key);
    if (!next) return;
    next.focus();
  }
  event.preventDefault();
}
