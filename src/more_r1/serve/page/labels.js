// Labels in words, and which of them fit a pair.

export const NONE = "none";
const TYPES = { per: "person", org: "organisation", loc: "place", misc: "other" };
const relations = new Map();

// From the answer of GET /schema, in its order.
export function learn(schema) {
  relations.clear();
  for (const relation of schema.relations) relations.set(relation.label, relation);
}

export const typeName = (type) => TYPES[type] ?? type;
export const withArticle = (type) => (type === "misc" ? "something other" : `${type === "org" ? "an" : "a"} ${typeName(type)}`);
export const labels = () => [...relations.keys()];
export const meaning = (label) => relations.get(label)?.description ?? "";
export const symmetric = (label) => relations.get(label)?.symmetric ?? false;
export const percent = (share) => `${Math.round(100 * share)} %`;

// Tokens as they are read: marks stand close to the word before them.
export const closed = (text) => text.replace(/ (?=[.,;:!?](?: |$))/g, "");

// "/per/org/member_of" -> "member of"
export const relationName = (label) => (label === NONE ? "no relation" : label.split("/").at(-1).replaceAll("_", " "));

// The types of a pair: those of the document; else those that the trace's fourth step names; else those of its label.
export function typesOf(answer, object, entity) {
  const named = [...(answer.steps?.[3] ?? "").matchAll(/\((per|org|loc|misc)\)/g)].map((match) => match[1]);
  const labelled = (answer.label ?? NONE).split("/").slice(1, 3);
  const told = named.length >= 2 ? named : labelled;
  return [object?.type ?? told[0], entity?.type ?? told[1]];
}

export const fitting = ([object, entity]) =>
  [...relations.values()].filter((each) => each.label === NONE || (each.object === object && each.entity === entity)).map((each) => each.label);
