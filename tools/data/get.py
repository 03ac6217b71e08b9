"""Fetch the public data sets from their homes and lay them out as tools.data reads them.

    python -m tools.data get --out DIR [SET ...] [--archive SET=FILE ...]
    export LEUKOSTREAM_DATA=DIR

Each set's archive is downloaded once to DIR/archives (or taken from --archive, for homes that want a click), unpacked
and converted to DIR/SET; DIR/SET/SOURCE.json notes where it came from, its licence and the archive's SHA-256.

What is not automated, and what follows from it:
  * pbc: Mendeley gives no lasting address for the archive: download "PBC_dataset_normal_DIB.zip" from the page that
    --list shows and give it as --archive pbc=FILE. The columns of the 11 attributes (wbcatt) stay empty.
  * bccd: the types per picture (`wbc_types`) are not in its official files: they stay empty, so its fields serve the
    detector only; bccd_crops has the types.
  * chula_wbc/unique_cells.json is derived by hand-checked registration and is not made here.
  * all_idb2 is given on request for research only: see its page; no weights trained on it ship.
  * deepapl and marrow: the project's own copies are parts of what their homes have, and nobody wrote down how they were
    chosen. What can be told from them, and what cannot, stands at `convert_deepapl` and `convert_marrow`.
The homes publish no checksums. Sets change there: compare SOURCE.json when figures differ.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from tools.commands import command_parser
from tools.data.licences import TERMS

PBC_PX = 224
PBC_CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
PBC_SUBCLASSES = {
    "BNE": "band neutrophil",
    "SNE": "segmented neutrophil",
    "NEUTROPHIL": "neutrophil (unspecified)",
    "MMY": "metamyelocyte",
    "MY": "myelocyte",
    "PMY": "promyelocyte",
    "IG": "immature granulocyte (unspecified)",
}
OI_PBC_NAMES = (
    "basophil",
    "band neutrophil",
    "eosinophil",
    "erythroblast",
    "lymphocyte",
    "metamyelocyte",
    "monocyte",
    "myelocyte",
    "platelet",
    "promyelocyte",
    "red blood cell",
    "segmented neutrophil",
)
BLOOD_NAMES = ("WBC", "RBC", "Platelets")
CHULA_NAMES = ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte")
MASK_TYPES = {"1": "neutrophil", "2": "lymphocyte", "3": "monocyte", "4": "eosinophil", "5": "basophil"}
"""Codes of the class tables of segmentation_WBC."""
KRD_FIELDS = 600
"""Fields of KRD-WBC; the pictures of higher numbers that its table names are copies of these, turned and mirrored."""
DEEPAPL_PX = 224
DEEPAPL_QUALITY = 80
DEEPAPL_CLASSES = {
    "Arifact": "artefact",
    "Band neutrophils": "band neutrophil",
    "Basophil": "basophil",
    "Blast, no lineage spec": "blast",
    "Eosinophils": "eosinophil",
    "Erythroblast": "erythroblast",
    "Giant thrombocyte": "giant platelet",
    "Lymphocyte": "lymphocyte",
    "Lymphocyte, variant": "variant lymphocyte",
    "Metamyelocyte": "metamyelocyte",
    "Monocyte": "monocyte",
    "Myelocyte": "myelocyte",
    "Plasma cells": "plasma cell",
    "Promonocyte": "promonocyte",
    "Promyelocyte": "promyelocyte",
    "Segmented neutrophils": "segmented neutrophil",
    "Smudge cells": "smudge cell",
    "Thrombocyte aggregation": "platelet clump",
}
"""By folder, which is the laboratory's last word: a file's prefix is what the analyser had proposed."""
DEEPAPL_MOST = {
    "blast": 1300,
    "lymphocyte": 800,
    "smudge cell": 700,
    "segmented neutrophil": 600,
    "monocyte": 500,
    "erythroblast": 300,
}
_DEEPAPL_NUMBERS = (
    "01 04 07 08 09 100 102 103 104 105 11 12 13 15 16 23 27 32 34 36 39 40 41 42 43 45 47 48 49 50 51 53 54 55 "
    "57 58 59 64 67 68 69 74 76 85 87 90 91 93 96 97 98 99"
)
DEEPAPL_PATIENTS = frozenset({"cc", *(f"Patient_{number}" for number in _DEEPAPL_NUMBERS.split())})
"""The 53 of 107 that the project uses: `cc` is the clinical case, which lies in a folder of its own."""
MARROW_STAGES = (
    "proerythroblast or early erythroid",
    "erythroblast",
    "erythroblast",
    "erythroblast",
    "myeloblast",
    "promyelocyte",
    "myelocyte",
    "metamyelocyte",
    "band neutrophil",
    "segmented neutrophil",
)
"""By the number of the folder. The set names none: these were given by eye, after the article's stages."""
MARROW_MOST = (17, 50, 50, 50, 210, 50, 50, 50, 50, 50)


