"""Where a stage was while an image was exposed."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources.stage_track import StagePoller, StageSample, Whereabouts, whereabouts

MS = 1_000_000


def at(ms: float, x: float, y: float = 0.0, *, busy: bool = False) -> StageSample:
    return StageSample(round(ms * MS), x, y, 3.0, busy)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0, 40), st.floats(0, 40))
def test_a_steady_motion_is_placed_at_the_middle_of_the_exposure(
    start: float, speed: float, begun: float, long: float
) -> None:
    samples = [at(t, start + speed * t) for t in range(-40, 121, 40)]
    place = whereabouts(samples, round(begun * MS), round((begun + long) * MS), None)
    assert place is not None
    assert place.stage_um[0] == pytest.approx(start + speed * (begun + long / 2), abs=1e-3 + abs(speed) * 1e-5)


@pytest.mark.parametrize(
    ("samples", "um_per_px", "moving"),
    [
        ([at(0, 5), at(40, 5)], None, False),
        # 40 µm in 40 ms, exposed for 10 ms: 10 µm
        ([at(0, 0), at(40, 40)], None, True),
        ([at(0, 0), at(40, 40)], 6.0, False),
        ([at(0, 0), at(40, 40)], 4.0, True),
        # a slow pan: 1 µm in 40 ms smears .25 µm, 1 px
        ([at(0, 0), at(40, 1)], 0.25, False),
        ([at(0, 5, busy=True), at(40, 5)], None, True),
        ([at(0, 5), at(40, 5, busy=True)], None, True),
        ([at(40, 5)], None, None),
    ],
)
def test_moving(samples: list[StageSample], um_per_px: float | None, moving: bool | None) -> None:
    place = whereabouts(samples, 10 * MS, 20 * MS, um_per_px)
    assert place is not None
    assert place.moving is moving


def test_a_motion_before_the_exposure_is_none() -> None:
    samples = [at(0, 0, busy=True), at(40, 100), at(80, 100), at(120, 300)]
    assert whereabouts(samples, 45 * MS, 75 * MS, 0.25) == Whereabouts((100, 0, 3.0), False)


def test_no_position() -> None:
    assert whereabouts([], 0, 1, None) is None


def test_the_poller_asks_once_more_for_what_came_after_its_last_answer() -> None:
    answers = iter([at(0, 1), at(50, 2)])
    poller = StagePoller(lambda: next(answers), every_s=1000)
    poller.start()
    assert poller.during(5 * MS, 15 * MS, None) == Whereabouts((pytest.approx(1.2), 0, 3.0), False)  # type: ignore[arg-type]
    assert poller.during(5 * MS, 15 * MS, None) is not None
    poller.stop()


def test_a_stage_that_does_not_answer_gives_no_position_and_is_asked_again() -> None:
    asked = threading.Event()
    answers = iter([at(0, 1), OSError("off"), at(99, 2), at(199, 2)])

    def ask() -> StageSample:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        if answer.at_ns == 99 * MS:
            asked.set()
        return answer

    poller = StagePoller(ask, every_s=1000)
    poller.start()
    assert poller.during(5 * MS, 15 * MS, None) is None
    assert poller.silent == 1
    assert poller.during(5 * MS, 15 * MS, None) is not None
    assert asked.is_set()
    poller.stop()


def test_the_poller_asks_by_itself() -> None:
    twice = threading.Event()
    times = iter(range(1000))

    def ask() -> StageSample:
        time_ms = next(times)
        if time_ms >= 2:
            twice.set()
        return at(time_ms, 0)

    poller = StagePoller(ask, every_s=0.001)
    poller.start()
    assert twice.wait(5)
    poller.stop()
