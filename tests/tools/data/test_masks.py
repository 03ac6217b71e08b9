"""Which masked cells train and which measure: no cell is on both sides."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.data import DataSetMissing, data_root
from tools.data.masks import SHARES, masked_parts


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
    return cv2.resize(coarse, (120, 120), interpolation=cv2.INTER_CUBIC)


def test_pictures_of_one_cell_are_in_one_part(tmp_path: Path) -> None:
    (tmp_path / "wbc_masks" / "jtsc").mkdir(parents=True)
    rows = []
    for i in range(60):
        image = picture(i % 30)
        if i >= 30:  # the same cell again: brighter, mirrored, a pixel aside
            image = np.roll(cv2.convertScaleAbs(image[:, ::-1], alpha=0.9, beta=20), 1, 1)
        rows.append({"image": f"jtsc/{i}.png", "class": "lymphocyte" if i % 30 < 15 else "monocyte"})
        cv2.imwrite(str(tmp_path / "wbc_masks" / rows[-1]["image"]), image)
    parts = masked_parts(tmp_path, rows, 0)
    assert parts[:30] == parts[30:]
    assert {part: parts.count(part) for part in ("train", "validation", "test")} == {
        "train": 2 * 20,
        "validation": 2 * 4,
        "test": 2 * 6,
    }
    assert masked_parts(tmp_path, rows, 1) != parts


@pytest.mark.data
def test_cells_that_were_on_both_sides_are_not() -> None:
    try:
        root = data_root()
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    if not (root / "wbc_masks" / "labels.csv").is_file():
        pytest.skip(f"{root} has no set wbc_masks")
    with open(root / "wbc_masks" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for seed in range(5):
        parts = dict(zip((row["image"] for row in rows), masked_parts(root, rows, seed), strict=True))
        for one, other in ((112, 139), (157, 158), (166, 171), (167, 169)):
            assert parts[f"jtsc/{one}.png"] == parts[f"jtsc/{other}.png"]
        shares = [sum(part == p for p in parts.values()) / len(rows) for part in ("train", "validation", "test")]
        assert shares == pytest.approx(SHARES, abs=0.03)
