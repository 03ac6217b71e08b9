"""A run that goes on decides as one that nobody stopped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.journal.rows import packed_area, unpacked_area
from streamer.looking.decision import Decider
from streamer.looking.owed import OwedLooks
from streamer.looking.plan import NO_DOUBT, Candidate, CellsInDoubt, KnownCells
from streamer.looking.state import AreaState, Rows
from tests.streamer.looking.test_decision import frame

STEPS = st.tuples(st.floats(-200, 200), st.floats(-150, 150), st.sampled_from([1.0, 1.0, 0.4]), st.booleans())
LAGS = 1, 3


def doubts_after(number: int, frames: list[Candidate]) -> CellsInDoubt:
    """Every third frame leaves it in doubt whether there is a cell in its middle, and where one ends at its edge."""
    position = frames[number].placement.position
    if position is None or number % 3:
        return NO_DOUBT
    place = np.array([[position.x_px, position.y_px] * 2])
    there, cut = place + np.array([300, 200, 360, 260]), place + np.array([560, 200, 680, 320])
    label = np.zeros(1, np.intp)
    return CellsInDoubt(
        presence=KnownCells(np.array([number]), there, label), extent=KnownCells(np.array([number]), cut, label)
    )


def decided(decider: Decider, frames: list[Candidate], first: int) -> list[tuple[bool, Rows]]:
    """(whether it is looked at, what waits then) of each frame from `first` on, as a Placer decides, with the count as
    far behind as it may be."""
    assert decider.owed is not None
    found, counted = [], first
    for number in range(first, len(frames)):
        while counted <= number - LAGS[1]:
            decider.owed.counted(0, doubts_after(counted, frames))
            counted += 1
        decider.move(number - first, ())
        following = frames[number + 1] if number + 1 < len(frames) else None
        looked = not decider.is_settled(frames[number]) and decider.is_worth_a_look(frames[number], following)
        found.append((looked, decider.waiting))
    return found


@given(st.lists(STEPS, min_size=4, max_size=25), st.data())
def test_a_run_that_goes_on_decides_as_one_that_nobody_stopped(
    steps: list[tuple[float, float, float, bool]], data: st.DataObject
) -> None:
    x = y = 0.0
    frames = []
    for dx, dy, sharpness, accepted in steps:
        x, y = x + dx, y + dy
        frames.append(frame(x, y, sharpness=sharpness, accepted=accepted))
    whole = decided(Decider(OwedLooks(*LAGS)), frames, 0)
    stop = data.draw(st.integers(1, len(frames) - 1))
    again = Decider(OwedLooks(*LAGS))
    for number in range(stop):
        again.move(number - stop, ())
        if whole[number][0]:
            again.look(frames[number])
    doubts = tuple((0, doubts_after(number, frames)) for number in range(max(0, stop - LAGS[1]), stop))
    kept = unpacked_area(packed_area(AreaState(whole[stop - 1][1], doubts, (0, 0, 0, 0), False)))
    again.go_on_from(kept.waiting)
    assert again.owed is not None
    again.owed.go_on_from(kept.doubts)
    rest = decided(again, frames, stop)
    assert [looked for looked, _ in rest] == [looked for looked, _ in whole[stop:]]
    for (_, waits), (_, waited) in zip(rest, whole[stop:], strict=True):
        np.testing.assert_array_equal(waits, waited)


def test_what_is_kept_is_read_as_it_was() -> None:
    cells = KnownCells(np.array([3, 9]), np.array([[1.5, 2, 3, 4], [5, 6, 7, 8.25]]), np.array([0, 2]))
    waiting = np.arange(14, dtype=np.float64).reshape(2, 7)
    kept = AreaState(waiting, ((1, CellsInDoubt(classes=cells)), (0, NO_DOUBT)), (4, 3, 2, 1), True)
    again = unpacked_area(packed_area(kept))
    np.testing.assert_array_equal(again.waiting, waiting)
    assert [island for island, _ in again.doubts] == [1, 0]
    read = again.doubts[0][1].classes
    for name in ("cell_ids", "boxes_px", "labels"):
        np.testing.assert_array_equal(getattr(read, name), getattr(cells, name))
    assert len(again.doubts[1][1].presence) == 0
    assert (again.proof, again.every_frame) == ((4, 3, 2, 1), True)


@pytest.mark.parametrize("blob", [b"", b"x", packed_area(AreaState(np.zeros((0, 7)), (), (0, 0, 0, 0), False))[:-3]])
def test_what_is_no_state_is_said(blob: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpacked_area(blob)
