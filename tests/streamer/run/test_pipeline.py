"""The whole way of a frame with scripted models and scripted sources: real threads, exact counts."""

import threading
import time

import numpy as np
import pytest

from engines.base import EngineError
from streamer.analysis.analyser import Analyser
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, DifferentialMessage, FrameMessage, HealthMessage
from streamer.records import ModelHealth
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from streamer.sources.base import SourceError, SourceLostError
from tests.cases import HEIGHT, WIDTH, Collected, ScriptedSource, always, find_by_script, stamped, textured_slide

WHITE, RED = 0, 1


def panned(frames: int, step_px: int = 40) -> list[np.ndarray]:
    """Frames of a stage that pans along a slide, each stamped with its number."""
    slide = textured_slide()
    return [stamped(slide[:HEIGHT, i * step_px : i * step_px + WIDTH], i) for i in range(frames)]


def one_cell_in_view(frames: int, step_px: int = 40) -> dict:
    """One white and one red cell of the slide, where each frame of `panned` shows them."""
    white, red = (300.0, 100.0, 340.0, 140.0), (420.0, 60.0, 445.0, 85.0)
    script = {}
    for i in range(frames):
        rows = []
        for box, score, label in ((white, 0.9, WHITE), (red, 0.8, RED)):
            left, right = box[0] - i * step_px, box[2] - i * step_px
            if left < WIDTH and right > 0:
                rows.append(((max(left, 0.0), box[1], min(right, float(WIDTH)), box[3]), score, label))
        script[i] = rows
    return script


def run(
    sources,
    detector,
    classifier,
    *,
    workers=2,
    stop_at=None,
    min_score=None,
    sink=None,
    mode="analysis",
    now_ns=time.monotonic_ns,
    **limits,
):
    """(what was published, the pipeline); raises what the run raised."""
    collected = sink or Collected()

    def new_session(name):
        return SlideSession(
            MessageFactory(name, session=f"session-{name}", run_id="run"),
            ClassDecision.of(classifier) if classifier else None,
            operating_score=detector.card.thresholds.operating,
            min_score=min_score,
        )

    pipeline = Pipeline(
        [(source, mode) for source in sources],
        Analyser(detector, classifier),
        new_session,
        RunOutputs([collected]),
        Limits(workers=workers, stop_at=stop_at, **limits),
        models=lambda source: ModelHealth("scripted", "detector", "classifier"),
        now_ns=now_ns,
    )
    pipeline.start()
    try:
        pipeline.finish()
    finally:
        collected.pipeline = pipeline
    return collected


@pytest.mark.parametrize("workers", [1, 3])
def test_a_cell_seen_in_many_frames_is_counted_once(workers):
    published = run([ScriptedSource(panned(12))], find_by_script(one_cell_in_view(12)), always(1), workers=workers)
    frames = published.of(FrameMessage)
    assert [message.frame_id for message in frames] == list(range(12))
    assert [message.seq for message in frames] == list(range(12))
    assert [message.session_seq for message in published.messages] == list(range(len(published.messages)))
    final = published.of(DifferentialMessage)[-1]
    assert final.final
    assert (final.total, final.classes["lymphocyte"].count, final.rbc_seen) == (1, 1, 1)
    assert (final.frames, final.frames_accepted) == (12, 12)
    cells = [(m.cell_id, m.class_) for m in published.of(CellMessage)]
    assert cells == [(cells[0][0], "lymphocyte")]
    new = [d for message in frames for d in message.detections if d.is_new and d.kind == "white"]
    assert len(new) == 1
    assert published.closed == 1


def test_the_picture_of_a_cell_comes_with_its_first_message():
    published = run([ScriptedSource(panned(6))], find_by_script(one_cell_in_view(6)), always(1))
    pictures = [p for m, p in zip(published.messages, published.payloads, strict=True) if isinstance(m, CellMessage)]
    assert [picture[:2] for picture in pictures] == [b"\xff\xd8"]


def test_a_cell_that_was_taken_for_a_red_one_first_has_a_picture_once_it_is_white():
    script = one_cell_in_view(6)
    red_first = {i: [(box, score, 1 if i < 2 else label) for box, score, label in script[i]] for i in script}
    published = run([ScriptedSource(panned(6))], find_by_script(red_first), always(1))
    pictures = [p for m, p in zip(published.messages, published.payloads, strict=True) if isinstance(m, CellMessage)]
    assert [None if picture is None else picture[:2] for picture in pictures] == [b"\xff\xd8"]


