"""Kinds of leukocyte as classes of a detector: class lists, and their fields."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from engines.zoo.guessed import guess_kind
from tools import data as datasets
from tools.data import sets
from tools.data.fields import Field, read_picture
from tools.data.get import OI_PBC_NAMES

PBC = OI_PBC_NAMES
"""The twelve classes of PBC's boxes, in their order."""

ZHOU = ("BAS", "EBO", "EOS", "KSC", "LYA", "LYT", "MMZ", "MOB", "MON", "MYB", "MYO", "NGB", "NGS", "PMB", "PMO")
"""The fifteen kinds of Zhou 2023: basophil, erythroblast, eosinophil, smudge cell, atypical and typical lymphocyte,
metamyelocyte, monoblast, monocyte, myelocyte, myeloblast, band and segmented neutrophil, promyelocyte (bilobed),
promyelocyte."""

CLASS_LISTS: Mapping[str, tuple[str, ...]] = {"pbc": PBC, "zhou": ZHOU}
KINDS = {"EBO": "nucleated red", "KSC": "other"}


def class_list(text: str) -> tuple[str, ...]:
    """A list by name ("pbc", "zhou"), the lines of a file, or names between commas. ValueError for names twice."""
    if text in CLASS_LISTS:
        return CLASS_LISTS[text]
    path = Path(text)
    names = path.read_text().splitlines() if path.is_file() else text.split(",")
    names = [name.strip() for name in names if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"--classes: got {names}, expected different names, or one of {', '.join(CLASS_LISTS)}")
    return tuple(names)


def kind_of(name: str) -> str:
    """The card's kind of a class: "white", "red", "platelet", "nucleated red" or "other" (smudge cells)."""
    return KINDS.get(name) or guess_kind(name)


def red_label(names: Sequence[str]) -> int:
    """The label of the red cells; -1 where the list has none."""
    return next((label for label, name in enumerate(names) if kind_of(name) == "red"), -1)


def class_weights(names: Sequence[str], many: float = 0.1) -> tuple[float, ...]:
    """What an object of a class weighs in the loss of classes: red cells and platelets, some seventeen of every
    eighteen boxes and easily known, weigh `many`."""
    return tuple(many if kind_of(name) in ("red", "platelet") else 1.0 for name in names)


def own_labels(root: Path) -> dict[str, str]:
    """Key of each PBC picture -> the label that the box of its own cell should have; only where that is known."""
    with open(root / "pbc" / "labels.csv", newline="") as file:
        return {f"pbc/images/{row['file']}": row["subclass"] for row in csv.DictReader(file) if row["subclass"] in PBC}


def has_own_box(field: datasets.Field, own: str | None) -> bool:
    """False where the picture's own cell has no box, or one of another class than the file's, or is not known."""
    return own is not None and any(box.label == own for box in field.boxes)


def label_of(name: str, names: Sequence[str]) -> int:
    """The label of a class of PBC's boxes, or of the class that it is a subclass of; -1 where the list has neither."""
    own = name if name in names else datasets.SUBCLASSES.get(name, name)
    return names.index(own) if own in names else -1


def as_field(item: datasets.Field, names: Sequence[str]) -> Field:
    """A record as a field of these classes; cells with a nucleus of other classes are places to ignore, red cells and
    platelets that are none of the classes are background."""
    blood = sets.as_field(item)
    labels = np.array([label_of(box.label, names) for box in item.boxes], np.int64)
    wanted = labels >= 0
    unclear = np.array([kind_of(box.label) not in ("red", "platelet") for box in item.boxes], bool) & ~wanted
    return replace(
        blood,
        boxes_px=blood.boxes_px[wanted],
        classes=labels[wanted],
        complete=np.ones(len(names), bool),
        ignore_px=blood.boxes_px[unclear],
    )


def pbc_fields(part: str, names: Sequence[str], *, all_pictures: bool = False) -> dict[str, list[Field]]:
    """PBC's fields of one part of the leak-free split, by the class of the picture's own cell, one of `names`.

    Pictures without the box of their own cell (about 2 %) teach that cells are background, or, with another class
    in its box, that they are another: they are left out, but with `all_pictures`.
    """
    parts = datasets.load_splits()
    own = own_labels(datasets.data_root())
    found: dict[str, list[Field]] = defaultdict(list)
    for item in datasets.read_fields(sets=("pbc",)):
        label = own.get(item.key)
        if not label or label_of(label, names) < 0 or parts.get(item.key) != part:
            continue
        if all_pictures or has_own_box(item, label):
            found[label].append(as_field(item, names))
    return dict(sorted(found.items()))


def coco_fields(annotations: Path, images: Path, names: Sequence[str], rbc_diameter_px: float) -> list[Field]:
    """Fields of a COCO file with pictures in `images`; its categories are named as in `names`, others are ignored.

    Raises ValueError where no category is one of `names`.
    """
    coco = json.loads(annotations.read_text())
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    if not set(labels.values()) & set(names):
        raise ValueError(f"{annotations}: got categories {sorted(labels.values())}, expected some of {list(names)}")
    boxes: dict[int, list[tuple[list[float], str]]] = defaultdict(list)
    for note in coco["annotations"]:
        x, y, w, h = note["bbox"]
        boxes[note["image_id"]].append(([x, y, x + w, y + h], labels[note["category_id"]]))
    fields = []
    for image in sorted(coco["images"], key=lambda entry: entry["file_name"]):
        labelled = boxes[image["id"]]
        all_px = np.array([box for box, _ in labelled], np.float32).reshape(-1, 4)
        wanted = np.array([label in names for _, label in labelled], bool)
        fields.append(
            Field(
                name=image["file_name"],
                source="coco",
                load=partial(read_picture, images / image["file_name"]),
                boxes_px=all_px[wanted],
                classes=np.array([names.index(label) for _, label in labelled if label in names], np.int64),
                complete=np.ones(len(names), bool),
                rbc_diameter_px=rbc_diameter_px,
                ignore_px=all_px[~wanted],
            )
        )
    return fields


def by_main_class(fields: Sequence[Field], names: Sequence[str]) -> dict[str, list[Field]]:
    """Fields by the class of their largest labelled cell; fields without one under "none"."""
    found: dict[str, list[Field]] = defaultdict(list)
    for item in fields:
        if len(item.boxes_px):
            sides = item.boxes_px[:, 2:] - item.boxes_px[:, :2]
            found[names[int(item.classes[int(sides.prod(1).argmax())])]].append(item)
        else:
            found["none"].append(item)
    return dict(sorted(found.items()))


def shares(fields: Mapping[str, Sequence[Field]]) -> dict[str, float]:
    """Share of the tiles of each class's pictures: by the square root of their number, half as much for platelets."""
    return {
        name: float(np.sqrt(len(members))) * (0.5 if kind_of(name) == "platelet" else 1.0)
        for name, members in fields.items()
    }
