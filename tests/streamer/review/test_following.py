"""Subscribers follow a review: of a finished slide by --publish, of a running one by its own publisher, which the desk
gives commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamer.analysis.analyser import Analyser
from streamer.commands.recount import recount
from streamer.counting.decision import ClassDecision
from streamer.journal import JournaledSource, JournalReader, RunJournal, rules_of
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Subscriber
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import AnyMessage, CellMessage, DifferentialMessage, EndMessage
from streamer.review.desk import Change
from streamer.review.journal_desk import END_REASON, JournalDesk
from streamer.review.live_desk import LiveDesk
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import always, find_by_script
from tests.streamer.network.service_cases import PATIENCE_S, wait_for
from tests.streamer.review.review_cases import write_slide
from tests.streamer.review.test_journal_desk import refused
from tests.streamer.run.test_controls import FRAMES, Held
from tests.streamer.run.test_pipeline import one_cell_in_view

ENDPOINT = "tcp://127.0.0.1:*"


def received(subscriber: Subscriber, until: type[AnyMessage]) -> list[AnyMessage]:
    """All up to the first of a kind."""
    messages: list[AnyMessage] = []
    while not messages or not isinstance(messages[-1], until):
        one = subscriber.receive(PATIENCE_S)
        assert one is not None
        messages.append(one.message)  # type: ignore[arg-type]  # no later version publishes here
    return messages


def test_subscribers_follow_a_finished_slide_from_where_it_stands_to_its_end(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.db", 12)
    desk = JournalDesk(path, publish=ENDPOINT, linger_s=PATIENCE_S)
    assert desk.endpoint is not None
    with Subscriber(desk.endpoint, history=True) as subscriber:
        (*past, begun) = received(subscriber, DifferentialMessage)
        while begun.run_id != desk.run_id:
            past.append(begun)
            (begun,) = received(subscriber, DifferentialMessage)[-1:]
        desk.classify("one", [1, 2], "artefact", None, "AB")
        cells = received(subscriber, DifferentialMessage)
        assert [type(one) for one in cells] == [CellMessage, CellMessage, DifferentialMessage]
        told = cells[-1]
        assert isinstance(told, DifferentialMessage)
        assert told == desk.snapshot("one").differential
        assert (told.artefacts, told.reviewed_cells, told.review and told.review.by) == (2, 2, "AB")
        desk.sign("one", "AB", despite="a test")
        signed = received(subscriber, DifferentialMessage)[-1]
        assert isinstance(signed, DifferentialMessage)
        assert signed.review is not None
        assert signed.review.state == "signed"
        desk.close()
        end = received(subscriber, EndMessage)[-1]
        assert isinstance(end, EndMessage)
        assert (end.state, end.reason) == ("finished", END_REASON)
        assert {one.session for one in (begun, *cells, signed, end)} == {"one"}
        numbers = [one.session_seq for one in (begun, *cells, signed, end)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert subscriber.lost == 0
    with JournalReader(path) as reader:
        kept = [header for header, _ in reader.sessions[0].messages_after(numbers[0] - 1)]
    assert len(kept) == len(numbers)
    assert recount(str(path)) == 0


def test_two_slides_of_one_source_are_followed_without_losses(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slides.db", 5)
    write_slide(path, 5, session="two", seed=1)
    with JournalDesk(path, publish=ENDPOINT, linger_s=PATIENCE_S) as desk:
        assert desk.endpoint is not None
        with Subscriber(desk.endpoint, ["differential."]) as subscriber:
            begun = received(subscriber, DifferentialMessage)[-1]
            assert begun.session == "two"
            for session in ("one", "two", "one"):
                desk.confirm(session, [0], "AB")
                message = received(subscriber, DifferentialMessage)[-1]
                assert message.session == session
            assert subscriber.lost == 0


class RunElsewhere:
    """A run with a journal and a publisher over a source that the test paces."""

    def __init__(self, path: Path) -> None:
        self.source = Held()
        detector, classifier = find_by_script(one_cell_in_view(FRAMES)), always(1)
        self.journal = RunJournal(
            str(path),
            [JournaledSource(self.source, "scripted:")],
            {"slide": rules_of(detector, classifier)},
            resume=False,
            run_id="run",
            configuration="{}",
        )
        self.publisher = Publisher(ENDPOINT, control=True, linger_s=PATIENCE_S)
        kept = self.journal.session("slide")
        self.session = kept.stored.id

        def session(name: str) -> SlideSession:
            factory = MessageFactory(name, session=kept.stored.id, run_id="run")
            return SlideSession(factory, ClassDecision.of(classifier), operating_score=0.5, journal=kept)

        self.pipeline = Pipeline(
            [(self.journal.sources[0], "analysis")],
            Analyser(detector, classifier),
            session,
            RunOutputs([self.publisher], service=self.publisher.service),
            Limits(workers=1),
        )
        self.publisher.obey(self.pipeline.controls)
        self.pipeline.start()

    def end(self) -> None:
        self.source.allowed.release(FRAMES + 1)
        self.pipeline.finish()
        self.publisher.close()
        self.journal.close()


@contextmanager
def running(path: Path) -> Iterator[RunElsewhere]:
    run = RunElsewhere(path)
    try:
        yield run
    finally:
        run.end()


def test_the_run_stays_the_only_writer_of_what_is_said_live(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    with running(path) as run:
        run.source.allowed.release(3)
        with LiveDesk(run.publisher.endpoint) as desk:
            changes: list[Change] = []
            desk.listen(changes.append)
            wait_for(lambda: desk.sessions() and desk.snapshot(run.session).cells)
            (one,) = desk.snapshot(run.session).cells
            number = one.cell_id
            assert (one.word, one.class_name, desk.sessions()[0].is_live) == (None, "lymphocyte", True)
            desk.confirm(run.session, [number], "AB")
            wait_for(lambda: any(change.cells and change.cells[0].word for change in changes))
            wait_for(lambda: desk.snapshot(run.session).reviewed == 1)
            desk.classify(run.session, [number], "smudge cell", None, "CD")
            wait_for(lambda: desk.snapshot(run.session).cells[0].class_name == "smudge cell")
            word = desk.snapshot(run.session).cells[0].word
            assert word is not None
            assert (word.kind, word.by) == ("corrected", "CD")
            desk.comment(run.session, "smeared", "CD", cell_id=number)
            assert [one.text for one in desk.snapshot(run.session).cells[0].comments] == ["smeared"]
            desk.undo(run.session, "CD")
            wait_for(lambda: desk.snapshot(run.session).cells[0].class_name == "lymphocyte")
            with refused("nothing to undo"):
                desk.undo(run.session, "CD")
            differential = desk.snapshot(run.session).differential
            assert differential is not None
            assert differential.review is not None
            assert (differential.review.state, differential.review.by) == ("in review", "CD")
            with refused("unknown cell"):
                desk.confirm(run.session, [number + 100], "AB")
            with refused("bad class"):
                desk.classify(run.session, [number], "nonsense", None, "AB")
            with refused("not possible"):
                desk.sign(run.session, "AB")
            with refused("not possible"):
                desk.add_cell(run.session, 0, 1.0, 1.0, "monocyte", "AB")
            with refused("unknown session"):
                desk.snapshot("other")
            assert [one.kind for one in desk.snapshot(run.session).history] == [
                *("confirm", "class", "comment", "withdraw")
            ]
            run.source.allowed.release(FRAMES + 1)
            wait_for(lambda: not desk.sessions()[0].is_live)
        with refused("closed"):
            desk.sessions()
    assert recount(str(path)) == 0
    with JournalDesk(path) as finished:
        snapshot = finished.snapshot(run.session)
        assert [(one.kind, one.by, one.number) for one in snapshot.history] == [
            ("confirm", "AB", None),
            ("class", "CD", None),
            ("comment", "CD", None),
            ("class", "CD", None),
        ]
        assert [one.text for one in snapshot.cells[0].comments] == ["smeared"]


def test_nobody_publishes_there() -> None:
    with pytest.raises(Exception, match="expected a leukostream that publishes there"):
        LiveDesk("tcp://127.0.0.1:9", reply_timeout_s=0.01)


def test_a_run_that_takes_no_commands_refuses(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.db", 12)
    with JournalDesk(path, publish=ENDPOINT) as held:
        assert held.endpoint is not None
        with LiveDesk(held.endpoint) as desk:
            wait_for(lambda: desk.snapshot("one").cells)
            assert len(desk.snapshot("one").cells) == len(held.snapshot("one").cells)
            with refused("not possible"):
                desk.confirm("one", [0], "AB")
