// What is known of the slide, in one place. Whoever shows it listens to "change".

import * as api from "./api.js";
import { forget, forgetAll } from "./pictures.js";

export const UNSURE = 0.6; // below this probability of its likeliest class a cell is to be looked at
const NO_LEUKOCYTE = new Set(["erythroblast", "platelet", "smudge cell", "artefact"]);
const RED = "nucleated red cells";
const CUT = "cut by an edge of the frame";

export class Slide extends EventTarget {
  cells = new Map();
  groups = []; // {name, cells, inPercentages}, as they are shown
  filter = "all";
  reviewer = null;
  waiting = 0; // of what was said, so much was not sent yet

  async load() {
    let found;
    do { // an event may tell of a later version while this one is on its way
      found = await api.get("slide", { reviewer: this.reviewer });
    } while (found.session === this.session && found.version < this.version);
    forgetAll();
    Object.assign(this, {
      session: found.session,
      source: found.source,
      isLive: found.is_live,
      version: found.version,
      review: found.review,
      result: found.result,
      choices: found.choices,
      order: found.order,
      colours: found.colours,
      history: found.history,
      comments: found.comments,
      signatures: found.signatures,
      blind: found.blind,
    });
    this.reviewer ??= found.reviewer;
    this.cells = new Map(found.cells.map((cell) => [cell.cell_id, cell]));
    this.#changed();
  }

  /** What an event says. What only the whole slide says (signatures, comments on it) is asked for. */
  take(change) {
    if (change.version <= this.version) return;
    this.version = change.version;
    for (const cell of change.cells) {
      const old = this.cells.get(cell.cell_id);
      if (old?.own) cell.own = old.own;
      if (old && cell.has_picture !== old.has_picture) forget(cell.cell_id);
      this.cells.set(cell.cell_id, cell);
    }
    for (const id of change.removed) this.cells.delete(id);
    if (change.result) {
      this.result = change.result;
      this.review = change.result.review ?? this.review;
    }
    this.history.push(...change.history);
    for (const entry of change.history) {
      const withdrawn = this.history.find((one) => one.number !== null && one.number === entry.withdraws);
      if (withdrawn) withdrawn.withdrawn = true;
    }
    this.#changed();
    const whole = change.history.some(
      (entry) => ["sign", "amend", "begin", "settle", "withdraw"].includes(entry.kind) || (entry.kind === "comment" && entry.cell_id === null),
    );
    if (whole) this.load().catch(() => {});
  }

  // What a person says: shown at once, then sent, one after the other; the server's answer holds.

  #sending = Promise.resolve();

  /** Once all that was said is with the server, its slide as it stands then. */
  async upToDate() {
    await this.#sending;
    await this.load();
  }

