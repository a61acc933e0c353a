// The relations as a list: each unfolds into its six steps, and its label can be corrected.

import { objectName } from "./boxes.js";
import { crop } from "./crops.js";
import { at, bringIntoView, make } from "./dom.js";
import { NONE, closed, fitting, labels, meaning, percent, relationName, typesOf, withArticle } from "./labels.js";
import { pointAt } from "./lines.js";
import { correct, isRelated, labelOf, onChange, pairKey, session, unasked } from "./session.js";

const lists = { related: at("related"), withheld: at("withheld"), none: at("none") };
const fold = at("none-fold");
// The items of the document on show, by pair.
let items = new Map(), shown = null;

export function startRelations() {
  onChange(render);
  fold.addEventListener("toggle", () => { if (shown) shown.noneOpen = fold.open; });
}

// Unfolds a pair and goes there.
export function openPair(key) {
  const doc = session.current, item = items.get(key);
  if (!item) return;
  if (lists.none.contains(item)) fold.open = doc.noneOpen = true;
  doc.open.add(key);
  render(doc);
  item.querySelector(".head").focus({ preventScroll: true });
  bringIntoView(item);
}

const kindOf = (answer) => (labelOf(answer) === null ? "withheld" : isRelated(answer) ? "related" : "none");

function render(doc) {
  if (doc === null) return;
  if (shown !== doc) {
    for (const item of items.values()) item.remove();
    [items, shown] = [new Map(), doc];
    fold.open = doc.noneOpen;
  }
  for (const [key, item] of items) if (!doc.answers.has(key)) { item.remove(); items.delete(key); }
  const order = [...doc.answers].sort(([, a], [, b]) => a.span[0] - b.span[0] || place(doc, a) - place(doc, b));
  const held = document.activeElement;
  const counts = { related: 0, withheld: 0, none: 0 };
  for (const [key, answer] of order) {
    const item = items.get(key) ?? fresh(doc, key), list = lists[kindOf(answer)], position = counts[kindOf(answer)]++;
    dress(doc, key, item);
    if (list.children[position] !== item) list.insertBefore(item, list.children[position] ?? null);
  }
  // An item that moved to another list takes the focus along.
  if (held?.isConnected && held !== document.activeElement) {
    if (lists.none.contains(held)) fold.open = doc.noneOpen = true;
    held.focus({ preventScroll: true });
  }
  tell(doc, counts);
}

const place = (doc, answer) => doc.objects.findIndex(({ id }) => id === answer.object);
const many = (count, one, more) => `${count} ${count === 1 ? one : more}`;

function tell(doc, counts) {
  const open = unasked(doc), asked = doc.answers.size > 0;
  const parts = [`${counts.related} of ${many(doc.answers.size, "pair", "pairs")} ${counts.related === 1 ? "is" : "are"} related.`];
  if (open > 0) parts.push(`${many(open, "pair was", "pairs were")} not asked yet.`);
  if ([...doc.answers.values()].some((answer) => answer.stale)) parts.push("What changed since is marked; extract again to have it read anew.");
  at("relations-note").textContent = asked ? parts.join(" ") : "None yet. Extract relations, and each appears here with its reasoning.";
  at("withheld-part").hidden = counts.withheld === 0;
  fold.hidden = counts.none === 0;
  fold.querySelector("summary").textContent = many(counts.none, "pair without a relation", "pairs without a relation");
}

function fresh(doc, key) {
  const head = make("button", { class: "head", type: "button", "aria-expanded": "false" });
  const body = make("div", { class: "body", hidden: true });
  const item = make("li", { class: "relation" }, head, body);
  head.addEventListener("click", () => {
    if (!doc.open.delete(key)) doc.open.add(key);
    dress(doc, key, item);
  });
  for (const [name, pair] of [["pointerenter", key], ["pointerleave", null], ["focusin", key], ["focusout", null]]) {
    item.addEventListener(name, () => pointAt(pair));
  }
  items.set(key, item);
  return item;
}

