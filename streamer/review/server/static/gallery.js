// The cells by class. Only the rows that can be seen are elements, so that 10 000 cells scroll as 100 do.

import { byId, capital, dot, el, percent, withoutClass } from "./dom.js";
import { show } from "./pictures.js";

const SIZES = [64, 92, 132];
const GAP = 8;
const HEAD = 44;
const LABEL = 22; // below each picture
const SHORT = { "segmented neutrophil": "segm.", metamyelocyte: "metam.", myelocyte: "myeloc.", promyelocyte: "promy.", "giant platelet": "giant" };
const SPARE = 3; // rows drawn beyond each edge

export class Gallery extends EventTarget {
  #box = byId("gallery");
  #canvas = byId("canvas");
  #rows = []; // {top, height, group, cells?}: a group's head has no cells
  #rowOf = new Map(); // cell -> its row
  #drawn = new Map(); // row number -> element
  #spare = []; // tiles to be used again
  #pending = false;
  #anchor = null;
  #left = false; // the cursor went on by itself, maybe out of sight

  cursor = null; // cell_id
  selected = new Set();

  constructor(slide) {
    super();
    this.slide = slide;
    this.size = Math.min(SIZES.length - 1, Math.max(0, Number(localStorage.getItem("leukostream-size") ?? 1)));
    slide.addEventListener("change", () => this.#laid(true));
    this.#box.addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#laid(false)).observe(this.#box);
    this.#box.addEventListener("click", (event) => this.#clicked(event));
    this.#box.addEventListener("dragstart", (event) => this.#dragged(event));
    this.#box.addEventListener("focus", () => {
      if (this.cursor === null) this.move("first");
    });
    byId("smaller").addEventListener("click", () => this.#resize(-1));
    byId("larger").addEventListener("click", () => this.#resize(1));
  }

  get cells() { return this.slide.groups.flatMap((group) => group.cells); }
  /** What a key means: the selected cells, else the one at the cursor. */
  get targets() { return this.selected.size ? [...this.selected] : this.cursor === null ? [] : [this.cursor]; }

  // Where everything lies

  #laid(anew) {
    if (anew) for (const id of this.selected) if (!this.slide.cells.has(id)) this.selected.delete(id);
    const width = this.#box.clientWidth;
    if (!width) return;
    const before = this.#offset();
    const side = SIZES[this.size];
    this.columns = Math.max(2, Math.floor((width - GAP) / (side + 8 + GAP)));
    this.tile = Math.floor((width - GAP) / this.columns) - GAP;
    const picture = Math.min(this.tile - 8, side + 24);
    this.rowHeight = picture + 8 + LABEL + GAP;
    this.#box.style.setProperty("--tile", `${this.tile}px`);
    this.#box.style.setProperty("--picture", `${picture}px`);
    this.#rows = [];
    this.#rowOf = new Map();
    let top = 0;
    for (const group of this.slide.groups) {
      this.#rows.push({ top, height: HEAD, group });
      top += HEAD;
      for (let at = 0; at < group.cells.length; at += this.columns) {
        const cells = group.cells.slice(at, at + this.columns);
        for (const cell of cells) this.#rowOf.set(cell.cell_id, this.#rows.length);
        this.#rows.push({ top, height: this.rowHeight, group, cells, at });
        top += this.rowHeight;
      }
    }
    this.#canvas.style.height = `${top + GAP}px`;
    if (this.cursor !== null && !this.#rowOf.has(this.cursor)) this.#lost();
    for (const row of this.#drawn.values()) this.#free(row);
    this.#drawn.clear();
    const row = this.#rows[this.#rowOf.get(this.cursor)];
    if (before !== null && row) this.#box.scrollTop = row.top - before;
    if (this.#left && row) this.#reveal(this.cursor);
    this.#left = false;
    this.#paint();
  }

  /** Of the row at the cursor from the top of what is seen; null where it can't be seen. */
  #offset() {
    const row = this.#rows[this.#rowOf.get(this.cursor)];
    if (!row) return null;
    const offset = row.top - this.#box.scrollTop;
    return offset < -row.height || offset > this.#box.clientHeight ? null : offset;
  }

  #lost() {
    this.cursor = this.cells[0]?.cell_id ?? null;
    this.dispatchEvent(new Event("cursor"));
  }

  #resize(by) {
    this.size = Math.min(SIZES.length - 1, Math.max(0, this.size + by));
    localStorage.setItem("leukostream-size", this.size);
    this.#laid(false);
  }

  // Drawing

