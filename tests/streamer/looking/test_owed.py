"""Which known cells are looked at again, whatever the order in which threads come by."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from streamer.looking.owed import NO_LOOK, OwedLooks
from streamer.looking.plan import NONE_KNOWN, Candidate, CellsInDoubt, KnownCells
from streamer.records import StagePosition
from streamer.stage.placement import Correction, Placement


def cells(*boxes: tuple[float, float, float, float]) -> KnownCells:
    return KnownCells(np.arange(len(boxes)), np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), np.intp))


def frame(x_px: float, *, island: int = 0, quality: float = 1.0, accepted: bool = True) -> Candidate:
    return Candidate(Placement(StagePosition(island, x_px, 0.0, quality), 0), (640, 480), accepted, 1.0)


def owed_after(*counted: tuple[int, KnownCells]) -> OwedLooks:
    owed = OwedLooks(lag=2)
    for island, known in counted:
        owed.counted(island, CellsInDoubt(classes=known))
    return owed


def test_a_cell_is_looked_at_where_it_lies_in_the_frame() -> None:
    owed = owed_after((0, cells((300, 100, 360, 160), (700, 100, 760, 160))))
    again = owed.of(2, frame(200))
    assert again.cell_ids.tolist() == [0, 1]
    assert again.boxes_px.tolist() == [[100, 100, 160, 160], [500, 100, 560, 160]]


def test_the_whole_cell_lies_in_the_frame() -> None:
    owed = owed_after((0, cells((2, 100, 62, 160), (3, 100, 63, 160))))
    assert owed.of(2, frame(0)).cell_ids.tolist() == [1]


@pytest.mark.parametrize("other", [{"island": 1}, {"quality": 0.3}, {"accepted": False}])
def test_no_cell_of_a_frame_that_does_not_do(other: dict[str, float]) -> None:
    owed = owed_after((0, cells((300, 100, 360, 160))))
    assert len(owed.of(2, frame(200, **other))) == 0  # type: ignore[arg-type]


def test_what_is_known_is_that_of_two_frames_before() -> None:
    owed = owed_after((0, cells((100, 100, 160, 160))), (0, NONE_KNOWN), (0, NONE_KNOWN))
    assert len(owed.of(1, frame(0))) == 0
    assert len(owed.of(2, frame(0))) == 1
    assert len(owed.of(3, frame(0))) == 0


def test_no_cell_while_the_map_has_moved_since() -> None:
    owed = owed_after((0, cells((100, 100, 160, 160))), (0, cells((100, 100, 160, 160))))
    owed.moved(1, [Correction(0, 0, 5.0, 5.0)])
    assert len(owed.of(2, frame(0))) == 0
    assert len(owed.of(3, frame(0))) == 1


def test_a_decision_waits_for_the_count_it_depends_on_or_for_its_end() -> None:
    for end in (lambda owed: owed.counted(0, CellsInDoubt(classes=cells((100, 100, 160, 160)))), OwedLooks.give_up):
        owed, found = OwedLooks(lag=2), list[int]()
        waiting = threading.Thread(target=lambda o=owed, f=found: f.append(len(o.of(2, frame(0)))))  # type: ignore[misc]
        waiting.start()
        end(owed)
        waiting.join(30)
        assert found == [0 if end is OwedLooks.give_up else 1]


def test_what_is_asked_for_ahead_is_that_of_two_frames_before_all_the_same() -> None:
    owed = OwedLooks(lag=2)
    asked = []
    for order in range(2, 5):
        owed.moved(order, [Correction(0, 0, 5.0, 5.0)] if order == 4 else [])
        asked.append(owed.ask(order, frame(0)))
    assert [one.known for one in asked] == [False, False, True]  # of the last one the map has moved since
    owed.counted(0, CellsInDoubt(cells((100, 100, 160, 160))))
    assert [one.known for one in asked] == [True, False, True]
    owed.counted(0, CellsInDoubt(cells((100, 100, 160, 160), (200, 100, 260, 160))))
    owed.counted(0, CellsInDoubt())
    assert [len(one.wait()) for one in asked] == [1, 2, 0]


def test_a_cell_that_may_be_none_is_looked_at_by_the_detector_where_it_lies_clear_of_the_edges() -> None:
    owed = OwedLooks(lag=2)
    owed.counted(0, CellsInDoubt(presence=cells((300, 100, 360, 160))))
    assert owed.whole(2, frame(200)).now
    assert owed.whole(2, frame(295)) is NO_LOOK, "too near to the edge to be found for sure"
    assert owed.whole(2, frame(200, accepted=False)) is NO_LOOK
    assert len(owed.of(2, frame(200))) == 0


def test_what_was_seen_of_a_large_cell_is_told_where_a_frame_shows_all_of_it() -> None:
    owed = OwedLooks(lag=2)
    owed.counted(0, CellsInDoubt(extent=cells((300, 100, 360, 210), (300, 300, 360, 380))))
    assert owed.whole(2, frame(200)).extents_px.tolist() == [[300, 100, 360, 210]], "coverage does for the other"
    assert owed.whole(2, frame(310)) is NO_LOOK
