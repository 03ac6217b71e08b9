"""Cells as a detector boxes them, and how large red cells are around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from engines.base import Detections
from tools.data import CellPicture, located

Row = tuple[tuple[float, float, float, float], float, str]
NAMES = ("RBC", "WBC", "erythroblast")
KINDS = ("red", "white", "nucleated red")


def detections(*rows: Row) -> Detections:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return Detections(boxes, scores, np.array([NAMES.index(n) for _, _, n in rows], int), NAMES, KINDS, False)


def cell(box: tuple[float, float, float, float], *, guess: bool, key: str = "krd/a.png") -> CellPicture:
    return CellPicture(key.split("/")[0], key, Path(key), 200, 200, box, "lymphocyte", box_is_guess=guess)


CENTRE = (70.0, 70.0, 130.0, 130.0)
FOUND: dict[str, tuple[bool, list[Row], tuple[float, ...] | None]] = {
    "a labelled cell: the one that overlaps most": (
        False,
        [((60, 60, 125, 130), 0.6, "WBC"), ((120, 60, 190, 130), 0.9, "WBC")],
        (60, 60, 125, 130),
    ),
    "a labelled cell that is not seen": (False, [((120, 120, 190, 190), 0.9, "WBC")], None),
    "a guess: the one over the middle": (
        True,
        [((0, 0, 60, 60), 0.9, "WBC"), ((80, 85, 150, 140), 0.5, "WBC")],
        (80, 85, 150, 140),
    ),
    "a guess with nothing over the middle": (True, [((0, 0, 60, 60), 0.9, "WBC")], None),
    "nucleated red cells count": (False, [(CENTRE, 0.9, "erythroblast")], CENTRE),
    "red cells don't": (False, [(CENTRE, 0.9, "RBC")], None),
    "too unsure": (False, [(CENTRE, 0.2, "WBC")], None),
    "nothing": (True, [], None),
}


@pytest.mark.parametrize(("guess", "rows", "expected"), FOUND.values(), ids=list(FOUND))
def test_which_cell_is_meant(guess: bool, rows: list[Row], expected: tuple[float, ...] | None) -> None:
    assert located.box_of(cell(CENTRE, guess=guess), detections(*rows), 0.4) == expected


class ScriptedDetector:
    """Finds one white cell and red cells as wide as the first pixel says, twenty of them, or none for 0."""

    long_side_px = 200
    card = SimpleNamespace(sha256="ab" * 32, thresholds=SimpleNamespace(operating=0.4))

    def __init__(self) -> None:
        self.looks = 0

    def with_long_side(self, side: int) -> ScriptedDetector:
        return self

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        self.looks += len(frames)
        return [detections(((60, 65, 125, 130), 0.9, "WBC")) for _ in frames]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How many pictures each measurement was of; a picture's first pixel is its red cells' diameter, 0: too few."""
    calls: list[int] = []

    def measure(detector: ScriptedDetector, frames: Sequence[np.ndarray]) -> float | None:
        calls.append(len(frames))
        seen = [float(frame[0, 0, 0]) for frame in frames if frame[0, 0, 0]]
        return float(np.median(seen)) if seen else None

    monkeypatch.setattr(located, "measure_rbc_diameter", measure)
    monkeypatch.setattr(located, "long_side_for", lambda *size: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def pictures(folder: Path, dataset: str, diameters: Sequence[int], slide: str | None = None) -> list[CellPicture]:
    cells = []
    for n, diameter in enumerate(diameters):
        image = np.full((200, 200, 3), 220, np.uint8)
        image[0, 0] = diameter
        path = folder / f"{dataset}-{slide}-{n}.png"
        cv2.imwrite(str(path), image)
        made = cell(CENTRE, guess=False, key=f"{dataset}/{path.name}")
        cells.append(replace(made, path=path, slide=slide))
    return cells


def test_pictures_of_a_laboratory_are_measured_together_and_fields_of_krd_one_by_one(
    tmp_path: Path, measured: list[int]
) -> None:
    cells = [
        *pictures(tmp_path, "krd", (30, 90, 0)),
        *pictures(tmp_path, "deepapl", (40, 0, 40), "one"),
        *pictures(tmp_path, "deepapl", (50, 50, 0), "two"),
        *pictures(tmp_path, "marrow", (0, 0)),
    ]
    detector = ScriptedDetector()
    found = located.locate(cells, detector)  # type: ignore[arg-type]
    together = float(np.median([30, 90]))
    assert [one.rbc_px for one in found] == [30, 90, together, 40, 40, 40, 50, 50, 50, None, None]
    assert all(one.found and one.cell.box_px == (60, 65, 125, 130) for one in found)
    assert [one.cell.key for one in found] == [c.key for c in cells]
    assert measured == [3, 1, 1, 1, 3, 3, 2]  # each picture once, then each field of krd by itself
    looks = detector.looks
    again = located.locate(cells, detector)  # type: ignore[arg-type]
    assert again == found
    assert detector.looks == looks  # from the cache
    moved = [replace(cells[0], box_px=(0, 0, 20, 20))]
    (lost,) = located.locate(moved, detector)  # type: ignore[arg-type]
    assert not lost.found
    assert lost.cell.box_px == (0, 0, 20, 20)


def test_a_cell_without_a_box_is_measured_by_the_detectors(
    tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(located, "load_detector", lambda *_, **__: ScriptedDetector())
    boxed, other = pictures(tmp_path, "pbc", (40, 40))
    narrow = replace(other, box_px=(95, 95, 105, 105), box_is_guess=True)
    wide = replace(narrow, box_px=(10, 10, 190, 190))
    for guessed in (narrow, wide):  # whatever was guessed
        first, second = located.with_found_boxes([boxed, guessed])
        assert first == boxed
        assert second.box_px == (60, 65, 125, 130)
    assert located.with_found_boxes([boxed]) == [boxed]


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"a.png: got a file that can't be decoded"):
        located.read_image(tmp_path / "a.png")
