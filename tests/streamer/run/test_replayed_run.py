"""A run that is recorded and its replay: real threads, scripted models, the same messages bit for bit."""

import time

import cv2
import msgspec
import pytest

from streamer.analysis.analyser import Analyser
from streamer.cli import main
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, EndMessage, FrameMessage, HealthMessage, decode, encode
from streamer.recording import Recorder, Recording, TrackInfo
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from streamer.sources import open_source, parse_source
from tests.cases import Collected, ScriptedSource, always, find_by_script
from tests.streamer.run.test_pipeline import one_cell_in_view, panned


def run(sources, path=None, *, keep="got", run_id="run", mode="analysis"):
    detector, classifier = find_by_script(one_cell_in_view(12)), always(1)
    collected = Collected()
    offset_ns = time.time_ns() - time.monotonic_ns()
    tracks = [TrackInfo(source.name, "scripted", mode) for source in sources]
    recorder = path and Recorder(path, tracks, run_id=run_id, keep=keep, utc_offset_ns=offset_ns)

    def new_session(name):
        factory = MessageFactory(name, session=f"{run_id}-{name}", run_id=run_id, utc_offset_ns=offset_ns)
        score = detector.card.thresholds.operating
        return SlideSession(factory, ClassDecision.of(classifier), operating_score=score)

    pipeline = Pipeline(
        [(source, mode) for source in sources],
        Analyser(detector, classifier),
        new_session,
        RunOutputs([collected], recorder=recorder),
        Limits(workers=2),
    )
    pipeline.start()
    pipeline.finish()
    return collected


def results(published, source):
    """All but health, without what is of the run and not of the slide: ids, wall times, and numbers that count health
    too."""
    of_the_run = dict.fromkeys(("session", "run_id", "published_utc"), "") | {"published_ns": 0, "session_seq": 0}
    kept = []
    for message, payload in zip(published.messages, published.payloads, strict=True):
        if message.source == source and not isinstance(message, HealthMessage):
            clean = msgspec.structs.replace(message, **of_the_run)
            if isinstance(clean, FrameMessage):
                clean = msgspec.structs.replace(clean, captured_ns=0, timings_ms={})
            elif isinstance(clean, EndMessage):
                clean = msgspec.structs.replace(clean, last_seq={})
            kept.append((encode(clean), payload))
    return kept


def test_a_replay_gives_the_same_messages_bit_for_bit(tmp_path):
    path = tmp_path / "a.rec"
    sources = [ScriptedSource(panned(12), name="left"), ScriptedSource(panned(7), name="right")]
    first = run(sources, path)
    with Recording(path) as recording:
        recorded = [(decode(one.header), one.payload) for one in recording.messages()]
    assert recorded == list(zip(first.messages, first.payloads, strict=True))
    for name, frames in (("left", 12), ("right", 7)):
        again = run([open_source(parse_source(f"replay:{path},source={name}"))], run_id="again")
        assert results(again, name) == results(first, name)
        assert len([m for m in again.messages if isinstance(m, FrameMessage)]) == frames


def test_a_replay_can_be_recorded_and_played_again(tmp_path):
    first = run([ScriptedSource(panned(5))], tmp_path / "a.rec")
    run([open_source(parse_source(f"slide=replay:{tmp_path / 'a.rec'}"))], tmp_path / "b.rec", run_id="again")
    again = run([open_source(parse_source(f"slide=replay:{tmp_path / 'b.rec'}"))], run_id="third")
    assert results(again, "slide") == results(first, "slide")


def test_the_recording_is_in_the_health_messages(tmp_path):
    published = run([ScriptedSource(panned(6))], tmp_path / "a.rec")
    health = [m for m in published.messages if isinstance(m, HealthMessage)]
    assert (health[-1].recording.frames, health[-1].recording.frames_lost) == (6, {})
    assert [m for m in run([ScriptedSource(panned(2))]).messages if isinstance(m, HealthMessage)][-1].recording is None


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for i, image in enumerate(panned(4)):
        cv2.imwrite(str(folder / f"field{i}.jpg"), image)
    return folder


def test_from_the_command_line(capfd, tmp_path, frames):
    path = tmp_path / "a.rec"
    assert main(["run", "--source", f"s={frames}", "--record", str(path), "--jsonl", str(tmp_path / "a.jsonl")]) == 0
    assert f"recorded 4 frames and {len((tmp_path / 'a.jsonl').read_text().splitlines())} messages to {path}" in (
        capfd.readouterr().out
    )
    assert main(["run", "--source", f"s=replay:{path}", "--jsonl", str(tmp_path / "b.jsonl")]) == 0
    said = []
    for name in ("a.jsonl", "b.jsonl"):
        published = Collected()
        for line in (tmp_path / name).read_bytes().splitlines():
            published.publish(decode(line))
        said.append(results(published, "s"))
        finals = [m for m in published.messages if isinstance(m, DifferentialMessage) and m.final]
        assert [final.frames for final in finals] == [4]
    assert said[0] == said[1]
    assert main(["run", "--source", f"s={frames}", "--record", str(path)]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"leukostream: --record {path}: got a file that exists")
