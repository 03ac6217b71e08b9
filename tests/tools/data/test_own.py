"""Cells that a laboratory named itself, from the table that export writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.data.own import own_cells


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        cv2.imwrite(str(tmp_path / name), np.full((60, 48, 3), 200, np.uint8))
    return tmp_path


def table(folder: Path, *lines: str) -> Path:
    path = folder / "cells.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_reviewed_cells_of_an_export_train(folder: Path) -> None:
    path = table(
        folder,
        "session,picture,class,subclass,reviewed",
        "s1,a.png,neutrophil,band neutrophil,1",
        "s1,b.png,lymphocyte,,0",
        "s2,c.png,unclassified,,1",
        "s2,d.png,blast,,1",
    )
    first, second = own_cells([path])
    assert (first.cell_class, first.subclass, first.slide) == ("neutrophil", "band neutrophil", "s1")
    assert (second.cell_class, second.subclass, second.slide) == ("blast", None, "s2")
    assert first.path == (folder / "a.png").resolve()
    assert (first.width_px, first.height_px, first.box_is_guess) == (48, 60, True)
    assert first.box_px == pytest.approx((4, 5, 44, 55))


def test_a_table_by_hand_may_name_a_subclass_as_the_class(folder: Path) -> None:
    (cell,) = own_cells([table(folder, "file,class", "a.png,promonocyte")])
    assert (cell.cell_class, cell.subclass) == ("blast", "promonocyte")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("name,class", "a.png,blast"), r"got columns name, class, expected file \(or picture\) and class"),
        (("file,class", "a.png,neutrofil"), r"cells.csv line 2: got 'neutrofil', expected one of basophil, "),
        (("file,class,subclass", "a.png,blast,band neutrophil"), r"line 2: got 'band neutrophil', expected one of"),
        (("file,class", "none.png,blast"), r"none.png: got a file that can't be decoded"),
        (("file,class,reviewed", "a.png,blast,0"), r"cells.csv: got no cell that a person has named"),
        (("",), r"got columns none"),
    ],
)
def test_what_can_not_be_used_is_said(folder: Path, lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        own_cells([table(folder, *lines)])


def test_a_table_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.csv: got .*No such file.* expected a table"):
        own_cells([tmp_path / "none.csv"])
