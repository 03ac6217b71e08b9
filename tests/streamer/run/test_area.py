"""Looking only at what is new, the whole way: the same cells, fewer looks, and frames that still say what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engines.models.classifier import Classifier
from engines.models.detector import Detector
from streamer.analysis.analyser import Analyser
from streamer.counting.decision import ClassDecision
from streamer.journal import Journal, JournalReader, recounted, rules_of
from streamer.looking.decision import Decider
from streamer.looking.owed import OwedLooks
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, DifferentialMessage, FrameMessage, HealthMessage
from streamer.records import Frame
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import HEIGHT, WIDTH, Collected, ScriptedSource, always, find_by_script, stamped, textured_slide

WHITE, RED = 0, 1
TIMES = ("published_ns", "published_utc", "captured_utc", "timings_ms")
NUMBERS = ("session_seq", "last_seq")
"""Health comes in between whenever it is due."""
REST, STEP = 4, 100
STOPS = 6
PLACES = [stop * STEP for stop in range(STOPS) for _ in range(REST)]
"""Where the stage is at each frame: it rests at stops that overlap by two thirds."""
CELLS = [(60.0, 100.0, WHITE), (170.0, 60.0, RED), (250.0, 150.0, WHITE), (420.0, 90.0, WHITE), (700.0, 170.0, WHITE)]


def film() -> list[np.ndarray]:
    slide = textured_slide()
    return [stamped(slide[:HEIGHT, x : x + WIDTH], number) for number, x in enumerate(PLACES)]


def script() -> dict[int, Any]:
    """What the detector finds in each frame."""
    boxes: dict[int, Any] = {}
    for number, x in enumerate(PLACES):
        boxes[number] = []
        for cx, cy, label in CELLS:
            left, right = max(cx - 20 - x, 0.0), min(cx + 20 - x, float(WIDTH))
            if right - left > 8:
                boxes[number].append(((left, cy - 20, right, cy + 20), 0.9, label))
    return boxes


class Seen(list[int]):
    """Numbers of the frames that a detector was shown."""

    def of(self, detector: Detector) -> Seen:
        detect = detector.detect

        def watched(images: Any, halves: Any = None) -> Any:
            self.extend(int(image[0, 0, 0]) for image in images)
            return detect(images, halves)

        detector.detect = watched  # type: ignore[method-assign]
        return self


def run(
    detector: Detector,
    classifier: Classifier | None,
    decider: Decider | None,
    *,
    workers: int = 2,
    journal: Any = None,
    images: list[np.ndarray] | None = None,
    remarks: list[str] | None = None,
) -> Collected:
    def session(name: str) -> SlideSession:
        factory = MessageFactory(name, session="slide-1", run_id="run")
        return SlideSession(
            factory,
            ClassDecision.of(classifier) if classifier else None,
            operating_score=0.5,
            decider=decider,
            journal=journal,
            on_remark=[].append if remarks is None else remarks.append,
        )

    published = Collected()
    source = ScriptedSource(film() if images is None else images)
    analyser = Analyser(detector, classifier)
    pipeline = Pipeline([(source, "analysis")], analyser, session, RunOutputs([published]), Limits(workers=workers))
    pipeline.start()
    pipeline.finish()
    return published


def places(published: Collected) -> list[tuple[float, float, str]]:
    cells = {message.cell_id: message for message in published.of(CellMessage)}
    return sorted((cell.x_px, cell.y_px, cell.class_) for cell in cells.values() if cell.counted)


def without_times(published: Collected) -> list[dict[str, Any]]:
    kept = [message for message in published.messages if not isinstance(message, HealthMessage)]
    plain = [msgspec.to_builtins(message) for message in kept]
    return [{k: v for k, v in one.items() if k not in TIMES + NUMBERS} for one in plain]


def test_the_same_cells_by_far_fewer_looks() -> None:
    every, new = find_by_script(script()), find_by_script(script())
    all_seen, seen = Seen().of(every), Seen().of(new)
    whole, area = run(every, always(1), None), run(new, always(1), Decider())
    assert sorted(all_seen) == list(range(len(PLACES)))
    assert len(seen) <= len(PLACES) / 3
    assert places(area) == places(whole)
    finals = [one.of(DifferentialMessage)[-1] for one in (whole, area)]
    assert finals[0].total == finals[1].total == 4
    assert finals[0].rbc_seen == finals[1].rbc_seen == 1
    assert finals[1].frames == finals[1].frames_accepted == len(PLACES)


def test_every_frame_looked_at_gives_the_messages_of_a_session_that_places_as_it_counts() -> None:
    """The way of a frame before it was placed first: analysed, then placed and counted."""
    detector, classifier = find_by_script(script()), always(1)
    factory = MessageFactory("slide", session="slide-1", run_id="run")
    session = SlideSession(factory, ClassDecision.of(classifier), operating_score=0.5)
    analyser, one_by_one = Analyser(detector, classifier), Collected()
    for number, image in enumerate(film()):
        (analysed,) = analyser.analyse([Frame("slide", number, 1_000_000 * number, image)])
        for message, _ in session.update(analysed):
            one_by_one.publish(message)
    for message, _ in session.finish("finished", "end of the source"):
        one_by_one.publish(message)
    first = without_times(run(detector, classifier, None))
    for one in (*first, *(second := without_times(one_by_one))):
        one.pop("verdict", None)  # which says how far the source was read
        one.pop("reason", None)
    assert first == second


def test_a_frame_that_nobody_looked_at_says_what_is_known_to_lie_there() -> None:
    detector = find_by_script(script())
    seen = Seen().of(detector)
    area = run(detector, always(1), Decider())
    for message in area.of(FrameMessage):
        expected = {(round(box[0]), box[1]) for box, _, _ in script()[message.frame_id] if box[2] - box[0] > 12}
        shown = {(round(one.box_px[0]), round(one.box_px[1])) for one in message.detections}
        assert expected <= {(x + dx, y) for x, y in shown for dx in (-1, 0, 1)}, message.frame_id
        was_looked_at = message.frame_id in seen
        assert message.looked_share == float(was_looked_at)
        assert all((one.carried is True) != was_looked_at for one in message.detections)
        for one in message.detections:
            if one.carried is True and one.kind == "white":
                assert (one.score, one.look_class, one.look_probabilities) == (0.9, None, None)
                assert one.class_ in ("lymphocyte", None)
            assert one.cell_id is not None


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_frames_give_the_same_messages_whatever_the_threads_do(workers: int) -> None:
    def once(workers: int) -> list[dict[str, Any]]:
        return without_times(run(find_by_script(script()), always(1, 0.55), Decider(OwedLooks()), workers=workers))

    assert once(workers) == once(2)


def test_a_cell_whose_class_is_in_doubt_is_looked_at_again_and_one_that_is_not_is_not() -> None:
    sure = run(find_by_script(script()), always(1, 0.95), Decider(OwedLooks()))
    unsure = run(find_by_script(script()), always(1, 0.6), Decider(OwedLooks()))

    def looks(published: Collected) -> list[tuple[int, str | None]]:
        return [
            (message.frame_id, one.look_class)
            for message in published.of(FrameMessage)
            if 0 < message.looked_share < 1
            for one in message.detections
            if one.carried is msgspec.UNSET and isinstance(one.look_class, str)
        ]

    assert looks(sure) == []
    again = looks(unsure)
    assert again
    assert {name for _, name in again} == {"lymphocyte"}


def journaled(
    path: Path, first: int, images: list[np.ndarray], *, resume: bool, every_frame: bool = False
) -> Collected:
    """A run over frames numbered from `first`, in a journal."""
    classifier, detector, published = always(1, 0.6), find_by_script(script()), Collected()
    source = ScriptedSource(images)
    source._next_id = first
    journal = Journal(path, resume=resume)
    kept = journal.session("slide") or journal.new_session(
        "slide", "slide-1", address="film", live=False, rules=rules_of(detector, classifier)
    )
    kept.begin_run(f"run-{first}", "{}")

    def session(name: str) -> SlideSession:
        factory = MessageFactory(name, session="slide-1", run_id="run", next_session_seq=kept.stored.next_seq)
        decision, decider = ClassDecision.of(classifier), None if every_frame else Decider(OwedLooks())
        return SlideSession(factory, decision, operating_score=0.5, decider=decider, journal=kept)

    analyser = Analyser(detector, classifier)
    pipeline = Pipeline([(source, "analysis")], analyser, session, RunOutputs([published]), Limits(2))
    pipeline.start()
    pipeline.finish()
    journal.close()
    return published


def test_a_journal_counts_the_same_again_and_is_gone_on_with(tmp_path: Path) -> None:
    whole = run(find_by_script(script()), always(1, 0.6), Decider(OwedLooks()))
    path, half = tmp_path / "area.db", len(PLACES) // 2 + 1
    journaled(path, 0, film()[:half], resume=False)
    final = journaled(path, half, film()[half:], resume=True).of(DifferentialMessage)[-1]
    with JournalReader(path) as reader:
        again = recounted(reader.sessions[0]).differential
        seen = list(reader.sessions[0].frames())
    assert sum(one.looked for one in seen) < len(seen) / 2
    assert not seen[half].looked, "the place is known from before"
    assert any(one.cell_looks is not None for one in seen)
    assert (again.total, again.classes) == (final.total, final.classes)
    assert final.total == whole.of(DifferentialMessage)[-1].total


def test_what_the_next_decision_depends_on_is_that_of_the_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "area.db"
    journaled(path, 0, film()[:9], resume=False)
    with JournalReader(path) as reader:
        assert reader.sessions[0].area_state() is not None
    journaled(path, 9, film()[9:12], resume=True, every_frame=True)
    with JournalReader(path) as reader:
        assert reader.sessions[0].area_state() is None
    journaled(path, 12, film()[12:], resume=True)
    with JournalReader(path) as reader:
        assert reader.sessions[0].area_state() is not None


def test_a_proof_finds_what_is_missing_and_every_frame_is_looked_at_from_then_on() -> None:
    detector, remarks = find_by_script(script()), list[str]()
    first: set[int] = set()
    detect = detector.detect

    def forgetful(images: Any, halves: Any = None) -> Any:
        """Finds nothing the first time that it sees a place."""
        found = []
        for image, one in zip(images, detect(images, halves), strict=True):
            place = PLACES[int(image[0, 0, 0])]
            found.append(one if place in first else one[:0])
            first.add(place)
        return found

    detector.detect = forgetful  # type: ignore[method-assign]
    published = run(detector, always(1), Decider(audit_percent=100.0), remarks=remarks)
    audit = published.of(HealthMessage)[-1].sources["slide"].audit
    assert audit is not None
    assert audit.every_frame
    assert audit.missed > 0
    assert audit.bound is not None
    assert audit.bound > 0.02
    assert len(remarks) == 1
    assert "looking at every frame from now on" in remarks[0]
    assert published.of(FrameMessage)[-1].looked_share == 1.0


def test_noisy_frames_are_all_looked_at_and_one_line_says_so() -> None:
    remarks, noise = list[str](), np.random.default_rng(0)
    images = [np.clip(image + noise.normal(0, 6, image.shape), 0, 255).astype(np.uint8) for image in film()]
    for number, image in enumerate(images):
        image[0, 0, 0] = number  # by which the detector knows the frame
    detector = find_by_script(script())
    seen = Seen().of(detector)
    published = run(detector, always(1), Decider(), images=images, remarks=remarks)
    accepted = [message.frame_id for message in published.of(FrameMessage) if message.accepted]
    assert len(accepted) > len(PLACES) / 2
    assert set(accepted) <= set(seen)
    assert len(remarks) == 1
    assert "grey levels of noise" in remarks[0]


def test_a_proof_changes_no_count() -> None:
    plain = run(find_by_script(script()), always(1), Decider())
    proved = run(find_by_script(script()), always(1), Decider(audit_percent=100.0))
    assert places(plain) == places(proved)
    audit = proved.of(HealthMessage)[-1].sources["slide"].audit
    assert audit is not None
    assert (audit.missed, audit.added, audit.every_frame) == (0, 0, False)
    assert audit.frames > 10
    assert plain.of(HealthMessage)[-1].sources["slide"].audit is None
