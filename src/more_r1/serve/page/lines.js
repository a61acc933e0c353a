// Relations as lines from box to word. The label of each stands between picture and text, where it hides neither.

import { boxElement, objectName } from "./boxes.js";
import { at, draw, make, neighbour, rove } from "./dom.js";
import { percent, relationName, symmetric } from "./labels.js";
import { isRelated, labelOf, onChange, session } from "./session.js";
import { wordElements } from "./words.js";

const ROW = 34, GAP = 8, MARGIN = 26, SHIFT = 48;

const stage = at("stage"), strip = at("chips"), drawing = at("lines");
const chips = new Map();
let open = () => {}, pointed = null;

// `opening` is told the pair whose label was chosen.
export function startLines(opening) {
  open = opening;
  onChange(drawLines);
  new ResizeObserver(() => drawLines()).observe(stage);
  strip.addEventListener("keydown", (event) => {
    const next = neighbour([...chips.values()], event.target, event.key);
    if (!next) return;
    next.focus();
    event.preventDefault();
  });
  strip.addEventListener("focusin", (event) => { rove([...chips.values()], event.target); pointAt(event.target.dataset.key); });
  strip.addEventListener("focusout", () => pointAt(null));
}

// Brings out one pair's line, as the mouse or the focus is on it elsewhere; null for none.
export function pointAt(key) {
  pointed = key;
  emphasise();
}

function inFocus(doc, key) {
  if (pointed !== null) return key === pointed;
  const { kind, id } = doc.selected ?? {};
  return kind !== undefined && doc.answers.get(key)?.[kind] === id;
}

export function drawLines() {
  const doc = session.current;
  if (doc === null) return;
  const related = [...doc.answers].filter(([, answer]) => isRelated(answer)).map(([key, answer]) => ({ key, answer }));
  dress(doc, related);
  const width = strip.clientWidth, origin = stage.getBoundingClientRect();
  const ends = related.map((each) => ({ ...each, box: boxElement(each.answer.object), words: wordElements(spanOf(doc, each.answer)) }))
    .filter(({ box, words }) => box && words.length);
  for (const end of ends) end.to = inlet(end.words, origin).x;
  for (const end of ends) {
    end.from = outlet(end, ends, origin);
    end.chip = chips.get(end.key);
    end.size = end.chip.offsetWidth;
    end.wish = (end.from.x + end.to) / 2;
  }
  const rows = arrange(ends, width);
  strip.style.height = rows ? `${rows * ROW + 2 * MARGIN}px` : "";
  // Only now do the words stand where they stay.
  const top = strip.offsetTop;
  drawing.replaceChildren(...ends.map((end) => {
    const { x, y } = inlet(end.words, origin), middle = strip.offsetLeft + end.left + end.size / 2;
    const chipTop = top + MARGIN + end.row * ROW;
    Object.assign(end.chip.style, { left: `${end.left}px`, top: `${MARGIN + end.row * ROW}px` });
    return line(end, curve(end.from, { x: middle, y: chipTop }), curve({ x: middle, y: chipTop + ROW - 6 }, { x, y }), { x, y });
  }));
  emphasise();
}

const spanOf = (doc, answer) => doc.entities.find(({ id }) => id === answer.entity)?.span ?? { start: 0, end: 0 };

// -- the labels

function dress(doc, related) {
  const held = document.activeElement?.dataset.key;
  const wanted = new Set(related.map(({ key }) => key));
  for (const [key, chip] of chips) if (!wanted.has(key)) { chip.remove(); chips.delete(key); }
  for (const { key, answer } of related) {
    const chip = chips.get(key) ?? fresh(key);
    const [name, sure] = chip.children;
    name.textContent = relationName(labelOf(answer));
    sure.textContent = answer.corrected !== null ? "✓" : answer.confidence === null ? "" : percent(answer.confidence);
    chip.classList.toggle("stale", answer.stale);
    const words = `${objectName(doc, answer.object)}, ${name.textContent}, ${answer.name}`;
    chip.setAttribute("aria-label", `${words}, ${answer.corrected !== null ? "corrected" : sure.textContent}`);
  }
  rove([...chips.values()], chips.get(held));
}

function fresh(key) {
  const chip = make("button", { class: "chip", type: "button", "data-key": key }, make("span", { class: "name" }), make("span", { class: "sure" }));
  chip.addEventListener("click", () => open(key));
  chip.addEventListener("pointerenter", () => pointAt(key));
  chip.addEventListener("pointerleave", () => pointAt(null));
  chips.set(key, chip);
  strip.append(chip);
  return chip;
}

// Gives each label its row and its left edge, near to where its line would cross; returns the number of rows.
function arrange(ends, width) {
  const rows = [];
  for (const end of [...ends].sort((a, b) => a.wish - b.wish)) {
    const wish = Math.min(Math.max(end.wish - end.size / 2, 0), Math.max(width - end.size, 0));
    let row = rows.findIndex((taken) => { const left = Math.max(wish, taken); return left - wish <= SHIFT && left + end.size <= width; });
    if (row < 0) row = rows.push(0) - 1;
    end.row = row;
    end.left = Math.max(wish, rows[row]);
    rows[row] = end.left + end.size + GAP;
  }
  return rows.length;
}

// -- the lines

// Where a line leaves its box: the lines of one box share its lower edge, in the order in which they end.
function outlet(end, ends, origin) {
  const { left, width, bottom } = end.box.getBoundingClientRect();
  const mine = ends.filter(({ box }) => box === end.box).sort((a, b) => a.to - b.to), place = (mine.indexOf(end) + 1) / (mine.length + 1);
  return { x: left - origin.left + width * place, y: bottom - origin.top };
}

// Above the middle of the entity's words in their first line.
function inlet(words, origin) {
  const boxes = words.map((word) => word.getBoundingClientRect()).filter((box, _, [first]) => Math.abs(box.top - first.top) < 4);
  const left = Math.min(...boxes.map((box) => box.left)), right = Math.max(...boxes.map((box) => box.right));
  return { x: (left + right) / 2 - origin.left, y: boxes[0].top - origin.top };
}

function curve(from, to) {
  const bend = Math.max((to.y - from.y) / 2, 12);
  return `M${from.x} ${from.y}C${from.x} ${from.y + bend} ${to.x} ${to.y - bend} ${to.x} ${to.y}`;
}

function line({ key, answer, from }, above, below, tip) {
  const group = draw("g", { class: answer.stale ? "line stale" : "line", "data-key": key });
  group.append(
    draw("path", { class: "halo", d: above }), draw("path", { d: above }), draw("path", { d: below }),
    draw("circle", { class: "halo", cx: from.x, cy: from.y, r: 5 }), draw("circle", { cx: from.x, cy: from.y, r: 3.5 }),
  );
  const [x, y] = [tip.x, tip.y];
  if (symmetric(labelOf(answer))) group.append(draw("circle", { cx: x, cy: y, r: 3 }));
  else group.append(draw("path", { class: "tip", d: `M${x - 4.5} ${y - 7}L${x} ${y}L${x + 4.5} ${y - 7}z` }));
  return group;
}

function emphasise() {
  const doc = session.current;
  if (doc === null) return;
  const bright = new Set([...chips.keys()].filter((key) => inFocus(doc, key)));
  for (const element of [...drawing.children, ...strip.children]) {
    element.classList.toggle("bright", bright.has(element.dataset.key));
    element.classList.toggle("dim", bright.size > 0 && !bright.has(element.dataset.key));
  }
}
