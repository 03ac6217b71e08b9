"""Figures of cards and result files, put into one form: which data, how many, how well, how sure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.zoo.card import Card

CAMERA = "chula_wbc"
LEFT_OUT = "_left_out_"
"""In the name of a table: measured with earlier weights, which the set had not trained."""
SETS = ("pbc", "txl_pbc", CAMERA, "bccd_crops", "bccd", "wbc_masks", "all_idb2", "bcd")
"""The data sets, a name that begins with another one's before it."""
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
    "wbc_recall": "recall of white cells",
    "recall": "recall of white cells",
    "ap50": "AP@0.5 of white cells",
    "group_accuracy": "group right, of those found",
}
"""Keys of cards that sum a system up, in the order in which the table shows them."""
COUNTS = ("cells", "pictures", "frames")
PARTS = ("validation", "holdout", "test")
OF_ALL = ("mean_iou", "weighted_iou")
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
    figures: Mapping[str, Mapping[str, Any]]


def result_files(folder: Path) -> list[ResultFile]:
    """By name of file; ValueError for one that is something else."""
    found = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        try:
            found.append(
                ResultFile(document["model"], document["sha256"], tuple(document["classes"]), document["figures"])
            )
        except KeyError as error:
            raise ValueError(f"{path}: got no {error}, expected what tools.evaluate --json writes") from error
    return found


def set_of(title: str) -> str | None:
    """The data set that a table of figures is of, by its name; None for others."""
    starts = [name for name in SETS if title == name or title.startswith(f"{name}_")]
    return max(starts, key=len) if starts else None


def figures_of(card: Card, tables: Mapping[str, Mapping[str, Any]], classes: int) -> Iterator[Figure]:
    """The figures of a card or a result file, those alone that sum the system up."""
    for title, table in tables.items():
        data_set = set_of(title)
        values = {key: float(table[key]) for key in MEASURES if isinstance(table.get(key), float)}
        if data_set is None or not values:
            continue
        part = next((part for part in PARTS if part in title.split("_")), "")
        words = " ".join(word for word in title.split("_") if word != part)
        counted = next((key for key in COUNTS if key in table), "")
        limits = {
            key: (float(table[f"{key}_low"]), float(table[f"{key}_high"]))
            for key in values
            if f"{key}_low" in table and f"{key}_high" in table
        }
        yield Figure(
            data_set=words.replace("txl pbc", "txl_pbc")
            .replace("chula wbc", "chula_wbc")
            .replace("wbc masks", "wbc_masks")
            .replace(" left out", ", before it trained"),
            place=place_of(title, data_set, card),
            part=part,
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


def place_of(title: str, data_set: str, card: Card) -> str:
    """Where a set stands to a model: a camera's, a laboratory that it was trained on ("wbc_masks/jtsc" is one of a
    set's), or another one. title: of the table of figures, "wbc_masks_jtsc_whole_validation"."""
    if data_set == CAMERA:
        return "camera"
    if LEFT_OUT in title:
        return "other laboratory"
    trained = {str(name).replace("/", "_") for name in card.training.get("data", ())}
    laboratories = {f"{data_set}_{word}" for word in title.split("_")}
    same = {data_set, data_set.removesuffix("_crops")} | laboratories
    return "home" if same & trained else "other laboratory"


def by_class(table: Mapping[str, Any]) -> dict[str, dict[str, list[float | None]]]:
    """Class -> measure -> [value, low, high], of keys such as `monocyte_recall`."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for key, value in table.items():
        name, _, measure = key.rpartition("_")
        if measure in OF_WHAT and name and isinstance(value, float) and key not in OF_ALL:
            low, high = table.get(f"{key}_low"), table.get(f"{key}_high")
            found.setdefault(name.replace("_", " "), {})[measure] = [value, low, high]
    return found