  #draw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#paint();
    });
  }

  #paint() {
    const top = this.#box.scrollTop;
    const first = Math.max(0, this.#at(top) - SPARE);
    const last = Math.min(this.#rows.length - 1, this.#at(top + this.#box.clientHeight) + SPARE);
    for (const [number, row] of this.#drawn) {
      if (number >= first && number <= last) continue;
      this.#free(row);
      this.#drawn.delete(number);
    }
    for (let number = first; number <= last; number += 1) {
      if (this.#drawn.has(number)) continue;
      const row = this.#rows[number];
      const made = row.cells ? this.#row(row) : this.#head(row.group);
      made.style.transform = `translateY(${row.top}px)`;
      this.#drawn.set(number, made);
      this.#canvas.append(made);
    }
    this.#box.classList.toggle("empty", !this.#rows.length);
    this.#mark();
  }

  /** The row at a height. */
  #at(height) {
    let low = 0;
    let high = this.#rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#rows[middle].top <= height) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #free(row) {
    for (const tile of row.querySelectorAll(".tile")) this.#spare.push(tile);
    row.remove();
  }

  #head(group) {
    const left = group.cells.filter((cell) => !this.slide.isReviewed(cell)).length;
    const confirm = left && group.inPercentages && this.slide.filter !== "look" && !this.slide.isSigned;
    return el("div", { class: "head-row", role: "presentation", "data-group": group.name },
      dot(this.slide.colour(group.name)),
      el("h2", { text: capital(group.name) }),
      el("span", { class: "soft", text: `${group.cells.length}${left ? `, ${left} to confirm` : " ✓ all confirmed"}` }),
      group.inPercentages ? null : el("span", { class: "soft", text: "(in no percentage)" }),
      confirm ? el("button", { type: "button", class: "quiet", tabindex: -1, "data-confirm": group.name, text: "Confirm all" }) : null);
  }

  #row(row) {
    const made = el("div", { class: "tile-row", role: "presentation" });
    row.cells.forEach((cell, at) => {
      const tile = this.#spare.pop() ?? newTile();
      this.#fill(tile, cell, row.at + at + 1, row.group.cells.length);
      made.append(tile);
    });
    return made;
  }

  #fill(tile, cell, place, of) {
    const slide = this.slide;
    const name = slide.named(cell);
    tile.id = `tile-${cell.cell_id}`;
    tile.dataset.cell = cell.cell_id;
    tile.style.setProperty("--colour", slide.colour(name));
    tile.classList.toggle("flagged", slide.isFlagged(cell));
    tile.classList.toggle("reviewed", slide.isReviewed(cell));
    tile.classList.toggle("partial", cell.partial);
    tile.setAttribute("aria-posinset", place);
    tile.setAttribute("aria-setsize", of);
    const marks = [];
    if (slide.isFlagged(cell)) marks.push(["⚑", "flagged"]);
    if (slide.isUnsure(cell) && !slide.isReviewed(cell)) marks.push(["?", "unsure"]);
    if (cell.comments.length) marks.push(["❞", "with a comment"]);
    if (slide.isReviewed(cell)) marks.push(cell.word?.kind === "corrected" ? ["✎", "corrected"] : cell.added ? ["＋", "added"] : ["✓", "confirmed"]);
    const [image, said, label] = tile.children;
    show(image, cell);
    said.textContent = marks.map(([mark]) => mark).join(" ");
    const own = slide.className(cell);
    const sure = cell.looks ? percent(slide.sureness(cell)) : "–";
    const short = name !== own ? SHORT[name] ?? withoutClass(name, own) : cell.top_class !== own ? cell.top_class : "";
    label.firstChild.textContent = sure;
    label.lastChild.textContent = short;
    const words = marks.map(([, word]) => word);
    if (!slide.isReviewed(cell)) words.push("not confirmed");
    tile.setAttribute("aria-label", `Cell ${cell.cell_id}, ${name}, ${sure} ${cell.top_class}${words.length ? `, ${words.join(", ")}` : ""}`);
  }

  #mark() {
    for (const row of this.#drawn.values()) {
      for (const tile of row.children) {
        if (!tile.dataset.cell) continue;
        const id = Number(tile.dataset.cell);
        tile.classList.toggle("cursor", id === this.cursor);
        tile.setAttribute("aria-selected", this.selected.has(id));
      }
    }
    const there = this.cursor !== null && document.getElementById(`tile-${this.cursor}`);
    if (there) this.#box.setAttribute("aria-activedescendant", there.id);
    else this.#box.removeAttribute("aria-activedescendant");
  }

  // Moving and selecting

  /** Put the cursor on a cell. `extend`: select all from where the last selection began. */
  go(id, { extend = false, keep = false, scroll = true } = {}) {
    if (!this.#rowOf.has(id)) {
      if (!this.slide.cells.has(id)) return;
      this.slide.show("all");
    }
    if (extend) {
      this.#anchor ??= this.cursor ?? id;
      const order = this.cells.map((cell) => cell.cell_id);
      const [from, to] = [order.indexOf(this.#anchor), order.indexOf(id)].sort((one, other) => one - other);
      this.selected = new Set(order.slice(from, to + 1));
    } else {
      this.#anchor = null;
      if (!keep) this.selected.clear();
    }
    this.cursor = id;
    if (scroll) this.#reveal(id);
    this.#paint();
    this.dispatchEvent(new Event("cursor"));
  }

  #reveal(id) {
    const row = this.#rows[this.#rowOf.get(id)];
    const above = this.#rows[this.#rowOf.get(id) - 1];
    const top = above && !above.cells ? above.top : row.top;
    const bottom = row.top + row.height;
    const { scrollTop, clientHeight } = this.#box;
    if (top < scrollTop) this.#box.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.#box.scrollTop = bottom - clientHeight + GAP;
  }

  move(where, options = {}) {
    const order = this.cells;
    if (!order.length) return;
    const at = order.findIndex((cell) => cell.cell_id === this.cursor);
    const to = {
      first: () => order[0],
      last: () => order.at(-1),
      next: () => order[Math.min(order.length - 1, at + 1)],
      previous: () => order[Math.max(0, at - 1)],
      up: () => this.#beside(-1),
      down: () => this.#beside(1),
      pageUp: () => this.#beside(-Math.max(1, Math.floor(this.#box.clientHeight / this.rowHeight) - 1)),
      pageDown: () => this.#beside(Math.max(1, Math.floor(this.#box.clientHeight / this.rowHeight) - 1)),
      nextGroup: () => this.#group(1),
      previousGroup: () => this.#group(-1),
      look: () => [...order.slice(at + 1), ...order.slice(0, at + 1)].find((cell) => this.slide.isToLookAt(cell)),
    }[where]();
    if (to) this.go(to.cell_id, options);
  }

  #beside(by) {
    const rows = this.#rows.filter((row) => row.cells);
    const now = rows.indexOf(this.#rows[this.#rowOf.get(this.cursor)]);
    if (now < 0) return this.cells[0];
    const column = rows[now].cells.findIndex((cell) => cell.cell_id === this.cursor);
    const row = rows[Math.min(rows.length - 1, Math.max(0, now + by))];
    return row.cells[Math.min(row.cells.length - 1, column)];
  }

  #group(by) {
    const now = this.slide.groups.findIndex((group) => group.cells.some((cell) => cell.cell_id === this.cursor));
    return this.slide.groups[Math.min(this.slide.groups.length - 1, Math.max(0, now + by))]?.cells[0];
  }

  toggle(id = this.cursor) {
    if (id === null) return;
    if (!this.selected.delete(id)) this.selected.add(id);
    this.#paint();
    this.dispatchEvent(new Event("cursor"));
  }

  selectGroup() {
    const group = this.slide.groups.find((one) => one.cells.some((cell) => cell.cell_id === this.cursor));
    this.selected = new Set(group?.cells.map((cell) => cell.cell_id));
    this.#paint();
    this.dispatchEvent(new Event("cursor"));
  }

  clear() {
    this.#anchor = null;
    this.selected.clear();
    this.#paint();
    this.dispatchEvent(new Event("cursor"));
  }

  /** The cell behind all of `ids`, where the cursor goes once these have moved away. */
  after(ids) {
    const gone = new Set(ids);
    const order = this.cells;
    const last = order.findLastIndex((cell) => gone.has(cell.cell_id));
    const next = order.slice(last + 1).find((cell) => !gone.has(cell.cell_id)) ?? order.slice(0, Math.max(0, last)).findLast((cell) => !gone.has(cell.cell_id));
    return next?.cell_id ?? ids.at(-1) ?? null;
  }

  /** These cells are about to go elsewhere: the cursor goes on to the next one. */
  leave(ids) {
    this.cursor = this.after(ids);
    this.#left = true;
    this.#anchor = null;
    this.selected.clear();
    this.dispatchEvent(new Event("cursor"));
  }

  #clicked(event) {
    const confirm = event.target.closest("[data-confirm]");
    if (confirm) {
      this.dispatchEvent(new CustomEvent("confirm-group", { detail: confirm.dataset.confirm }));
      return;
    }
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const id = Number(tile.dataset.cell);
    if (event.ctrlKey || event.metaKey) {
      this.cursor = id;
      this.toggle(id);
    } else this.go(id, { extend: event.shiftKey, scroll: false });
    this.dispatchEvent(new Event("picked"));
  }

  #dragged(event) {
    const tile = event.target.closest(".tile");
    if (!tile || this.slide.isSigned) {
      event.preventDefault();
      return;
    }
    const id = Number(tile.dataset.cell);
    if (!this.selected.has(id)) this.go(id, { scroll: false });
    event.dataTransfer.setData("text/plain", this.targets.join(" "));
    event.dataTransfer.effectAllowed = "move";
  }
}

function newTile() {
  return el("div", { class: "tile", role: "option", draggable: "true" },
    el("img", { alt: "", draggable: "false", decoding: "async" }),
    el("span", { class: "marks", "aria-hidden": "true" }),
    el("span", { class: "label", "aria-hidden": "true" }, el("b"), el("span")));
}
