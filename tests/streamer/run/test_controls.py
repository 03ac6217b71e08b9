"""Commands on a running pipeline, pictures of its frames, and the command that makes keys."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.analysis.analyser import Analyser
from streamer.cli import main
from streamer.counting.decision import ClassDecision
from streamer.looking.decision import Decider
from streamer.looking.owed import OwedLooks
from streamer.network.keys import AuthorisedKeys, read_key_pair
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, EndMessage, FrameMessage, PictureMessage
from streamer.protocol.requests import NewSlide, Pause, RequestRefused, Resume, StopAt
from streamer.records import Frame, SlideInfo
from streamer.run.gate import Gate
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.ring import Ring
from streamer.run.session import SlideSession
from streamer.sinks.pictures import INTERVAL_NS, PictureMaker
from tests.cases import Collected, ScriptedSource, always, find_by_script
from tests.streamer.network.service_cases import request_of, wait_for
from tests.streamer.run.test_pipeline import one_cell_in_view, panned

FRAMES = 20


class Held(ScriptedSource):
    """Gives a frame only when the test lets it."""

    def __init__(self) -> None:
        super().__init__(panned(FRAMES))
        self.allowed = threading.Semaphore(0)

    def read(self) -> Any:
        self.allowed.acquire()
        return super().read()


class Rig:
    """A pipeline under a source that the test paces; jobs run where the sockets would be served."""

    def __init__(
        self, *, next_session: bool = True, picture: Callable[..., Any] = lambda *_: None, area: bool = False
    ) -> None:
        self.source, self.sink = Held(), Collected()
        self._jobs: list[Callable[[], None]] = []
        detector, classifier = find_by_script(one_cell_in_view(FRAMES)), always(1)
        numbers = itertools.count(1)

        def new_session(name: str, slide: SlideInfo | None = None) -> SlideSession:
            factory = MessageFactory(name, session=f"slide-{next(numbers)}", run_id="run-1")
            decider = Decider(OwedLooks()) if area else None
            decision = ClassDecision.of(classifier)
            return SlideSession(factory, decision, operating_score=0.5, slide=slide, decider=decider)

        self.pipeline = Pipeline(
            [(self.source, "analysis")],
            Analyser(detector, classifier),
            new_session,
            RunOutputs([self.sink], service=self._service, picture=picture),
            Limits(workers=1),
            next_session=new_session if next_session else None,
        )
        self.pipeline.start()

    def _service(self) -> None:
        while self._jobs:
            self._jobs.pop(0)()

    def command(self, kind: Any, **fields: Any) -> Any:
        """The state, or the refusal's code."""
        results: list[Any] = []

        def job() -> None:
            try:
                results.append(
                    self.pipeline.controls.execute(request_of(kind, **{"source": "slide", **fields}), by="owner")
                )
            except RequestRefused as refusal:
                results.append(refusal.code)

        self._jobs.append(job)
        wait_for(lambda: results)
        return results[0]

    def frames(self) -> int:
        return len(self.sink.of(FrameMessage))

    def placed(self) -> int:
        return self.pipeline._lanes["slide"].placer.count

    def give(self, frames: int) -> None:
        for _ in range(frames):
            self.source.allowed.release()

    def finish(self) -> DifferentialMessage:
        self.give(FRAMES + 1)
        self.pipeline.finish()
        final: DifferentialMessage = self.sink.of(DifferentialMessage)[-1]
        return final


def test_a_paused_file_waits_and_goes_on_with_nothing_lost() -> None:
    rig = Rig()
    rig.give(3)
    wait_for(lambda: rig.frames() == 3)
    assert rig.command(Pause).paused
    assert rig.command(Pause) == "not possible"
    rig.give(5)
    assert rig.command(Resume).paused is False
    assert rig.command(Resume) == "not possible"
    assert rig.finish().frames == FRAMES
    assert rig.frames() == FRAMES


def test_stopping_at_a_number_of_cells() -> None:
    rig = Rig()
    rig.give(2)
    wait_for(lambda: rig.frames() == 2)
    assert rig.command(StopAt, cells=1) == "not possible"
    assert rig.command(StopAt, cells=50).stop_at == 50
    assert rig.command(StopAt, cells=None).stop_at is None
    assert rig.command(StopAt, cells=9, source="elsewhere") == "unknown source"
    assert rig.finish().frames == FRAMES


def test_a_new_slide_ends_the_session_and_numbers_go_on() -> None:
    rig = Rig()
    rig.give(4)
    wait_for(lambda: rig.frames() == 4)
    state = rig.command(NewSlide)
    assert (state.session, state.white_cells) == ("slide-2", 0)
    last = rig.finish()
    finals = [message for message in rig.sink.of(DifferentialMessage) if message.final]
    assert [(final.session, final.frames) for final in finals] == [("slide-1", 4), ("slide-2", FRAMES - 4)]
    assert finals[-1] == last
    assert [message.seq for message in rig.sink.of(FrameMessage)] == list(range(FRAMES))
    for session in ("slide-1", "slide-2"):
        of_session = [message.session_seq for message in rig.sink.messages if message.session == session]
        assert of_session == list(range(len(of_session)))


