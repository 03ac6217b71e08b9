"""Commands on a run that keeps a journal: another slide is another session, and every command is on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamer.analysis.analyser import Analyser
from streamer.commands.recount import recount
from streamer.counting.decision import ClassDecision
from streamer.journal import JournaledSource, JournalReader, RunJournal, rules_of
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, DifferentialMessage, FrameMessage
from streamer.protocol.requests import NewSlide, Pause, Reclassify, RequestRefused, Resume
from streamer.records import SlideInfo
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import Collected, always, find_by_script
from tests.streamer.network.service_cases import request_of, wait_for
from tests.streamer.run.test_controls import FRAMES, Held
from tests.streamer.run.test_pipeline import one_cell_in_view


class Journaled:
    """A run with a journal over a source that the test paces; commands are carried out where they would be served."""

    def __init__(self, path: Path, run_id: str, *, resume: bool = False) -> None:
        self.source, self.sink, self.jobs = Held(), Collected(), []  # type: ignore[var-annotated]
        detector, classifier = find_by_script(one_cell_in_view(FRAMES)), always(1)
        if resume:
            self.source.allowed.release(FRAMES)  # what is read to find the place again
        self.journal = RunJournal(
            str(path),
            [JournaledSource(self.source, "scripted:")],
            {"slide": rules_of(detector, classifier)},
            resume=resume,
            run_id=run_id,
            configuration="{}",
        )

        def session(name: str, kept: Any, slide: SlideInfo | None = None) -> SlideSession:
            stored = kept.stored
            factory = MessageFactory(name, session=stored.id, run_id=run_id, next_session_seq=stored.next_seq)
            return SlideSession(factory, ClassDecision.of(classifier), operating_score=0.5, journal=kept, slide=slide)

        self.pipeline = Pipeline(
            [(self.journal.sources[0], "analysis")],
            Analyser(detector, classifier),
            lambda name: session(name, self.journal.session(name)),
            RunOutputs([self.sink], service=self._service),
            Limits(workers=1),
            next_session=lambda name, slide: session(name, self.journal.next_session(name), slide),
        )
        self.pipeline.start()

    def _service(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def do(self, job: Any) -> Any:
        results: list[Any] = []
        self.jobs.append(lambda: results.append(job()))
        wait_for(lambda: results)
        return results[0]

    def give(self, command: Any) -> Any:
        def job() -> Any:
            try:
                return self.pipeline.controls.execute(command, by="owner")
            except RequestRefused as refusal:
                return refusal.code

        return self.do(job)

    def after(self, frames: int) -> None:
        self.source.allowed.release(frames - len(self.sink.of(FrameMessage)))
        wait_for(lambda: len(self.sink.of(FrameMessage)) == frames)

    def end(self) -> None:
        self.source.allowed.release(FRAMES + 1)
        self.pipeline.finish()
        self.journal.close()


def command(kind: Any, **fields: Any) -> Any:
    return request_of(kind, source="slide", **fields)


def test_every_command_is_on_record_with_what_became_of_it(tmp_path: Path) -> None:
    run = Journaled(tmp_path / "one.db", "run-1")
    run.after(3)
    cell = run.sink.of(CellMessage)[0].cell_id
    commands = [
        command(Pause),
        command(Pause),
        command(Resume),
        command(Reclassify, cell_id=cell, class_="basophil"),
        command(Reclassify, cell_id=cell, class_="nonsense"),
        command(Reclassify, cell_id=cell + 100, class_="basophil"),
    ]
    outcomes = [run.give(one) for one in commands]
    assert [one if isinstance(one, str) else one.white_cells for one in outcomes] == [
        *(1, "not possible", 1, 1, "not possible", "not possible")
    ]
    assert run.sink.of(DifferentialMessage)[-1].classes["basophil"].count == 1
    run.end()
    with JournalReader(tmp_path / "one.db") as journal:
        kept = journal.sessions[0].commands()
    assert [(one.by, one.request_id, one.request) for one in kept] == [
        ("owner", one.id, type(one).__struct_config__.tag) for one in commands
    ]
    assert [one.refused for one in kept] == [None, "not possible", None, None, "not possible", "not possible"]
    assert "expected one that is counted and white" in str(kept[-1].reason)
    assert recount(str(tmp_path / "one.db")) == 0


def test_a_command_that_an_earlier_run_carried_out_is_known(tmp_path: Path) -> None:
    run = Journaled(tmp_path / "one.db", "run-1")
    run.after(3)
    done = command(Reclassify, cell_id=run.sink.of(CellMessage)[0].cell_id, class_="basophil")
    refused = command(Resume)
    assert run.give(done).white_cells == 1
    assert run.give(refused) == "not possible"
    run.end()
    run = Journaled(tmp_path / "one.db", "run-2", resume=True)

    def recalled(one: Any, by: str = "owner") -> Any:
        return run.pipeline.controls.recall(one, by=by)

    state = recalled(done)
    assert state is not None
    assert state.white_cells == 1
    assert recalled(done, by="another") is None
    assert recalled(refused) is None
    assert recalled(command(Reclassify, id=done.id, cell_id=done.cell_id, class_="monocyte")) is None
    run.end()


def test_another_slide_is_another_session_of_the_journal_and_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "slides.db"
    run = Journaled(path, "run-1")
    run.after(4)
    state = run.give(command(NewSlide))
    assert state.white_cells == 0
    run.pipeline.stop("by a test")  # before the new slide has a frame
    run.end()
    with JournalReader(path) as journal:
        first, second = journal.sessions
        assert (first.ended, len(list(first.frames())), second.id) == (True, 4, state.session)
        assert second.last_frame() is None
    run = Journaled(path, "run-2", resume=True)
    run.end()
    frames = run.sink.of(FrameMessage)
    assert [frame.frame_id for frame in frames] == list(range(4, FRAMES))
    assert {frame.session for frame in frames} == {state.session}
    with JournalReader(path) as journal:
        assert [len(list(stored.frames())) for stored in journal.sessions] == [4, FRAMES - 4]
    assert recount(str(path)) == 0
