"""Which masked cells train and which measure: no cell is on both sides."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tools.cases import make_data, smear, write_picture
from tools.data import HOLDOUT, TRAIN, VALIDATION, DataSetMissing, data_root, load_splits, masks
from tools.data.masks import CELL, SHARES, MaskedPicture, cell_box, largest_piece, masked_parts, masked_pictures
from tools.data.splits import build_groups, part_of


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


def write_krd(root: Path, keys: list[str], boxes: list[str]) -> None:
    """labels.csv of krd: the field and the box, or "" where there is none."""
    lines = [f"{key.removeprefix('krd/')},neutrophil,{box or ',,,'}" for key, box in zip(keys, boxes, strict=True)]
    (root / "krd").mkdir(parents=True, exist_ok=True)
    (root / "krd" / "labels.csv").write_text("\n".join(["file,class,x1,y1,x2,y2", *lines]))


def disc(radius: int = 20, side: int = 90) -> np.ndarray:
    return cv2.circle(np.zeros((side, side), np.uint8), (40, 45), radius, 255, -1)


def test_the_cell_is_the_largest_piece_of_its_mask() -> None:
    mask = disc()
    mask[2:5, 80:83] = 255
    found = largest_piece(mask)
    assert set(np.unique(found)) == {0, CELL}
    assert cell_box(found).tolist() == [[20, 25, 61, 66]]
    assert np.array_equal(found == CELL, disc() > 0)
    assert not largest_piece(np.zeros((9, 9), np.uint8)).any()
    assert not largest_piece(np.full((9, 9), 100, np.uint8)).any()


def test_fields_of_krd_without_a_cell_in_their_mask_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"krd/images/neutrophil/image{n}.jpg" for n in range(5)]
    write_krd(tmp_path, keys, ["20,25,61,66"] * 4 + [""])
    for key in keys:
        write_picture(tmp_path / key, np.full((90, 90, 3), 200, np.uint8))
    for n, mask in ((0, disc()), (1, np.zeros((90, 90), np.uint8)), (3, disc()), (4, disc())):  # 2 has no mask
        write_picture(tmp_path / f"krd/images/neutrophil/image{n}.mask.png", mask)
    monkeypatch.setattr(masks, "load_splits", lambda root: dict(zip(keys, [TRAIN] * 3 + [HOLDOUT] * 2, strict=True)))
    one, other = masked_pictures(tmp_path, ("krd",), 0)
    assert (one.name, one.laboratory, one.part) == (keys[0], "krd", "train")
    assert (other.name, other.laboratory, other.part) == (keys[3], "krd", "test")
    image, mask = one.read()
    assert image.shape == (90, 90, 3)
    assert np.array_equal(mask == CELL, disc() > 0)
    assert set(np.unique(mask)) == {0, CELL}


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.zeros((90, 90, 3), np.uint8))
    write_picture(tmp_path / "a.mask.png", disc(side=80))
    picture = MaskedPicture("krd/a.png", "krd", TRAIN, tmp_path / "a.png", tmp_path / "a.mask.png")
    with pytest.raises(ValueError, match=r"krd/a\.png: got no picture with a mask of 0 and 255 of its size; fetch krd"):
        picture.read()


def test_fields_of_krd_that_overlap_are_in_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    make_data(root)
    # By its own name each of three would be in another part; the first of a group names it.
    keys = sorted(f"krd/images/neutrophil/image{n}.jpg" for n in range(100))
    alone = {key: part_of(key, set(), set()) for key in keys}
    held = next(key for key in keys if alone[key] == HOLDOUT)
    overlapping = [held, *(next(k for k in keys if k > held and alone[k] == part) for part in (TRAIN, VALIDATION))]
    strange = next(key for key in keys if alone[key] == TRAIN and key not in overlapping)
    wide = np.vstack([np.hstack([smear(70 + 2 * y + x, 320, 320) for x in range(2)]) for y in range(2)])
    for key, (x, y) in zip(overlapping, ((0, 0), (0, 0), (90, 70)), strict=True):
        write_picture(root / key, np.ascontiguousarray(wide[y : y + 512, x : x + 512]))
    write_picture(root / strange, smear(9, 512, 512))
    write_krd(root, [*overlapping, strange], ["20,25,61,66"] * 4)
    for key in (*overlapping, strange):
        write_picture((root / key).with_suffix(".mask.png"), disc(side=512))
    pictures = masked_pictures(root, ("wbc_masks", "krd"), 0)
    assert [picture.laboratory for picture in pictures] == ["jtsc", *["krd"] * 4]
    parts = {picture.name: picture.part for picture in pictures[1:]}
    assert parts == {**dict.fromkeys(overlapping, "test"), strange: "train"}
    assert {load_splits(root)[key] for key in overlapping} == {HOLDOUT}


@pytest.mark.data
@pytest.mark.slow
def test_no_field_of_the_real_krd_is_like_one_of_another_part() -> None:
    try:
        root = data_root()
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    if not (root / "krd" / "labels.csv").is_file():
        pytest.skip(f"{root} has no set krd")
    pictures = masked_pictures(root, ("krd",), 0)
    counts = {part: sum(picture.part == part for picture in pictures) for part in ("train", "validation", "test")}
    assert counts == {"train": 487, "validation": 62, "test": 51}
    part_of_name = {picture.name: picture.part for picture in pictures}
    for keys in build_groups(root).values():
        assert len({part_of_name[key] for key in keys if key in part_of_name}) <= 1
        assert len({key.split("/")[0] for key in keys} & {"krd", "wbc_masks"}) <= 1  # they are split apart


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
