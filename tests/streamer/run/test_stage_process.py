"""Frames that another process places lie where they lie, and a run tells what it tells without one."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.base import LeukostreamError
from streamer.analysis.analyser import Analyser
from streamer.analysis.measured import MeasuredFrame, measured_image
from streamer.commands.run import build
from streamer.commands.run.build import stage_processes
from streamer.counting.decision import ClassDecision
from streamer.looking.decision import Decider
from streamer.looking.owed import OwedLooks
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, EndMessage, FrameMessage
from streamer.records import Frame, StagePoint
from streamer.run import stage_process
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from streamer.run.slide_stage import OwnStage
from streamer.run.stage_process import StageProcess, StageProcesses
from streamer.stage.ahead import CountedStage
from tests.cases import Collected, ScriptedSource, always, find_by_script
from tests.streamer.run.test_area import film, script, without_times
from tests.streamer.run.test_pipeline import one_cell_in_view, panned
from tests.streamer.stage.stage_cases import view


def own(frame: Frame) -> MeasuredFrame:
    prepared, quality = measured_image(frame.image, moving=bool(frame.moving))
    return MeasuredFrame(frame, None, prepared, quality, {})


def wandering(count: int = 24, seed: int = 4) -> list[Frame]:
    """A stage that wanders and jumps, and says where it is in every second frame."""
    rng = np.random.default_rng(seed)
    x, y = 600, 500
    frames = []
    for number in range(count):
        x, y = (int(np.clip(v + rng.integers(-90, 91), 0, 780)) for v in (x, y))
        if number == count // 2:
            x, y = 60, 700
        stage_um = StagePoint(x * 0.1, y * 0.1) if number % 2 else None
        frames.append(Frame("slide", number, 0, view(x, y), stage_um=stage_um, moving=number == 5))
    return frames


SOURCES = ("slide", "kept", "size", "fault", "run")
"""Each for one test."""


@pytest.fixture(scope="module")
def processes() -> Iterator[StageProcesses]:
    started = StageProcesses(SOURCES, 2)
    yield started
    started.end()


@pytest.fixture
def killed() -> Iterator[StageProcesses]:
    started = StageProcesses(["slide"], 2)
    yield started
    started.end()


def test_sources_share_processes_where_there_are_more_of_them(processes: StageProcesses) -> None:
    assert set(processes.by_source) == set(SOURCES)
    assert len(processes._processes) == 2


def test_a_frame_lies_where_it_lies_in_this_process(processes: StageProcesses) -> None:
    process = processes.by_source["slide"]
    remote, here = process.stage(), OwnStage()
    counted, half_way = CountedStage(), CountedStage()
    for frame in wandering():
        process.begin(frame)
        process.begin(frame)
        remote.expect(frame)
        measured, reference = process.measured(frame), own(frame)
        assert measured.quality == reference.quality
        assert np.array_equal(measured.halved, reference.halved)
        there, placed = remote.place(measured), here.place(reference)
        assert there.placement == placed.placement
        assert [state for state, _ in there.changes.keyframes] == [state for state, _ in placed.changes.keyframes]
        assert there.changes.readings == placed.changes.readings
        assert there.changes.tracker.positions == placed.changes.tracker.positions
        assert (remote.islands, remote.hidden, remote.positions) == (here.islands, here.hidden, here.positions)
        counted.add(there.changes)
        if frame.frame_id < 12:
            half_way.add(placed.changes)
    assert len(here.islands) >= 1
    assert here.positions is not None
    assert remote.finish(half_way) == here.finish(half_way)
    assert process.stage().finish() == ()


def test_a_slide_goes_on_with_what_was_kept_of_it(processes: StageProcesses) -> None:
    frames, here = wandering(), OwnStage()
    kept: dict[int, Any] = {}
    for frame in frames[:14]:
        changes = here.place(own(frame)).changes
        kept |= {state.number: (state, picture) for state, picture in changes.keyframes}
    process = processes.by_source["kept"]
    remote = process.stage()
    remote.restore([kept[number] for number in sorted(kept)], changes.tracker, [])
    assert remote.islands == here.islands
    for frame in frames[14:]:
        process.begin(frame)
        assert remote.place(process.measured(frame)).placement == here.place(own(frame)).placement


def test_what_was_kept_and_contradicts_itself_is_refused_as_here(processes: StageProcesses) -> None:
    changes = OwnStage().place(own(wandering(1)[0])).changes
    for stage in (OwnStage(), processes.by_source["kept"].stage()):
        with pytest.raises(ValueError, match="keyframe"):
            stage.restore([], changes.tracker, [])


def test_frames_may_change_their_size(processes: StageProcesses) -> None:
    process = processes.by_source["size"]
    remote = process.stage()
    for number, size in enumerate((200, 320, 100, 320)):
        frame = Frame("size", number, 0, np.ascontiguousarray(view(100, 100)[:size, :size]))
        process.begin(frame)
        measured = process.measured(frame)
        assert measured.quality == own(frame).quality
        remote.place(measured)


def no_room(**_how: Any) -> None:
    raise OSError(errno.EFBIG, "File too large")


@pytest.mark.parametrize("free", [1000, 10**12])
def test_a_system_without_shared_memory_sends_the_pixels(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container whose 64 MB are used up does, where what writes beyond them would be killed; and where there is
    more, and it may not be had."""
    monkeypatch.setattr(stage_process.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(stage_process, "SHARED", str(Path(__file__).parent))
    monkeypatch.setattr(stage_process, "SharedMemory", None if free == 1000 else no_room)
    started = StageProcesses(["slide"], 2)
    try:
        process = started.by_source["slide"]
        remote, here = process.stage(), OwnStage()
        frames = wandering(12)
        for frame in frames:  # all at once, and before anybody waits for an answer, so that no pipe holds it
            process.begin(frame)
            remote.expect(frame)
        for frame in frames:
            measured = process.measured(frame)
            assert measured.quality == own(frame).quality
            assert remote.place(measured).placement == here.place(own(frame)).placement
    finally:
        started.end()


def test_what_is_wrong_with_a_frame_is_said_here(processes: StageProcesses) -> None:
    process = processes.by_source["fault"]
    process.stage()
    frame = Frame("fault", 0, 0, np.zeros((4, 900, 3), np.uint8))
    process.begin(frame)
    with pytest.raises(LeukostreamError, match="too narrow to register"):
        process.measured(frame)


def test_a_process_that_is_gone_is_said_in_one_line(killed: StageProcesses) -> None:
    process = killed.by_source["slide"]
    kill(killed)
    stage = process.stage  # it sends, and may notice
    with pytest.raises(LeukostreamError, match=r"^slide: got no place of a frame \(its process .*--resume$"):
        stage().restore([], CountedStage().state, [])


def kill(processes: StageProcesses) -> None:
    for process in processes._processes:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process._process.join(5)


class Published(Collected):
    fault: LeukostreamError | None = None


def run(source: ScriptedSource, boxes: Any, process: StageProcess | None) -> Published:
    """What is published, whatever comes of it."""
    classifier, published = always(1), Published()

    def session(name: str) -> SlideSession:
        factory = MessageFactory(name, session="slide-1", run_id="run")
        stage = None if process is None else process.stage()
        decision, decider = ClassDecision.of(classifier), Decider(OwedLooks())
        return SlideSession(factory, decision, operating_score=0.5, decider=decider, stage=stage)

    measuring = {} if process is None else {source.name: process}
    analyser = Analyser(find_by_script(boxes), classifier)
    outputs, limits = RunOutputs([published]), Limits(workers=2)
    pipeline = Pipeline([(source, "analysis")], analyser, session, outputs, limits, measuring=measuring)
    pipeline.start()
    try:
        pipeline.finish()
    except LeukostreamError as error:
        published.fault = error
    return published


def test_a_run_tells_the_same(processes: StageProcesses) -> None:
    here, there = (
        without_times(run(ScriptedSource(film()), script(), one)) for one in (None, processes.by_source["run"])
    )
    assert here == there
    assert sum(one["type"] == "cell" for one in here) > 3


def test_a_run_whose_process_is_killed_ends_with_what_was_counted(killed: StageProcesses) -> None:
    """And says so, as after any other fault."""

    class Killing(ScriptedSource):
        def read(self) -> Any:
            frame = super().read()
            if isinstance(frame, Frame) and frame.frame_id == 20:
                kill(killed)
            return frame

    published = run(Killing(panned(30)), one_cell_in_view(30), killed.by_source["slide"])
    assert "got no place of a frame" in str(published.fault)
    assert published.of(EndMessage)[-1].state == "failed"
    final = published.of(DifferentialMessage)[-1]
    assert final.final
    assert final.frames == len(published.of(FrameMessage)) > 5


@pytest.mark.parametrize(("cores", "parent", "expected"), [(2, None, 2), (1, None, 0), (8, object(), 0)])
def test_there_is_a_process_where_there_is_a_core_for_it(
    cores: int, parent: object, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of others has its core already, and may start no process."""
    started = []
    monkeypatch.setattr(build, "usable_cores", lambda: cores)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(build, "StageProcesses", lambda sources, most: started.append(list(sources)))
    stage_processes(["a", "b"])
    assert [len(sources) for sources in started] == [expected]
