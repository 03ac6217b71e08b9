// The page: what it begins with, and what each hand's move does.

import * as api from "./api.js";
import { CellPane } from "./cell.js";
import * as dialogs from "./dialogs.js";
import { byId, capital, el, plural } from "./dom.js";
import { Gallery } from "./gallery.js";
import { bind } from "./keys.js";
import { Result } from "./result.js";
import { Slide } from "./slide.js";

const slide = new Slide();
const gallery = new Gallery(slide);
const result = new Result(slide);
const pane = new CellPane(slide, gallery);
let hearing = new AbortController();

// Saying something

function notice(text) {
  byId("notice").textContent = text ?? "";
  byId("notice").hidden = !text;
}

let toastTimer = null;
function toast(text, undoable = false) {
  const box = byId("toast");
  byId("said").textContent = text;
  box.replaceChildren(el("span", { text }), undoable ? el("button", { type: "button", class: "link", on: { click: undo } }, "Undo") : "");
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, 4000);
}

/** Do it, and say what came of it. */
async function doing(promise, said = null, undoable = false) {
  if (said) toast(said, undoable);
  try {
    const answer = await promise;
    notice(null);
    return answer ?? true;
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    byId("toast").hidden = true;
    notice(error.message);
    return null;
  }
}

// Doing something

async function someone() {
  if (slide.reviewer) return true;
  return who();
}

async function who() {
  const said = await dialogs.askWho(slide);
  if (!said) return false;
  const blind = slide.isBlind && said.reviewer === slide.reviewer;
  slide.reviewer = said.reviewer;
  sessionStorage.setItem("leukostream-reviewer", said.reviewer);
  await slide.load();
  if (said.blind !== slide.isBlind && (said.blind || blind)) await doing(slide.begin(said.blind));
  await slide.load();
  hear();
  focusGallery();
  return true;
}

/** Give the selected cells a class, and go on to the next one. */
async function choose(choice) {
  if (pane.field.marked) return addMissed(choice);
  const ids = gallery.targets;
  if (!ids.length || slide.isSigned || !(await someone())) return;
  gallery.leave(ids);
  const what = ids.length === 1 ? `Cell ${ids[0]}` : plural(ids.length, "cell");
  await doing(slide.classify(ids, choice), `${what}: ${choice.name}`, true);
}

async function confirm() {
  const ids = gallery.targets;
  if (!ids.length || slide.isSigned || !(await someone())) return;
  if (ids.length === 1) gallery.move("next");
  else gallery.clear();
  await doing(slide.confirm(ids), ids.length === 1 ? `Cell ${ids[0]}: confirmed` : `${plural(ids.length, "cell")} confirmed`, true);
}

async function confirmGroup(name = slide.groupOf(slide.cells.get(gallery.cursor) ?? [...slide.cells.values()][0])) {
  const group = slide.groups.find((one) => one.name === name);
  const ids = group?.cells.filter((cell) => !slide.isReviewed(cell)).map((cell) => cell.cell_id) ?? [];
  if (!ids.length || slide.isSigned || !(await someone())) return;
  await doing(slide.confirm(ids), `${plural(ids.length, "cell")} confirmed: ${name}`, true);
}

async function addMissed(choice) {
  if (slide.isSigned || !(await someone())) return;
  const place = pane.field.missed;
  pane.field.mark(null);
  const answer = await doing(slide.add(place, choice), `Added: ${choice.name}`, true);
  if (!answer) return;
  if (!slide.cells.has(answer.cell_id)) await slide.load(); // the answer may be here before the event that brings the cell
  gallery.go(answer.cell_id);
}

async function drop({ ids, name }) {
  const choice = slide.choices.find((one) => one.name === name);
  if (!choice || !ids.length || slide.isSigned || !(await someone())) return;
  gallery.leave(ids);
  await doing(slide.classify(ids, choice), `${plural(ids.length, "cell")}: ${name}`, true);
}

async function undo() {
  if (slide.isSigned || !(await someone())) return;
  await doing(slide.undo(), "Taken back");
}

async function release() {
  const ids = gallery.targets;
  if (!slide.isSigned && (await someone())) await doing(slide.release(ids), "As the models say", true);
}

async function comment(text, id) {
  if (await someone()) await doing(slide.comment(text, id), "Comment kept", true);
}

