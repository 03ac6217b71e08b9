from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources.stream_clock import StreamClock


def behind(*frames: tuple[float | None, float]) -> list[float | None]:
    """After each of (time on the stream's clock, when it came)."""
    clock = StreamClock()
    found = []
    for position_s, now_s in frames:
        clock.add(position_s, now_s)
        found.append(None if clock.behind_s is None else round(clock.behind_s, 2))
    return found


def test_a_stream_that_keeps_up_is_not_behind() -> None:
    assert behind(*((number / 30, 100 + number / 30) for number in range(90))) == [0.0] * 90


def test_what_comes_late_is_behind_and_may_catch_up() -> None:
    assert behind((0.0, 100.0), (1.0, 101.0), (2.0, 102.5), (3.0, 105.0), (4.0, 105.2)) == [0.0, 0.0, 0.5, 2.0, 1.2]


def test_one_stored_up_at_the_start_defines_nothing() -> None:
    """A second that was stored up before the stream was opened comes first, at once."""
    stored = [(number / 10, 100.0 + number / 100) for number in range(11)]
    live = [(1.0 + number / 10, 100.1 + number / 10) for number in range(1, 5)]
    assert behind(*stored, *live)[-4:] == [0.0] * 4


def test_a_moment_without_a_frame_is_not_the_end_of_what_was_stored_up() -> None:
    clock = StreamClock()
    stored_up = []
    for position_s, now_s in [(0.0, 0.0), (0.1, 0.01), (0.2, 0.15), (0.3, 0.16), (0.4, 0.26), (0.5, 0.36), (0.6, 0.37)]:
        clock.add(position_s, now_s)
        stored_up.append(clock.stored_up)
    assert stored_up == [True, True, True, True, True, False, False]


def test_a_slow_decoder_shows() -> None:
    """29 s in which 10 s of the stream were decoded: 19 s behind."""
    assert behind(*((number / 3, 100 + number * 29 / 30) for number in range(31)))[-1] == pytest.approx(19, abs=0.1)


def test_a_clock_that_is_a_little_slow_is_no_delay() -> None:
    """Eight hours with a quartz that is wrong by 100 ppm."""
    assert max(number or 0 for number in behind(*((n * 0.9999, float(n)) for n in range(0, 8 * 3600, 10)))) < 0.01


def test_one_that_was_set_keeps_the_delay_that_there_was() -> None:
    frames = [(0.0, 0.0), (1.0, 1.5), (2.0, 2.5), (5000.0, 3.5), (5001.0, 5.0), (3.0, 6.0), (4.0, 7.0)]
    assert behind(*frames) == [0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]


def test_without_a_clock_nothing_is_said() -> None:
    assert behind((None, 1.0), (None, 5.0)) == [None, None]
    clock = StreamClock()
    clock.add(None, 1.0)
    clock.add(None, 1.1)
    assert not clock.stored_up


def test_a_first_frame_without_its_time_does_not_hide_what_was_stored_up() -> None:
    """FFmpeg gives the first frame of an RTSP stream none."""
    clock = StreamClock()
    stored_up = []
    for position_s, now_s in [(None, 0.0), (0.1, 0.01), (0.2, 0.02), (0.3, 0.12), (0.4, 0.22)]:
        clock.add(position_s, now_s)
        stored_up.append(clock.stored_up)
    assert stored_up == [True, True, True, True, False]


@given(st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=50))
def test_it_is_never_ahead_and_never_more_than_the_time_that_passed(steps: list[tuple[float, float]]) -> None:
    clock, position_s, now_s = StreamClock(), 0.0, 0.0
    for step_s, passed_s in steps:
        position_s, now_s = position_s + step_s, now_s + passed_s
        clock.add(position_s, now_s)
        assert clock.behind_s is not None
        assert -1e-9 <= clock.behind_s <= now_s + 1e-9