  #send(path, body) {
    this.dispatchEvent(new Event("sending"));
    const sent = this.#sending.then(() => api.post(path, { ...body(), reviewer: this.reviewer }));
    this.#sending = sent.catch(() => {});
    this.waiting += 1;
    this.#sending.then(() => {
      this.waiting -= 1;
      this.dispatchEvent(new Event("sent"));
    });
    return sent.catch(async (error) => {
      await this.load().catch(() => {});
      throw error;
    });
  }

  classify(ids, choice) {
    for (const id of ids) {
      const cell = { ...this.cells.get(id) };
      if (this.isBlind) cell.own = [choice.class, choice.subclass];
      else {
        Object.assign(cell, { class: choice.class, subclass: choice.subclass });
        cell.word = { kind: "corrected", by: this.reviewer, at: null };
        cell.counted = !cell.partial && choice.class !== "smudge cell" && choice.class !== "artefact";
      }
      this.cells.set(id, cell);
    }
    this.#changed();
    return this.#send("cells/class", () => ({ cell_ids: ids, class: choice.class, subclass: choice.subclass }));
  }

  /** The models decide again. */
  release(ids) { return this.#send("cells/class", () => ({ cell_ids: ids, class: null })); }

  confirm(ids) {
    for (const id of ids) {
      const cell = { ...this.cells.get(id) };
      if (this.isBlind) cell.own = [cell.class, cell.subclass];
      else cell.word = { kind: "confirmed", by: this.reviewer, at: null };
      this.cells.set(id, cell);
    }
    this.#changed();
    return this.#send("cells/confirm", () => ({ cell_ids: ids }));
  }

  async undo() {
    await this.#send("undo", () => ({}));
    if (this.isBlind) await this.load();
  }

  comment(text, id = null) { return this.#send("comments", () => ({ text, cell_id: id })); }
  add(place, choice) { return this.#send("cells", () => ({ ...place, class: choice.class, subclass: choice.subclass })); }
  /** Sign what `version` showed: whatever was changed since is refused. */
  sign(despite, version) { return this.#send("sign", () => ({ version, despite })); }
  amend(reason) { return this.#send("amend", () => ({ reason })); }
  begin(blind) { return this.#send("begin", () => ({ blind })); }
  settle(ids, choice) { return this.#send("settle", () => ({ cell_ids: ids, class: choice.class, subclass: choice.subclass })); }
  settleAgreed(first, second) { return this.#send("settle-agreed", () => ({ first, second })); }

  // What follows from it

  /** The laboratory's, else that of its source. */
  get name() { return this.result?.name ?? this.source; }
  get isSigned() { return this.review.state === "signed" || this.review.state === "amended"; }
  get isBlind() { return this.reviewer !== null && this.blind.includes(this.reviewer); }

  named(cell) {
    const [name, subclass] = cell.own ?? [cell.class, cell.subclass];
    return subclass ?? name;
  }

  className(cell) { return cell.own?.[0] ?? cell.class; }
  colour(name) { return this.colours[name] ?? this.choices.find((one) => one.name === name)?.colour ?? "#858585"; }
  sureness(cell) { return cell.class_probabilities[cell.top_class] ?? 0; }
  isReviewed(cell) { return this.isBlind ? cell.own !== null : cell.word !== null; }
  isFlagged(cell) { return this.flagged.has(cell.cell_id); }
  isUnsure(cell) { return cell.class === "unclassified" || (cell.looks > 0 && this.sureness(cell) < UNSURE); }
  isToLookAt(cell) { return !this.isReviewed(cell) && (this.isFlagged(cell) || (!cell.partial && this.isUnsure(cell))); }

  inPercentages(cell) {
    return !cell.partial && cell.kind === "white" && !NO_LEUKOCYTE.has(this.className(cell));
  }

  groupOf(cell) {
    const name = this.className(cell);
    if (this.inPercentages(cell)) return name;
    if (cell.kind === "nucleated red" || name === "erythroblast") return RED;
    return cell.partial ? CUT : `${name}s`;
  }

  /** {toReview, reviewed, corrected, confirmed, added, unseen}: counts of the cells seen whole. */
  counts() {
    const counts = { toReview: 0, reviewed: 0, corrected: 0, confirmed: 0, added: 0, settled: 0, toLookAt: 0 };
    for (const cell of this.cells.values()) {
      if (this.isToLookAt(cell)) counts.toLookAt += 1;
      if (cell.partial) continue;
      counts.toReview += 1;
      if (!this.isReviewed(cell)) continue;
      counts.reviewed += 1;
      if (cell.word) counts[cell.word.kind] += 1;
    }
    return counts;
  }

  show(filter) {
    this.filter = filter;
    this.#changed();
  }

  #changed() {
    this.flagged = new Set((this.result?.flags ?? []).flatMap((flag) => flag.cell_ids));
    for (const reason of this.result?.verdict?.reasons ?? []) for (const id of reason.cell_ids) this.flagged.add(id);
    this.#group();
    this.dispatchEvent(new Event("change"));
  }

  #group() {
    const by = new Map();
    for (const cell of this.cells.values()) {
      const name = this.groupOf(cell);
      if (!by.has(name)) by.set(name, []);
      by.get(name).push(cell);
    }
    const seen = new Set((this.result?.flags ?? []).filter((flag) => flag.direction === "seen").map((flag) => flag.class));
    const rank = (name) => {
      if (name === CUT) return 4000;
      const place = this.order.indexOf(name);
      if (place < 0) return name === RED ? 2000 : 3000;
      return name === "unclassified" ? -1 : seen.has(name) ? place : 1000 + place;
    };
    this.all = [...by].map(([name, cells]) => ({ name, cells, inPercentages: this.order.includes(name) }));
    this.all.sort((one, other) => rank(one.name) - rank(other.name) || (one.name < other.name ? -1 : 1));
    for (const group of this.all) {
      const keys = new Map(group.cells.map((cell) => [cell, this.#place(cell)]));
      group.cells.sort((one, other) => keys.get(one) - keys.get(other) || one.cell_id - other.cell_id);
    }
    const wanted = this.filter;
    this.groups = this.all
      .filter((group) => wanted === "all" || wanted === "look" || group.name === wanted)
      .map((group) => (wanted === "look" ? { ...group, cells: group.cells.filter((cell) => this.isToLookAt(cell)) } : group))
      .filter((group) => group.cells.length);
  }

  /** Flagged first, then the least sure; what a person put into a group comes last in it. */
  #place(cell) {
    const moved = cell.own !== null ? cell.own[0] !== cell.class : ["corrected", "added", "settled"].includes(cell.word?.kind);
    return (moved ? 4 : 0) + (this.isFlagged(cell) ? 0 : 2) + this.sureness(cell);
  }
}
