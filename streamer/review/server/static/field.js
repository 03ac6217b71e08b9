// The frame that a cell lies in: zoomed and moved like a map, all its cells ringed, a missed one added by a click.

import * as api from "./api.js";
import { el } from "./dom.js";

const REST_MS = 160; // a cell that is only passed by on the way to another one costs no frame
const LARGEST = 8;

export class FieldView extends EventTarget {
  #canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": "The frame that shows the cell" });
  #why = el("p", { class: "why soft small" });
  #timer = null;
  #picture = null; // ImageBitmap
  #frames = new Map(); // frame -> promise of its ImageBitmap, the newest few
  #place = null; // what the server said of the cell's place
  #view = { x: 0, y: 0, zoom: 1 }; // frame pixels of the middle, screen pixels a frame pixel
  #pointers = new Map();
  #moved = 0;
  marked = null; // {x, y}: where a missed cell is to be added

  constructor(slide) {
    super();
    this.slide = slide;
    const button = (text, label, does) => el("button", { type: "button", class: "quiet", "aria-label": label, title: label, on: { click: does }, text });
    this.element = el("div", { class: "field" }, this.#canvas, this.#why,
      el("div", { class: "field-tools" },
        button("−", "Zoom out", () => this.zoom(1 / 1.5)), button("+", "Zoom in", () => this.zoom(1.5)),
        button("◎", "Back to the cell", () => this.#centre()),
        button("‹", "Earlier frame with this cell", () => this.#other(-1)), button("›", "Later frame with this cell", () => this.#other(1)),
        el("span", { class: "soft small where" })));
    const canvas = this.#canvas;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), event);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, event);
      this.#moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => this.#pan(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(canvas);
    slide.addEventListener("change", () => this.#draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Show where a cell lies; null: nothing. */
  show(cell) {
    if (cell === this.cell) return;
    this.cell = cell;
    this.mark(null);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(null), REST_MS);
  }

  async #load(view) {
    const id = this.cell;
    if (id === null || id === undefined || this.element.offsetParent === null) return;
    let place;
    try {
      place = await api.get(`cells/${id}/field`, { view });
      const picture = place.why_not ? null : await this.#frame(place.frame_id);
      if (id !== this.cell) return;
      const same = this.#place?.frame_id === place.frame_id && this.#picture;
      [this.#place, this.#picture] = [place, picture];
      this.element.dataset.cell = id;
      if (!same || view === null) this.#centre();
    } catch (error) {
      if (id !== this.cell) return;
      [this.#place, this.#picture] = [{ why_not: error.message, views: 0 }, null];
    }
    this.#draw();
  }

  #frame(number) {
    if (!this.#frames.has(number)) {
      const made = api.blob(`frames/${number}`).then((found) => createImageBitmap(found));
      made.catch(() => this.#frames.delete(number));
      this.#frames.set(number, made);
      if (this.#frames.size > 6) this.#frames.delete(this.#frames.keys().next().value);
    }
    return this.#frames.get(number);
  }

  #other(by) {
    if (!this.#place?.views) return;
    const to = this.#place.view + by;
    if (to >= 0 && to < this.#place.views) this.#load(to);
  }

  #centre() {
    if (!this.#place?.box_px) return;
    this.#canvas.hidden = this.#picture === null; // what is hidden has no size
    const [x1, y1, x2, y2] = this.#place.box_px;
    const { clientWidth, clientHeight } = this.#canvas;
    const side = Math.max(x2 - x1, y2 - y1, 8);
    this.#view = { x: (x1 + x2) / 2, y: (y1 + y2) / 2, zoom: Math.min(LARGEST, Math.min(clientWidth, clientHeight) / side / 3.2) };
    this.#draw();
  }

  zoom(by, at = null) {
    if (!this.#picture) return;
    const { clientWidth, clientHeight } = this.#canvas;
    const least = Math.min(clientWidth / this.#picture.width, clientHeight / this.#picture.height);
    const before = at && this.#inFrame(at);
    this.#view.zoom = Math.min(LARGEST, Math.max(least, this.#view.zoom * by));
    if (before) {
      const after = this.#inFrame(at);
      this.#view.x += before.x - after.x;
      this.#view.y += before.y - after.y;
    }
    this.#draw();
  }

  #inFrame(event) {
    const box = this.#canvas.getBoundingClientRect();
    return {
      x: this.#view.x + (event.clientX - box.left - box.width / 2) / this.#view.zoom,
      y: this.#view.y + (event.clientY - box.top - box.height / 2) / this.#view.zoom,
    };
  }

  #pan(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.clientX;
    const dy = event.clientY - before.clientY;
    this.#moved += Math.abs(dx) + Math.abs(dy);
    if (this.#pointers.size === 2) {
      const [other] = [...this.#pointers.values()].filter((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.zoom(apart(event) / Math.max(1, apart(before)), event);
    } else if (this.#moved > 4) {
      this.#view.x -= dx / this.#view.zoom;
      this.#view.y -= dy / this.#view.zoom;
      this.#draw();
    }
    this.#pointers.set(event.pointerId, event);
  }

  #up(event) {
    const was = this.#pointers.delete(event.pointerId);
    if (!was || event.type === "pointercancel" || this.#moved > 4 || this.#pointers.size) return;
    this.#picked(this.#inFrame(event));
  }

  /** A cell that is there, or a place where one is missed. */
  #picked(point) {
    if (!this.#picture) return;
    const there = this.#place.cells.find(({ box_px: [x1, y1, x2, y2] }) => point.x >= x1 && point.x <= x2 && point.y >= y1 && point.y <= y2);
    if (there && this.slide.cells.has(there.cell_id)) this.dispatchEvent(new CustomEvent("go", { detail: there.cell_id }));
    else if (point.x >= 0 && point.y >= 0 && point.x < this.#picture.width && point.y < this.#picture.height) this.mark(point);
  }

  /** Where a missed cell is to be added; null: nowhere. */
  mark(point) {
    if (point === null && this.marked === null) return;
    if (point !== null && (this.slide.isSigned || this.slide.isLive || this.slide.isBlind)) return;
    this.marked = point;
    this.#draw();
    this.dispatchEvent(new Event("marked"));
  }

  /** The missed cell as the API takes it; the size is that of the cell which is shown. */
  get missed() {
    const [x1, y1, x2, y2] = this.#place.box_px;
    const side = Math.round(Math.max(x2 - x1, y2 - y1));
    return { frame_id: this.#place.frame_id, x_px: this.marked.x, y_px: this.marked.y, width_px: side, height_px: side };
  }

  #key(event) {
    const step = 40 / this.#view.zoom;
    const does = {
      ArrowLeft: () => { this.#view.x -= step; }, ArrowRight: () => { this.#view.x += step; },
      ArrowUp: () => { this.#view.y -= step; }, ArrowDown: () => { this.#view.y += step; },
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5),
      PageUp: () => this.#other(-1), PageDown: () => this.#other(1), Home: () => this.#centre(),
      Enter: () => this.#picked(this.#view), " ": () => this.#picked(this.#view),
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    does();
    this.#draw();
  }

  /** No ground beside the frame while it fills the view. */
  #clamp() {
    const within = (at, size, seen) => (size <= seen ? size / 2 : Math.min(size - seen / 2, Math.max(seen / 2, at)));
    const { clientWidth, clientHeight } = this.#canvas;
    this.#view.x = within(this.#view.x, this.#picture.width, clientWidth / this.#view.zoom);
    this.#view.y = within(this.#view.y, this.#picture.height, clientHeight / this.#view.zoom);
  }

  #draw() {
    const canvas = this.#canvas;
    const where = this.element.querySelector(".where");
    const place = this.#place;
    const can = this.#picture !== null;
    canvas.hidden = !can;
    this.#why.textContent = can || !place ? "" : `No picture of the field: ${place.why_not}.`;
    where.textContent = place?.views ? `${place.file ?? `frame ${place.frame_id}`}${place.views > 1 ? `, ${place.view + 1} of ${place.views}` : ""}` : "";
    if (!can || !canvas.clientWidth) return;
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    this.#clamp();
    const { x, y, zoom } = this.#view;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.setTransform(ratio * zoom, 0, 0, ratio * zoom, width / 2 - x * zoom * ratio, height / 2 - y * zoom * ratio);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.#picture, 0, 0);
    for (const { cell_id: id, box_px: [x1, y1, x2, y2] } of place.cells) {
      const cell = this.slide.cells.get(id);
      if (!cell) continue;
      const here = id === this.cell;
      ring(pen, (x1 + x2) / 2, (y1 + y2) / 2, 0.56 * Math.max(x2 - x1, y2 - y1), this.slide.colour(this.slide.named(cell)), (here ? 3.4 : 1.8) / zoom, cell.partial);
    }
    if (this.marked) cross(pen, this.marked.x, this.marked.y, this.missed.width_px / 2, zoom);
    if (document.activeElement === canvas) cross(pen, x, y, 9 / zoom, zoom);
  }
}

function ring(pen, x, y, radius, colour, width, dashed) {
  pen.setLineDash(dashed ? [3 * width, 2 * width] : []);
  for (const [stroke, across] of [["#fff", 2 * width], [colour, width]]) {
    pen.strokeStyle = stroke;
    pen.lineWidth = across;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.stroke();
  }
  pen.setLineDash([]);
}

function cross(pen, x, y, radius, zoom) {
  for (const [stroke, across] of [["#fff", 4 / zoom], ["#221c28", 2 / zoom]]) {
    pen.strokeStyle = stroke;
    pen.lineWidth = across;
    pen.beginPath();
    pen.moveTo(x - radius, y);
    pen.lineTo(x + radius, y);
    pen.moveTo(x, y - radius);
    pen.lineTo(x, y + radius);
    pen.stroke();
  }
}
