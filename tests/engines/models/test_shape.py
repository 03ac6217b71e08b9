"""Measures of drawn cells whose truth is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from engines.models.shape import CYTOPLASM, NUCLEUS, Shape, circularity, count_lobes, measure, perimeter

SIZE = 96
NOTHING = Shape(None, None, None, None)


def blank() -> np.ndarray:
    return np.zeros((SIZE, SIZE), np.uint8)


def disc(mask: np.ndarray, x: float, y: float, radius: float, label: int = 1) -> np.ndarray:
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    mask[np.hypot(columns - x, rows - y) <= radius] = label
    return mask


def bar(mask: np.ndarray, start: tuple[int, int], end: tuple[int, int], width: int) -> np.ndarray:
    cv2.line(mask, start, end, 1, width)
    return mask


def nucleus(name: str) -> np.ndarray:
    mask = blank()
    if name == "disc":
        disc(mask, 48, 48, 20)
    elif name == "bean":  # as of a monocyte
        disc(mask, 48, 48, 24)
        disc(mask, 48, 70, 14, 0)
    elif name == "band":
        cv2.ellipse(mask, (48, 48), (26, 22), 0, 150, 390, 1, 11)
    elif name == "two lobes on a thread":
        bar(disc(disc(mask, 28, 48, 12), 68, 48, 13), (28, 48), (68, 48), 3)
    elif name == "two lobes apart":
        disc(disc(mask, 28, 48, 12), 68, 48, 13)
    elif name == "three lobes in a row":
        bar(disc(disc(disc(mask, 20, 48, 10), 48, 40, 11), 77, 48, 10), (20, 48), (48, 40), 5)
        bar(mask, (48, 40), (77, 48), 5)
    elif name == "four lobes":
        for x, y in ((30, 30), (66, 30), (66, 66), (30, 66)):
            disc(mask, x, y, 11)
        cv2.polylines(mask, [np.array([(30, 30), (66, 30), (66, 66), (30, 66)])], False, 1, 4)
    elif name == "two touching discs":
        disc(disc(mask, 36, 48, 14), 60, 48, 14)
    return mask.astype(bool)


@pytest.mark.parametrize(
    ("name", "lobes"),
    [
        ("nothing", 0),
        ("disc", 1),
        ("bean", 1),
        ("band", 1),
        ("two lobes on a thread", 2),
        ("two lobes apart", 2),
        ("two touching discs", 2),
        ("three lobes in a row", 3),
        ("four lobes", 4),
    ],
)
def test_lobes(name: str, lobes: int) -> None:
    drawn = nucleus(name)
    assert count_lobes(drawn) == lobes
    assert count_lobes(drawn.T) == lobes
    assert count_lobes(np.kron(drawn, np.ones((2, 2), bool))) == lobes


@pytest.mark.parametrize("radius", [8, 15.5, 30])
def test_perimeter_and_circularity_of_a_disc(radius: float) -> None:
    drawn = disc(blank(), 48, 48, radius).astype(bool)
    assert perimeter(drawn) == pytest.approx(2 * math.pi * radius, rel=0.03)
    assert circularity(drawn) == pytest.approx(1, abs=0.05)


def test_circularity_of_what_is_long() -> None:
    drawn = blank().astype(bool)
    drawn[40:56, 16:80] = True
    assert perimeter(drawn) == pytest.approx(160, rel=0.06)
    assert circularity(drawn) == pytest.approx(4 * math.pi * 1024 / 160**2, rel=0.14)
    assert circularity(nucleus("band")) < 0.5 < circularity(nucleus("bean"))
    with pytest.raises(ValueError, match="got an empty mask"):
        circularity(np.zeros((4, 4), bool))


def test_areas_are_those_of_the_full_frame() -> None:
    mask = disc(disc(blank(), 48, 48, 34, CYTOPLASM), 50, 46, 18, NUCLEUS)
    shape = measure(mask, side_px=SIZE * 1.5, margins=(1.3, 1.3))
    assert shape.nucleus_area_px == pytest.approx(math.pi * 27**2, rel=0.01)
    assert shape.cytoplasm_area_px == pytest.approx(math.pi * (51**2 - 27**2), rel=0.01)
    assert shape.nucleus_to_cytoplasm_ratio == pytest.approx(27**2 / (51**2 - 27**2), rel=0.01)
    assert shape.nuclear_lobes == 1
    assert shape.nucleus_circularity == pytest.approx(1, abs=0.03)


def test_the_neighbour_is_not_measured() -> None:
    mask = disc(disc(blank(), 48, 48, 26, CYTOPLASM), 48, 48, 14, NUCLEUS)
    alone = measure(mask, SIZE, (1.3, 1.3))
    disc(disc(mask, 90, 8, 14, CYTOPLASM), 90, 8, 10, NUCLEUS)
    assert measure(mask, SIZE, (1.3, 1.3)) == alone


def test_the_neighbour_that_touches_is_cut_off_at_the_box() -> None:
    mask = disc(disc(blank(), 48, 30, 18, CYTOPLASM), 48, 30, 10, NUCLEUS)
    moved = np.roll(mask, 18, axis=0)
    alone = measure(moved, SIZE, (SIZE / 36, SIZE / 36))
    disc(disc(moved, 48, 80, 18, CYTOPLASM), 48, 80, 10, NUCLEUS)
    together = measure(moved, SIZE, (SIZE / 36, SIZE / 36))
    assert together.nuclear_lobes == alone.nuclear_lobes == 1
    assert together.nucleus_area_px == alone.nucleus_area_px
    assert alone.cytoplasm_area_px is not None
    assert together.cytoplasm_area_px == pytest.approx(alone.cytoplasm_area_px, rel=0.15)  # the corners


def test_crumbs_are_no_lobes() -> None:
    mask = disc(disc(blank(), 48, 48, 34, CYTOPLASM), 48, 48, 18, NUCLEUS)
    whole = measure(mask, SIZE, (1.3, 1.3))
    disc(mask, 70, 60, 2, NUCLEUS)
    crumbed = measure(mask, SIZE, (1.3, 1.3))
    assert crumbed.nuclear_lobes == 1
    assert crumbed.nucleus_area_px == whole.nucleus_area_px


def test_what_was_not_segmented_is_not_measured() -> None:
    assert measure(blank(), SIZE, (1.3, 1.3)) == NOTHING
    assert measure(disc(blank(), 48, 48, 4, NUCLEUS), SIZE, (1.3, 1.3)) == NOTHING  # noise
    assert measure(disc(blank(), 6, 6, 10, NUCLEUS), SIZE, (1.8, 1.8)) == NOTHING  # a neighbour, no cell
    naked = measure(disc(blank(), 48, 48, 20, NUCLEUS), SIZE, (1.3, 1.3))
    assert naked.cytoplasm_area_px is None
    assert naked.nucleus_to_cytoplasm_ratio is None
    assert naked.nuclear_lobes == 1
    anucleate = measure(disc(blank(), 48, 48, 20, CYTOPLASM), SIZE, (1.3, 1.3))
    assert anucleate.cytoplasm_area_px is not None
    assert (anucleate.nucleus_area_px, anucleate.nuclear_lobes, anucleate.nucleus_circularity) == (None, None, None)
