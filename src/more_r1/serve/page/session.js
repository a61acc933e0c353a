// The documents in work: pictures, words, boxes, entities and answers. No element of the page is touched here.

import { NONE } from "./labels.js";

// `current` is null where a new document is about to be chosen. `unsaved`: labels were corrected since the last export.
export const session = { documents: [], current: null, unsaved: false };

const listeners = [];
export const onChange = (listener) => listeners.push(listener);
export const changed = () => listeners.forEach((listener) => listener(session.current));

export const pairKey = (object, entity) => JSON.stringify([object, entity]);
// The label that counts: the person's, else the model's; null where it was withheld.
export const labelOf = (answer) => answer.corrected ?? answer.label;
export const isRelated = (answer) => labelOf(answer) !== null && labelOf(answer) !== NONE;
export const words = (doc, { start, end }) => doc.tokens.slice(start, end).join(" ");

// A file name that every system takes, and that no other document has.
function ownId(name) {
  const [, stem, suffix] = /^(.*?)(\.[a-z0-9]{1,5})?$/i.exec(name.replace(/[^A-Za-z0-9._-]+/g, "_"));
  const base = stem.replace(/^[._-]+|[._-]+$/g, "").slice(0, 60) || "picture";
  const taken = new Set(session.documents.map((doc) => doc.id.toLowerCase()));
  for (let number = 1; ; number += 1) {
    const id = `${base}${number > 1 ? `-${number}` : ""}${suffix ?? ".png"}`;
    if (!taken.has(id.toLowerCase())) return id;
  }
}

export function addDocument({ name, image, small, width, height, tokens = [], objects = [], entities = [] }) {
  const doc = {
    id: ownId(name), image, small, width, height, tokens, objects, entities, answers: new Map(), open: new Set(), selected: null,
    noneOpen: false, draft: tokens.length ? null : "", work: null, problem: "", said: "", past: [], future: [],
  };
  session.documents.push(doc);
  session.current = doc;
  changed();
  return doc;
}

export function removeDocument(doc) {
  const index = session.documents.indexOf(doc);
  doc.work?.abort();
  session.documents.splice(index, 1);
  session.current = session.documents[Math.min(index, session.documents.length - 1)] ?? null;
  changed();
}

export function choose(doc) {
  session.current = doc;
  changed();
}

export function select(doc, kind, id) {
  doc.selected = kind === null ? null : { kind, id };
  changed();
}

export const selects = (doc, kind, id) => doc.selected?.kind === kind && doc.selected.id === id;

// -- undoing: an edit puts something new in the place of what it changes and writes into nothing, so that the states before stay

const MOST_STEPS = 200;

const stateOf = ({ tokens, objects, entities, answers }) => ({ tokens, objects, entities, answers });

// Before an edit.
function remember(doc) {
  doc.past.push(stateOf(doc));
  if (doc.past.length > MOST_STEPS) doc.past.shift();
  doc.future = [];
}

export const undo = (doc) => travel(doc, doc.past, doc.future);
export const redo = (doc) => travel(doc, doc.future, doc.past);

function travel(doc, from, to) {
  const before = stateOf(doc);
  to.push(before);
  Object.assign(doc, from.pop());
  // The text is written where there are no words.
  if (!doc.tokens.length) doc.draft ??= before.tokens.join(" ");
  else if (!before.tokens.length) doc.draft = null;
  if ([before, doc].some(({ answers }) => [...answers.values()].some(({ corrected }) => corrected !== null))) session.unsaved = true;
  settle(doc);
}

// -- objects

export function addObject(doc, box) {
  const numbers = doc.objects.map(({ id }) => Number(/^object_(\d+)$/.exec(id)?.[1] ?? 0));
  const id = `object_${Math.max(0, ...numbers) + 1}`;
  remember(doc);
  doc.objects = [...doc.objects, { id, box, type: null }];
  select(doc, "object", id);
  return id;
}

// What was found out about the box does not hold elsewhere: its type goes, its answers are marked. `goesOn`: it is one edit with
// the last one.
export function setBox(doc, id, box, goesOn = false) {
  if (!goesOn) remember(doc);
  doc.objects = doc.objects.map((each) => (each.id === id ? { ...each, box, type: null } : each));
  doc.answers = new Map([...doc.answers].map(([key, answer]) => [key, answer.object === id ? { ...answer, stale: true } : answer]));
  changed();
}

export function removeObject(doc, id) {
  remember(doc);
  doc.objects = doc.objects.filter((each) => each.id !== id);
  forget(doc, (answer) => answer.object === id);
}

// -- text and entities