def test_frames_on_their_way_belong_to_the_slide_that_they_were_placed_on() -> None:
    """With `area` the last frame waits for the next one, which is of another slide."""
    rig = Rig(area=True)
    rig.give(4)
    wait_for(lambda: rig.placed() == 4)
    rig.command(NewSlide)
    rig.finish()
    finals = [message for message in rig.sink.of(DifferentialMessage) if message.final]
    assert [(final.session, final.frames) for final in finals] == [("slide-1", 4), ("slide-2", FRAMES - 4)]
    assert [message.frame_id for message in rig.sink.of(FrameMessage)] == list(range(FRAMES))


def test_a_frame_that_waits_for_the_next_one_waits_no_longer_than_a_pause() -> None:
    rig = Rig(area=True)
    rig.give(4)
    wait_for(lambda: rig.placed() == 4)
    assert rig.command(Pause).paused
    wait_for(lambda: rig.frames() == 4)
    rig.command(Resume)
    assert rig.finish().frames == FRAMES


def test_the_next_slide_has_its_own_name_and_the_same_operator() -> None:
    rig = Rig()
    rig.give(2)
    wait_for(lambda: rig.frames() == 2)
    first = SlideInfo(name="A", accession="H1", operator="AK", stain="MGG", wbc=5.0, fields={"batch": "7"})
    assert rig.command(NewSlide, slide=first).slide == first
    assert rig.command(NewSlide, slide=SlideInfo(name="B", stain="Wright")).slide == SlideInfo(
        name="B", operator="AK", stain="Wright"
    )
    assert rig.command(NewSlide).slide == SlideInfo(operator="AK", stain="Wright")
    rig.finish()
    ends = rig.sink.of(EndMessage)
    assert [None if end.slide is None else end.slide.name for end in ends] == [None, "A", "B", None]


def test_what_can_not_be_is_refused() -> None:
    rig = Rig(next_session=False)
    rig.give(1)
    wait_for(lambda: rig.frames() == 1)
    assert rig.command(NewSlide) == "not possible"
    rig.finish()
    with pytest.raises(RequestRefused, match="has ended"):
        rig.pipeline.controls.execute(request_of(Pause, source="slide"), by="owner")


def test_pictures_come_with_their_frames() -> None:
    rig = Rig(picture=lambda frame, now_ns: (b"jpeg", 32, 24) if frame.frame_id % 5 == 0 else None)
    rig.finish()
    pictures = rig.sink.of(PictureMessage)
    assert [(p.frame_id, p.width, p.height, p.scale) for p in pictures] == [(n, 32, 24, 0.1) for n in (0, 5, 10, 15)]
    assert [p.seq for p in pictures] == [0, 1, 2, 3]


def test_pictures_are_made_when_asked_for_and_not_too_often() -> None:
    wanted = {"cam"}
    maker = PictureMaker(wanted.__contains__)
    frame = Frame("cam", 1, 0, np.full((1000, 1600, 3), 200, np.uint8), None)
    picture = maker.picture(frame, 10)
    assert picture is not None
    assert (picture[0][:2], picture[1:]) == (b"\xff\xd8", (960, 600))
    assert maker.picture(frame, 9 + INTERVAL_NS) is None
    wanted.clear()
    assert maker.picture(frame, 10 + INTERVAL_NS) is None
    wanted.add("cam")
    assert maker.picture(frame, 11 + INTERVAL_NS) is not None


def test_a_gate_of_a_live_source_drops_and_counts() -> None:
    frame = Frame("cam", 1, 0, np.zeros((2, 2, 3), np.uint8), None)
    ring: Ring[Frame] = Ring(2, "drop_oldest")
    gate = Gate(ring)
    assert gate.put(frame)
    gate.pause()
    assert [gate.put(frame) for _ in range(3)] == [True] * 3
    assert (len(ring), gate.dropped) == (1, {"paused": 3})
    gate.resume()
    assert gate.put(frame)
    assert len(ring) == 2
    waiting = Gate(Ring(2, "block"))
    waiting.pause()
    assert not waiting.put(frame, 0.001)


def test_keys_new_makes_a_folder_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "keys")
    assert main(["keys", "new", folder]) == 0
    assert len(read_key_pair(folder).public) == 40
    AuthorisedKeys(folder)
    assert main(["keys", "new", folder]) == 2
    assert "which exists" in capsys.readouterr().err
