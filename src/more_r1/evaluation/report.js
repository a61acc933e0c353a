"use strict";
// Browsing the predictions. All text from data goes through textContent; nothing of it is ever parsed as HTML.
(() => {
  const source = document.getElementById("data");
  if (!source) return;
  const { documents, pairs } = JSON.parse(source.textContent);
  const at = (id) => document.getElementById(id);
  const filters = at("filters"), list = at("list"), detail = at("detail");
  let shown = [], current = -1;

  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const isRight = (pair) => pair.predicted !== null && pair.predicted === pair.gold;
  const verdict = (pair) => (pair.gold === null ? "?" : isRight(pair) ? "✓" : "✗");
  const predicted = (pair) => pair.predicted ?? "broken form";
  const words = new Map(pairs.map((pair) => {
    const { id, tokens } = documents[pair.document];
    return [pair, [id, tokens.join(" "), pair.object, pair.completion].join("\n").toLowerCase()];
  }));

  const keeps = (pair) => {
    const { outcome, label, hops, text } = Object.fromEntries(new FormData(filters));
    if (outcome === "right" && !isRight(pair)) return false;
    if (outcome === "wrong" && (isRight(pair) || pair.gold === null)) return false;
    if (label && pair.gold !== label && pair.predicted !== label) return false;
    if (hops && String(pair.hops) !== hops) return false;
    return words.get(pair).includes(text.trim().toLowerCase());
  };

  const entry = (pair, index) => {
    const button = document.createElement("button");
    button.type = "button";
    const line = make("div", "", "line");
    const sign = make("span", verdict(pair), isRight(pair) ? "sign right" : "sign wrong");
    sign.setAttribute("aria-label", isRight(pair) ? "right" : pair.gold === null ? "unknown" : "wrong");
    line.append(sign, make("span", documents[pair.document].tokens.join(" ")));
    const answer = isRight(pair) || pair.gold === null ? predicted(pair) : `${pair.gold} → ${predicted(pair)}`;
    button.append(line, make("div", answer, "answer"));
    button.addEventListener("click", () => show(index));
    const item = document.createElement("li");
    item.append(button);
    return item;
  };

  const apply = () => {
    shown = pairs.filter(keeps);
    list.replaceChildren(...shown.map(entry));
    at("count").textContent = `${shown.length} of ${pairs.length}`;
    current = -1;
    detail.hidden = shown.length === 0;
    if (shown.length) show(0);
  };

  const show = (index, focus = false) => {
    const buttons = list.querySelectorAll("button");
    buttons[current]?.removeAttribute("aria-current");
    current = Math.min(Math.max(index, 0), shown.length - 1);
    buttons[current].setAttribute("aria-current", "true");
    // Only the list scrolls, never the page.
    const item = buttons[current].parentElement, top = item.offsetTop - list.offsetTop;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + item.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + item.offsetHeight - list.clientHeight;
    if (focus) buttons[current].focus({ preventScroll: true });
    at("previous").disabled = current === 0;
    at("next").disabled = current === shown.length - 1;
    fill(shown[current]);
  };

  const fill = (pair) => {
    const { id, tokens, uri, width, height, why } = documents[pair.document];
    const frame = detail.querySelector(".frame"), image = frame.querySelector("img"), box = frame.querySelector(".box");
    const missing = detail.querySelector(".missing");
    frame.hidden = uri === null;
    missing.hidden = uri !== null;
    if (uri === null) missing.textContent = `No picture: ${why}`;
    else {
      image.src = uri;
      image.width = width;
      image.height = height;
      image.alt = `Picture of document ${id}; the box marks ${pair.object}`;
    }
    const [left, top, right, bottom] = pair.corners;
    Object.assign(box.style, {
      left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
    const [start, end] = pair.span, run = (from, to) => tokens.slice(from, to).join(" ");
    at("headline").replaceChildren(run(0, start), " ", make("mark", run(start, end)), " ", run(end));
    const rows = [["Gold", pair.gold ?? "unknown"], ["Predicted", `${predicted(pair)} ${verdict(pair)}`], ["Object", pair.object],
      ["Document", id], ["Hops", pair.hops]];
    at("verdict").replaceChildren(...rows.filter(([, value]) => value !== null).flatMap(([name, value]) =>
      [make("dt", name), make("dd", String(value))]));
    at("steps").replaceChildren(...pair.steps.map((step) => make("li", step)));
    at("completion").hidden = pair.steps.length > 0 || pair.completion === "";
    at("completion").textContent = pair.completion;
  };

  // The search field's own "change" comes when it is left, by a click on an entry: the list must not be made anew under it.
  filters.elements.text.addEventListener("input", apply);
  filters.addEventListener("change", (event) => event.target === filters.elements.text || apply());
  filters.addEventListener("submit", (event) => event.preventDefault());
  at("previous").addEventListener("click", () => show(current - 1));
  at("next").addEventListener("click", () => show(current + 1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    const step = { j: 1, k: -1 }[event.key] ?? (list.contains(event.target) ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : undefined);
    if (step && shown.length) {
      event.preventDefault();
      show(current + step, true);
    } else if (event.key === "/") {
      event.preventDefault();
      filters.elements.text.focus();
    }
  });
  apply();
})();
