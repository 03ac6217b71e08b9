// What the slide comes to: verdict, flags, differential, signatures; and where cells can be dropped on a class.

import { byId, capital, dot, el, moment, plural, withoutClass } from "./dom.js";

const UNJUDGED = "can't be judged";

export class Result extends EventTarget {
  #box = byId("result");

  constructor(slide) {
    super();
    this.slide = slide;
    slide.addEventListener("change", () => this.#draw());
    this.#box.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-go]");
      if (cell) this.dispatchEvent(new CustomEvent("go", { detail: Number(cell.dataset.go) }));
    });
    dropTargets(this.#box, (ids, name) => this.dispatchEvent(new CustomEvent("drop", { detail: { ids, name } })));
  }

  #draw() {
    const { result, slide } = { result: this.slide.result, slide: this.slide };
    const open = [...this.#box.querySelectorAll("details[open]")].map((one) => one.dataset.name);
    const draft = this.#box.querySelector("textarea")?.value ?? "";
    const focused = this.#box.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    const parts = result
      ? [verdict(result), about(slide, result), amended(slide), flags(result), table(slide, result), notes(result)]
      : [el("p", { class: "soft", text: "Nothing was counted yet." })];
    this.#box.replaceChildren(...parts.filter(Boolean), this.#comments(draft), story(slide));
    for (const one of this.#box.querySelectorAll("details")) one.open = open.includes(one.dataset.name);
    if (focused) this.#box.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  }

  #comments(draft) {
    const text = el("textarea", { rows: 2, maxlength: 2000, "aria-label": "Comment on the slide", "data-name": "slide-comment", placeholder: "Comment on the slide" });
    text.value = draft;
    const send = () => {
      if (text.value.trim()) this.dispatchEvent(new CustomEvent("comment", { detail: text.value.trim() }));
      text.value = "";
    };
    return el("section", {},
      el("h2", { text: "Comments on the slide" }),
      this.slide.comments.map(commentLine),
      this.slide.isSigned ? null : el("div", { class: "say" }, text, el("button", { type: "button", class: "quiet", on: { click: send }, text: "Add" })));
  }
}

export const commentLine = (comment) =>
  el("p", { class: "comment" }, el("b", { text: comment.by }), " ", el("span", { class: "soft", text: moment(comment.at) }), el("span", { class: "text", text: comment.text }));

/** Classes within `box` take cells that are dropped on them. */
export function dropTargets(box, dropped) {
  const target = (event) => event.target.closest("[data-drop]");
  box.addEventListener("dragover", (event) => {
    if (!target(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "move";
    for (const one of box.querySelectorAll(".over")) if (one !== target(event)) one.classList.remove("over");
    target(event).classList.add("over");
  });
  const leave = () => { for (const one of box.querySelectorAll(".over")) one.classList.remove("over"); };
  box.addEventListener("dragleave", leave);
  box.addEventListener("drop", (event) => {
    leave();
    if (!target(event)) return;
    event.preventDefault();
    const ids = event.dataTransfer.getData("text/plain").split(" ").map(Number).filter(Number.isInteger);
    dropped(ids, target(event).dataset.drop);
  });
}

function verdict(result) {
  const found = result.verdict;
  if (!found) return null;
  const [first, ...more] = found.reasons;
  const line = (reason) => el("li", { text: reason.text });
  return el("section", { class: `verdict ${found.tone}`, "aria-label": "Verdict" },
    el("p", { class: "verdict-state", text: `${found.mark} ${capital(found.state)}${result.final ? "" : " so far"}` }),
    el("p", { class: "small", text: found.meaning }),
    first ? el("ul", {}, line(first)) : null,
    more.length ? el("details", { "data-name": "reasons" }, el("summary", { text: plural(more.length, "more reason") }), el("ul", {}, more.map(line))) : null);
}

/** What the laboratory said of the slide. */
function about(slide, result) {
  const rows = result.about.filter(([label]) => label !== "Name");
  if (result.name) rows.push(["Source", slide.source]);
  return rows.length ? el("dl", { class: "about small" }, rows.map(([label, value]) => el("div", {}, el("dt", { text: label }), el("dd", { text: value })))) : null;
}

function flags(result) {
  const judged = result.rows.every((row) => row.state !== UNJUDGED);
  if (!result.flags.length) {
    return el("p", { class: "small soft", text: judged ? "No flag: no class is outside its usual range, and no cell was seen that is flagged for being seen." : "No flag was raised, but not every range could be judged." });
  }
  return el("ul", { class: "flags", "aria-label": "Flags" }, result.flags.map((flag) =>
    el("li", {}, el("strong", { text: `${flag.word}: ` }), flag.text,
      flag.cell_ids.length ? el("span", { class: "links" }, "Cells ", flag.cell_ids.slice(0, 12).map((id) => el("button", { type: "button", class: "link", "data-go": id, "data-name": `go-${id}`, text: id })), flag.cell_ids.length > 12 ? ` and ${flag.cell_ids.length - 12} more` : null) : null)));
}

function table(slide, result) {
  const subclasses = new Map();
  for (const cell of slide.cells.values()) {
    if (!cell.subclass || !slide.inPercentages(cell)) continue;
    const of = subclasses.get(cell.class) ?? new Map();
    subclasses.set(cell.class, of.set(cell.subclass, (of.get(cell.subclass) ?? 0) + 1));
  }
  const none = result.rows.every((one) => !one.state || one.state === UNJUDGED);
  const row = (one) => {
    const of = [...(subclasses.get(one.name) ?? [])].map(([name, count]) => `${withoutClass(name, one.name)} ${count}`);
    const out = one.state?.startsWith("outside");
    return el("tr", { "data-drop": one.name, "data-class": one.name },
      el("th", { scope: "row" }, dot(one.colour), capital(one.name),
        of.length ? el("span", { class: "judged", text: of.join(", ") }) : null,
        out ? el("span", { class: "judged out", text: one.judged }) : one.state === UNJUDGED && !none ? el("span", { class: "judged", text: one.judged }) : null),
      el("td", { class: "num", text: one.count }), el("td", { class: "num", text: one.percent }),
      result.absolute ? el("td", { class: "num", text: one.absolute }) : null, el("td", { class: "num soft", text: one.limits }), el("td", { class: "num soft", text: one.usual }));
  };
  const head = ["Class", "Cells", "%", ...(result.absolute ? ["10⁹/L"] : []), "95 %", "Usual"];
  return el("section", { "aria-label": "Differential" }, el("table", { class: result.absolute ? "differential tight" : "differential" },
    el("thead", {}, el("tr", {}, head.map((text, at) => el("th", { scope: "col", class: at ? "num" : null, title: text === "95 %" ? "95 % limits, of sampling only" : null, text })))),
    el("tbody", {}, result.rows.map(row)),
    el("tbody", {}, el("tr", { class: "total" }, el("th", { scope: "row", text: "White cells" }), el("td", { class: "num", id: "total", text: result.total }), el("td", { class: "num", text: result.total ? "100" : "–" }), el("td", { colspan: head.length - 3 })))),
    result.absolute ? el("p", { class: "small soft", text: result.absolute }) : null,
    none ? el("p", { class: "small soft", text: "No range can be judged yet: too few cells were counted, or cells without a class decide." }) : null);
}

function notes(result) {
  const list = el("ul", { class: "notes small" }, result.notes.map((text) => el("li", { text })));
  const unseen = result.not_assessed.length ? el("p", { class: "small" }, el("strong", { text: "Not assessed" }), `, as the classifier has no class for it: ${result.not_assessed.join(", ")}.`) : null;
  return el("details", { "data-name": "notes" }, el("summary", { text: "Also seen, and what the numbers leave out" }), unseen, list);
}

/** Each signed result beside what stands now. */
function amended(slide) {
  if (!slide.signatures.length) return null;
  const line = (one) => el("li", {}, el("b", { text: one.by }), ` ${moment(one.at)} `, el("code", { title: one.sha256, text: `sha256 ${one.sha256.slice(0, 12)}…` }),
    one.despite ? el("span", { class: "judged", text: `Despite the verdict: ${one.despite}` }) : null, one.fault ? el("span", { class: "judged out", text: one.fault }) : null);
  const results = slide.signedResults ?? [];
  const shown = results.filter((one) => one.rows);
  const now = !slide.isSigned;
  const beside = shown.length + now > 1;
  return el("section", { class: "signatures", "aria-label": "Signed results" },
    el("h2", { text: slide.isSigned ? "Signed" : "Amended: not signed again yet" }),
    el("ol", {}, slide.signatures.map(line)),
    beside ? el("table", { class: "amended" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Class" }), shown.map((one) => el("th", { scope: "col", class: "num", text: one.by })), now ? el("th", { scope: "col", class: "num", text: "now" }) : null)),
      el("tbody", {}, slide.result.rows.filter((row) => row.count || shown.some((one) => one.rows[row.name])).map((row) => {
        const before = shown.map((one) => one.rows[row.name] ?? 0);
        const values = now ? [...before, row.count] : before;
        return el("tr", { class: new Set(values).size > 1 ? "differs" : null }, el("th", { scope: "row" }, dot(row.colour), capital(row.name)), values.map((value) => el("td", { class: "num", text: value })));
      }))) : null);
}

const KINDS = { begin: "began", class: "changed", confirm: "confirmed", add: "added", comment: "commented", withdraw: "took back", settle: "settled", sign: "signed", amend: "amended" };

function story(slide) {
  const line = (entry) => {
    const [first] = entry.changes;
    const to = first?.after ? first.after[1] ?? first.after[0] : "";
    const from = first?.before ? first.before[1] ?? first.before[0] : "";
    const what = entry.changes.length > 1 ? `${plural(entry.changes.length, "cell")}${entry.kind === "class" ? `: ${to}` : ""}`
      : first ? `cell ${first.cell_id}${entry.kind === "class" && from ? `: ${from} → ${to}` : to ? `: ${to}` : ""}` : entry.text ?? "";
    return el("li", { class: entry.withdrawn ? "withdrawn" : null }, el("b", { text: entry.by }), ` ${KINDS[entry.kind] ?? entry.kind}${entry.blind ? " (blind)" : ""} `, what, " ", el("span", { class: "soft", text: moment(entry.at) }));
  };
  return el("details", { "data-name": "story" }, el("summary", { text: `What was done (${slide.history.length})` }), el("ol", { class: "story small" }, slide.history.slice(-200).reverse().map(line)));
}
