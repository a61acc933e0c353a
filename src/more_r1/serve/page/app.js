// The page as a whole: where documents come from, what the buttons do, what is on show.

import * as api from "./api.js";
import { objectName, startBoxes } from "./boxes.js";
import { startDocuments } from "./documents.js";
import { at, make } from "./dom.js";
import { startExport } from "./export.js";
import { startGraph } from "./graph.js";
import { closed, learn, typeName } from "./labels.js";
import { drawLines, startLines } from "./lines.js";
import { PictureError, measured, onPictures, readPicture } from "./picture.js";
import { openPair, startRelations } from "./relations.js";
import {
  addDocument, changed, onChange, recordOf, removeDocument, removeEntity, removeObject, session, setTokens,
  takeAnswer, takeProposal, words,
} from "./session.js";
import { startUndo } from "./undo.js";
import { startWords } from "./words.js";

const say = (text) => { if (session.current) session.current.said = text; at("status").textContent = text; };

// -- documents coming in

async function takeFiles(files) {
  at("problem").textContent = "";
  const problems = [];
  for (const file of files) {
    try {
      addDocument(await readPicture(file));
    } catch (error) {
      if (!(error instanceof PictureError)) throw error;
      problems.push(error.message);
    }
  }
  at("problem").textContent = problems.join(" ");
  if (typeof session.current?.draft === "string") at("text").focus();
}

async function takeExample(record) {
  const { tokens, objects, entities } = structuredClone(record);
  at("problem").textContent = "";
  addDocument({ ...(await measured(record.id, record.image)), tokens, objects, entities });
  extract();
}

async function showExamples() {
  const records = await api.examples();
  at("examples").replaceChildren(...records.map((record) => {
    const text = closed(record.tokens.join(" "));
    const button = make("button", { type: "button" }, make("img", { src: record.image, alt: "" }), make("span", { text }));
    button.addEventListener("click", () => takeExample(record).catch(report));
    return make("li", {}, button);
  }));
  at("examples-part").hidden = records.length === 0;
}

const report = (error) => { at("problem").textContent = error.message; };

// -- asking the server

// Does what may take a while on the current document; one thing at a time, and it can be stopped.
async function work(doing, what, done) {
  const doc = session.current;
  if (doc.work) return;
  if (doc.draft !== null && !(await useText(doc))) return;
  const stop = new AbortController();
  Object.assign(doc, { work: stop, problem: "", said: doing });
  changed();
  try {
    const how = { signal: stop.signal, waiting: (seconds) => { doc.said = `The server is busy. Asking again in ${seconds} s.`; changed(); } };
    const begun = performance.now(), answer = await what(doc, how);
    doc.said = done(doc, answer, (performance.now() - begun) / 1000);
  } catch (error) {
    doc.said = stop.signal.aborted ? "Stopped." : "";
    if (!stop.signal.aborted) doc.problem = error.message;
  }
  doc.work = null;
  changed();
}

const asked = ({ image, ...doc }) => {
  const { id, tokens, objects, entities } = recordOf(doc);
  // What is empty is left out, so that it is proposed.
  return { id, image, tokens, ...(objects.length && { objects }), ...(entities.length && { entities }) };
};

const propose = () => work("Looking for objects and entities …", (doc, how) => api.propose(asked(doc), how), (doc, found) => {
  const [objects, entities] = [found.objects.length - doc.objects.length, found.entities.length - doc.entities.length];
  takeProposal(doc, found);
  return `Found ${objects} more ${objects === 1 ? "object" : "objects"} and ${entities} more ${entities === 1 ? "entity" : "entities"}.`;
});

const extract = () => work("Reading every pair …", (doc, how) => {
  const { joint, types, samples, min_confidence } = at("how").elements;
  const options = { joint: joint.checked, types: types.checked, samples: Number(samples.value), min_confidence: Number(min_confidence.value) };
  return api.extract({ ...asked(doc), ...options }, how);
}, (doc, answer, seconds) => {
  takeAnswer(doc, answer);
  return `${doc.answers.size} ${doc.answers.size === 1 ? "pair" : "pairs"} read in ${seconds.toFixed(1)} s.`;
});

