// Keys. They work wherever nothing is being typed; letters can be switched off (WCAG 2.1.4).

export const MOVES = {
  ArrowLeft: "previous", ArrowRight: "next", ArrowUp: "up", ArrowDown: "down",
  Home: "first", End: "last", PageUp: "pageUp", PageDown: "pageDown",
};

const OFF = "leukostream-letters-off";
export const lettersAreOff = () => localStorage.getItem(OFF) === "yes";
export const switchLetters = (off) => localStorage.setItem(OFF, off ? "yes" : "no");

/** What all keys do, for the help: [keys, meaning]. */
export const HELP = [
  ["← → ↑ ↓", "move"], ["Shift + ← → ↑ ↓", "select several"], ["Space", "select this cell, or not"], ["Ctrl + A", "select all of this class"],
  ["Esc", "select none"], ["Enter", "confirm: the class is right"], ["Shift + Enter", "confirm all of this class"],
  ["u, Ctrl + Z", "undo"], [".", "next flagged or unsure cell"], ["[ ]", "class before, class after"],
  ["Home End Page ↑ Page ↓", "far"], ["c", "comment"], ["f", "field: arrows move it, + − zoom, Enter at the cross picks or adds a cell"], ["Esc", "from a field or a text back to the cells"],
  ["Ctrl + S", "sign"], ["?", "this help"],
];

/** `does`: functions by name; `slide.choices` say the letters. */
export function bind(slide, gallery, does) {
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const typing = target.closest("input, textarea, select, [contenteditable]");
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && typing) {
      does.gallery();
      return;
    }
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "s") return done(event, does.sign);
    if (typing || event.altKey) return;
    if (command) {
      if (event.key.toLowerCase() === "z" && !event.shiftKey) done(event, does.undo);
      else if (event.key.toLowerCase() === "a" && !event.shiftKey) done(event, () => gallery.selectGroup());
      return;
    }
    const onButton = target.closest("button, a, summary, canvas");
    if (event.key in MOVES && !onButton) return done(event, () => gallery.move(MOVES[event.key], { extend: event.shiftKey }));
    if (event.key === "Enter" && !onButton) return done(event, event.shiftKey ? does.confirmGroup : does.confirm);
    if (event.key === " " && !onButton) return done(event, () => gallery.toggle());
    if (event.key === "Escape") return done(event, does.escape);
    if (event.key === "?") return done(event, does.help);
    if (lettersAreOff()) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const own = { u: does.undo, c: does.comment, f: does.field, ".": () => gallery.move("look"), "[": () => gallery.move("previousGroup"), "]": () => gallery.move("nextGroup") };
    if (own[key]) return done(event, own[key]);
    const choice = slide.choices?.find((one) => one.key === key);
    if (choice) done(event, () => does.choose(choice));
  });
}

function done(event, does) {
  event.preventDefault();
  does();
}
