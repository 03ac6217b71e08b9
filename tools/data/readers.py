"""One reader a data set: pictures with boxes (`Field`) and single cells with their type (`CellPicture`).

Keys are POSIX paths relative to the data root ("bccd/images/BloodImage_00001.jpg"); boxes are x1, y1, x2, y2
in px of the picture. Nothing here decodes a picture but `_size_px`, which is only used for sets that don't
note their sizes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2

BoxPx = tuple[float, float, float, float]

FIELD_SETS = ("bccd", "txl_pbc", "bcd", "chula_wbc", "pbc")
"""Sets with boxes, in the order in which `read_fields` gives them."""

CELL_CLASSES: tuple[str, ...] = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
SUBCLASSES: dict[str, str] = {
    "band neutrophil": "neutrophil",
    "segmented neutrophil": "neutrophil",
    "metamyelocyte": "immature granulocyte",
    "myelocyte": "immature granulocyte",
    "promyelocyte": "immature granulocyte",
}
"""Subclass -> its parent class."""
ABNORMAL_CLASSES: tuple[str, ...] = (*CELL_CLASSES, "blast", "smudge cell", "artefact")
"""The classes that `deepapl` and `marrow` add to those of a healthy smear."""
ABNORMAL_SUBCLASSES: dict[str, str] = {
    **SUBCLASSES,
    "variant lymphocyte": "lymphocyte",
    "promonocyte": "blast",
    "giant platelet": "platelet",
}
"""Subclass -> its parent class. A promonocyte is a blast equivalent (WHO classification 2022)."""

CELL_SETS = ("pbc", "bccd_crops", "wbc_masks", "chula_wbc", "bccd", "txl_pbc", "bcd")
"""Sets of typed cells of `CELL_CLASSES`, in the order in which `read_cells` gives them."""
FURTHER_CELL_SETS = ("krd", "deepapl", "marrow")
"""Sets with classes of `ABNORMAL_CLASSES`, which are read only where they are named. Their boxes are guesses (deepapl,
marrow) or masks (krd): `tools.data.located` looks for the cells."""

MOST_OF_PATIENT = 60
"""Cells of one class that one patient of deepapl gives at most: some give ninety blasts."""

TYPED_BY_EYE = Path(__file__).with_name("types_by_eye.csv")
"""The types of white cells of txl_pbc (its pictures 575 px wide, from Raabin-WBC) and bcd, whose boxes have none
(columns: picture, number among its white boxes, class). Each cell was looked at twice, independently and without a
model's opinion: 557 of 569 were called the same. Those called differently (12) or unsurely both times (15), and what
is no whole white cell (20), are not in it."""

ALL_KINDS = frozenset({"WBC", "RBC", "platelet"})
_COMPLETE: dict[str, frozenset[str]] = {
    "bccd": frozenset({"WBC"}),  # about half of its red cells and some platelets carry no box
    "txl_pbc": ALL_KINDS,
    "bcd": frozenset({"WBC", "RBC"}),
    "chula_wbc": frozenset(),  # only the white cells that a picture was taken for
    "pbc": ALL_KINDS,
}
_PBC_CLASS = {"ig": "immature granulocyte"}


class DataSetMissing(FileNotFoundError):
    """The data, or one set of it, is not where it was looked for."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """One box of a picture; `label` is the set's own word, with BCCD's "Platelets" spelt "platelet"."""

    box_px: BoxPx
    label: str


@dataclass(frozen=True, slots=True)
class Field:
    """A picture with boxes.

    `complete` names the kinds ("WBC", "RBC", "platelet") of which every one in the picture carries a box: a
    place without a box is background for these kinds only. `slide` is None where the set doesn't say;
    `official_part` is the set's own split ("train", "val"), None where it has none.
    """

    dataset: str
    key: str
    path: Path
    width_px: int
    height_px: int
    boxes: tuple[LabelledBox, ...]
    complete: frozenset[str]
    slide: str | None = None
    official_part: str | None = None


@dataclass(frozen=True, slots=True)
class CellPicture:
    """One cell with its type: a box of the picture at `path`, or, where `box_is_guess`, the usual place of
    the cell in pictures of this set. `subclass` is None where it is not known; `cell_class` is one of
    `ABNORMAL_CLASSES`. `slide` names what may not be parted: a slide, or a patient."""

    dataset: str
    key: str
    path: Path
    width_px: int
    height_px: int
    box_px: BoxPx
    cell_class: str
    subclass: str | None = None
    box_is_guess: bool = False
    slide: str | None = None
    official_part: str | None = None


def data_root() -> Path:
    """The folder of the data: `LEUKOSTREAM_DATA`, else `../shared/data` beside the repository.

    Raises `DataSetMissing` where there is no such folder.
    """
    named = os.environ.get("LEUKOSTREAM_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    if not root.is_dir():
        raise DataSetMissing(
            f"data folder: got {root} (LEUKOSTREAM_DATA={named!r}), expected a folder with bccd, pbc, …; "
            "set LEUKOSTREAM_DATA or fetch the sets with `python -m tools.data get`"
        )
    return root.resolve()


def blood_label(label: str) -> str:
    """The label of `yolov5n-blood` for a set's own label: "WBC", "RBC" or "platelet".

    Erythroblasts are "WBC": they are nucleated cells that the classifier has to see to tell them apart.
    """
    if label in ALL_KINDS:
        return label
    return "RBC" if label == "red blood cell" else "WBC"


def read_fields(root: Path | None = None, sets: tuple[str, ...] = FIELD_SETS) -> list[Field]:
    """All pictures with boxes of the named sets, in a fixed order.

    Raises `DataSetMissing` for a set that is not there and `ValueError` for one that is not known.
    """
    root = data_root() if root is None else root
    fields: list[Field] = []
    for name in sets:
        if name not in _COMPLETE:
            raise ValueError(f"data set: got {name!r}, expected one of {', '.join(FIELD_SETS)}")
        fields.extend(_read_coco(root, name))
    return fields


def read_cells(root: Path | None = None, sets: Sequence[str] = CELL_SETS) -> list[CellPicture]:
    """Every single cell with a type, of the named sets: of bccd the fields of one cell, of txl_pbc and bcd those whose
    type we said (`TYPED_BY_EYE`).

    Raises `DataSetMissing` for a set that is not there and `ValueError` for one that is not known.
    """
    root = data_root() if root is None else root
    readers: dict[str, Callable[[Path], Iterator[CellPicture]]] = {
        "pbc": _pbc_cells,
        "bccd_crops": _bccd_crops,
        "wbc_masks": _wbc_masks,
        "chula_wbc": _chula_cells,
        "bccd": _bccd_cells,
        "txl_pbc": lambda root: _cells_typed_by_eye(root, "txl_pbc"),
        "bcd": lambda root: _cells_typed_by_eye(root, "bcd"),
        "krd": _krd_cells,
        "deepapl": _deepapl_cells,
        "marrow": _marrow_cells,
    }
    for name in sets:
        if name not in readers:
            raise ValueError(f"set of typed cells: got {name!r}, expected some of {', '.join(readers)}")
    return [cell for name in sets for cell in readers[name](root)]


def _need(path: Path) -> Path:
    if not path.exists():
        raise DataSetMissing(f"data set file: got nothing at {path}; fetch it with `python -m tools.data get`")
    return path


def _read_coco(root: Path, name: str) -> Iterator[Field]:
    if name == "pbc":
        with gzip.open(_need(root / "pbc" / "boxes.json.gz"), "rt") as file:
            coco: dict[str, Any] = json.load(file)
    else:
        coco = json.loads(_need(root / name / "annotations.json").read_text())
    labels = {c["id"]: {"Platelets": "platelet"}.get(c["name"], c["name"]) for c in coco["categories"]}
    boxes: dict[int, list[LabelledBox]] = defaultdict(list)
    for note in coco["annotations"]:
        x, y, w, h = note["bbox"]
        boxes[note["image_id"]].append(LabelledBox((x, y, x + w, y + h), labels[note["category_id"]]))
    for image in sorted(coco["images"], key=lambda i: i["file_name"]):
        key = f"{name}/images/{image['file_name']}"
        yield Field(
            dataset=name,
            key=key,
            path=root / key,
            width_px=image["width"],
            height_px=image["height"],
            boxes=tuple(boxes[image["id"]]),
            complete=_COMPLETE[name],
            slide=image.get("slide"),
            official_part=image.get("split"),
        )


def _area(box: BoxPx) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _centred_box(width_px: float, height_px: float, side_px: float) -> BoxPx:
    x, y = (width_px - side_px) / 2, (height_px - side_px) / 2
    return (x, y, x + side_px, y + side_px)


def _pbc_cells(root: Path) -> Iterator[CellPicture]:
    """PBC: the largest box of the file's own class that covers the centre; where there is none (about 4 %, pictures
    without boxes included) a centred square of the median side of all, which tells nothing of the class."""
    fields = {f.key: f for f in _read_coco(root, "pbc")}
    with open(_need(root / "pbc" / "labels.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, BoxPx] = {}
    sides: list[float] = []
    for row in rows:
        key = f"pbc/images/{row['file']}"
        if key not in fields:
            continue
        cell_class = _PBC_CLASS.get(row["class"], row["class"])
        field = fields[key]
        centre = (field.width_px / 2, field.height_px / 2)
        own = [b.box_px for b in field.boxes if SUBCLASSES.get(b.label, b.label) == cell_class]
        own = [b for b in own if b[0] < centre[0] < b[2] and b[1] < centre[1] < b[3]]
        if own:
            box = max(own, key=_area)
            found[key] = box
            sides.append(max(box[2] - box[0], box[3] - box[1]))
    usual = median(sides) if sides else None
    for row in rows:
        key = f"pbc/images/{row['file']}"
        cell_class = _PBC_CLASS.get(row["class"], row["class"])
        width, height = (fields[key].width_px, fields[key].height_px) if key in fields else _size_px(root / key)
        yield CellPicture(
            dataset="pbc",
            key=key,
            path=root / key,
            width_px=width,
            height_px=height,
            box_px=found.get(key) or _centred_box(width, height, usual or 0.35 * width),
            cell_class=cell_class,
            subclass=row["subclass"] if row["subclass"] in SUBCLASSES else None,
            box_is_guess=key not in found,
            official_part=row["wbcatt_split"] or None,
        )


def _size_px(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(_need(path)))
    if image is None:
        raise ValueError(f"picture {path}: got a file that can't be decoded, expected an image")
    return image.shape[1], image.shape[0]


def _bccd_crops(root: Path) -> Iterator[CellPicture]:
    """BCCD's crops are the cell's box made square; the cell fills the picture."""
    for path in sorted(_need(root / "bccd_crops").glob("*/*.jpg")):
        width, height = _size_px(path)
        yield CellPicture(
            "bccd_crops",
            path.relative_to(root).as_posix(),
            path,
            width,
            height,
            (0.0, 0.0, float(width), float(height)),
            path.parent.name,
        )


def _wbc_masks(root: Path) -> Iterator[CellPicture]:
    """The box is that of the mask (cytoplasm and nucleus)."""
    with open(_need(root / "wbc_masks" / "labels.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        mask = cv2.imread(str(root / "wbc_masks" / row["mask"]), cv2.IMREAD_GRAYSCALE)
        if mask is None or not mask.any():
            raise ValueError(f"mask {row['mask']}: got no cell in it, expected 1 cytoplasm and 2 nucleus")
        if row["class"] not in CELL_CLASSES:
            continue
        x, y, w, h = cv2.boundingRect((mask > 0).astype("uint8"))
        key = f"wbc_masks/{row['image']}"
        yield CellPicture(
            "wbc_masks",
            key,
            root / key,
            mask.shape[1],
            mask.shape[0],
            (float(x), float(y), float(x + w), float(y + h)),
            row["class"],
        )


def _chula_cells(root: Path) -> Iterator[CellPicture]:
    for field in _read_coco(root, "chula_wbc"):
        for box in field.boxes:
            yield CellPicture(
                "chula_wbc",
                field.key,
                field.path,
                field.width_px,
                field.height_px,
                box.box_px,
                box.label,
                slide=field.slide,
            )


def _bccd_cells(root: Path) -> Iterator[CellPicture]:
    """Fields of BCCD with one white box and one type named."""
    coco = json.loads(_need(root / "bccd" / "annotations.json").read_text())
    types = {f"bccd/images/{i['file_name']}": i["wbc_types"].strip().lower() for i in coco["images"]}
    for field in _read_coco(root, "bccd"):
        white = [b for b in field.boxes if b.label == "WBC"]
        if len(white) == 1 and types[field.key] in CELL_CLASSES:
            yield CellPicture(
                "bccd",
                field.key,
                field.path,
                field.width_px,
                field.height_px,
                white[0].box_px,
                types[field.key],
            )


def _cells_typed_by_eye(root: Path, name: str) -> Iterator[CellPicture]:
    with open(TYPED_BY_EYE, newline="") as file:
        types = {(row["picture"], int(row["white_box"])): row["class"] for row in csv.DictReader(file)}
    for field in _read_coco(root, name):
        white = [box for box in field.boxes if blood_label(box.label) == "WBC"]
        for number, box in enumerate(white):
            cell_class = types.get((field.key, number))
            if cell_class is not None:
                yield CellPicture(
                    field.dataset,
                    field.key,
                    field.path,
                    field.width_px,
                    field.height_px,
                    box.box_px,
                    cell_class,
                )


_KRD_PX = 512


def _krd_cells(root: Path) -> Iterator[CellPicture]:
    """The one typed cell of each field; the box is that of its mask. Fields without one are left out: nothing says
    which of their white cells is meant."""
    for row in _rows(root / "krd" / "labels.csv"):
        if row["x1"]:
            x1, y1, x2, y2 = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
            key = f"krd/{row['file']}"
            yield CellPicture("krd", key, root / key, _KRD_PX, _KRD_PX, (x1, y1, x2, y2), row["class"])


_DEEPAPL_PX = 224
_DEEPAPL_NOT_TRUSTED = frozenset({"eosinophil", "basophil"})
"""Labelled while they were used: about a third and a quarter of them look wrong or blurred."""
_DEEPAPL_CLASS = {"platelet clump": "artefact", "plasma cell": None}
"""The set's words that are no class here; None: too few cells to teach or to measure."""


