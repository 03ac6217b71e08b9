"""The errors of a detector one by one, worst first, as a list and as sheets of pictures to look at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engines.geometry import iou_matrix
from tools.data.fields import CLASS_NAMES, Field
from tools.metrics.predict import Found

COLOURS_BGR = ((0, 200, 0), (40, 40, 230), (230, 80, 20))
TILE_PX = 220


@dataclass(frozen=True)
class Mistake:
    """A detection without a label of its class ("false"; `score` is its own) or a label without a detection ("missed";
    `score` is 1 minus the best score of its class there).

    `label` is the class of the box in question, `instead` that of the label or detection that overlaps it most, None
    where nothing does.
    """

    field: Field
    found: Found
    kind: str
    label: int
    box_px: np.ndarray
    score: float
    instead: str | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "picture": self.field.name,
            "kind": self.kind,
            "class": CLASS_NAMES[self.label],
            "box_px": [round(float(v), 1) for v in self.box_px],
            "score": round(self.score, 3),
            "instead": self.instead,
        }


def mistakes(results: Iterable[tuple[Field, Found]], threshold: float, classes: Sequence[int]) -> list[Mistake]:
    """All mistakes in these classes at a threshold, surest first; IoU .5 makes a detection right."""
    found_all = []
    for item, found in results:
        sure = found.scores >= threshold
        any_label = iou_matrix(found.boxes_px, item.boxes_px)
        for label in classes:
            detected, truth = np.flatnonzero(found.classes == label), np.flatnonzero(item.classes == label)
            overlap = iou_matrix(found.boxes_px[detected], item.boxes_px[truth])
            taken = np.zeros(len(truth), bool)
            for row, index in enumerate(detected):
                if not sure[index]:
                    break
                candidates = np.where(taken, -1, overlap[row])
                if len(truth) and candidates.max() >= 0.5:
                    taken[int(candidates.argmax())] = True
                    continue
                best = int(any_label[index].argmax()) if len(item.boxes_px) else -1
                instead = CLASS_NAMES[item.classes[best]] if best >= 0 and any_label[index, best] > 0.3 else None
                found_all.append(
                    Mistake(item, found, "false", label, found.boxes_px[index], float(found.scores[index]), instead)
                )
            for column in np.flatnonzero(~taken):
                near = overlap[:, column] >= 0.5
                best_score = float(found.scores[detected][near].max(initial=0.0))
                others = any_label[:, truth[column]] * sure
                best = int(others.argmax()) if len(others) else -1
                instead = CLASS_NAMES[found.classes[best]] if best >= 0 and others[best] > 0.3 else None
                box = item.boxes_px[truth[column]]
                found_all.append(Mistake(item, found, "missed", label, box, 1 - best_score, instead))
    return sorted(found_all, key=lambda mistake: -mistake.score)


def sheet(members: Sequence[Mistake], threshold: float, columns: int = 5) -> np.ndarray:
    """uint8 (h,w,3) BGR: each mistake in the middle of its surroundings; labels thin and white, detections coloured
    by class (white cell green, red cell red, platelet blue), the box in question thick and yellow."""
    rows = math.ceil(len(members) / columns)
    out = np.full((rows * (TILE_PX + 16), columns * TILE_PX, 3), 30, np.uint8)
    for number, mistake in enumerate(members):
        y, x = number // columns * (TILE_PX + 16), number % columns * TILE_PX
        out[y : y + TILE_PX, x : x + TILE_PX] = _tile(mistake, threshold)
        text = f"{number + 1} {mistake.kind} {CLASS_NAMES[mistake.label]} {mistake.score:.2f}"
        cv2.putText(out, text, (x + 3, y + TILE_PX + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return out


def _tile(mistake: Mistake, threshold: float) -> np.ndarray:
    picture = mistake.field.load()
    x1, y1, x2, y2 = mistake.box_px.astype(float)
    side = max(2.2 * max(x2 - x1, y2 - y1), 2.5 * mistake.field.rbc_diameter_px, 60.0)
    scale = TILE_PX / side
    left, top = (x1 + x2) / 2 - side / 2, (y1 + y2) / 2 - side / 2
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    tile = cv2.warpAffine(picture, move, (TILE_PX, TILE_PX), flags=cv2.INTER_AREA, borderValue=(60, 60, 60))

    def outline(box: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
        a, b = ((box[:2] - (left, top)) * scale).round(), ((box[2:] - (left, top)) * scale).round()
        cv2.rectangle(tile, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), colour, width)

    for box in mistake.field.boxes_px:
        outline(box, (255, 255, 255), 1)
    for box, value, label in zip(mistake.found.boxes_px, mistake.found.scores, mistake.found.classes, strict=True):
        if value >= threshold:
            outline(box, COLOURS_BGR[label % len(COLOURS_BGR)], 1)
    outline(mistake.box_px, (0, 230, 255), 2)
    return np.asarray(tile)