def test_frames_of_two_sources_stay_in_their_order_and_their_counts_apart():
    sources = [ScriptedSource(panned(9), name="left"), ScriptedSource(panned(5), name="right")]
    published = run(sources, find_by_script(one_cell_in_view(9)), always(0), workers=3)
    for name, count in (("left", 9), ("right", 5)):
        frames = [message.frame_id for message in published.of(FrameMessage) if message.source == name]
        assert frames == list(range(count))
    finals = {m.source: m.total for m in published.of(DifferentialMessage) if m.final}
    assert finals == {"left": 1, "right": 1}


def test_what_is_no_image_is_counted_and_costs_nothing_else():
    frames = panned(4)
    source = ScriptedSource([frames[0], "notes.txt", frames[1], "torn.jpg", frames[2], frames[3]])
    published = run([source], find_by_script(one_cell_in_view(4)), always(0))
    status = published.of(HealthMessage)[-1].sources["slide"]
    assert status.skipped == {"not an image": 2}
    assert (status.captured, status.published, status.dropped, status.state) == (4, 4, {}, "ended")


def test_a_source_that_can_never_work_fails_the_run_and_not_the_other_source():
    broken = ScriptedSource([SourceError("source gone: got nothing, expected something")], name="gone")
    published = Collected()
    with pytest.raises(SourceError, match="source gone"):
        run(
            [broken, ScriptedSource(panned(5))],
            find_by_script(one_cell_in_view(5)),
            always(0),
            sink=published,
        )
    final = {m.source: m for m in published.of(DifferentialMessage) if m.final}["slide"]
    assert (final.total, final.frames) == (1, 5)
    states = {name: s.state for m in published.of(HealthMessage) for name, s in m.sources.items()}
    assert states == {"gone": "failed", "slide": "ended"}


def test_a_lost_source_is_opened_again_and_goes_on():
    frames = panned(4)
    source = ScriptedSource([frames[0], frames[1], SourceLostError("camera: no answer"), frames[2], frames[3]])
    published = run([source], find_by_script(one_cell_in_view(4)), always(0))
    assert [message.frame_id for message in published.of(FrameMessage)] == [0, 1, 2, 3]
    status = published.of(HealthMessage)[-1].sources["slide"]
    assert (status.reopened, status.detail) == (1, "camera: no answer")
    assert source.opened == 2


def test_a_failing_model_ends_the_run_and_what_was_counted_is_published():
    detector = find_by_script(one_cell_in_view(20))
    analyse = detector.detect

    def failing(images, halves=None):
        if images[0][0, 0, 0] == 9:
            raise EngineError("engine: got nonsense, expected sense")
        return analyse(images, halves)

    detector.detect = failing
    published = Collected()
    with pytest.raises(EngineError, match="got nonsense"):
        run([ScriptedSource(panned(20))], detector, always(2), workers=1, sink=published)
    final = published.of(DifferentialMessage)[-1]
    assert final.final
    assert (final.total, final.frames) == (1, 9)
    assert published.closed == 1


def test_stop_at_ends_the_source_when_enough_cells_are_counted():
    source = ScriptedSource(panned(30))
    published = run([source], find_by_script(one_cell_in_view(30)), always(0), workers=1, stop_at=1)
    final = published.of(DifferentialMessage)[-1]
    assert (final.total, final.final) == (1, True)
    assert final.frames < 30


def test_without_a_classifier_cells_are_unclassified():
    published = run([ScriptedSource(panned(6))], find_by_script(one_cell_in_view(6)), None)
    final = published.of(DifferentialMessage)[-1]
    assert (final.total, final.unclassified) == (1, 1)


def test_a_detection_below_the_operating_threshold_is_published_and_never_counted():
    box = (100.0, 100.0, 140.0, 140.0)
    detector = find_by_script({i: [(box, 0.4, WHITE)] for i in range(3)})
    detector.threshold = 0.3
    published = run([ScriptedSource(panned(3, step_px=0))], detector, always(0))
    seen = [detection for message in published.of(FrameMessage) for detection in message.detections]
    assert [(d.counted, d.cell_id) for d in seen] == [(False, None)] * 3
    assert published.of(DifferentialMessage)[-1].total == 0


