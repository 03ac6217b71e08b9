// One cell, looked at closely: picture, what the models say, its class, look-alikes, its field, comments.

import { MEASURE, alike } from "./alike.js";
import { byId, capital, dot, el, moment, percent, plural, withoutClass } from "./dom.js";
import { FieldView } from "./field.js";
import { show } from "./pictures.js";
import { commentLine, dropTargets } from "./result.js";

const ALIKE = 8;
const SIDE_BY_SIDE = 6;
const REST_MS = 120; // before look-alikes are looked for

export class CellPane extends EventTarget {
  #box = byId("cell");
  #dock = byId("dock");
  #beside = null; // a look-alike that is shown beside
  #timer = null;

  constructor(slide, gallery) {
    super();
    this.slide = slide;
    this.gallery = gallery;
    this.field = new FieldView(slide);
    this.#build();
    slide.addEventListener("change", () => this.#draw());
    gallery.addEventListener("cursor", () => {
      this.#beside = null;
      this.#draw();
    });
    this.field.addEventListener("go", (event) => this.#go(event.detail));
    this.field.addEventListener("marked", () => this.#draw());
    dropTargets(this.#box, (ids, name) => this.dispatchEvent(new CustomEvent("drop", { detail: { ids, name } })));
  }

  focusComment() { this.comment.focus(); }
  focusField() { this.field.element.querySelector("canvas").focus(); }
  #go(id) { this.dispatchEvent(new CustomEvent("go", { detail: id })); }
  #choose(choice) { this.dispatchEvent(new CustomEvent("choose", { detail: choice })); }

  #build() {
    this.title = el("h2");
    this.said = el("p", { class: "said small" });
    this.pictures = el("div", { class: "pictures" });
    this.bars = el("div", { class: "bars" });
    this.described = el("p", { class: "small soft" });
    this.asking = el("p", { class: "asking", role: "status" });
    this.classes = el("div", { class: "classes", role: "group", "aria-label": "Classes" });
    this.confirm = el("button", { type: "button", class: "main", on: { click: () => this.dispatchEvent(new Event("confirm")) } }, el("kbd", { text: "↵" }), " Confirm");
    this.release = el("button", { type: "button", class: "quiet", on: { click: () => this.dispatchEvent(new Event("release")) }, title: "The models decide again", text: "As the models say" });
    this.likes = el("div", { class: "likes" });
    this.comments = el("div");
    this.comment = el("textarea", { rows: 2, maxlength: 2000, "aria-label": "Comment on the cell", placeholder: "Comment on the cell (c)" });
    this.say = el("div", { class: "say" }, this.comment, el("button", { type: "button", class: "quiet", on: { click: () => this.#say() }, text: "Add" }));
    this.comment.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#say();
    });
    this.story = el("ol", { class: "story small" });
    this.#box.append(
      el("div", { class: "cell-head" }, this.title), this.said,
      el("div", { class: "close" }, this.pictures, this.bars), this.described,
      this.asking, this.classes, el("div", { class: "acts" }, this.confirm, this.release),
      el("section", { class: "field-part" }, el("h3", {}, "In its field ", el("kbd", { text: "f" })), this.field.element),
      el("section", { class: "likes-part" }, el("h3", { title: MEASURE }, "Look-alikes ", el("span", { class: "soft small", text: "by the models' probabilities" })), this.likes),
      el("section", { class: "comment-part" }, el("h3", { text: "Comments" }), this.comments, this.say),
      this.story);
  }

  #say() {
    const text = this.comment.value.trim();
    if (text) this.dispatchEvent(new CustomEvent("comment", { detail: text }));
    this.comment.value = "";
    this.dispatchEvent(new Event("said"));
  }

  #draw() {
    const { slide, gallery } = this;
    const targets = gallery.targets.map((id) => slide.cells.get(id)).filter(Boolean);
    const several = targets.length > 1;
    const cell = slide.cells.get(gallery.cursor) ?? null;
    this.#box.classList.toggle("nothing", cell === null);
    this.#drawClasses(targets);
    this.#drawDock(cell, targets);
    if (cell === null) {
      this.title.textContent = "No cell";
      this.field.show(null);
      return;
    }
    const name = slide.named(cell);
    this.title.replaceChildren(...(several ? [plural(targets.length, "cell"), " selected"] : [dot(slide.colour(name)), capital(name), el("span", { class: "soft small", text: ` cell ${cell.cell_id}` })]));
    this.said.textContent = several ? "A key or a class below names them all, as one change." : standing(slide, cell);
    const shown = several ? targets.slice(0, SIDE_BY_SIDE) : [cell, this.#beside === null ? null : slide.cells.get(this.#beside)].filter(Boolean);
    this.pictures.className = `pictures of-${Math.min(shown.length, 3)}`;
    while (this.pictures.children.length > shown.length) this.pictures.lastChild.remove();
    while (this.pictures.children.length < shown.length) this.pictures.append(el("figure", {}, el("img", { alt: "", draggable: "false" }), el("figcaption", { class: "small" })));
    shown.forEach((one, at) => {
      const figure = this.pictures.children[at];
      show(figure.firstChild, one);
      figure.firstChild.alt = `Cell ${one.cell_id}, ${slide.named(one)}`;
      figure.lastChild.replaceChildren(...(shown.length > 1 ? [dot(slide.colour(slide.named(one))), shown.length > 2 ? one.cell_id : `${one.cell_id} ${slide.named(one)}`] : []));
    });
    this.bars.hidden = several || this.#beside !== null;
    if (!this.bars.hidden) this.#drawBars(cell);
    this.described.textContent = several ? "" : capital(cell.described);
    this.comments.replaceChildren(...cell.comments.map(commentLine));
    this.story.replaceChildren(...slide.history.flatMap((entry) => entry.changes.filter((change) => change.cell_id === cell.cell_id).map((change) => {
      const words = [change.before, change.after].map((one) => (one ? one[1] ?? one[0] : "none"));
      return el("li", { class: entry.withdrawn ? "withdrawn" : null }, el("b", { text: entry.by }), entry.kind === "confirm" ? ` confirmed ${words[1]}` : ` ${words[0]} → ${words[1]}`, " ", el("span", { class: "soft", text: moment(entry.at) }));
    })));
    this.field.show(cell.cell_id);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#drawLikes(cell), REST_MS);
  }

  #drawBars(cell) {
    const probable = Object.entries(cell.class_probabilities).filter(([, share]) => share >= 0.01).sort((one, other) => other[1] - one[1]).slice(0, 6);
    this.bars.replaceChildren(...probable.map(([name, share]) => {
      const bar = el("i", { colour: this.slide.colour(name) });
      bar.style.width = `${100 * share}%`;
      return el("div", { class: "share" }, el("span", { text: name }), el("b", { text: percent(share) }), el("div", { class: "track", "aria-hidden": "true" }, bar));
    }), cell.looks ? el("span", { class: "soft small", text: plural(cell.looks, "look") }) : el("span", { class: "soft small", text: cell.added ? "Added by a person: no model looked at it." : "No model looked at it." }));
  }

  #drawClasses(targets) {
    const { slide } = this;
    const marked = this.field.marked !== null;
    this.asking.textContent = marked ? "A cell was missed here: which class is it? Esc: none." : "";
    const off = slide.isSigned || !(targets.length || marked);
    const names = new Set(targets.map((cell) => slide.named(cell)));
    const wanted = slide.choices.map((choice) => `${choice.name}${choice.key}`).join();
    if (this.classes.dataset.of !== wanted) {
      this.classes.dataset.of = wanted;
      this.classes.replaceChildren(...slide.choices.map((choice) => this.#button(choice)));
    }
    [...this.classes.children].forEach((button, at) => {
      button.disabled = off;
      button.setAttribute("aria-pressed", !marked && names.size === 1 && names.has(slide.choices[at].name));
    });
    this.confirm.disabled = slide.isSigned || !targets.length || marked;
    this.release.disabled = slide.isSigned || marked || slide.isBlind || !targets.some((cell) => cell.word && !cell.added);
    this.say.hidden = slide.isSigned;
    this.#box.classList.toggle("marking", marked);
  }

  #button(choice) {
    return el("button", { type: "button", class: choice.subclass ? "class sub" : "class", "aria-label": choice.name, title: choice.name, "data-drop": choice.name, on: { click: () => this.#choose(choice) } },
      el("kbd", { text: choice.key || " " }), dot(choice.colour), el("span", { text: choice.subclass === null ? choice.name : withoutClass(choice.name, choice.class) }));
  }

  /** On a narrow screen the classes lie below the gallery. */
  #drawDock(cell, targets) {
    if (this.#dock.offsetParent === null && this.#dock.childElementCount) this.#dock.replaceChildren();
    if (getComputedStyle(this.#dock).display === "none") return;
    const { slide } = this;
    const buttons = slide.choices.map((choice) => {
      const button = this.#button(choice);
      button.disabled = slide.isSigned || !targets.length;
      return button;
    });
    const title = targets.length > 1 ? `${targets.length} cells` : cell ? `${cell.cell_id} ${slide.named(cell)}` : "No cell";
    const at = this.#dock.querySelector(".classes")?.scrollLeft ?? 0;
    this.#dock.replaceChildren(
      el("div", { class: "dock-head" }, el("b", { text: title }),
        el("button", { type: "button", class: "quiet", disabled: slide.isSigned || cell === null, on: { click: () => this.gallery.toggle() }, text: this.gallery.selected.has(this.gallery.cursor) ? "Unselect" : "Select" }),
        el("button", { type: "button", class: "main", disabled: slide.isSigned || !targets.length, on: { click: () => this.dispatchEvent(new Event("confirm")) }, text: "Confirm" })),
      el("div", { class: "classes", role: "group", "aria-label": "Classes" }, buttons));
    this.#dock.querySelector(".classes").scrollLeft = at;
  }

  #drawLikes(cell) {
    if (this.#box.offsetParent === null) return;
    const found = alike(this.slide.cells.values(), cell, ALIKE);
    this.likes.replaceChildren(...found.map((one) => {
      const image = el("img", { alt: "", draggable: "false" });
      show(image, one);
      const name = this.slide.named(one);
      return el("button", { type: "button", class: "like", colour: this.slide.colour(name), "aria-pressed": one.cell_id === this.#beside, title: `Cell ${one.cell_id}: ${name}. Again: go there`, "aria-label": `Cell ${one.cell_id}, ${name}: side by side`,
        on: { click: () => {
          if (this.#beside === one.cell_id) this.#go(one.cell_id);
          else {
            this.#beside = one.cell_id;
            this.#draw();
          }
        } } }, image, el("span", { class: "small", text: name }));
    }), found.length ? "" : el("p", { class: "soft small", text: "None: no model looked at this cell." }));
  }
}

/** Who says so. */
function standing(slide, cell) {
  const models = `the models say ${cell.top_class}${cell.looks ? `, ${percent(slide.sureness(cell))}` : ""}`;
  const parts = [];
  if (cell.own) parts.push("named by you, blind");
  else if (cell.word?.kind === "confirmed") parts.push(`confirmed by ${cell.word.by ?? "a person"}`);
  else if (cell.word?.kind === "added") parts.push(`added by ${cell.word.by ?? "a person"}`);
  else if (cell.word) parts.push(`given by ${cell.word.by ?? "a person"}`);
  else parts.push("not confirmed by a person");
  if (!cell.added) parts.push(models);
  if (cell.class === "unclassified" && cell.unclassified_reason) parts.push(cell.unclassified_reason);
  if (cell.partial) parts.push("cut by an edge of the frame, in no percentage");
  else if (!cell.counted) parts.push("in no percentage");
  if (slide.isFlagged(cell)) parts.push("⚑ flagged");
  return `${capital(parts.join("; "))}.`;
}