def coco(pictures: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """A COCO table; each picture has `file_name`, `width`, `height`, `boxes` [(label, x1, y1, x2, y2)] and whatever
    else the set notes of it."""
    ids = {name: i for i, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        images.append({"id": len(images) + 1, **{k: v for k, v in picture.items() if k != "boxes"}})
        for label, x1, y1, x2, y2 in picture["boxes"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": ids[label],
                    "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def size_px(path: Path) -> tuple[int, int]:
    """Width and height of a picture. Raises ValueError for a file that is none."""
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"picture {path}: got a file that can't be decoded, expected an image")
    return image.shape[1], image.shape[0]


def voc_picture(path: Path) -> dict[str, Any]:
    """A Pascal VOC file as a picture for `coco`."""
    root = ElementTree.parse(path).getroot()
    boxes = [
        (str(o.findtext("name")), *(float(o.findtext(f"bndbox/{k}", "nan")) for k in ("xmin", "ymin", "xmax", "ymax")))
        for o in root.iter("object")
    ]
    return {
        "file_name": f"{path.stem}.jpg",
        "width": int(root.findtext("size/width", "0")),
        "height": int(root.findtext("size/height", "0")),
        "boxes": boxes,
    }


def yolo_boxes(
    text: str, names: Sequence[str], width: int, height: int
) -> list[tuple[str, float, float, float, float]]:
    """Boxes of a YOLO label file (class, centre and size as shares of the picture) in px."""
    boxes = []
    for line in text.splitlines():
        if line.strip():
            number, x, y, w, h = (float(v) for v in line.split()[:5])
            corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            boxes.append((names[int(number)], *corners))
    return boxes


def convert_bccd(source: Path, out: Path) -> None:
    """Official train and validation pictures: JPEGImages, Annotations (VOC) and ImageSets."""
    base = next(source.rglob("JPEGImages")).parent
    stems = (base / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    pictures = []
    for stem in sorted(stems):
        pictures.append(voc_picture(base / "Annotations" / f"{stem}.xml") | {"wbc_types": ""})
        _copy(base / "JPEGImages" / f"{stem}.jpg", out / "images" / f"{stem}.jpg")
    _write(out, coco(pictures, ("WBC", "RBC", "Platelets")))


def convert_bccd_crops(source: Path, out: Path) -> None:
    """Folders named by type, in lower case."""
    for path in sorted(next(source.rglob("BCCD_cropped")).glob("*/*.jpg")):
        _copy(path, out / path.parent.name.lower() / path.name)


def convert_txl_pbc(source: Path, out: Path) -> None:
    """Train and validation pictures with YOLO labels; the test split stays out."""
    base = next(source.rglob("data.yaml")).parent
    pictures = []
    for part in ("train", "val"):
        for path in sorted((base / "images" / part).glob("*.jpg")):
            width, height = size_px(path)
            label = base / "labels" / part / f"{path.stem}.txt"
            boxes = yolo_boxes(label.read_text() if label.exists() else "", BLOOD_NAMES, width, height)
            pictures.append(
                {"file_name": path.name, "width": width, "height": height, "split": part, "boxes": boxes},
            )
            _copy(path, out / "images" / path.name)
    _write(out, coco(sorted(pictures, key=lambda p: p["file_name"]), BLOOD_NAMES))


def convert_bcd(source: Path, out: Path) -> None:
    """PNG pictures and one table of boxes; pictures become JPEG of quality 95."""
    table = next(source.rglob("annotations.csv"))
    boxes: dict[str, list[tuple[str, float, float, float, float]]] = {}
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            corners = tuple(float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax"))
            boxes.setdefault(row["image"], []).append((row["label"].upper(), *corners))  # type: ignore[arg-type]
    pictures = []
    for name in sorted(boxes):
        path = table.parent / "images" / name
        width, height = size_px(path)
        target = out / "images" / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.imread(str(path)), (cv2.IMWRITE_JPEG_QUALITY, 95))  # type: ignore[arg-type]
        pictures.append({"file_name": target.name, "width": width, "height": height, "boxes": boxes[name]})
    _write(out, coco(pictures, BLOOD_NAMES))


def convert_chula_wbc(source: Path, out: Path) -> None:
    """Frames with YOLO labels, wherever in the archive they lie; slide and frame number are in the file's name."""
    labels = {p.stem: p for p in sorted(source.rglob("labels/*.txt"))}
    pictures = []
    for path in sorted(source.rglob("images/*.jpg"), key=lambda p: p.name):
        if path.stem not in labels:
            continue
        width, height = size_px(path)
        slide, _, number = path.stem.rpartition("_")
        boxes = yolo_boxes(labels[path.stem].read_text(), CHULA_NAMES, width, height)
        head = {"file_name": path.name, "width": width, "height": height}
        pictures.append({**head, "slide": slide, "frame_number": int(number), "boxes": boxes})
        _copy(path, out / "images" / path.name)
    _write(out, coco(pictures, CHULA_NAMES))


def convert_wbc_masks(source: Path, out: Path) -> None:
    """Datasets 1 (jtsc) and 2 (cellavision): pictures become PNG, masks 0 background, 1 cytoplasm, 2 nucleus."""
    rows = []
    for number, name in ((1, "jtsc"), (2, "cellavision")):
        folder = next(source.rglob(f"Dataset {number}"))
        (out / name).mkdir(parents=True, exist_ok=True)
        with open(folder.parent / f"Class Labels of Dataset {number}.csv", newline="") as file:
            for row in csv.reader(file):
                if len(row) < 2 or row[1].strip() not in MASK_TYPES:
                    continue
                stem = f"{int(row[0]):03}"
                mask = cv2.imread(str(folder / f"{stem}.png"), cv2.IMREAD_GRAYSCALE)
                picture = cv2.imread(str(folder / f"{stem}.bmp"))
                if mask is None or picture is None:
                    raise ValueError(f"{folder.name} {stem}: got no picture with mask, expected .bmp and .png")
                cv2.imwrite(str(out / name / f"{stem}.png"), picture)
                levels = np.digitize(mask, (64, 192)).astype(np.uint8)  # black, grey and white in the source
                cv2.imwrite(str(out / name / f"{stem}_mask.png"), levels)
                rows.append((f"{name}/{stem}.png", f"{name}/{stem}_mask.png", MASK_TYPES[row[1].strip()]))
    with open(out / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "mask", "class"), *rows])


def convert_pbc(source: Path, out: Path) -> None:
    """Pictures reduced to 224x224, classes by folder, subclasses by the file's prefix."""
    rows = []
    for path in sorted(source.rglob("*.jpg")):
        if path.parent.name not in PBC_CLASSES or path.name.startswith("."):
            continue
        name = f"{path.parent.name}/{path.name}"
        _reduce(path, out / "images" / name, PBC_PX, 92)
        subclass = PBC_SUBCLASSES.get(path.name.split("_")[0], path.parent.name)
        rows.append((name, path.parent.name, subclass, ""))
    with open(out / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "class", "subclass", "wbcatt_split"), *rows])


