"""What the reader thread of a source does when the source is lost, damaged or slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.records import PASSED_OVER, QUEUE_FULL, Frame, Skip
from streamer.run.ring import Ring
from streamer.sources.base import PAUSES_S, PassedOnSource
from streamer.sources.camera import PAUSES_S as CAMERA_PAUSES_S
from streamer.sources.camera import CameraSource
from streamer.sources.reconnection import STOPPED, SourceReader
from tests.streamer.sources.scripted import ScriptedSource, Step, frame


class Run:
    """A reader run to its end on the test's own thread, with a ring that takes all."""

    def __init__(self, steps: Iterable[Step], ring: Ring[Frame] | None = None) -> None:
        self.source = ScriptedSource(steps)
        self.ring: Ring[Frame] = Ring(1000, "block") if ring is None else ring
        self.pauses: list[float] = []
        self.skips: list[Skip] = []
        self.stop = threading.Event()
        self.states: list[str] = []
        self.reader = SourceReader(self.source, self.ring, self.stop, on_skip=self.skips.append, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.states.append(self.reader.status.state)

    def go(self) -> Run:
        self.reader.run()
        assert self.source.closed >= 1
        assert self.ring.closed
        return self

    @property
    def frame_ids(self) -> list[int]:
        return [frame.frame_id for frame in iter(lambda: self.ring.get(0), None)]


def test_a_finite_source_to_its_end() -> None:
    run = Run(["open", "frame", "skip", "frame", "skip"]).go()
    status = run.reader.status
    assert run.frame_ids == [0, 1]
    assert (status.state, status.captured, status.skipped, status.dropped) == ("ended", 2, {"not an image": 2}, {})
    assert (status.reopened, status.fault, run.reader.failure) == (0, None, None)
    assert [skip.detail for skip in run.skips] == ["x: got words"] * 2


def test_many_lost_together_are_counted_each() -> None:
    run = Run(["open"])
    lost = Skip("x", "numbers 6 to 8", "lost on the way", "", count=3)
    run.source.read = iter([frame(0), lost, None]).__next__  # type: ignore[method-assign]
    run.go()
    assert run.reader.status.skipped == {"lost on the way": 3}
    assert run.reader.at_end


def test_a_frame_that_nobody_takes_any_more_is_settled_as_lost() -> None:
    fates: list[bool] = []
    run = Run(["open"])
    run.source.read = lambda: replace(frame(0), settle=fates.append)  # type: ignore[method-assign]
    run.ring.close()
    run.go()
    assert fates == [False]
    assert not run.reader.at_end


def test_a_lost_source_is_opened_again() -> None:
    run = Run(["open", "frame", "lost", "open", "frame", "frame", "lost", "open lost", "open", "frame"]).go()
    status = run.reader.status
    assert run.frame_ids == [0, 1, 2, 3]
    assert (status.state, status.captured, status.reopened, status.fault) == ("ended", 4, 2, "gone for now")
    assert run.pauses == [0.5, 0.5, 1.0]
    assert run.states == ["reopening"] * 3
    assert run.source.closed == 4


def test_pauses_grow_to_their_cap_and_start_again_after_a_frame() -> None:
    run = Run(["open", "frame", "lost", *["open lost"] * 9, "open", "frame", "lost", "open", "lost", "open"]).go()
    assert run.pauses == [*PAUSES_S, 30.0, 30.0, 30.0, 0.5, 1.0]
    assert run.reader.status.reopened == 3


def test_a_source_lost_before_its_first_frame_is_waited_for() -> None:
    run = Run(["open lost", "open lost", "open", "frame"]).go()
    assert run.frame_ids == [0]
    assert run.pauses == [0.5, 1.0]


def test_a_camera_beside_whoever_plugs_it_in_is_looked_for_more_often() -> None:
    run = Run([])
    steps = ["open", "frame", "lost", *["open lost"] * 6, "open"]
    source = ScriptedSource(steps)
    source.pauses_s = CAMERA_PAUSES_S  # type: ignore[attr-defined]
    SourceReader(PassedOnSource(source), run.ring, run.stop, pause=run.pauses.append).run()
    assert run.pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert CameraSource.pauses_s == CAMERA_PAUSES_S


def absent(steps: list[Step], wait_s: float) -> tuple[SourceReader, list[str | None]]:
    """A reader run to its end that waits for its source, and the faults that it showed meanwhile."""
    faults: list[str | None] = []
    now_s = [0.0]

    def pause(seconds: float) -> None:
        now_s[0] += seconds
        faults.append(f"{reader.status.state}: {reader.status.fault}")

    def now_ns() -> int:
        return round(now_s[0] * 1e9)

    source = ScriptedSource(steps)
    reader = SourceReader(source, Ring(9, "block"), threading.Event(), pause=pause, wait_s=wait_s, now_ns=now_ns)
    reader.run()
    return reader, faults


def test_one_that_is_not_on_yet_is_waited_for_where_that_was_asked_for() -> None:
    reader, faults = absent(["open absent"] * 3 + ["open", "frame"], wait_s=3.0)
    assert faults == ["starting: not on; waiting for it"] * 3
    assert (reader.status.state, reader.status.captured, reader.status.reopened) == ("ended", 1, 0)


@pytest.mark.parametrize(("wait_s", "tries"), [(0.0, 1), (2.5, 4)])
def test_waiting_has_an_end(wait_s: float, tries: int) -> None:
    reader, faults = absent(["open absent"] * 9, wait_s)
    assert len(faults) == tries - 1
    assert (reader.status.state, str(reader.failure)) == ("failed", "not on")


def test_what_will_never_work_is_not_waited_for() -> None:
    reader, faults = absent(["open never"], wait_s=60.0)
    assert (faults, str(reader.failure)) == ([], "not there")


def test_frames_passed_over_in_the_source_are_counted() -> None:
    source = ScriptedSource(["open", "frame"])
    source.passed_over, source.behind_s = 7, 0.25  # type: ignore[attr-defined]
    reader = SourceReader(PassedOnSource(source), Ring(2, "block"), threading.Event())
    reader.run()
    assert (reader.status.dropped, reader.status.behind_s) == ({PASSED_OVER: 7}, 0.25)


@pytest.mark.parametrize(
    ("steps", "fault", "captured"),
    [
        (["open never"], "not there", 0),
        (["open", "frame", "never"], "broken", 1),
        (["open", "frame", "lost", "open never"], "not there", 1),
        (["open", "frame", "bug"], "ZeroDivisionError: bug", 1),
    ],
)
def test_a_fault_for_good_ends_it_and_keeps_what_was_read(steps: list[Step], fault: str, captured: int) -> None:
    run = Run(steps).go()
    status = run.reader.status
    assert (status.state, status.fault, status.captured) == ("failed", fault, captured)
    assert len(run.frame_ids) == captured
    assert run.reader.failure is not None


def test_a_backlog_leaves_the_newest_frame() -> None:
    """100 frames at once, then the slow consumer comes: it gets the newest, and the other 99 are counted."""
    seen: list[int] = []
    ring: Ring[Frame] = Ring(1, "drop_oldest")

    def consume() -> None:
        got = ring.get(0)
        assert got is not None
        seen.append(got.frame_id)

    run = Run(["open", *["frame"] * 100, consume, *["frame"] * 50, consume, "frame"], ring).go()
    assert seen == [99, 149]
    assert run.frame_ids == [150]
    assert run.reader.status.captured == 151
    assert ring.dropped == {QUEUE_FULL: 148}


def test_stop_while_the_sink_is_full() -> None:
    ring: Ring[Frame] = Ring(1, "block")
    run = Run(["open", *["frame"] * 5], ring)
    thread = threading.Thread(target=run.go)
    thread.start()
    while run.reader.status.captured < 2:
        time.sleep(0.001)
    run.stop.set()
    thread.join(10)
    status = run.reader.status
    assert (status.state, run.reader.failure) == ("ended", None)
    assert (status.captured, status.dropped, run.frame_ids) == (2, {STOPPED: 1}, [0])


def test_a_closed_sink_ends_it() -> None:
    ring: Ring[Frame] = Ring(3, "block")
    run = Run(["open", "frame", "frame", ring.close, "frame", "frame"], ring).go()
    status = run.reader.status
    assert (run.frame_ids, status.captured, status.dropped, status.state) == ([0, 1], 3, {STOPPED: 1}, "ended")


def test_stop_ends_a_pause_at_once() -> None:
    source = ScriptedSource(["open", "lost", *["open lost"] * 1000])
    stop = threading.Event()
    reader = SourceReader(source, Ring(1, "block"), stop, pauses_s=[3600.0])
    thread = threading.Thread(target=reader.run)
    thread.start()
    while reader.status.state != "reopening":
        time.sleep(0.001)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert reader.status.state == "ended"


def test_stopped_before_it_began_it_opens_nothing() -> None:
    run = Run(["open", "frame"])
    run.stop.set()
    run.go()
    assert run.reader.status.captured == 0
    assert run.reader.status.state == "ended"


@given(st.lists(st.sampled_from(["frame", "skip", "lost", "open lost"]), max_size=60))
def test_every_frame_arrives_once_in_order_whatever_is_lost(events: list[str]) -> None:
    steps: list[Step] = ["open"]
    for event in events:
        if event == "lost":
            steps += ["lost", "open"]
        elif event == "open lost":
            steps += ["lost", "open lost", "open"]
        else:
            steps.append(event)
    run = Run(steps).go()
    status = run.reader.status
    assert run.frame_ids == list(range(events.count("frame")))
    assert status.captured == events.count("frame")
    assert status.skipped.get("not an image", 0) == events.count("skip")
    assert status.reopened == events.count("lost") + events.count("open lost")
    assert len(run.pauses) == events.count("lost") + 2 * events.count("open lost")
    assert all(pause in PAUSES_S for pause in run.pauses)


def test_a_source_that_ends_before_its_first_frame_has_failed() -> None:
    run = Run(["open", "skip", "skip"]).go()
    assert run.reader.status.state == "failed"
    assert str(run.reader.failure).endswith(
        "got no frame, expected at least one; 2 were skipped, the last one was x: got words"
    )
    assert "it holds none" in str(Run(["open"]).go().reader.failure)


def test_one_that_goes_on_may_end_without_another_frame() -> None:
    reader = SourceReader(ScriptedSource(["open"]), Ring(2, "block"), threading.Event(), goes_on=True)
    reader.run()
    assert (reader.status.state, reader.failure) == ("ended", None)
