"""How a session ends, and that its end is the last that is heard of it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from engines.base import EngineError
from streamer.analysis.analyser import Analyser
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, EndMessage, FrameMessage, HealthMessage
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from streamer.sources.base import SourceError
from tests.cases import Collected, ScriptedSource, always, find_by_script
from tests.streamer.run.test_pipeline import one_cell_in_view, panned, run


def ends_of(published: Collected) -> dict[str, tuple[str, str]]:
    """(state, reason) by source; each is the last message of its source, behind the final differential."""
    ends = {m.source: m for m in published.of(EndMessage)}
    for name, end in ends.items():
        of_source = [m for m in published.messages if m.source == name]
        assert of_source[-1] == end
        assert isinstance(of_source[-2], DifferentialMessage)
        assert of_source[-2].final
        assert [m.session_seq for m in of_source] == list(range(len(of_source)))
        newest = {type(m).__struct_config__.tag: m.seq for m in of_source[:-1]}
        assert end.last_seq == newest
    return {name: (end.state, end.reason) for name, end in ends.items()}


def test_a_source_that_gave_all_it_had_is_finished() -> None:
    sources = [ScriptedSource(panned(4), name=name) for name in ("left", "right")]
    published = run(sources, find_by_script(one_cell_in_view(4)), always(0))
    assert ends_of(published) == dict.fromkeys(("left", "right"), ("finished", "end of the source"))
    assert {m.sources[m.source].state for m in published.of(HealthMessage)[-2:]} == {"ended"}


def test_as_many_cells_as_were_asked_for_is_finished() -> None:
    published = run([ScriptedSource(panned(30))], find_by_script(one_cell_in_view(30)), always(0), workers=1, stop_at=1)
    assert ends_of(published) == {"slide": ("finished", "1 white cells were counted, and 1 asked for")}


def test_a_source_that_fails_has_failed_and_the_other_one_is_finished() -> None:
    broken = ScriptedSource([SourceError("source gone: got nothing, expected something")], name="gone")
    published = Collected()
    with pytest.raises(SourceError):
        run([broken, ScriptedSource(panned(5))], find_by_script(one_cell_in_view(5)), always(0), sink=published)
    assert ends_of(published) == {
        "gone": ("failed", "source gone: got nothing, expected something"),
        "slide": ("finished", "end of the source"),
    }


def test_a_model_that_fails_fails_every_source() -> None:
    detector = find_by_script({})
    detector.detect = lambda *_: (_ for _ in ()).throw(EngineError("engine: got nonsense, expected sense"))
    sources = [ScriptedSource(panned(3), name=name) for name in ("left", "right")]
    published = Collected()
    with pytest.raises(EngineError):
        run(sources, detector, always(0), sink=published)
    assert ends_of(published) == dict.fromkeys(("left", "right"), ("failed", "engine: got nonsense, expected sense"))


class Camera(ScriptedSource):
    """Gives what it has, and then nothing until it is told to end."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.waits, self.ends = threading.Event(), threading.Event()

    def read(self):
        frame = super().read()
        if frame is None:
            self.waits.set()
            self.ends.wait(20)
        return frame


def test_who_is_stopped_before_the_end_says_by_whom() -> None:
    camera, published = Camera(panned(3)), Collected()
    pipeline = Pipeline(
        [(camera, "analysis")],
        Analyser(find_by_script({}), always(0)),
        lambda name: SlideSession(
            MessageFactory(name, session="session", run_id="run"), ClassDecision.of(always(0)), operating_score=0.5
        ),
        RunOutputs([published]),
        Limits(workers=1),
    )
    pipeline.start()
    assert camera.waits.wait(20)
    pipeline.stop("by SIGTERM")
    pipeline.stop("a second time")
    pipeline.finish()
    camera.ends.set()
    assert ends_of(published) == {"slide": ("stopped", "by SIGTERM")}
    assert published.of(EndMessage)[-1].last_seq["frame"] == 2


class Settled:
    """Images whose frames say what became of them."""

    def __init__(self, images) -> None:
        self.fates: dict[int, list[bool]] = {}
        self.source = ScriptedSource(images)
        plain = self.source.read

        def read():
            frame = plain()
            if frame is None:
                return None
            fate = self.fates[frame.frame_id] = []
            return replace(frame, settle=fate.append)

        self.source.read = read


def test_a_frame_is_settled_once_it_was_counted_and_before_it_is_published() -> None:
    settled, published = Settled(panned(4)), Collected()
    plain, known = published.publish, []

    def publish(message, payload=None):
        if isinstance(message, FrameMessage):
            known.append(settled.fates[message.frame_id][:])
        plain(message, payload)

    published.publish = publish
    run([settled.source], find_by_script(one_cell_in_view(4)), always(0), sink=published)
    assert known == [[True]] * 4
    assert settled.fates == {number: [True] for number in range(4)}


def test_a_frame_that_is_not_kept_is_settled_as_lost() -> None:
    settled = Settled(panned(12))
    run([settled.source], find_by_script(one_cell_in_view(12)), always(0), workers=1, stop_at=1, queue=2)
    fates = list(settled.fates.values())
    kept = fates.count([True])
    assert fates == [[True]] * kept + [[False]] * (len(fates) - kept)
    assert 0 < kept < len(fates)


def test_a_frame_in_which_the_analysis_fails_is_settled_as_lost() -> None:
    settled, detector = Settled(panned(4)), find_by_script({})
    detector.detect = lambda *_: (_ for _ in ()).throw(EngineError("engine: got nonsense, expected sense"))
    with pytest.raises(EngineError):
        run([settled.source], detector, always(0))
    assert settled.fates
    assert all(fate == [False] for fate in settled.fates.values())