def convert_pbc_boxes(source: Path, out: Path) -> None:
    """YOLO labels of OI-PBC for the pictures of PBC that lie in OUT/images already: OUT/boxes.json.gz."""
    labels = {p.stem: p for p in sorted(source.rglob("PBC-YOLO-721/labels/*/*.txt"))}
    pictures = [
        {
            "file_name": path.relative_to(out / "images").as_posix(),
            "width": PBC_PX,
            "height": PBC_PX,
            "boxes": yolo_boxes(labels[path.stem].read_text(), OI_PBC_NAMES, PBC_PX, PBC_PX),
        }
        for path in sorted((out / "images").rglob("*.jpg"))
        if path.stem in labels
    ]
    if not pictures:
        raise ValueError(f"boxes of pbc: got no picture in {out / 'images'} with a label, expected pbc to be laid out")
    with gzip.open(out / "boxes.json.gz", "wt") as file:
        json.dump(coco(pictures, OI_PBC_NAMES), file)


def convert_krd(source: Path, out: Path) -> None:
    """Fields imageN.jpg of a folder `image`, masks maskN.jpg of a folder `mask`, both wherever they lie, and one table
    of types whose numbers alone are spelt reliably ("Image9", "image99", "Imaeg405").

    The box is that of the mask's largest piece; a field without a mask gets a row without a box.
    """
    with open(next(source.rglob("class labels.csv")), newline="") as file:
        types = {int(n.group()): row[1].strip().lower() for row in csv.reader(file) if (n := re.search(r"\d+", row[0]))}
    images, masks = ({_number(p): p for p in sorted(source.rglob(f"{name}/{name}*.jpg"))} for name in ("image", "mask"))
    rows = []
    for number in sorted(set(images) & set(types)):
        if number > KRD_FIELDS:
            continue
        name = f"images/{types[number]}/image{number}.jpg"
        _copy(images[number], out / name)
        box: tuple[int | str, ...] = ("",) * 4
        mask = cv2.imread(str(masks[number]), cv2.IMREAD_GRAYSCALE) if number in masks else None
        if mask is not None and (mask > 127).any():
            levels = np.where(mask > 127, 255, 0).astype(np.uint8)  # JPEG leaves grey rims
            cv2.imwrite(str((out / name).with_suffix(".mask.png")), levels)
            _, _, pieces, _ = cv2.connectedComponentsWithStats(levels)
            x, y, w, h = (int(v) for v in pieces[1 + pieces[1:, cv2.CC_STAT_AREA].argmax(), :4])
            box = (x, y, x + w, y + h)
        rows.append((name, types[number], *box))
    _write_labels(out, ("file", "class", "x1", "y1", "x2", "y2"), rows)


