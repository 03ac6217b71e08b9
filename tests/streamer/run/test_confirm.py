"""A person says while a run goes on that a cell is right as it is: it stays so, through looks, resuming, recounting."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from streamer.analysis.analyser import Analysed
from streamer.commands.recount import recount
from streamer.counting.slide_map import SlideMap
from streamer.journal import Journal, JournalReader, recounted
from streamer.protocol.messages import CellMessage
from streamer.protocol.requests import Comment, Confirm
from streamer.records import Cell, Reclassification
from streamer.run.control import given_command
from streamer.run.session import SlideSession
from tests.streamer.counting.test_slide_map import NEUTROPHIL, NUCLEATED, WHITE, Slide, looks
from tests.streamer.journal.journal_cases import analysed, new_session, session_of
from tests.streamer.network.service_cases import request_of
from tests.streamer.run.test_reclassify import AFTER, taken_in


@pytest.fixture(scope="module")
def seen() -> list[Analysed]:
    return analysed()


def confirm(session: SlideSession, cells: list[Cell], reviewer: str | None = "AB") -> list[CellMessage]:
    first = cells[0]
    numbers = [cell.cell_id for cell in cells]
    command = request_of(
        Confirm, source="slide", cell_ids=numbers, class_=first.class_name, subclass=first.subclass, reviewer=reviewer
    )
    words = [Reclassification(number, first.class_name, first.subclass, confirmed=True) for number in numbers]
    assert [session.count.fault_of(one) for one in words] == [None] * len(words)
    emissions = session.name_cells(words, given_command(command, "owner"))
    return [message for message, _ in emissions if isinstance(message, CellMessage)]


@pytest.mark.parametrize("checkpoint", [AFTER, 1000])
def test_what_was_confirmed_stays_through_looks_resuming_and_recounting(
    tmp_path: Path, seen: list[Analysed], checkpoint: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.run.session.CHECKPOINT_EVERY_FRAMES", checkpoint)
    path = tmp_path / "one.db"
    journal = Journal(path)
    session = session_of(new_session(journal))
    taken_in(session, seen[:AFTER])
    cells = list(itertools.islice(session.count.cells(), 4))
    same = [cell for cell in cells if cell.class_name == cells[0].class_name]
    told = confirm(session, same)
    assert [(one.cell_id, one.class_, one.reclassified) for one in told] == [
        (cell.cell_id, cell.class_name, True) for cell in same
    ]
    found = session.count.differential(final=False)
    assert found.review is not None
    assert (found.review.state, found.review.by, found.reviewed_cells) == ("in review", "AB", len(same))
    journal.close()
    journal = Journal(path, resume=True)
    session = session_of(journal.session("slide"), run_id="run-2")
    assert session.count.differential(final=False).review == found.review
    taken_in(session, seen[AFTER:])
    session.finish("finished", "end of the source")
    assert {session.count.cell(cell.cell_id).class_name for cell in same} == {cells[0].class_name}
    journal.close()
    assert recount(str(path)) == 0
    with JournalReader(path) as reader:
        again = recounted(reader.sessions[0])
        words = [again.corrections.word(cell.cell_id) for cell in same]
        assert [(word.kind, word.by) for word in words if word is not None] == [("confirmed", "AB")] * len(same)


def test_what_has_another_class_by_now_is_not_confirmed(seen: list[Analysed]) -> None:
    session = session_of(None)
    taken_in(session, seen[:AFTER])
    cell = next(iter(session.count.cells()))
    other = "basophil" if cell.class_name != "basophil" else "monocyte"
    fault = session.count.fault_of(Reclassification(cell.cell_id, other, confirmed=True))
    assert fault is not None
    assert f"confirmed as '{other}', expected '{cell.class_name}', which it is by now" in fault


def _reviewed(slide: SlideMap) -> tuple[int, int, int]:
    return slide.names.reviewed()


def test_a_confirmed_nucleated_red_cell_stays_one() -> None:
    slide = Slide((200, 150, 60, WHITE), (60, 60, 60, NUCLEATED))
    slide.show(0, 0, looks=looks(NEUTROPHIL))
    (red,) = [cell for cell in slide.map.cells() if cell.kind == "nucleated red"]
    before = slide.map.counts()
    slide.map.reclassify(Reclassification(red.cell_id, red.class_name, red.subclass, confirmed=True))
    assert slide.map.counts() == before
    assert slide.map.cell(red.cell_id).kind == "nucleated red"
    assert slide.map.cell(red.cell_id).reclassified
    assert _reviewed(slide.map) == (1, 1, 2)
    again = SlideMap(slide.map._config)
    again.restore(slide.map.state())
    assert [str(cell) for cell in again.cells()] == [str(cell) for cell in slide.map.cells()]


def test_a_comment_is_kept_and_changes_nothing(tmp_path: Path, seen: list[Analysed]) -> None:
    journal = Journal(tmp_path / "one.db")
    session = session_of(new_session(journal))
    taken_in(session, seen[:AFTER])
    before = session.count.differential(final=False)
    session.note(given_command(request_of(Comment, source="slide", text="thick", reviewer="AB"), "owner"))
    assert session.count.differential(final=False) == before
    journal.close()
    with JournalReader(tmp_path / "one.db") as reader:
        (given,) = reader.sessions[0].commands()
        assert (given.request, given.reviewer, given.by) == ("comment", "AB", "owner")
