// Undo and redo: two buttons, and the keys for them.

import { at } from "./dom.js";
import { onChange, redo, session, undo } from "./session.js";

const back = at("undo"), forth = at("redo");
let say = () => {};

export function startUndo(saying) {
  say = saying;
  onChange(render);
  back.addEventListener("click", () => go(back));
  forth.addEventListener("click", () => go(forth));
  document.addEventListener("keydown", keys);
}

function render(doc) {
  if (doc === null) return;
  back.disabled = doc.work !== null || doc.past.length === 0;
  forth.disabled = doc.work !== null || doc.future.length === 0;
}

function go(button) {
  if (button.disabled) return;
  const held = document.activeElement;
  (button === back ? undo : redo)(session.current);
  say(button === back ? "Undone." : "Done again.");
  // What had the focus may be gone, or a button with nothing left to do.
  if (!held.isConnected || held.disabled) (button.disabled ? [back, forth].find((each) => each !== button) : button).focus({ preventScroll: true });
}

// In the text that is being written, the browser undoes.
function keys(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || event.key.toLowerCase() !== "z") return;
  if (session.current === null || event.target.matches("textarea")) return;
  event.preventDefault();
  go(event.shiftKey ? forth : back);
}