def convert_deepapl(source: Path, out: Path) -> None:
    """Folders PATIENT/Signed slides/TYPE, under Data/All and Data/Clinical_Case, of which `DEEPAPL_PATIENTS` are taken;
    cells are reduced from 360x363 to 224x224. What the laboratory left "Unidentified" stays out.

    Of the six classes of `DEEPAPL_MOST` so many cells are taken, of all others every one. The project's copy has the
    same patients and as many cells of each class; of the other classes the very same cells, as far as listings of the
    repository could be compared (one promyelocyte is missing in the copy). Which cells of those six classes were
    chosen for it can't be told: neither the first by name nor evenly over patients. Here they are the first by the
    hashes of their names, so figures will differ a little. Nor does anything say why these patients: most likely the
    others are kept back to measure on, so don't add them.
    """
    found: dict[str, dict[str, Path]] = {label: {} for label in DEEPAPL_CLASSES.values()}
    for folder in sorted(source.rglob("Signed slides/*")):
        patient = folder.parent.parent.name
        if patient in DEEPAPL_PATIENTS and folder.name in DEEPAPL_CLASSES:
            cells = {f"images/{patient}/{path.name}": path for path in sorted(folder.glob("*.jpg"))}
            found[DEEPAPL_CLASSES[folder.name]].update(cells)
    rows = []
    for label, cells in found.items():
        names = sorted(cells, key=lambda name: hashlib.sha256(name.encode()).digest())
        for name in names[: DEEPAPL_MOST.get(label)]:
            _reduce(cells[name], out / name, DEEPAPL_PX, DEEPAPL_QUALITY)
            rows.append((name, label, name.split("/")[1]))
    if not rows:
        raise FileNotFoundError("no folder 'Signed slides' of a known patient")
    _write_labels(out, ("file", "class", "patient"), rows)


