"""Confusion matrices of a classifier and contact sheets of its worst mistakes, by data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engines.models.loading import load_classifier
from tools.data import VALIDATION, CellPicture
from tools.data.crops import class_crop
from tools.evaluate.published import FIVE_TYPES, among, by_set, probabilities_of
from tools.metrics import classification as measures

MISTAKES = 20
_SIDE_PX = 160
_COLUMNS = 5
_CAPTION_PX = 34


def write(name: str, folder: Path, limit: int | None = None) -> list[Path]:
    """NAME-SET-confusion.png and NAME-SET-mistakes.png for every set of the validation part, on those of the five types
    that the classifier names (on all its classes where it names fewer than three of them); their paths."""
    classifier = load_classifier(name, backend="onnxruntime")
    types = tuple(t for t in FIVE_TYPES if t in classifier.class_names)
    names = types if len(types) > 2 else classifier.class_names
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for title, cells in by_set(VALIDATION, names, classifier.card.training.get("data", ()), limit).items():
        found = among(probabilities_of(classifier, cells), classifier.class_names, names)
        truth = np.array([names.index(cell.cell_class) for cell in cells])
        stem = f"{name}-{title.replace('/', '-')}"
        matrix = folder / f"{stem}-confusion.png"
        draw_confusion(measures.confusion(truth, found.argmax(1), len(names)), names, f"{name}, {title}", matrix)
        written.append(matrix)
        order = worst(found, truth)
        if len(order):
            sheet = folder / f"{stem}-mistakes.png"
            cv2.imwrite(str(sheet), contact_sheet([cells[i] for i in order], found[order], names))
            written.append(sheet)
    classifier.close()
    return written


def worst(probabilities: np.ndarray, truth: np.ndarray, count: int = MISTAKES) -> np.ndarray:
    """int64: the cells that were named wrongly, the surest mistake first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != truth)
    return np.asarray(wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:count])


def draw_confusion(table: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix as a PNG; rows are true classes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 5))
    axes.imshow(table / np.maximum(1, table.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(table):
        if n:
            axes.text(j, i, str(n), ha="center", va="center", color="white" if 2 * n > table[i].sum() else "black")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="named", ylabel="true", title=title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def contact_sheet(cells: Sequence[CellPicture], probabilities: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """uint8 (h, w, 3): every cell with what it is and what it was named."""
    rows = -(-len(cells) // _COLUMNS)
    sheet = np.full((rows * (_SIDE_PX + _CAPTION_PX), _COLUMNS * _SIDE_PX, 3), 255, np.uint8)
    for number, (cell, found) in enumerate(zip(cells, probabilities, strict=True)):
        y, x = (number // _COLUMNS) * (_SIDE_PX + _CAPTION_PX), (number % _COLUMNS) * _SIDE_PX
        sheet[y : y + _SIDE_PX, x : x + _SIDE_PX] = class_crop(cell, _SIDE_PX, 1.6)
        for line, text in enumerate((f"is {cell.cell_class}", f"named {names[found.argmax()]} {found.max():.2f}")):
            at = (x + 3, y + _SIDE_PX + 13 + 15 * line)
            cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.37, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet
