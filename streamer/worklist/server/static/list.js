// The list: asked for anew when a filter changes, and every ten seconds.

import { get, hasToken } from "./api.js";
import { byId, el, plural } from "./dom.js";

const EVERY_MS = 10_000;
const TONES = { "ready for review": "good", incomplete: "caution", "do not use": "bad" };
const EDGES = { signed: "good", sent: "good", running: "caution" };
const DIRECTIONS = { low: " ▼", high: " ▲" };

const fields = ["text", "state", "verdict", "flag", "since"].map(byId);
let asked = 0;
let shown = "";

function query() {
  const given = Object.fromEntries(fields.map((field) => [field.id, field.value.trim() || null]));
  if (given.since !== null) given.since = new Date(`${given.since}T00:00`).toISOString();
  return given;
}

async function look() {
  asked += 1;
  const mine = asked;
  try {
    const found = await get("slides", query());
    if (mine === asked) show(found);
    notice(null);
  } catch (error) {
    if (mine === asked) notice(error.message);
  }
}

function notice(text) {
  byId("notice").textContent = text ?? "";
  byId("notice").hidden = text === null;
}

function show(found) {
  const text = JSON.stringify(found);
  if (text === shown) return; // so that what is selected and focused stays
  shown = text;
  byId("where").textContent = found.list;
  byId("count").textContent = found.more ? `the newest ${found.slides.length}` : plural(found.slides.length, "slide");
  byId("empty").hidden = found.slides.length > 0;
  byId("more").hidden = !found.more;
  byId("rows").replaceChildren(...found.slides.map(row));
  const names = new Set(["any"]);
  for (const one of found.slides) for (const flag of one.entry?.flags ?? []) names.add(flag.class ?? flag.code);
  for (const option of byId("flags").children) names.add(option.value);
  byId("flags").replaceChildren(...[...names].map((name) => el("option", { value: name })));
}

function row(one) {
  const entry = one.entry;
  if (entry === null) {
    return el("tr", {},
      el("td", {}, el("span", { class: "name", text: "Not read yet" }), extra(one.remark)),
      el("td"), el("td"), el("td"), el("td"), el("td", {}, pill(one.state)), journal(one));
  }
  const about = [entry.accession && `accession ${entry.accession}`, entry.operator, entry.instrument,
    entry.slide !== null && `source ${entry.source}`].filter(Boolean).join(" · ");
  return el("tr", {},
    el("td", {}, el("span", { class: "name", text: entry.slide ?? entry.source }), extra(about)),
    el("td", { class: "when", "data-name": "begun" }, moment(entry.begun_utc),
      entry.ended_utc && extra(`to ${moment(entry.ended_utc)}`)),
    el("td", { class: "num", "data-name": "cells", text: entry.total.toLocaleString("en-GB") }),
    el("td", { "data-name": "verdict" },
      el("span", { class: `state-${TONES[entry.verdict] ?? "none"}`, text: entry.verdict ?? "none" }),
      extra(entry.verdict_reason)),
    el("td", { "data-name": "flags" }, entry.flags.length
      ? entry.flags.map((flag) => el("span", {
          class: "flag", title: flag.text, text: `${flag.class ?? flag.code}${DIRECTIONS[flag.direction] ?? ""}` }))
      : el("span", { class: "soft", text: "none" })),
    el("td", { "data-name": "state" }, pill(one.state), review(entry), sent(one)),
    journal(one));
}

/** "30 Nov 2026, 10:24" of an ISO time, in this machine's zone. */
const moment = (iso) => new Date(iso).toLocaleString("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

const extra = (text) => (text ? el("span", { class: "extra", text }) : null);
const pill = (state) => el("span", { class: `pill ${EDGES[state] ?? ""}`, text: state });

function review(entry) {
  if (entry.signature_fault !== null) {
    return el("span", { class: "extra fault", text: `signature does not hold: ${entry.signature_fault}` });
  }
  const by = entry.reviewed_by === null ? "" : ` by ${entry.reviewed_by}`;
  return entry.review === "unsigned" ? null : extra(`${entry.review}${by}, ${moment(entry.reviewed_utc)}`);
}

function sent(one) {
  const last = one.entry.sendings.at(-1);
  if (!last) return null;
  const what = { P: "preliminary", F: "final", C: "corrected" }[last.status] ?? last.status;
  return extra(`${what} to ${last.receiver}, ${moment(last.answered_utc)}`);
}

function journal(one) {
  const places = { vanished: "vanished", "not in it": "no longer in it", elsewhere: `on ${one.host}` };
  const where = places[one.place];
  const command = one.review_command;
  return el("td", { "data-name": "journal" },
    el("span", { text: one.journal }),
    where && el("span", { class: one.place === "elsewhere" ? "extra" : "extra fault", text: where }),
    one.moved_from && extra(`was ${one.moved_from}`),
    one.entry !== null && one.remark && extra(one.remark),
    command && el("div", { class: "opening" }, el("code", { text: command }), el("button", {
      type: "button", "aria-label": `Copy the command that opens the review of ${one.entry?.slide ?? one.journal}`,
      text: "Copy", on: { click: (event) => copy(command, event.currentTarget) } })));
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    byId("said").textContent = "Copied: run it in a terminal, on the machine that has the journal.";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    byId("said").textContent = "Selected: copy it by hand.";
  }
}

if (hasToken) {
  byId("filters").addEventListener("input", look);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(look));
  await look();
  setInterval(look, EVERY_MS);
} else {
  notice("This page needs the token: open the whole address that leukostream worklist serve printed.");
}
