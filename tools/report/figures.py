"""Figures of cards and result files, put into one form: which data, how many, how well, how sure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.zoo.card import Card
from engines.zoo.figures import Figures, MeasuredOn, read_figures
from engines.zoo.table import Table
from tools.export.figures import LEFT_OUT

CAMERA = "chula_wbc"
MEASURES: Mapping[str, str] = {
    "map50": "mAP@0.5",
    "map50_95": "mAP@[.5:.95]",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "classified": "named",
    "accuracy_classified": "accuracy of these",
    "mean_iou": "mean IoU",
    "nucleus_iou": "IoU of the nucleus",
    "cytoplasm_iou": "IoU of the cytoplasm",
    "cell_iou": "IoU of the whole cell",
    "wbc_recall": "recall of white cells",
    "recall": "recall of white cells",
    "ap50": "AP@0.5 of white cells",
    "group_accuracy": "group right, of those found",
}
"""Keys of cards that sum a system up, in the order in which the table shows them."""
COUNTS = ("cells", "pictures", "frames")
OF_ALL = ("mean_iou", "weighted_iou", "cell_iou")
OF_WHAT = ("recall", "precision", "ap50", "iou")
"""What a key that ends so is of: a class."""


@dataclass(frozen=True)
class Figure:
    """One data set of one system. place: "home" (a laboratory it was trained on), "camera", "other laboratory"; count:
    cells or pictures; values and limits by measure; classes: class -> measure -> [value, low, high]."""

    data_set: str
    place: str
    part: str
    classes_measured: int
    count: int | None
    counted: str
    values: Mapping[str, float]
    limits: Mapping[str, tuple[float, float]]
    calibration_error: float | None
    calibration_error_untempered: float | None
    classes: Mapping[str, Mapping[str, Sequence[float | None]]]
    command: str

    def as_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ResultFile:
    """Figures of a model that its card does not hold: docs/results/*.json, as tools.evaluate writes them."""

    model: str
    sha256: str
    classes: tuple[str, ...]
    figures: Mapping[MeasuredOn, Figures]


def result_files(folder: Path) -> list[ResultFile]:
    """By name of file; ValueError for one that is something else."""
    found = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        try:
            classes = tuple(document["classes"])
            values = read_figures(Table(document, path.name))
            found.append(ResultFile(document["model"], document["sha256"], classes, values))
        except KeyError as error:
            raise ValueError(f"{path}: got no {error}, expected what tools.evaluate --json writes") from error
    return found


def figures_of(card: Card, tables: Mapping[MeasuredOn, Figures], classes: int) -> Iterator[Figure]:
    """The figures of a card or a result file, those alone that sum the system up."""
    for measured_on, table in tables.items():
        values = {key: float(table[key]) for key in MEASURES if isinstance(table.get(key), float)}
        if not values:
            continue
        counted = next((key for key in COUNTS if key in table), "")
        limits = {
            key: (float(table[f"{key}_low"]), float(table[f"{key}_high"]))
            for key in values
            if f"{key}_low" in table and f"{key}_high" in table
        }
        yield Figure(
            data_set=data_set_of(measured_on),
            place=place_of(measured_on, card),
            part=measured_on.part,
            classes_measured=classes,
            count=int(table[counted]) if counted else None,
            counted=counted,
            values=values,
            limits=limits,
            calibration_error=table.get("calibration_error"),
            calibration_error_untempered=table.get("calibration_error_untempered"),
            classes=by_class(table),
            command=str(table["command"]),
        )


def data_set_of(measured_on: MeasuredOn) -> str:
    """The set and the view of it, for people."""
    dataset, view, _ = measured_on
    return f"{dataset}, before it trained" if view == LEFT_OUT else f"{dataset} {view}".strip()


def place_of(measured_on: MeasuredOn, card: Card) -> str:
    """Where a set stands to a model: a camera's, a laboratory that it was trained on ("wbc_masks/jtsc" is one of a
    set's), or another one."""
    dataset, view, _ = measured_on
    if dataset == CAMERA:
        return "camera"
    same = {dataset, dataset.removesuffix("_crops"), dataset.partition("/")[0]}
    home = view != LEFT_OUT and same & set(card.training.get("data", ()))
    return "home" if home else "other laboratory"


def by_class(table: Mapping[str, Any]) -> dict[str, dict[str, list[float | None]]]:
    """Class -> measure -> [value, low, high], of keys such as `monocyte_recall`."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for key, value in table.items():
        name, _, measure = key.rpartition("_")
        if measure in OF_WHAT and name and isinstance(value, float) and key not in OF_ALL:
            low, high = table.get(f"{key}_low"), table.get(f"{key}_high")
            found.setdefault(name.replace("_", " "), {})[measure] = [value, low, high]
    return found
