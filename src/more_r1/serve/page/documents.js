// The documents of the session, side by side.

import { crop } from "./crops.js";
import { at, make } from "./dom.js";
import { closed } from "./labels.js";
import { choose, isRelated, onChange, session } from "./session.js";

const list = at("document-list"), more = at("more");
const tabs = new Map();
let shown = null;

export function startDocuments() {
  onChange(render);
  more.addEventListener("click", () => { choose(null); at("choose").focus(); });
  addEventListener("beforeunload", (event) => session.unsaved && event.preventDefault());
}

function render(current) {
  at("documents").hidden = session.documents.length === 0;
  more.setAttribute("aria-current", current === null);
  for (const [doc, tab] of tabs) if (!session.documents.includes(doc)) { tab.remove(); tabs.delete(doc); }
  for (const doc of session.documents) dress(doc, tabs.get(doc) ?? fresh(doc), doc === current);
  if (current !== shown && current !== null) show(tabs.get(current));
  shown = current;
}

function fresh(doc) {
  const button = make("button", { type: "button" },
    make("img", { src: crop(doc), alt: "" }), make("span", { class: "title", dir: "auto" }), make("span", { class: "count" }));
  const tab = make("li", {}, button);
  button.addEventListener("click", () => choose(doc));
  tabs.set(doc, tab);
  list.append(tab);
  return tab;
}

// Only the list scrolls, never the page.
function show(tab) {
  const left = tab.offsetLeft - list.offsetLeft, right = left + tab.offsetWidth;
  if (left < list.scrollLeft || right > list.scrollLeft + list.clientWidth) list.scrollLeft = right - list.clientWidth;
}

function dress(doc, tab, current) {
  const [button] = tab.children, [, title, count] = button.children;
  button.title = title.textContent = closed(doc.tokens.join(" ").slice(0, 300)) || doc.id;
  count.textContent = doc.answers.size ? [...doc.answers.values()].filter(isRelated).length : "";
  button.setAttribute("aria-current", current);
}