async function useText(doc) {
  doc.problem = "";
  try {
    const tokens = await api.tokens(doc.draft);
    if (!tokens.length) throw new api.ServerError("There is no word in this text. Type or paste what was written beside the picture.");
    setTokens(doc, tokens);
    return true;
  } catch (error) {
    doc.problem = error.message;
    changed();
    return false;
  }
}

// -- what is on show

function render(doc) {
  at("start").hidden = doc !== null;
  at("work").hidden = doc === null;
  document.body.classList.toggle("working", doc !== null);
  if (doc === null) return;
  const editing = doc.draft !== null, busy = doc.work !== null;
  at("editor").hidden = !editing;
  at("words").hidden = editing;
  at("keep-text").hidden = doc.tokens.length === 0;
  if (editing && at("text").value !== doc.draft) at("text").value = doc.draft;
  at("stage").inert = busy;
  for (const name of ["add-box", "propose", "edit-text", "extract", "unselect", "use-text"]) at(name).disabled = busy;
  at("edit-text").hidden = editing;
  swap(busy ? [at("extract"), at("stop")] : [at("stop"), at("extract")]);
  at("work").classList.toggle("busy", busy);
  at("status").textContent = doc.said;
  at("own-problem").textContent = doc.problem;
  at("hint").textContent = editing ? "" : hint(doc);
  showSelection(doc);
}

// One button gives way to another, and the focus goes along.
function swap([from, to]) {
  const held = document.activeElement === from;
  [from.hidden, to.hidden] = [true, false];
  if (held) to.focus({ preventScroll: true });
}

function hint(doc) {
  if (doc.answers.size) return "";
  if (!doc.objects.length && !doc.entities.length) return "Drag across the picture to box an object, click words to mark an entity. What you leave out is proposed.";
  if (!doc.entities.length) return "Click the words that name something, or leave that to the proposer.";
  return doc.objects.length ? "" : "Drag across the picture to box objects, or leave that to the proposer.";
}

function showSelection(doc) {
  const { kind, id } = doc.selected ?? {};
  at("selection").hidden = kind === undefined;
  if (kind === undefined) return;
  const each = doc[kind === "object" ? "objects" : "entities"].find((one) => one.id === id);
  const name = kind === "object" ? objectName(doc, id) : words(doc, each.span);
  at("selected").replaceChildren(make("bdi", { text: name }), each.type ? `, ${typeName(each.type)}` : "");
}

// -- start

at("choose").addEventListener("click", () => at("file").click());
at("remove").addEventListener("click", () => { removeDocument(session.current); (session.current ? at("more") : at("choose")).focus(); });
at("propose").addEventListener("click", propose);
at("extract").addEventListener("click", extract);
at("stop").addEventListener("click", () => session.current.work.abort());
at("text").addEventListener("input", () => { session.current.draft = at("text").value; });
at("edit-text").addEventListener("click", () => { session.current.draft = session.current.tokens.join(" "); changed(); at("text").focus(); });
at("keep-text").addEventListener("click", () => { session.current.draft = null; changed(); at("edit-text").focus(); });
at("editor").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await useText(session.current)) at("words").querySelector("[tabindex='0']")?.focus();
});
at("unselect").addEventListener("click", () => {
  const { current: doc } = session, { kind, id } = doc.selected;
  (kind === "object" ? removeObject : removeEntity)(doc, id);
  (kind === "object" ? at("add-box") : at("words").querySelector("[tabindex='0']")).focus();
});

onPictures(document.body, at("file"), (files) => takeFiles(files).catch(report));
onChange(render);
startDocuments();
startBoxes(drawLines, say);
startWords(say);
startLines(openPair);
startRelations();
startUndo(say);
startGraph(openPair);
startExport();

api.schema().then((schema) => {
  learn(schema);
  at("model").textContent = ` · model ${schema.model}`;
  at("honest").hidden = !schema.embedded;
  return showExamples();
}).catch(report);
