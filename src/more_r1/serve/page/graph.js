// The document's graph: what is seen on the left, what is named on the right. Laid out by itself: the same document looks the same.

import { crop } from "./crops.js";
import { at, draw } from "./dom.js";
import { pointAt } from "./lines.js";
import { relationName, symmetric } from "./labels.js";
import { isRelated, labelOf, onChange, session } from "./session.js";

const STEP = 68, SIDE = 46, HALF = SIDE / 2, PAD = 6;
// Where on its line a label may stand, the best place first.
const PLACES = [0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78];

const holder = at("graph");
let open = () => {}, shown = null, last = "";

export function startGraph(opening) {
  open = opening;
  onChange(render);
  new ResizeObserver(() => render(session.current)).observe(holder);
}

function render(doc) {
  const width = Math.floor(holder.clientWidth);
  if (doc === null || width === 0) return;
  const edges = [...doc.answers].filter(([, answer]) => isRelated(answer)).map(([key, answer]) => ({
    key, seen: answer.object, named: answer.name.toLowerCase(), name: answer.name, label: labelOf(answer),
  }));
  at("graph-note").hidden = edges.length > 0;
  const boxes = edges.map(({ seen }) => doc.objects.find(({ id }) => id === seen).box);
  const now = JSON.stringify([width, edges, boxes]);
  if (doc === shown && now === last) return;
  [shown, last] = [doc, now];
  holder.replaceChildren(...(edges.length ? [drawing(doc, edges, width)] : []));
}

function drawing(doc, edges, width) {
  const { left, right } = order(edges), rows = Math.max(left.length, right.length), height = rows * STEP + 2 * PAD;
  const level = (list, name) => PAD + (height - 2 * PAD) * ((list.indexOf(name) + 0.5) / list.length);
  const edge = width - Math.min(Math.max(...right.map((name) => 9.5 * name.length)) + 26, 0.42 * width);
  const names = right.map((name) => entity(edges.find(({ named }) => named === name).name, edge, level(right, name)));
  const text = edges.map(({ seen, name, label }) => `Object ${number(doc, seen)}: ${relationName(label)}: ${name}`).join("; ");
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Graph. ${text}` });
  const taken = [];
  const lines = edges.map((each) => {
    const ends = [SIDE + 6, level(left, each.seen), edge - 6, level(right, each.named)];
    return relation(each, ends, taken);
  });
  svg.append(...lines.map(([line]) => line), ...lines.map(([, label]) => label), ...left.map((id) => object(doc, id, level(left, id))), ...names);
  // Only what is in the page has a length.
  requestAnimationFrame(() => names.forEach((name) => shorten(name.querySelector("text"), width - edge - 12)));
  return svg;
}

// Both sides in the order in which they come, then each by the middle of its neighbours, twice: few lines cross.
function order(edges) {
  let left = [...new Set(edges.map(({ seen }) => seen))], right = [...new Set(edges.map(({ named }) => named))];
  const sorted = (side, other, mine, theirs) => {
    const middle = new Map(side.map((id) => {
      const places = edges.filter((edge) => edge[mine] === id).map((edge) => other.indexOf(edge[theirs]) / other.length);
      return [id, places.reduce((a, b) => a + b, 0) / places.length];
    }));
    return [...side].sort((a, b) => middle.get(a) - middle.get(b));
  };
  for (let turn = 0; turn < 2; turn += 1) {
    left = sorted(left, right, "seen", "named");
    right = sorted(right, left, "named", "seen");
  }
  return { left, right };
}

const number = (doc, id) => doc.objects.findIndex((each) => each.id === id) + 1;

function object(doc, id, y) {
  const group = draw("g", { class: "seen", transform: `translate(1 ${y - HALF})` });
  const { box } = doc.objects.find((each) => each.id === id);
  group.append(
    draw("image", { href: crop(doc, box), width: SIDE, height: SIDE }), draw("rect", { width: SIDE, height: SIDE, rx: 4 }),
    draw("text", { x: 5, y: 14, class: "number", text: number(doc, id) }),
  );
  return group;
}

function entity(name, x, y) {
  const group = draw("g", { class: "named", transform: `translate(${x} ${y})` });
  group.append(draw("circle", { r: 4 }), draw("text", { x: 12, y: 5, text: name }));
  return group;
}

function relation({ key, label }, [x0, y0, x1, y1], taken) {
  const bend = (x1 - x0) / 2, at = (t) => {
    const u = 1 - t, mix = (a, b, c, d) => u ** 3 * a + 3 * u * u * t * b + 3 * u * t * t * c + t ** 3 * d;
    return [mix(x0, x0 + bend, x1 - bend, x1), mix(y0, y0, y1, y1)];
  };
  const name = relationName(label), wide = 6.4 * name.length;
  const spot = (t) => { const [x, y] = at(t); return { left: x - wide / 2, right: x + wide / 2, top: y - 9, bottom: y + 9, x, y }; };
  const hits = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const free = PLACES.map(spot).filter((box) => box.left > SIDE && box.right < x1);
  const best = free.find((box) => !taken.some((other) => hits(box, other))) ?? spot(0.5);
  taken.push(best);
  const line = draw("g", { class: "edge" });
  line.append(draw("path", { d: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}` }));
  if (!symmetric(label)) line.append(draw("path", { class: "tip", d: `M${x1 - 7} ${y1 - 4.5}L${x1} ${y1}L${x1 - 7} ${y1 + 4.5}z` }));
  const text = draw("text", { class: "says", x: best.x, y: best.y + 4, "text-anchor": "middle", text: name });
  for (const part of [line, text]) {
    part.addEventListener("click", () => open(key));
    part.addEventListener("pointerenter", () => { pointAt(key); line.classList.add("bright"); });
    part.addEventListener("pointerleave", () => { pointAt(null); line.classList.remove("bright"); });
  }
  return [line, text];
}

function shorten(text, room) {
  const whole = text.textContent;
  if (!text.isConnected || text.getComputedTextLength() <= room) return;
  let length = whole.length;
  do {
    length -= Math.max(1, Math.floor(length / 16));
    text.textContent = `${[...whole].slice(0, length).join("").trimEnd()}…`;
  } while (length > 1 && text.getComputedTextLength() > room);
  text.append(draw("title", { text: whole }));
}
