"""A person says what a cell is: it counts so from then on, through joins, resuming and recounting."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.analysis.analyser import Analysed
from streamer.commands.recount import recount
from streamer.counting.slide_map import SlideUpdate
from streamer.journal import Emission, GivenCommand, Journal, JournalReader, recounted
from streamer.protocol.messages import CellMessage, DifferentialMessage
from streamer.protocol.requests import Reclassify
from streamer.records import UNCLASSIFIED, Cell, Reclassification
from streamer.run.control import given_command
from streamer.run.session import SlideSession
from streamer.stage.placement import Correction
from tests.streamer.counting.test_slide_map import CLASSES, NEUTROPHIL, NUCLEATED, WHITE, Slide, looks
from tests.streamer.journal.journal_cases import analysed, new_session, session_of
from tests.streamer.network.service_cases import request_of

AFTER = 12
"""Frames before the person speaks."""


@pytest.fixture(scope="module")
def seen() -> list[Analysed]:
    return analysed()


def given(cell_id: int, class_: str | None) -> GivenCommand:
    return given_command(request_of(Reclassify, source="slide", cell_id=cell_id, class_=class_), "owner")


def say(session: SlideSession, cell_id: int, class_: str | None) -> list[Emission]:
    said = Reclassification(cell_id, class_)
    assert session.count.fault_of(said) is None
    return list(session.reclassify(said, given(cell_id, class_)))


def taken_in(session: SlideSession, frames: Sequence[Analysed]) -> list[Emission]:
    return [emission for one in frames for emission in session.update(one)]


def other_class(cell: Cell) -> str:
    return "basophil" if cell.class_name != "basophil" else "eosinophil"


def counts(session: SlideSession) -> Counter[str]:
    return Counter(cell.class_name for cell in session.count.cells())


def test_a_cell_counts_as_a_person_says_until_that_is_taken_back(seen: list[Analysed]) -> None:
    session, untouched = session_of(None), session_of(None)
    taken_in(session, seen[:AFTER])
    taken_in(untouched, seen[:AFTER])
    cell = next(iter(session.count.cells()))
    name = other_class(cell)
    before = counts(session)
    emissions = say(session, cell.cell_id, name)
    assert [type(message) for message, _ in emissions] == [CellMessage, DifferentialMessage]
    told = emissions[0][0]
    assert isinstance(told, CellMessage)
    assert (told.class_, told.reclassified, told.top_class) == (name, True, cell.top_class)
    assert counts(session) == before - Counter([cell.class_name]) + Counter([name])
    assert emissions[1][0].classes[name].count == counts(session)[name]
    taken_in(session, seen[AFTER:])
    taken_in(untouched, seen[AFTER:])
    assert session.count.cell(cell.cell_id).class_name == name
    assert session.count.cell(cell.cell_id).looks == untouched.count.cell(cell.cell_id).looks
    assert session.count.differential(final=False).total == untouched.count.differential(final=False).total
    say(session, cell.cell_id, None)
    after, before_all = (one.count.differential(final=False) for one in (session, untouched))
    assert after.review is not None
    assert (after.review.state, after.review.by, after.reviewed_cells) == ("in review", "owner", 0)
    assert msgspec.structs.replace(after, review=before_all.review) == before_all
    assert list(map(str, session.count.cells())) == list(map(str, untouched.count.cells()))


def test_the_class_that_it_has_already_is_told_and_stays(seen: list[Analysed]) -> None:
    session = session_of(None)
    taken_in(session, seen[:AFTER])
    cell = next(iter(session.count.cells()))
    emissions = say(session, cell.cell_id, cell.class_name)
    assert [(m.class_, m.reclassified) for m, _ in emissions if isinstance(m, CellMessage)] == [(cell.class_name, True)]


@pytest.mark.parametrize("later", [0, 1])
def test_of_two_words_about_one_cell_the_later_one_counts(later: int) -> None:
    slide = Slide((200, 150, 60, WHITE))
    slide.show(0, 0, looks=looks(NEUTROPHIL))
    slide.show(0, 0, island=1, anchor=1, looks=looks(NEUTROPHIL))
    words = ["lymphocyte", UNCLASSIFIED]
    for cell_id in (1 - later, later):
        slide.map.reclassify(Reclassification(cell_id, words[cell_id]))
    assert slide.map.counts().classes == {UNCLASSIFIED: 1, "neutrophil": 0, "lymphocyte": 1}
    slide.map.finish([Correction(1, 0, 0.0, 0.0)])
    assert [(cell.cell_id, cell.class_name, cell.reclassified) for cell in slide.map.cells()] == [
        (0, words[later], True)
    ]
    assert slide.map.counts().classes == {name: int(name == words[later]) for name in (UNCLASSIFIED, *CLASSES)}


def test_what_a_person_calls_a_white_cell_stays_one_whatever_the_detector_says() -> None:
    slide = Slide((200, 150, 60, WHITE))
    slide.show(0, 0, looks=looks(NEUTROPHIL))
    slide.map.reclassify(Reclassification(0, "lymphocyte"))
    slide.cells = ((200, 150, 60, NUCLEATED),)
    for _ in range(5):
        slide.show(0, 0)
    assert slide.map.counts().classes["lymphocyte"] == 1
    update = slide.map.reclassify(Reclassification(0, None))
    assert [cell.kind for cell in update.cells] == ["nucleated red"]
    slide.map.reclassify(Reclassification(0, "lymphocyte"))
    assert (slide.map.counts().nucleated_red, slide.map.counts().classes["lymphocyte"]) == (0, 1)


@pytest.mark.parametrize("checkpoint", [AFTER - 1, AFTER, AFTER + 1, 1000])
@pytest.mark.parametrize("cut", [AFTER, AFTER + 1, 30])
def test_what_was_said_is_in_the_journal_and_survives_resuming_and_recounting(
    tmp_path: Path,
    seen: list[Analysed],
    cut: int,
    checkpoint: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamer.run.session.CHECKPOINT_EVERY_FRAMES", checkpoint)
    whole, resumed = Journal(tmp_path / "whole.db"), Journal(tmp_path / "cut.db")
    outcomes = []
    for journal in (whole, resumed):
        session = session_of(new_session(journal))
        taken_in(session, seen[:AFTER])
        first, second = itertools.islice(session.count.cells(), 2)
        for cell in (first, second):
            say(session, cell.cell_id, other_class(cell))
        say(session, second.cell_id, None)
        taken_in(session, seen[AFTER:cut])
        if journal is resumed:
            journal.close()
            journal = Journal(tmp_path / "cut.db", resume=True)
            kept = journal.session("slide")
            session = session_of(kept, run_id="run-2")
        taken_in(session, seen[cut:])
        final = [m for m, _ in session.finish("finished", "end of the source") if isinstance(m, DifferentialMessage)][
            -1
        ]
        assert session.count.cell(first.cell_id).class_name == other_class(first)
        outcomes.append(({name: share.count for name, share in final.classes.items()}, final.total))
        journal.close()
    assert outcomes[0] == outcomes[1]
    with JournalReader(tmp_path / "cut.db") as reader:
        (stored,) = reader.sessions
        again = recounted(stored).count
        assert again.cell(first.cell_id).reclassified
        assert not again.cell(second.cell_id).reclassified
        assert [(one.by, one.request, one.refused) for one in stored.commands()] == [("owner", "reclassify", None)] * 3
    assert recount(str(tmp_path / "cut.db")) == 0
    assert "equal to the final differential published" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cell_id": 10**6, "class_name": "monocyte"}, "expected one that is counted and white"),
        ({"cell_id": 0, "class_name": "monocytes"}, "expected one of neutrophil, lymphocyte"),
        ({"cell_id": 0, "class_name": "monocyte", "subclass": "band neutrophil"}, "expected none"),
    ],
)
def test_what_can_not_be_said_is_told(seen: list[Analysed], fields: dict[str, Any], words: str) -> None:
    session = session_of(None)
    taken_in(session, seen[:AFTER])
    cells = {cell.cell_id for cell in session.count.cells()}
    if fields["cell_id"] == 0:
        fields = {**fields, "cell_id": min(cells)}
    fault = session.count.fault_of(Reclassification(**fields))
    assert fault is not None
    assert words in fault
    with pytest.raises(ValueError, match="expected a counted cell"):
        session.count._slide.reclassify(Reclassification(10**6, "monocyte"))
    assert session.count._slide._drain(()) == SlideUpdate((), (), ())
