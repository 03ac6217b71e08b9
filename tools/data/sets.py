"""The public sets as fields of the blood detector: which pictures train and validate it, and what each teaches.

* txl_pbc: everything labelled.
* bccd, bcd: trained on only the pictures that txl_pbc does not show with its better boxes; BCCD is complete for white
  cells alone, bcd lacks platelets.
* pbc: everything labelled; pictures without the box of their own cell are dropped (about 2 %).
* simulated: fields of the simulated slide, all true boxes known, so that the demo is read as well as real frames are.
* chula_wbc: only some white cells are labelled, so nothing else in a frame is background, until a detector has
  labelled the rest (`tools.train label-fields`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from streamer.sources import simulated
from tools import data as datasets
from tools.data.fields import CLASS_NAMES, PLATELET, RBC, WBC, Field, read_picture, typical_rbc_diameter
from tools.data.splits import build_groups

USUAL_RBC_DIAMETER_PX = {"txl_pbc": 75.0, "pbc": 43.0, "bccd": 100.0, "bcd": 48.0, "chula_wbc": 70.0}
"""Of a set's pictures in which too few red cells are labelled to measure it; for chula_wbc by eye on frames of
six slides."""

SIMULATED_FIELDS = 300

VALIDATION_LONG_SIDE_PX = {"txl_pbc": 416, "chula_wbc": 640}


def as_field(item: datasets.Field) -> Field:
    """A record of the data sets as a field of the three blood classes."""
    boxes = np.array([b.box_px for b in item.boxes], np.float32).reshape(-1, 4)
    classes = np.array([CLASS_NAMES.index(datasets.blood_label(b.label)) for b in item.boxes], np.int64)
    return Field(
        name=item.key,
        source=item.dataset,
        load=partial(read_picture, item.path),
        boxes_px=boxes,
        classes=classes,
        complete=np.array([name in item.complete for name in CLASS_NAMES]),
        rbc_diameter_px=typical_rbc_diameter(
            boxes, classes, item.width_px, item.height_px, USUAL_RBC_DIAMETER_PX[item.dataset]
        ),
    )


def usable(item: Field) -> bool:
    """False where the picture's own cell has no box."""
    if item.source == "pbc" and "/platelet/" not in item.name:
        return bool((item.classes == WBC).any())
    return len(item.boxes_px) > 0


def fields_of(name: str, part: str) -> list[Field]:
    """The usable fields of a set in one part of the leak-free split ("train", "validation", "holdout").

    Pictures of bccd and bcd that txl_pbc shows too are left out of the training part, where txl_pbc's boxes teach
    them; in the other parts each set is measured by its own boxes. All of wbc_masks is "holdout": two laboratories
    that no detector here was trained on.
    """
    if name == "wbc_masks":
        return masked_cells() if part == datasets.HOLDOUT else []
    parts = datasets.load_splits()
    found = [as_field(f) for f in datasets.read_fields(sets=(name,)) if parts.get(f.key) == part]
    if name in ("bccd", "bcd") and part == datasets.TRAIN:
        twins = {
            key
            for members in build_groups().values()
            if any(member.startswith("txl_pbc/") for member in members)
            for key in members
        }
        found = [item for item in found if item.name not in twins]
    return [item for item in found if usable(item)]


def masked_cells() -> list[Field]:
    """The pictures of wbc_masks, the white cell in the middle their only label."""
    nothing = np.zeros(len(CLASS_NAMES), bool)
    return [
        Field(
            name=cell.key,
            source=cell.dataset,
            load=partial(read_picture, cell.path),
            boxes_px=np.array([cell.box_px], np.float32),
            classes=np.array([WBC]),
            complete=nothing,
            rbc_diameter_px=float("nan"),
        )
        for cell in datasets.read_cells()
        if cell.dataset == "wbc_masks"
    ]


def with_labels(item: Field, labels: dict[str, list[list[float]]]) -> Field:
    """A partly labelled field completed by the boxes and the unclear places that a detector gave it."""
    added = np.array(labels["boxes_px"], np.float32).reshape(-1, 4)
    return Field(
        name=item.name,
        source=item.source,
        load=item.load,
        boxes_px=np.concatenate((item.boxes_px, added)),
        classes=np.concatenate((item.classes, np.array(labels["classes"], np.int64))),
        complete=np.ones_like(item.complete),
        rbc_diameter_px=item.rbc_diameter_px,
        ignore_px=np.array(labels["ignore_px"], np.float32).reshape(-1, 4),
    )


def simulated_fields(count: int, seed: int) -> list[Field]:
    """Fields 640x480 of `count` simulated slides, each with another stain, lamp, focus and scale."""
    kinds = {"white": WBC, "nucleated red": WBC, "red": RBC, "platelet": PLATELET}
    made = []
    drawn = simulated.training_fields(seed, count, 640, 480, red_px=(30.0, 90.0))
    for number, (image, boxes, names, _) in enumerate(drawn):
        classes = np.array([kinds[name] for name in names], np.int64)
        made.append(
            Field(
                name=f"simulated/{seed}/{number}",
                source="simulated",
                load=partial(np.asarray, image),
                boxes_px=boxes,
                classes=classes,
                complete=np.ones(len(CLASS_NAMES), bool),
                rbc_diameter_px=typical_rbc_diameter(boxes, classes, 640, 480, fallback=50.0),
            )
        )
    return made


def training_fields(names: Iterable[str], limit: int, seed: int, labels_file: Path | None) -> dict[str, list[Field]]:
    """Training fields by set, at most `limit` of each, drawn by `seed`; completed from `labels_file` where it has
    them."""
    labels = json.loads(labels_file.read_text()) if labels_file else {}
    chosen: dict[str, list[Field]] = {}
    for name in sorted(names):
        if name == "simulated":
            chosen[name] = simulated_fields(min(limit, SIMULATED_FIELDS), seed)
            continue
        members = fields_of(name, datasets.TRAIN)
        if len(members) > limit:
            order = np.random.default_rng(seed).permutation(len(members))[:limit]
            members = [members[i] for i in sorted(order)]
        extra = labels.get(name, {})
        chosen[name] = [with_labels(m, extra[m.name]) if m.name in extra else m for m in members]
    return chosen


def validation_fields(limit: int = 120) -> dict[str, tuple[list[Field], int]]:
    """What training looks at between epochs: (fields, long side in px) of the whole fields and of the camera
    frames."""
    return {
        name: (fields_of(name, datasets.VALIDATION)[:limit], long_side_px)
        for name, long_side_px in VALIDATION_LONG_SIDE_PX.items()
    }