async function sign() {
  if (slide.isSigned || slide.isLive || !slide.result) return;
  if (!(await doing(slide.upToDate())) || slide.isSigned) return;
  const { version } = slide; // of what the summary shows
  const said = await dialogs.askSign(slide, (id) => gallery.go(id));
  if (!said) return;
  slide.reviewer = said.reviewer;
  if (await doing(slide.sign(said.despite, version), null)) toast(`Signed by ${said.reviewer}`);
  focusGallery();
}

async function amend() {
  const said = await dialogs.askAmend(slide);
  if (!said) return;
  slide.reviewer = said.reviewer;
  await doing(slide.amend(said.reason), "Open again");
  focusGallery();
}

async function compare() {
  const [first, second] = blindOnes();
  const found = await doing(api.get("agreement", { first, second }));
  if (!found) return;
  await dialogs.showAgreement(slide, found, first, second, {
    go: (id) => gallery.go(id),
    settle: async (ids, choice) => (await someone()) && doing(slide.settle(ids, choice), "Settled", true),
    settleAgreed: async () => (await someone()) && doing(slide.settleAgreed(first, second), "Taken over", true),
  });
}

/** The two who said something blind last. */
function blindOnes() {
  const names = slide.history.filter((entry) => entry.blind).map((entry) => entry.by);
  return [...new Set([...names, ...slide.blind])].slice(-2);
}

// Showing where it stands

function show(name) {
  byId("panes").dataset.pane = name;
  for (const tab of document.querySelectorAll(".tabs button")) tab.setAttribute("aria-current", tab.dataset.pane === name ? "true" : "false");
  slide.dispatchEvent(new Event("shown"));
}

function focusGallery() {
  if (matchMedia("(max-width: 760px)").matches) show("cells");
  byId("gallery").focus({ preventScroll: true });
}

function go(id) {
  if (matchMedia("(max-width: 760px)").matches && byId("panes").dataset.pane === "result") show("cells");
  gallery.go(id);
}

const WORDS = { unsigned: "Not signed", "in review": "Not signed: in review", signed: "Signed", amended: "Signed, amended" };

function drawTop() {
  const counts = slide.counts();
  const state = slide.review.state;
  const signed = slide.isSigned;
  document.body.dataset.version = slide.version;
  byId("slide-name").textContent = slide.name;
  byId("state").textContent = `${WORDS[state] ?? state}${signed && slide.review.by ? ` by ${slide.review.by}` : ""}${slide.isLive ? ", still counting" : ""}`;
  byId("state").className = `badge ${signed ? "is-signed" : "is-unsigned"}`;
  document.title = `${slide.name}: ${signed ? "signed" : "not signed"} – leukostream review`;
  document.body.classList.toggle("signed", signed);
  byId("progress-bar").style.width = `${counts.toReview ? (100 * counts.reviewed) / counts.toReview : 0}%`;
  byId("progress-text").textContent = `${counts.reviewed} of ${counts.toReview} reviewed`;
  byId("who").textContent = `${slide.reviewer ?? "Who reviews?"}${slide.isBlind ? " (blind)" : ""}`;
  const verdict = slide.result?.verdict;
  const flags = slide.result?.flags.length;
  byId("verdict-line").className = verdict?.tone ?? "caution";
  byId("verdict-line").textContent = `${verdict ? `${verdict.mark} ${capital(verdict.state)}` : "No verdict yet"} · ${plural(slide.result?.total ?? 0, "white cell")}${flags ? ` · ${plural(flags, "flag")}` : ""}`;
  byId("undo").disabled = signed;
  byId("sign").hidden = signed || slide.isLive;
  byId("amend").hidden = !signed;
  const chip = (name, text, count, colour) => el("button", { type: "button", class: "chip", "data-filter": name, "aria-pressed": slide.filter === name, colour: colour ?? null, "data-name": `filter-${name}`, on: { click: () => { slide.show(slide.filter === name ? "all" : name); } } },
    colour ? el("span", { class: "dot", "aria-hidden": "true" }) : null, text, " ", el("b", { text: count }));
  const had = byId("filters").contains(document.activeElement) ? document.activeElement.dataset.name : null;
  byId("filters").replaceChildren(
    chip("all", "All", slide.cells.size), chip("look", "To look at", counts.toLookAt),
    ...slide.all.map((group) => chip(group.name, group.name, group.cells.length, slide.colour(group.name))),
    ...(blindOnes().length === 2 && !slide.isBlind && !signed ? [el("button", { type: "button", class: "chip", id: "compare", on: { click: compare } }, "Compare two blind")] : []));
  if (had) byId("filters").querySelector(`[data-name="${CSS.escape(had)}"]`)?.focus();
}