// New words; entities in what is the same at the beginning and at the end stay.
export function setTokens(doc, tokens) {
  const old = doc.tokens, shortest = Math.min(old.length, tokens.length), same = { before: 0, after: 0 };
  while (same.before < shortest && old[same.before] === tokens[same.before]) same.before += 1;
  while (same.after < shortest - same.before && old.at(-1 - same.after) === tokens.at(-1 - same.after)) same.after += 1;
  doc.draft = null;
  if (same.before === old.length && old.length === tokens.length) return changed();
  remember(doc);
  doc.tokens = tokens;
  const shift = tokens.length - old.length, ids = new Map();
  doc.entities = doc.entities.flatMap(({ id, span, type }) => {
    const by = span.end <= same.before ? 0 : span.start >= old.length - same.after ? shift : null;
    if (by === null) return [];
    const entity = { ...entityAt(span.start + by, span.end + by), type };
    ids.set(id, entity);
    return [entity];
  });
  const kept = [...doc.answers.values()].filter((answer) => ids.has(answer.entity)).map((answer) => {
    const { id, span } = ids.get(answer.entity);
    return { ...answer, entity: id, span: [span.start, span.end], stale: true };
  });
  doc.answers = new Map(kept.map((answer) => [pairKey(answer.object, answer.entity), answer]));
  doc.open.clear();
  select(doc, null);
}

const entityAt = (start, end) => ({ id: `${start}-${end}`, span: { start, end }, type: null });

export const entityOver = (doc, index) => doc.entities.find(({ span }) => span.start <= index && index < span.end);

// Marks words [start, end); entities that it overlaps give way to it.
export function addEntity(doc, start, end) {
  remember(doc);
  const entity = entityAt(start, end);
  const gone = new Set(doc.entities.filter(({ span }) => span.start < end && start < span.end).map(({ id }) => id));
  doc.entities = [...doc.entities.filter(({ id }) => !gone.has(id)), entity].sort((a, b) => a.span.start - b.span.start);
  doc.selected = { kind: "entity", id: entity.id };
  forget(doc, (answer) => gone.has(answer.entity));
}

export function removeEntity(doc, id) {
  remember(doc);
  doc.entities = doc.entities.filter((each) => each.id !== id);
  forget(doc, (answer) => answer.entity === id);
}

function forget(doc, which) {
  doc.answers = new Map([...doc.answers].filter(([, answer]) => !which(answer)));
  settle(doc);
}

// What is selected may be gone.
function settle(doc) {
  const { kind, id } = doc.selected ?? {};
  if (kind && !doc[kind === "object" ? "objects" : "entities"].some((each) => each.id === id)) doc.selected = null;
  changed();
}

// -- answers

export const unasked = (doc) => doc.objects.length * doc.entities.length - doc.answers.size;

export function takeProposal(doc, { tokens, objects, entities }) {
  remember(doc);
  Object.assign(doc, { tokens, objects, entities, draft: null });
  settle(doc);
}

// What the person corrected stays corrected, where the pair is the same.
export function takeAnswer(doc, { document: { tokens, objects, entities }, predictions }) {
  remember(doc);
  const before = doc.answers, answers = new Map(predictions.map((answer) => {
    const key = pairKey(answer.object, answer.entity), old = before.get(key);
    return [key, { ...answer, stale: false, corrected: old && !old.stale && old.corrected !== answer.label ? old.corrected : null }];
  }));
  Object.assign(doc, { tokens, objects, entities, answers, draft: null });
  settle(doc);
}

export function correct(doc, answer, label) {
  remember(doc);
  const corrected = label === answer.label ? null : label;
  doc.answers = new Map(doc.answers).set(pairKey(answer.object, answer.entity), { ...answer, corrected });
  session.unsaved = true;
  changed();
}

// -- records, as the server has them

export const recordOf = ({ id, tokens, objects, entities }) => ({ id, tokens, objects, entities });

// With the picture and the labels that count; pairs whose label was withheld are left out.
export function annotated(doc) {
  const pairs = [...doc.answers.values()].filter((answer) => labelOf(answer) !== null);
  return { ...recordOf(doc), image: doc.image, pairs: pairs.map((answer) => ({ object: answer.object, entity: answer.entity, label: labelOf(answer) })) };
}

export function answered(doc) {
  // How sure the model was says nothing of a label that the person gave.
  const own = (label) => ({ label, abstained: false, confidence: null, agreement: null });
  const predictions = [...doc.answers.values()].map(({ stale, corrected, ...answer }) => ({ ...answer, ...(corrected !== null && own(corrected)) }));
  return { document: recordOf(doc), predictions };
}
