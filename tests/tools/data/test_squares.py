"""Squares of cells: where the box and the size of the red cells lie in them, and both looks at a cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.data import ABNORMAL_CLASSES, TRAIN, VALIDATION, CellPicture, squares
from tools.data.located import LocatedCell
from tools.data.squares import LOOK_RED_CELLS, STORED_PX, square_of

FIELD = np.full((300, 400, 3), 220, np.uint8)
BOX = (180.0, 120.0, 220.0, 150.0)
"""Of the dark cell in `field`."""


def field() -> np.ndarray:
    image = FIELD.copy()
    image[120:150, 180:220] = 20
    return image


def dark_box(square: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(square[:, :, 0] < 120)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("rbc_px", [None, 8.0, 30.0, 60.0])
def test_the_box_and_the_red_cells_size_are_mapped_into_the_square(rbc_px: float | None) -> None:
    square, placed = square_of(field(), BOX, rbc_px)
    assert square.shape == (STORED_PX, STORED_PX, 3)
    np.testing.assert_allclose(dark_box(square), placed[:4], atol=2.5)
    side = max(1.9 * 40, 1.2 * LOOK_RED_CELLS * (rbc_px or 0))  # whichever look asks for more
    assert placed[2] - placed[0] == pytest.approx(40 * STORED_PX / side, rel=1e-3)
    assert placed[:4].reshape(2, 2).mean(0) == pytest.approx([STORED_PX / 2] * 2, abs=0.01)
    if rbc_px is None:
        assert np.isnan(placed[4])
    else:
        assert placed[4] == pytest.approx(rbc_px * STORED_PX / side, rel=1e-3)
        assert LOOK_RED_CELLS * placed[4] <= STORED_PX  # the look of a fixed size fits in


def test_a_cell_at_the_edge_keeps_its_place() -> None:
    image = FIELD.copy()
    image[:30, :40] = 20
    square, placed = square_of(image, (0, 0, 40, 30), 20.0)
    inside = np.round(placed[:4]).astype(int)
    assert (square[inside[1] + 3 : inside[3] - 3, inside[0] + 3 : inside[2] - 3] < 60).all()


@pytest.mark.parametrize("side", [96, 144, 224, 360])
def test_a_single_cell_picture_is_its_own_square(side: int) -> None:
    image = np.full((side, side, 3), 220, np.uint8)
    low, high = side // 4, side // 2
    image[low:high, low:high] = 20
    square, placed = square_of(image, (low, low, high, high), side / 6, whole=True)
    np.testing.assert_allclose(placed[:4], np.array([low, low, high, high]) * STORED_PX / side, atol=1e-3)
    np.testing.assert_allclose(dark_box(square), placed[:4], atol=2.5)
    assert placed[4] == pytest.approx(STORED_PX / 6, rel=1e-5)


def located(tmp_path: Path, dataset: str, label: str, rbc_px: float | None, n: int = 0) -> LocatedCell:
    path = tmp_path / f"{dataset}-{n}.png"
    cv2.imwrite(str(path), field())
    key = f"{dataset}/{path.name}"
    return LocatedCell(CellPicture(dataset, key, path, 400, 300, BOX, label), found=True, rbc_px=rbc_px)


def test_both_looks_of_a_cell(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from tools.metrics.abnormal import Chosen, views_of

    known, unknown = located(tmp_path, "krd", "lymphocyte", 25.0), located(tmp_path, "krd", "lymphocyte", None, 1)
    looks = views_of({"krd": Chosen((known, unknown))}, 80, 1.3)["krd"].looks
    assert looks.shape == (2, 2, 80, 80, 3)
    np.testing.assert_array_equal(looks[0, 0], looks[1, 0])
    np.testing.assert_array_equal(looks[1, 1], looks[1, 0, :, ::-1])
    widths = [float(np.ptp(dark_box(look)[[0, 2]])) for look in (looks[0, 0], looks[0, 1])]
    assert widths == pytest.approx([80 / 1.3, 80 * 40 / (LOOK_RED_CELLS * 25)], abs=2)


def load(folder: Path, cells: list[LocatedCell], parts: Mapping[str, str], *left_out: str) -> squares.Squares:
    return squares.load_squares(folder, folder / "squares", cells, parts, left_out)


def test_squares_are_stored_once_and_told_apart_by_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squares, "read_attributes", lambda root, cells: np.full((len(cells), 11), -1))
    cells = [located(tmp_path, "krd", "lymphocyte", 25.0), located(tmp_path, "wbc", "blast", None)]
    parts = {"krd/krd-0.png": TRAIN, "wbc/wbc-0.png": VALIDATION}
    stored = load(tmp_path, cells, parts)
    assert [square.shape for square in stored.squares] == [(STORED_PX, STORED_PX, 3)] * 2
    assert [ABNORMAL_CLASSES[c] for c in stored.classes] == ["lymphocyte", "blast"]
    assert stored.subclasses.tolist() == [-1, -1]
    assert stored.laboratories.tolist() == ["krd", "wbc"]
    assert (stored.select(TRAIN).tolist(), stored.select(VALIDATION).tolist()) == ([0], [1])
    with pytest.raises(ValueError, match="read-only"):
        stored.squares[0][:] = 0
    monkeypatch.setattr(squares, "read_image", None)  # nothing is decoded again
    np.testing.assert_array_equal(load(tmp_path, cells, parts).squares, stored.squares)
    assert load(tmp_path, cells, parts, "krd").parts.tolist() == [VALIDATION, VALIDATION]
    with pytest.raises(TypeError):  # another diameter, another square
        load(tmp_path, [located(tmp_path, "krd", "lymphocyte", 26.0)], parts)
    assert not list((tmp_path / "squares").glob("*.part"))


def test_simulated_cells_are_whole_and_all_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squares, "read_attributes", lambda root, cells: np.full((len(cells), 11), -1))
    stored = load(tmp_path, [located(tmp_path, "krd", "lymphocyte", 25.0)], {"krd/krd-0.png": VALIDATION})
    more = squares.with_simulated(stored, 2, seed=1)
    new = np.arange(1, len(more.cells))
    assert len(new) > 0
    assert len(more.squares) == len(more.boxes) == len(more.rbc_px) == len(more.parts) == len(more.cells)
    assert set(more.laboratories[new]) == {"simulated"}
    assert set(more.parts[new]) == {TRAIN}
    assert ((more.boxes[new] > 0) & (more.boxes[new] < STORED_PX)).all()
    sizes = (more.boxes[new, 2:] - more.boxes[new, :2]).max(1) / more.rbc_px[new]
    assert ((sizes > 0.7) & (sizes < 4)).all()  # white cells in red cells' diameters
    assert (more.attributes[new] == -1).all()
    np.testing.assert_array_equal(squares.with_simulated(stored, 2, seed=1).squares, more.squares)
