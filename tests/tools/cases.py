"""Small pictures and data folders that tests of the tools make for themselves."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def smear(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """uint8 (height, width, 3): blobs of many sizes on a pale ground, different for every seed."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 215, np.uint8)
    for _ in range(40):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(3, 16)), int(rng.integers(3, 16)))
        colour = tuple(int(v) for v in rng.integers(30, 220, 3))
        cv2.ellipse(image, centre, axes, float(rng.integers(180)), 0, 360, colour, -1)
    return image


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write a picture and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def coco_table(images: list[dict[str, Any]], boxes: list[tuple[int, str, list[float]]], names: list[str]) -> str:
    """COCO JSON of images and (image id, label, [x, y, w, h])."""
    return json.dumps(
        {
            "images": images,
            "annotations": [
                {"id": i, "image_id": image, "category_id": names.index(label) + 1, "bbox": box}
                for i, (image, label, box) in enumerate(boxes, 1)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        }
    )


BLOOD = ["WBC", "RBC", "Platelets"]


def make_data(root: Path) -> None:
    """A data folder with a few pictures of every set, laid out like the real one.

    bccd 00001 is mirrored into txl_pbc as validation; pbc BA_1 is re-exported into txl_pbc at another size; the
    chula slides E-14 (validation), N-1B (holdout) and M-8 (train) have a frame each.
    """
    frames = {n: smear(n) for n in (1, 2, 3)}
    for n, image in frames.items():
        write_picture(root / f"bccd/images/BloodImage_0000{n}.jpg", image)
    images = [
        {"id": n, "file_name": f"BloodImage_0000{n}.jpg", "width": 160, "height": 120, "wbc_types": types}
        for n, types in ((1, "EOSINOPHIL"), (2, "NEUTROPHIL, MONOCYTE"), (3, ""))
    ]
    boxes = [(1, "WBC", [10, 20, 40, 30]), (1, "Platelets", [90, 90, 5, 5]), (2, "WBC", [50, 50, 40, 40])]
    (root / "bccd/annotations.json").write_text(coco_table(images, boxes, BLOOD))
    write_picture(root / "bccd_crops/eosinophil/BloodImage_00001_1.jpg", frames[1][20:50, 10:50])

    cells = {"basophil/BA_1.jpg": smear(11, 224, 224), "ig/PMY_2.jpg": smear(12, 224, 224)}
    for name, image in cells.items():
        write_picture(root / "pbc/images" / name, image)
    write_picture(root / "txl_pbc/images/a.jpg", cv2.flip(cv2.resize(frames[1], (120, 120)), 1))
    write_picture(root / "txl_pbc/images/b.jpg", cv2.resize(cells["basophil/BA_1.jpg"], (360, 363)))
    images = [
        {"id": 1, "file_name": "a.jpg", "width": 120, "height": 120, "split": "val"},
        {"id": 2, "file_name": "b.jpg", "width": 360, "height": 363, "split": "train"},
    ]
    boxes = [(1, "WBC", [60, 20, 30, 30]), (2, "RBC", [5, 5, 50, 50]), (2, "WBC", [150, 150, 80, 80])]
    (root / "txl_pbc/annotations.json").write_text(coco_table(images, boxes, BLOOD))

    with open(root / "pbc/labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("file", "class", "subclass", "wbcatt_split"),
                ("basophil/BA_1.jpg", "basophil", "basophil", "train"),
                ("ig/PMY_2.jpg", "ig", "promyelocyte", ""),
            ]
        )
    table = coco_table(
        [{"id": 1, "file_name": "basophil/BA_1.jpg", "width": 224, "height": 224}],
        [(1, "basophil", [2, 2, 20, 20]), (1, "basophil", [80, 90, 60, 50]), (1, "red blood cell", [0, 0, 30, 30])],
        ["basophil", "red blood cell"],
    )
    with gzip.open(root / "pbc/boxes.json.gz", "wt") as zipped:
        zipped.write(table)

    write_picture(root / "bcd/images/image-1.jpg", smear(21, 256, 256))
    images = [{"id": 1, "file_name": "image-1.jpg", "width": 256, "height": 256}]
    (root / "bcd/annotations.json").write_text(coco_table(images, [(1, "RBC", [1, 1, 50, 50])], BLOOD))

    images, boxes = [], []
    for n, (slide, label) in enumerate((("E-14", "eosinophil"), ("N-1B", "neutrophil"), ("M-8", "monocyte")), 1):
        write_picture(root / f"chula_wbc/images/{slide}_000{n}.jpg", smear(30 + n, 288, 180))
        name = f"{slide}_000{n}.jpg"
        images.append({"id": n, "file_name": name, "width": 288, "height": 180, "slide": slide, "frame_number": n})
        boxes.append((n, label, [100, 60, 40, 44]))
    names = ["neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte"]
    (root / "chula_wbc/annotations.json").write_text(coco_table(images, boxes, names))

    mask = np.zeros((120, 120), np.uint8)
    mask[30:80, 40:100] = 1
    mask[40:60, 50:70] = 2
    write_picture(root / "wbc_masks/jtsc/001.png", smear(41, 120, 120))
    write_picture(root / "wbc_masks/jtsc/001_mask.png", mask)
    (root / "wbc_masks/labels.csv").write_text("image,mask,class\njtsc/001.png,jtsc/001_mask.png,lymphocyte\n")


def make_further_sets(root: Path, cells: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Sets of `FURTHER_CELL_SETS` with labels.csv and, where it is not there yet, a picture of each row: of krd (type,
    box or ""), of deepapl (class, patient), of marrow (stage, folder)."""
    heads = {"krd": ("x1", "y1", "x2", "y2"), "deepapl": ("patient",), "marrow": ()}
    for name, members in cells.items():
        rows: list[tuple[str, ...]] = [("file", "class", *heads[name])]
        for n, (label, more) in enumerate(members):
            folder = label if name == "krd" else more
            file = f"images/{folder}/{name[0]}{n}.jpg"
            told = {"krd": more.split() or [""] * 4, "deepapl": [more], "marrow": []}[name]
            rows.append((file, label, *told))
            if not (root / name / file).exists():
                side = 512 if name == "krd" else 224 if name == "deepapl" else 96
                write_picture(root / name / file, smear(len(name) * 1000 + n, side, side))
        (root / name).mkdir(parents=True, exist_ok=True)
        with open(root / name / "labels.csv", "w", newline="") as out:
            csv.writer(out).writerows(rows)