// Beginning

async function signedResults() {
  if (slide.signatures.length === (slide.signedResults?.length ?? 0)) return;
  const found = await api.get("signatures");
  slide.signedResults = found.map(({ by, signed }) => {
    const { classes = {}, unclassified } = signed.differential ?? {};
    return { by, rows: { unclassified, ...Object.fromEntries(Object.entries(classes).map(([name, one]) => [name, one.count])) } };
  });
  slide.dispatchEvent(new Event("change"));
}

function hear() {
  hearing.abort();
  hearing = new AbortController();
  const heard = (name, data) => {
    if (name === "hello" && data.version !== slide.version) slide.load().catch(() => {});
    if (name === "change") slide.take(data);
  };
  const state = (there) => {
    document.body.classList.toggle("lost", !there);
    byId("lost").hidden = there;
  };
  api.listen({ reviewer: slide.reviewer }, heard, state, hearing.signal).catch((error) => notice(error.message));
}

async function begin() {
  if (!api.hasToken) {
    notice("This page needs the token: open the whole address that leukostream review printed.");
    document.body.classList.add("locked");
    return;
  }
  try {
    const slides = await api.get("sessions");
    const list = byId("slides");
    list.replaceChildren(...slides.map((one) => el("option", { value: one.session, text: `${one.source} (${one.review.state})` })));
    list.hidden = slides.length < 2;
    const chosen = slides.find((one) => `#${one.session}` === location.hash) ?? slides.at(-1);
    if (chosen) {
      list.value = chosen.session;
      api.choose(chosen.session);
    }
    slide.reviewer = sessionStorage.getItem("leukostream-reviewer");
    await slide.load();
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    notice(error.message);
    document.body.classList.add("locked");
    return;
  }
  document.body.classList.add("ready");
  hear();
  focusGallery();
  gallery.move("first");
}

slide.addEventListener("change", () => {
  drawTop();
  signedResults().catch(() => {});
});
slide.addEventListener("sending", () => document.body.classList.add("sending"));
slide.addEventListener("sent", () => document.body.classList.toggle("sending", slide.waiting > 0));
addEventListener("beforeunload", (event) => {
  if (slide.waiting) event.preventDefault();
});
gallery.addEventListener("confirm-group", (event) => confirmGroup(event.detail));
result.addEventListener("go", (event) => go(event.detail));
result.addEventListener("drop", (event) => drop(event.detail));
result.addEventListener("comment", (event) => comment(event.detail, null));
pane.addEventListener("go", (event) => go(event.detail));
pane.addEventListener("drop", (event) => drop(event.detail));
pane.addEventListener("choose", (event) => choose(event.detail));
pane.addEventListener("confirm", confirm);
pane.addEventListener("release", release);
pane.addEventListener("said", focusGallery);
pane.addEventListener("comment", (event) => comment(event.detail, gallery.cursor));
byId("undo").addEventListener("click", undo);
byId("verdict-line").addEventListener("click", () => show("result"));
byId("help").addEventListener("click", () => dialogs.showHelp(slide));
byId("sign").addEventListener("click", sign);
byId("amend").addEventListener("click", amend);
byId("who").addEventListener("click", who);
byId("slides").addEventListener("change", async (event) => {
  api.choose(event.target.value);
  history.replaceState(null, "", `#${event.target.value}`);
  slide.signedResults = [];
  gallery.selected.clear();
  gallery.cursor = null;
  await slide.load();
  hear();
  focusGallery();
});
for (const tab of document.querySelectorAll(".tabs button")) tab.addEventListener("click", () => show(tab.dataset.pane));
bind(slide, gallery, {
  choose, confirm, undo, sign,
  confirmGroup: () => confirmGroup(),
  help: () => dialogs.showHelp(slide),
  gallery: focusGallery,
  escape: () => {
    if (pane.field.marked) pane.field.mark(null);
    else gallery.clear();
    focusGallery();
  },
  comment: () => {
    if (matchMedia("(max-width: 760px)").matches) show("cell");
    pane.focusComment();
  },
  field: () => {
    if (matchMedia("(max-width: 760px)").matches) show("cell");
    pane.focusField();
  },
});
show("cells");
begin();
