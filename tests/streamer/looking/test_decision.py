"""Which frames of a moving stage are looked at, and that no spot is lost by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.looking.coverage import Coverage, own_depths
from streamer.looking.decision import GAIN, LONGEST_WAIT, NOISY, Decider
from streamer.looking.owed import OwedLooks
from streamer.looking.plan import NONE_KNOWN, Candidate, CellsInDoubt, KnownCells
from streamer.records import StagePosition
from streamer.stage.placement import Placement

SIZE = (640, 480)


def frame(
    x_px: float | None,
    y_px: float = 0.0,
    *,
    accepted: bool = True,
    sharpness: float = 1.0,
    island: int = 0,
    noise: float = 0.0,
) -> Candidate:
    position = None if x_px is None else StagePosition(island, x_px, y_px, 1.0)
    return Candidate(Placement(position, None if x_px is None else 0), SIZE, accepted, sharpness, noise)


def looked_at(frames: Sequence[Candidate], decider: Decider | None = None) -> list[int]:
    """As a Placer decides: each when the next one is known."""
    decider = decider or Decider()
    chosen = []
    for number, one in enumerate(frames):
        decider.move(number, ())
        following = frames[number + 1] if number + 1 < len(frames) else None
        if not decider.is_settled(one) and decider.is_worth_a_look(one, following):
            chosen.append(number)
    return chosen


def test_a_stage_at_rest_is_looked_at_once() -> None:
    assert looked_at([frame(0)] * 9) == [0]


def test_a_stage_that_shakes_shows_nothing_new() -> None:
    assert looked_at([frame(x, y) for x, y in ((0, 0), (3, -2), (-4, 1), (9, 5), (0, 0))]) == [0]


def test_a_pan_is_looked_at_once_a_field_and_at_its_end() -> None:
    pan = [frame(27.0 * step) for step in range(100)]
    chosen = looked_at(pan)
    assert chosen[-1] == 99
    assert len(chosen) <= 8
    assert max(np.diff(chosen)) <= LONGEST_WAIT + 2


def test_what_waits_is_looked_at_before_it_goes_out_of_sight_slowly() -> None:
    there, back = [frame(20.0 * step) for step in range(8)], [frame(140 - 10.0 * step) for step in range(1, 13)]
    assert looked_at([frame(0), *there, *back]) == [0, 9]


def test_fields_apart_are_all_looked_at() -> None:
    assert looked_at([frame(700.0 * step) for step in range(5)]) == [0, 1, 2, 3, 4]


def test_a_frame_that_can_not_be_placed_is_looked_at_and_covers_nothing() -> None:
    assert looked_at([frame(None), frame(0), frame(None), frame(0)]) == [0, 1, 2]


def test_a_rejected_frame_is_not_looked_at_and_nothing_waits_for_it() -> None:
    assert looked_at([frame(0), frame(300, accepted=False), frame(600, accepted=False), frame(600)]) == [0, 3]


def test_a_noisy_frame_is_always_looked_at_unless_its_cells_do_not_count() -> None:
    usual, noisy = frame(0, noise=NOISY), frame(0, noise=NOISY + 0.1)
    assert looked_at([usual, usual, noisy, noisy, frame(0, noise=9.0, accepted=False), usual, noisy]) == [0, 2, 3, 6]


def test_a_noisy_frame_waits_for_no_other() -> None:
    assert looked_at([frame(27.0 * step, noise=NOISY + 0.1) for step in range(12)]) == list(range(12))


def test_what_the_next_frame_shows_blurred_does_not_wait_for_it() -> None:
    assert looked_at([frame(0, sharpness=1.0), frame(100, sharpness=0.5), frame(100, sharpness=0.5)])[0] == 0


def test_a_frame_clearly_sharper_is_looked_at_again() -> None:
    assert looked_at([frame(0, sharpness=sharpness) for sharpness in (0.4, 0.45, 0.9, 0.9, 1.0)]) == [0, 2]


def test_a_fallback_looks_at_every_frame() -> None:
    decider = Decider()
    decider.every_frame = True
    assert looked_at([frame(0)] * 4, decider) == [0, 1, 2, 3]


def test_a_place_seen_before_is_known() -> None:
    there_and_back = [frame(x) for x in (0, 0, 500, 500, 1000, 1000, 500, 500, 0, 0)]
    assert looked_at(there_and_back) == [0, 2, 4]


def looked_at_owing(frames: Sequence[Candidate], doubt: CellsInDoubt) -> list[int]:
    """The same while this is in doubt."""
    owed, chosen = OwedLooks(lag=1), []
    decider = Decider(owed)
    for number, one in enumerate(frames):
        decider.move(number, ())
        following = frames[number + 1] if number + 1 < len(frames) else None
        if not decider.is_settled(one) and decider.is_worth_a_look(one, following):
            chosen.append(number)
        owed.counted(0, doubt)
    return chosen


def known(*boxes: tuple[float, float, float, float]) -> KnownCells:
    return KnownCells(np.arange(len(boxes)), np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), np.intp))


PASSING = [frame(0, y) for y in (0, 0, 293, 303, 303)]
LARGE, SMALL = (300.0, 300.0, 420.0, 480.0), (300.0, 300.0, 360.0, 480.0 - 120)


def test_a_large_cell_seen_cut_is_looked_at_in_the_frame_that_shows_it_deepest() -> None:
    assert looked_at_owing(PASSING, CellsInDoubt()) == [0, 3]
    assert looked_at_owing(PASSING, CellsInDoubt(extent=known(LARGE))) == [0, 2], (
        "7 px from the edge, and cut in the next"
    )
    assert looked_at_owing(PASSING, CellsInDoubt(extent=known(SMALL))) == [0, 3]


def test_a_cell_that_may_be_none_is_looked_at_again_in_all_frames_that_show_it() -> None:
    there = CellsInDoubt(presence=known((300, 200, 360, 260)))
    assert looked_at_owing([frame(0)] * 4, there) == [0, 1, 2, 3]
    assert looked_at_owing([frame(0)] * 4, CellsInDoubt(presence=NONE_KNOWN)) == [0]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-150, 150), st.integers(-150, 150), st.booleans(), st.sampled_from([0, 0, 0, 1])),
        min_size=1,
        max_size=40,
    )
)
def test_no_spot_is_lost_that_an_accepted_frame_showed(steps: list[tuple[int, int, bool, int]]) -> None:
    frames, x, y, island = [], 0, 0, 0
    for right, down, accepted, jump in steps:
        x, y, island = x + right, y + down, island + jump
        frames.append(frame(x, y, accepted=accepted, island=island))
    chosen = looked_at(frames)
    coverage = Coverage()
    for number in chosen:
        coverage.add(frames[number].placement, SIZE, 1.0)
    for one in frames:
        if one.counts:
            assert one.placement.position is not None
            lost = own_depths(SIZE) - coverage.seen(one.placement.position, SIZE, 1.0)
            assert lost.max() <= 1.6 * GAIN
