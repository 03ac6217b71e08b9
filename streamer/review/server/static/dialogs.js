// What is asked before something is done: who reviews, what will be signed, why it is amended; and the help.

import { capital, dot, el, plural } from "./dom.js";
import { HELP, lettersAreOff, switchLetters } from "./keys.js";

const INITIALS = "[A-Za-z\u00c0-\u024f][A-Za-z0-9\u00c0-\u024f._\\-]{0,15}"; // REVIEWER of streamer/records.py

/** Show a dialog; resolves to what its form holds once it is sent, or to null. */
function ask(title, content, { yes = null, no = "Cancel", wide = false } = {}) {
  const dialog = el("dialog", { "aria-labelledby": "dialog-title" });
  return new Promise((answered) => {
    const form = el("form", { method: "dialog", class: wide ? "wide" : null },
      el("h2", { id: "dialog-title", text: title }), content,
      el("div", { class: "acts" }, el("button", { type: "button", class: "quiet", on: { click: () => dialog.close() }, text: no }), yes === null ? null : el("button", { class: "main", text: yes })));
    let sent = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sent = Object.fromEntries(new FormData(form));
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      answered(sent);
    }, { once: true });
    dialog.append(form);
    document.body.append(dialog);
    dialog.showModal();
    form.querySelector("[autofocus], input:not([type=checkbox]), textarea, .main, button")?.focus();
  });
}

const field = (label, input) => el("label", { class: "asked" }, el("span", { text: label }), input);

function initials(value) {
  return field("Your initials", el("input", { name: "reviewer", required: true, pattern: INITIALS, maxlength: 16, autocomplete: "off", spellcheck: "false", value: value ?? "", title: "A letter, then letters, digits, '.', '-' or '_', 16 at most" }));
}

export async function askWho(slide) {
  const before = slide.reviewer;
  const blind = el("input", { type: "checkbox", name: "blind", value: "yes" });
  blind.checked = slide.isBlind;
  const said = await ask("Who reviews?", el("div", {},
    el("p", { class: "small", text: "Each change is kept with the time and these initials." }),
    initials(before),
    slide.isLive || slide.isSigned ? null : el("label", { class: "switch" }, blind, el("span", { text: "Blind: what I say changes no result, and is compared with what another one says blind" }))), { yes: "Review" });
  return said && { reviewer: said.reviewer.trim(), blind: said.blind === "yes" };
}

/** What will be signed, all of it, and by whom. */
export async function askSign(slide, go) {
  const counts = slide.counts();
  const { result } = slide;
  const refuse = result.verdict?.state === "do not use";
  const left = counts.toReview - counts.reviewed;
  const open = [...slide.cells.values()].filter((cell) => slide.isFlagged(cell) && !slide.isReviewed(cell));
  const rows = result.rows.filter((row) => row.count);
  let to = null;
  const link = (cell) => el("button", { type: "button", class: "link", on: { click: (event) => { to = cell.cell_id; event.target.closest("dialog").close(); } }, text: cell.cell_id });
  const said = await ask("Sign this slide", el("div", {},
    el("p", {}, "Slide ", el("b", { text: slide.name }), `: ${plural(result.total, "white cell")}.`),
    el("p", { class: `state-${result.verdict?.tone ?? "none"}` }, `${result.verdict?.mark ?? ""} ${capital(result.verdict?.state ?? "no verdict")}`),
    el("table", { class: "summary" }, el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, dot(row.colour), capital(row.name)), el("td", { class: "num", text: row.count }), el("td", { class: "num", text: `${row.percent} %` }), el("td", { class: "num soft", text: row.limits }), el("td", { class: "small", text: row.state?.startsWith("outside") ? row.judged : "" }))))),
    result.flags.length ? el("ul", { class: "flags" }, result.flags.map((flag) => el("li", {}, el("strong", { text: `${flag.word}: ` }), flag.text))) : el("p", { class: "small", text: "No flag." }),
    el("p", { id: "sign-reviewed" }, `${counts.reviewed} of ${plural(counts.toReview, "cell")} looked at by a person: ${counts.confirmed} confirmed, ${counts.corrected} corrected${counts.added ? `, ${counts.added} added` : ""}${counts.settled ? `, ${counts.settled} settled` : ""}.`),
    left ? el("p", { class: "warn" }, `⚠ ${plural(left, "cell was", "cells were")} looked at by no person: they are signed as the models named them.`) : null,
    open.length ? el("p", { class: "warn" }, `⚠ Flagged and not confirmed: `, open.slice(0, 12).map(link), open.length > 12 ? ` and ${open.length - 12} more` : "") : null,
    refuse ? field("Why it is signed though the verdict is “do not use”", el("textarea", { name: "despite", required: true, rows: 2, maxlength: 2000 })) : null,
    initials(slide.reviewer),
    el("p", { class: "small soft", text: "Signing freezes the result with its hash. It can be amended later; what was signed is kept." })), { yes: "Sign", wide: true });
  if (to !== null) go(to);
  return said && { reviewer: said.reviewer.trim(), despite: said.despite?.trim() || null };
}

