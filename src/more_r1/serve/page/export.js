// Files for the next training, and graphs for other programs.

import { dataFile, graphFile } from "./api.js";
import { at, make } from "./dom.js";
import { annotated, answered, onChange, session } from "./session.js";

// Which end of the server writes a format, and what the file is called.
const FORMATS = {
  more: [dataFile, annotated, "more-r1.zip"], jsonl: [dataFile, annotated, "more-r1.jsonl"],
  ttl: [graphFile, answered, "more-r1.ttl"], graphml: [graphFile, answered, "more-r1.graphml"], jsonld: [graphFile, answered, "more-r1.jsonld"],
};

const form = at("export"), note = at("export-note"), problem = at("export-problem");

export function startExport() {
  onChange(render);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save(event.submitter.value);
  });
}

const chosen = () => (form.elements.scope.value === "all" ? session.documents : [session.current]).filter((doc) => doc.answers.size > 0);

function render(doc) {
  if (doc === null) return;
  const ready = session.documents.filter((each) => each.answers.size > 0).length;
  at("export-part").hidden = ready === 0;
  at("scope").hidden = session.documents.length < 2;
  problem.textContent = "";
}

async function save(format) {
  const [write, record, name] = FORMATS[format], documents = chosen();
  problem.textContent = note.textContent = "";
  if (!documents.length) {
    problem.textContent = "Nothing to export: extract the relations of this document first, or choose all documents.";
    return;
  }
  try {
    const file = await write(format, documents.map(record)), href = URL.createObjectURL(file);
    make("a", { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
    if (write === dataFile) session.unsaved = false;
    note.textContent = `${name} is saved, with ${documents.length === 1 ? "one document" : `${documents.length} documents`}.`;
  } catch (error) {
    problem.textContent = error.message;
  }
}
