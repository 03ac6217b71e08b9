// The fleet, asked for anew every two seconds.

import { get, hasToken } from "./api.js";
import { byId, el, plural } from "./dom.js";

const EVERY_MS = 2_000;
const TONES = {
  "ready for review": "good", incomplete: "caution", "do not use": "bad",
  open: "good", running: "good", ready: "good", finished: "good",
  starting: "caution", reopening: "caution", ending: "caution", stopped: "caution",
  silent: "bad", failed: "bad", "no answer": "bad",
};

let shown = "";

async function look() {
  try {
    show(await get("fleet"));
    notice(null);
  } catch (error) {
    notice(error.message);
  }
}

function notice(text) {
  byId("notice").textContent = text ?? "";
  byId("notice").hidden = text === null;
}

function show(found) {
  const text = JSON.stringify(found);
  if (text === shown) return; // so that what is selected stays
  shown = text;
  const heard = found.microscopes.filter((one) => one.source !== null);
  byId("count").textContent = `${plural(heard.length, "microscope")}, ${plural(found.servers.length, "server")}`;
  byId("rows").replaceChildren(...found.microscopes.map(microscope));
  byId("server-rows").replaceChildren(...found.servers.map(server));
  byId("servers").hidden = found.servers.length === 0;
  byId("remark").textContent = found.remark ?? "";
  byId("remark").hidden = found.remark === null;
}

const toned = (text) => el("span", { class: `state-${TONES[text] ?? "none"}`, text: text ?? "none" });
const extra = (text) => (text ? el("span", { class: "extra", text }) : null);
const cell = (name, ...children) => el("td", { "data-name": name }, children);
const number = (name, value, digits = 0, unit = "") => el("td", {
  class: "num", "data-name": name, text: value === null ? "–" : `${value.toFixed(digits)}${unit}` });

function microscope(one) {
  const local = one.local_share === null ? null : `${(100 * one.local_share).toFixed(0)} % on its own machine`;
  return el("tr", {},
    el("td", {}, el("span", { class: "name", text: one.source ?? one.endpoint }),
      extra([one.slide, one.source !== null && one.endpoint].filter(Boolean).join(" · "))),
    cell("state", toned(one.state)),
    number("frames/s", one.frames_per_s, 1),
    number("behind", one.behind_s, 1, " s"),
    number("p99", one.latency_p99_ms, 0, " ms"),
    number("dropped", one.dropped),
    number("cells", one.white_cells),
    cell("verdict", toned(one.verdict)),
    cell("models", one.models, extra(one.protocol && `protocol ${one.protocol}`)),
    cell("servers", one.servers || "none", extra(local)));
}

function server(one) {
  return el("tr", {},
    el("td", {}, el("span", { class: "name", text: one.endpoint ?? "not begun" }),
      extra(one.node && `${one.node}, process ${one.process}`)),
    cell("state", toned(one.state)),
    cell("release", one.release),
    cell("models", one.models.map(([name, sha256]) => el("div", {}, `${name} `, el("code", { text: sha256.slice(0, 8) })))),
    number("answers/s", one.answers_per_s, 1),
    number("waiting", one.waiting),
    number("queue age", one.queue_age_ms, 0, " ms"),
    number("faults", one.faults));
}

if (hasToken) {
  await look();
  setInterval(look, EVERY_MS);
} else {
  notice("This page needs the token: open the whole address that leukostream fleet serve printed.");
}