def test_min_score_hides_detections_and_changes_no_count():
    script = {
        i: [((100.0, 100.0, 140.0, 140.0), 0.9, WHITE), ((200.0, 50.0, 230.0, 80.0), 0.6, WHITE)] for i in range(3)
    }
    published = run([ScriptedSource(panned(3, step_px=0))], find_by_script(script), always(0), min_score=0.8)
    assert [[d.score for d in m.detections] for m in published.of(FrameMessage)] == [[0.9]] * 3
    assert all(d.look_class == "neutrophil" for m in published.of(FrameMessage) for d in m.detections)
    assert published.of(DifferentialMessage)[-1].total == 2


def test_many_detections_are_all_published():
    corners = [(16.0 * (i % 20), 12.0 * (i // 20)) for i in range(350)]
    boxes = [((x, y, x + 12, y + 9), 0.9, RED) for x, y in corners]
    detector = find_by_script(dict.fromkeys(range(2), boxes))
    published = run([ScriptedSource(panned(2, step_px=0))], detector, always(0))
    assert [len(message.detections) for message in published.of(FrameMessage)] == [350, 350]
    assert published.of(DifferentialMessage)[-1].rbc_seen > 300


def test_nothing_is_left_running_after_the_end():
    before = threading.active_count()
    run([ScriptedSource(panned(3))], find_by_script(one_cell_in_view(3)), always(0), workers=4)
    assert threading.active_count() == before


def counted(detector, classifier):
    """Both, and the sizes of the batches that their engines were given."""
    sizes = {"detector": [], "classifier": []}
    for name, owner, method in (("detector", detector, "detect"), ("classifier", classifier, "classify_batch")):
        plain = getattr(owner, method)

        def call(items, *rest, plain=plain, name=name):
            sizes[name].append(len(items))
            return plain(items, *rest)

        setattr(owner, method, call)
    return sizes


def test_frames_of_many_sources_go_into_one_batch_and_come_back_in_order():
    count, frames = 4, 6
    sources = [ScriptedSource(panned(frames), name=f"camera{i}") for i in range(count)]
    detector, classifier = find_by_script(one_cell_in_view(frames)), always(0)
    sizes = counted(detector, classifier)
    published = run(sources, detector, classifier, workers=1, max_batch=4, now_ns=lambda: 0, queue=2)
    # Four of whatever is placed: at the end too few may be left of all but one.
    assert sum(sizes["detector"]) == count * frames
    assert max(sizes["detector"]) == count
    assert sizes["detector"].count(count) >= frames - 2
    assert sum(sizes["classifier"]) == count * sum(
        label == WHITE for rows in one_cell_in_view(frames).values() for _, _, label in rows
    )
    assert max(sizes["classifier"]) == count
    for source in sources:
        mine = [message for message in published.of(FrameMessage) if message.source == source.name]
        assert [message.frame_id for message in mine] == list(range(frames))
    assert {m.source: m.total for m in published.of(DifferentialMessage) if m.final} == dict.fromkeys(
        [source.name for source in sources], 1
    )


def test_sources_of_other_sizes_have_batches_of_their_own():
    wide, tall = ([np.zeros((*size, 3), np.uint8)] * 5 for size in ((HEIGHT, WIDTH), (WIDTH, HEIGHT)))
    sources = [ScriptedSource(images, name=name) for name, images in (("a", wide), ("b", tall), ("c", wide))]
    detector, classifier = find_by_script({}), always(0)
    shapes = []
    plain = detector.detect
    detector.detect = lambda images, *rest: shapes.append({image.shape for image in images}) or plain(images, *rest)
    published = run(sources, detector, classifier, max_batch=2)
    assert len(published.of(FrameMessage)) == 15
    assert all(len(one) == 1 for one in shapes)


def test_a_live_frame_too_old_to_matter_is_dropped_for_that_reason():
    """Scripted frames are as old as the machine is up."""
    published = run([ScriptedSource(panned(3))], find_by_script({}), always(0), mode="live", queue=8)
    status = published.of(HealthMessage)[-1].sources["slide"]
    assert (status.published, status.dropped) == (0, {"stale": 3})
