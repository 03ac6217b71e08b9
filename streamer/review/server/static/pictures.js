// The pictures of cells: those asked for last come first, as these are what is on the screen.

import { blob } from "./api.js";

const AT_ONCE = 5;
const KEPT = 1500;

const kept = new Map(); // cell -> address of its picture; null: there is none
const waiting = new Map(); // cell -> functions that want it
let running = 0;

export function forget(cell) {
  const old = kept.get(cell);
  if (old) URL.revokeObjectURL(old);
  kept.delete(cell);
}

export function forgetAll() {
  for (const cell of [...kept.keys()]) forget(cell);
  waiting.clear();
}

/** Show the picture of a cell in `image` (an <img>), once it is there, unless it shows another one by then. */
export function show(image, cell) {
  const id = String(cell.cell_id);
  if (image.dataset.cell === id && image.dataset.has === String(cell.has_picture)) return;
  image.dataset.cell = id;
  image.dataset.has = String(cell.has_picture);
  const put = (address) => {
    if (image.dataset.cell !== id) return;
    image.classList.toggle("none", !address);
    if (address) image.src = address;
    else image.removeAttribute("src");
  };
  if (!cell.has_picture) put(null);
  else if (kept.has(cell.cell_id)) put(touched(cell.cell_id));
  else {
    image.removeAttribute("src");
    const others = waiting.get(cell.cell_id) ?? [];
    waiting.delete(cell.cell_id); // to the end: the newest is fetched first
    waiting.set(cell.cell_id, [...others.filter((one) => one.image !== image), { image, put }]);
    fetchNext();
  }
}

function touched(cell) {
  const address = kept.get(cell);
  kept.delete(cell);
  kept.set(cell, address);
  return address;
}

function fetchNext() {
  while (running < AT_ONCE && waiting.size) {
    const [cell, wanting] = [...waiting].at(-1);
    waiting.delete(cell);
    const still = wanting.filter((one) => one.image.dataset.cell === String(cell));
    if (!still.length) continue;
    running += 1;
    fetchOne(cell, still);
  }
}

async function fetchOne(cell, wanting) {
  let address = null;
  try {
    address = URL.createObjectURL(await blob(`cells/${cell}/picture`));
  } catch { /* shown as having none */ }
  running -= 1;
  kept.set(cell, address);
  if (kept.size > KEPT) forget(kept.keys().next().value);
  for (const one of wanting) one.put(address);
  fetchNext();
}
