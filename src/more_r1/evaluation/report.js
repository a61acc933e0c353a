"use strict";
// Browsing the predictions, or an expert's calls about pairs. All text from data goes through textContent; nothing of it is ever parsed as HTML.
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
  // Of a prediction right, wrong or unknown; of a traced pair accepted, rejected or open.
  const outcome = (pair) => pair.outcome ?? (pair.gold === null ? "unknown" : pair.predicted === pair.gold ? "right" : "wrong");
  const isGood = (pair) => ["right", "accepted"].includes(outcome(pair));
  const sign = (pair) => ({ unknown: "?", open: "…" })[outcome(pair)] ?? (isGood(pair) ? "✓" : "✗");
  const predicted = (pair) => pair.predicted ?? (pair.abstained ? "withheld" : "broken form");
  const share = (value) => (value === null || value === undefined ? null : `${Math.round(100 * value)} %`);
  const summary = (pair) => {
    if (pair.calls) return isGood(pair) ? pair.gold : `${pair.gold} · ${pair.calls.map((call) => call.verdict).join(", ")}`;
    return isGood(pair) || pair.gold === null ? predicted(pair) : `${pair.gold} → ${predicted(pair)}`;
  };
  const words = new Map(pairs.map((pair) => {
    const { id, tokens } = documents[pair.document];
    const texts = pair.calls ? pair.calls.flatMap((call) => [call.expert, call.reason, call.completion]) : [pair.completion];
    return [pair, [id, tokens.join(" "), pair.object, ...texts].join("\n").toLowerCase()];
  }));

  const keeps = (pair) => {
    const { outcome: wanted, label, verdict, hops, text } = Object.fromEntries(new FormData(filters));
    if (wanted !== "all" && outcome(pair) !== wanted) return false;
    if (verdict && !pair.calls.some((call) => call.verdict === verdict)) return false;
    if (label && pair.gold !== label && pair.predicted !== label) return false;
    if (hops && String(pair.hops) !== hops) return false;
    return words.get(pair).includes(text.trim().toLowerCase());
  };

  const entry = (pair, index) => {
    const button = document.createElement("button");
    button.type = "button";
    const line = make("div", "", "line");
    const mark = make("span", sign(pair), isGood(pair) ? "sign right" : "sign wrong");
    mark.setAttribute("aria-label", outcome(pair));
    line.append(mark, make("span", documents[pair.document].tokens.join(" ") || documents[pair.document].id));
    button.append(line, make("div", summary(pair), "answer"));
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
      image.alt = pair.corners ? `Picture of document ${id}; the box marks ${pair.object}` : `Picture of document ${id}`;
    }
    box.hidden = pair.corners === null;
    const [left, top, right, bottom] = pair.corners ?? [0, 0, 0, 0];
    Object.assign(box.style, {
      left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
    const [start, end] = pair.span, run = (from, to) => tokens.slice(from, to).join(" ");
    at("headline").replaceChildren(run(0, start), " ", make("mark", run(start, end)), " ", run(end));
    const rows = pair.calls
      ? [["Gold", pair.gold], ["In the end", `${outcome(pair)} ${sign(pair)}`], ["Object", pair.object], ["Document", id]]
      : [["Gold", pair.gold ?? "unknown"], ["Predicted", `${predicted(pair)} ${sign(pair)}`],
        ["Confidence", share(pair.confidence)], ["Agreement", share(pair.agreement)],
        ["Object", pair.object], ["Document", id], ["Hops", pair.hops]];
    at("verdict").replaceChildren(...facts(rows));
    const { steps, completion } = pair.calls ? { steps: [], completion: "" } : pair;
    at("steps").replaceChildren(...steps.map((step) => make("li", step)));
    at("completion").hidden = steps.length > 0 || completion === "";
    at("completion").textContent = completion;
    at("calls").replaceChildren(...(pair.calls ?? []).map(asCall));
    if (pair.calls_left_out) at("calls").prepend(make("p", `${pair.calls_left_out} earlier calls are left out.`, "note"));
  };

  const facts = (rows) => rows.filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) =>
    [make("dt", name), make("dd", String(value))]);

  // One call of an expert: what it wrote, and what was found in it.
  const asCall = (call) => {
    const found = make("section", "", "call"), title = make("h3", `Attempt ${call.attempt} `), list = document.createElement("dl");
    title.append(make("span", call.verdict, call.verdict === "accepted" ? "chip good" : "chip"));
    list.className = "facts";
    const tokens = [["sent", call.tokens_in], ["written", call.tokens_out]].filter(([, count]) => count !== null);
    list.append(...facts([["Reason", call.reason], ["Answer", call.answer], ["Expert", call.expert],
      ["Tokens", tokens.map(([name, count]) => `${count.toLocaleString("en")} ${name}`).join(", ")],
      ["Cost", call.cost === null ? null : Number(call.cost.toPrecision(3))]]));
    found.append(title, list);
    if (call.steps.length) {
      const steps = make("ol", "", "steps");
      steps.append(...call.steps.map((step) => make("li", step)));
      found.append(steps);
    } else if (call.completion) found.append(make("pre", call.completion));
    if (call.left_out) found.append(make("p", `… and ${call.left_out.toLocaleString("en")} characters more`, "soft"));
    return found;
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