def _deepapl_cells(root: Path) -> Iterator[CellPicture]:
    """Single cells; `slide` is the patient, named by the folder, which is never parted. Of a patient's class at most
    `MOST_OF_PATIENT` cells, chosen by their names' hashes."""
    chosen: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in _rows(root / "deepapl" / "labels.csv"):
        if row["class"] not in _DEEPAPL_NOT_TRUSTED and _DEEPAPL_CLASS.get(row["class"], "") is not None:
            chosen[row["patient"], row["class"]].append(row)
    for (patient, label), rows in chosen.items():
        few = sorted(rows, key=lambda row: hashlib.sha256(row["file"].encode()).digest())[:MOST_OF_PATIENT]
        for row in few:
            key = f"deepapl/{row['file']}"
            yield _guessed(root, key, _DEEPAPL_PX, _DEEPAPL_CLASS.get(label) or label, f"deepapl {patient}")


_MARROW_CLASS = {"myeloblast": "blast", "proerythroblast or early erythroid": "erythroblast"}


def _marrow_cells(root: Path) -> Iterator[CellPicture]:
    """Cells of bone marrow, which a smear seldom has: for blasts and stages."""
    for row in _rows(root / "marrow" / "labels.csv"):
        key = f"marrow/{row['file']}"
        yield _guessed(root, key, _size_px(root / key)[0], _MARROW_CLASS.get(row["class"], row["class"]))


_GUESSED_SHARE = 0.45
"""Side of a cell that nobody boxed over its picture's: the same for every class, so that it tells nothing."""


def _guessed(root: Path, key: str, side_px: int, label: str, slide: str | None = None) -> CellPicture:
    subclass = label if label in ABNORMAL_SUBCLASSES else None
    return CellPicture(
        dataset=key.split("/")[0],
        key=key,
        path=root / key,
        width_px=side_px,
        height_px=side_px,
        box_px=_centred_box(side_px, side_px, _GUESSED_SHARE * side_px),
        cell_class=ABNORMAL_SUBCLASSES[label] if subclass else label,
        subclass=subclass,
        box_is_guess=True,
        slide=slide,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with open(_need(path), newline="") as file:
        return list(csv.DictReader(file))


def bccd_field_key(crop_key: str) -> str:
    """The key of the BCCD field that a crop of `bccd_crops` was cut from, by its name ("…_00273_1.jpg")."""
    match = re.search(r"(BloodImage_\d+)_\d+\.jpg$", crop_key)
    if match is None:
        raise ValueError(f"crop name: got {crop_key!r}, expected …/BloodImage_NNNNN_N.jpg")
    return f"bccd/images/{match.group(1)}.jpg"