def convert_marrow(source: Path, out: Path) -> None:
    """Folders 0 to 9 side by side, in one of the archives inside the repository; pictures N.jpg as they are.

    The archives could not be looked into when this was written. Of several places with such folders (an archive each, a
    training and a test part) the one is taken that has most of `MARROW_MOST`, and of each folder the first so many by
    number. The project's copy has so many, numbered from 1 without gaps; whether its numbers are those of the archives
    can't be told.
    """
    best: list[tuple[int, Path]] = []
    for base in sorted({path.parent for path in source.rglob("0") if path.is_dir()}):
        chosen = [
            (stage, path)
            for stage, most in enumerate(MARROW_MOST)
            for path in sorted((base / str(stage)).glob("*.jpg"), key=_number)[:most]
        ]
        best = max(best, chosen, key=len)
    if not best:
        raise FileNotFoundError("no folder '0' with pictures")
    rows = []
    for stage, path in best:
        name = f"images/{stage}/{path.name}"
        _copy(path, out / name)
        rows.append((name, MARROW_STAGES[stage]))
    _write_labels(out, ("file", "class"), rows)


@dataclass(frozen=True)
class Source:
    """Where a set comes from. `url` None: no lasting address, the archive has to be given; `sha256` None: unknown."""

    page: str
    licence: str
    url: str | None
    convert: Callable[[Path, Path], None]
    folder: str
    sha256: str | None = None


def _github(
    repository: str, branch: str | None, terms: str, convert: Callable[[Path, Path], None], folder: str
) -> Source:
    """`branch` None: whichever is the repository's own; `terms`: which of `TERMS` are the set's."""
    page = f"https://github.com/{repository}"
    where = "HEAD" if branch is None else f"refs/heads/{branch}"
    return Source(page, TERMS[terms].licence, f"{page}/archive/{where}.zip", convert, folder)


SOURCES: dict[str, Source] = {
    "bccd": _github("Shenggan/BCCD_Dataset", "master", "bccd", convert_bccd, "bccd"),
    "bccd_crops": _github("apple2373/BCCD", "master", "bccd_crops", convert_bccd_crops, "bccd_crops"),
    "txl_pbc": _github("lugan113/TXL-PBC_Dataset", "master", "txl_pbc", convert_txl_pbc, "txl_pbc"),
    "bcd": _github("draaslan/blood-cell-detection-dataset", "master", "bcd", convert_bcd, "bcd"),
    "chula_wbc": _github("singgihbekti/WBC_Dataset", "main", "chula_wbc", convert_chula_wbc, "chula_wbc"),
    "wbc_masks": _github("zxaoyou/segmentation_WBC", "master", "wbc_masks", convert_wbc_masks, "wbc_masks"),
    "pbc": Source("https://data.mendeley.com/datasets/snkd93bnjr/1", TERMS["pbc"].licence, None, convert_pbc, "pbc"),
    "pbc_boxes": _github("Mohamad-AbouAli/OI-PBC-Dataset", "main", "pbc_boxes", convert_pbc_boxes, "pbc"),
    # CC BY 4.0 is what others quote of its first home, data.mendeley.com/datasets/jzdj6h7gms/2, which was not seen.
    "krd": _github("QuocThang1/Blood_Cell", None, "krd", convert_krd, "krd"),
    # Also figshare, 10.6084/m9.figshare.14294675; neither the repository nor its README states a licence.
    "deepapl": _github("sidhomj/DeepAPL", None, "deepapl", convert_deepapl, "deepapl"),
    # Of Choi et al., PLOS ONE 2017, 10.1371/journal.pone.0189259; the repository itself states no licence.
    "marrow": _github("JinwooChoi9/wbc_plosone", None, "marrow", convert_marrow, "marrow"),
}


def unpack(archive: Path, out: Path) -> None:
    """Unpack a zip, and the zips inside it; raises ValueError for a member that would leave `out`."""
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"archive {archive}: got the member {name!r}, expected paths inside the archive")
        file.extractall(out)
    for inner in sorted(out.rglob("*.zip")):
        unpack(inner, inner.with_suffix(""))
        inner.unlink()


