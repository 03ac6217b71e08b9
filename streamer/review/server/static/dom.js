// Elements without markup: whatever a journal or a person wrote becomes text, never HTML.

/** An element. `given`: `on` {event: function}, `colour` (the class colour that its CSS uses), `text`, else attributes;
 * null, undefined and false leave one out. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
    else if (name === "colour") made.style.setProperty("--colour", value);
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

export const dot = (colour) => el("span", { class: "dot", colour, "aria-hidden": "true" });

export const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

/** "band" of the neutrophils. */
export const withoutClass = (subclass, name) => (subclass.endsWith(` ${name}`) ? subclass.slice(0, -name.length - 1) : subclass);

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A probability, never rounded up to certainty. */
export const percent = (share) => `${share < 1 ? Math.min(99, Math.floor(100 * share + 0.5)) : 100} %`;

/** "30 Nov, 10:24" of an ISO time. */
export function moment(iso) {
  if (!iso) return "";
  const at = new Date(iso);
  return at.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}