export async function askAmend(slide) {
  const said = await ask("Amend a signed slide", el("div", {},
    el("p", { text: "The slide is open again until it is signed anew. What was signed is kept, and both are shown." }),
    field("Why", el("textarea", { name: "reason", required: true, rows: 2, maxlength: 2000 })), initials(slide.reviewer)), { yes: "Amend" });
  return said && { reviewer: said.reviewer.trim(), reason: said.reason.trim() };
}

export async function showHelp(slide) {
  const off = el("input", { type: "checkbox", on: { change: (event) => switchLetters(event.target.checked) } });
  off.checked = lettersAreOff();
  await ask("Keys", el("div", { class: "help" },
    el("section", {}, el("h3", { text: "Classes" }), el("dl", { class: "keys" }, slide.choices.map((choice) => [el("dt", {}, el("kbd", { text: choice.key || "–" })), el("dd", {}, dot(choice.colour), choice.name)]))),
    el("section", {}, el("h3", { text: "The rest" }), el("dl", { class: "keys" }, HELP.map(([keys, text]) => [el("dt", {}, el("kbd", { text: keys })), el("dd", { text })]))),
    el("label", { class: "switch" }, off, el("span", { text: "Letters do nothing (for speech input)" }))), { no: "Close", wide: true });
}

/** What two blind reviewers said, and what it is. Resolves to nothing once it is closed. */
export async function showAgreement(slide, found, first, second, does) {
  const { kappa } = found;
  const number = (value) => (value === null ? "–" : value.toFixed(2));
  const rows = found.disagreements.map((one) => {
    const name = ([of, sub]) => sub ?? of;
    const pick = ([of, sub]) => el("button", { type: "button", class: "quiet", disabled: one.settled, on: { click: async (event) => {
      await does.settle([one.cell_id], { class: of, subclass: sub });
      for (const button of event.target.closest("tr").querySelectorAll(".quiet")) button.disabled = true;
    } }, text: name([of, sub]) });
    return el("tr", {}, el("th", { scope: "row" }, el("button", { type: "button", class: "link", on: { click: (event) => { event.target.closest("dialog").close(); does.go(one.cell_id); } }, text: `cell ${one.cell_id}` })), el("td", {}, pick(one.first)), el("td", {}, pick(one.second)), el("td", { class: "small", text: one.settled ? "settled" : "" }));
  });
  const agreed = found.both - found.disagreements.length;
  await ask("Two reviewers, blind", el("div", {},
    el("p", {}, el("b", { text: `κ ${number(kappa.kappa)}` }), kappa.low === null ? "" : ` (95 % limits ${number(kappa.low)} to ${number(kappa.high)})`, `, ${kappa.agreed} of ${plural(kappa.cells, "cell")} named alike.`),
    el("p", { class: "small soft", text: `${found.both} cells were named by both; ${found.only_first} by ${first} alone, ${found.only_second} by ${second} alone.` }),
    rows.length ? el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", text: "Disagreement" }), el("th", { scope: "col", text: first }), el("th", { scope: "col", text: second }), el("th", { scope: "col" }))), el("tbody", {}, rows)) : el("p", { text: "They disagree on none." }),
    agreed ? el("button", { type: "button", class: "quiet", on: { click: (event) => { event.target.disabled = true; does.settleAgreed(); } }, text: `Take over the ${agreed} named alike` }) : null), { no: "Close", wide: true });
}