def fetch(name: str, archives: Path, given: Path | None) -> Path:
    """The archive of a set: the given one, that of an earlier call, or a fresh download."""
    source = SOURCES[name]
    if given is not None:
        if not given.is_file():
            raise FileNotFoundError(f"archive of {name}: got no file at {given}, expected the zip from {source.page}")
        return given
    path = archives / f"{name}.zip"
    if path.exists():
        return path
    if source.url is None:
        raise ValueError(f"{name}: got no archive; download it from {source.page}, then give --archive {name}=FILE")
    archives.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    print(f"{name}: {source.url}", file=sys.stderr)
    with urllib.request.urlopen(source.url, timeout=60) as response, open(part, "wb") as file:
        shutil.copyfileobj(response, file)
    part.replace(path)
    return path


def lay_out(name: str, archive: Path, out: Path) -> None:
    """Check, unpack and convert one archive into its folder of `out`."""
    source = SOURCES[name]
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 is not None and digest != source.sha256:
        raise ValueError(f"archive {archive}: got SHA-256 {digest}, expected {source.sha256}; download it again")
    target = out / source.folder
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        target.mkdir(parents=True, exist_ok=True)
        try:
            source.convert(Path(folder), target)
        except (StopIteration, FileNotFoundError) as error:
            raise ValueError(
                f"archive {archive}: got another layout than that of {source.page} when this was written ({error}); "
                "compare it with the docstring of the converter"
            ) from error
    note = {"page": source.page, "licence": source.licence, "archive_sha256": digest}
    (target / f"SOURCE{'' if name == source.folder else '-' + name}.json").write_text(json.dumps(note, indent=1) + "\n")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _reduce(source: Path, target: Path, side_px: int, quality: int) -> None:
    """Resize a picture to a square and store it as JPEG. A file that ends early is decoded as far as it goes."""
    image = cv2.imread(str(source))
    if image is None:
        raise ValueError(f"picture {source}: got a file that can't be decoded, expected an image")
    target.parent.mkdir(parents=True, exist_ok=True)
    small = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), small, (cv2.IMWRITE_JPEG_QUALITY, quality))


def _number(path: Path) -> int:
    """The number in a file's name, -1 where there is none."""
    match = re.search(r"\d+", path.stem)
    return int(match.group()) if match else -1


def _write_labels(out: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """labels.csv, its rows by file."""
    with open(out / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([head, *sorted(rows, key=lambda row: str(row[0]))])


def _write(out: Path, table: Mapping[str, Any]) -> None:
    (out / "annotations.json").write_text(json.dumps(table))


def main(arguments: Sequence[str]) -> int:
    """Command line; 0 when all sets are there, 1 with one line a set that is not, 2 for bad usage."""
    parser = command_parser("tools.data get", __doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"which sets (default all): {', '.join(SOURCES)}")
    parser.add_argument("--out", type=Path, help="data folder")
    parser.add_argument("--archive", action="append", default=[], metavar="SET=FILE", help="an archive you have")
    parser.add_argument("--list", action="store_true", help="print homes and licences, fetch nothing")
    args = parser.parse_args(arguments)
    if args.list:
        for name, source in SOURCES.items():
            print(f"{name:12} {source.licence:20} {source.page}")
        return 0
    unknown = [s for s in args.sets if s not in SOURCES]
    if unknown or args.out is None:
        parser.error(f"got sets {unknown}, expected some of {', '.join(SOURCES)}" if unknown else "--out is needed")
    given: dict[str, Path] = {}
    for pair in args.archive:
        name, _, file = pair.partition("=")
        if name not in SOURCES or not file:
            parser.error(f"--archive: got {pair!r}, expected SET=FILE with SET one of {', '.join(SOURCES)}")
        given[name] = Path(file)
    failed = 0
    for name in args.sets or SOURCES:
        try:
            lay_out(name, fetch(name, args.out / "archives", given.get(name)), args.out)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
    return failed
