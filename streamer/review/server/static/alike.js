// Cells that look alike, as the models see them.

export const MEASURE = "nearest by class probabilities (Hellinger distance) and, half as heavy, by the share of attributes that differ";

/** The `most` cells nearest to one, nearest first. */
export function alike(cells, cell, most) {
  if (!cell.looks) return [];
  const found = [];
  for (const other of cells) {
    if (other.cell_id !== cell.cell_id && other.looks && other.has_picture) found.push([distance(cell, other), other]);
  }
  return found.sort((one, other) => one[0] - other[0] || one[1].cell_id - other[1].cell_id).slice(0, most).map(([, other]) => other);
}

function distance(cell, other) {
  let overlap = 0;
  for (const name in cell.class_probabilities) overlap += Math.sqrt(cell.class_probabilities[name] * (other.class_probabilities[name] ?? 0));
  let compared = 0;
  let differing = 0;
  if (cell.attributes && other.attributes) {
    for (const name in cell.attributes) {
      if (!other.attributes[name]) continue;
      compared += 1;
      differing += cell.attributes[name].value !== other.attributes[name].value;
    }
  }
  return Math.sqrt(Math.max(0, 1 - overlap)) + (compared ? 0.5 * differing / compared : 0.25);
}