function dress(doc, key, item) {
  const answer = doc.answers.get(key), [head, body] = item.children, open = doc.open.has(key), label = labelOf(answer);
  const object = doc.objects.find(({ id }) => id === answer.object);
  // How sure the model was says nothing of a label that the person gave.
  const share = answer.corrected === null ? answer.confidence : null;
  const sure = make("span", { class: "sure", hidden: share === null, text: share === null ? "" : percent(share) });
  sure.style.setProperty("--share", share ?? 0);
  const marks = [answer.corrected !== null && "corrected", answer.stale && "changed since"].filter(Boolean);
  head.replaceChildren(
    make("img", { class: "crop", src: crop(doc, object.box), alt: "", width: 44, height: 44 }),
    make("span", { class: "what" },
      make("span", { class: "pair" }, `${objectName(doc, answer.object)} → `, make("bdi", { text: answer.name })),
      make("span", { class: "name" }, label === null ? "withheld" : relationName(label), ...marks.flatMap((text) => [" ", make("span", { class: "mark", text })]))),
    sure,
  );
  head.setAttribute("aria-expanded", open);
  body.hidden = !open;
  if (open) fill(doc, answer, body);
  else body.replaceChildren();
}

function fill(doc, answer, body) {
  const select = body.querySelector("select") ?? selection(doc, answer);
  const label = labelOf(answer), said = meaning(label ?? NONE);
  const parts = [];
  if (label !== null && label !== NONE && said) parts.push(make("p", { class: "meaning", text: `${said[0].toUpperCase()}${said.slice(1)}.` }));
  if (answer.steps) parts.push(make("ol", { class: "steps" }, ...answer.steps.map((text) => make("li", { dir: "auto", text: closed(text) }))));
  else parts.push(make("pre", { dir: "auto", text: answer.completion }));
  for (const text of notes(answer)) parts.push(make("p", { class: "note", text }));
  select.value = label ?? "";
  const field = select.closest("label");
  // The select stays where it is, or it would lose the focus.
  for (const old of [...body.children]) if (old !== field) old.remove();
  body.prepend(...parts);
  if (!body.contains(field)) body.append(field);
}

function notes(answer) {
  const found = [];
  if (answer.corrected !== null) found.push(`You corrected this; the model said ${answer.label === null ? "nothing sure enough" : relationName(answer.label)}.`);
  if (answer.abstained && answer.corrected === null) found.push("Withheld: less sure than you asked for.");
  if (answer.answer !== null && answer.label !== null && answer.answer !== answer.label) {
    found.push(`Read alone, the answer was ${relationName(answer.answer)}; beside the other pairs another fits better.`);
  }
  if (answer.agreement !== null) found.push(`${percent(answer.agreement)} of the sampled traces end in this label.`);
  return found;
}

function selection(doc, answer) {
  const [object, entity] = typesOf(answer, doc.objects.find(({ id }) => id === answer.object), doc.entities.find(({ id }) => id === answer.entity));
  const fit = object && entity ? fitting([object, entity]) : [];
  const rest = labels().filter((label) => !fit.includes(label));
  const option = (label) => make("option", { value: label, text: label === NONE ? "no relation" : inWords(label, fit.includes(label)) });
  const select = make("select", { class: "label" });
  if (answer.label === null) select.append(make("option", { value: "", text: "withheld", disabled: "" }));
  if (fit.length) {
    select.append(make("optgroup", { label: `Fit ${withArticle(object)} and ${withArticle(entity)}` }, ...fit.map(option)));
    select.append(make("optgroup", { label: "Other labels" }, ...rest.map(option)));
  } else select.append(...rest.map(option));
  select.addEventListener("change", () => correct(doc, doc.answers.get(pairKey(answer.object, answer.entity)), select.value));
  make("label", { class: "correct" }, make("span", { text: "Label" }), select);
  return select;
}

function inWords(label, fits) {
  const [, object, entity] = label.split("/");
  return fits ? relationName(label) : `${relationName(label)} (${object}, ${entity})`;
}
