"""Two reviewers who do not know of each other: what they say changes nothing until it is settled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.counting.agreement import kappa_of
from streamer.review.journal_desk import JournalDesk
from tests.streamer.review.review_cases import assert_equal_to_the_file, differential_of, write_slide
from tests.streamer.review.test_journal_desk import cell, refused, whole


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[JournalDesk]:
    with JournalDesk(write_slide(tmp_path / "slide.db", 30)) as desk:
        desk.begin("one", "AB", blind=True)
        desk.begin("one", "CD", blind=True)
        yield desk


def test_blind_words_change_no_result_and_are_shown_to_their_owner_alone(desk: JournalDesk) -> None:
    number = whole(desk)[0]
    before = differential_of(desk)
    was = cell(desk, number)
    assert desk.snapshot("one").blind == ("AB", "CD")
    desk.classify("one", [number], "artefact", None, "AB")
    assert cell(desk, number) == was
    after = differential_of(desk)
    assert (after.classes, after.artefacts, after.reviewed_cells) == (before.classes, None, 0)
    assert cell(desk, number, "AB").own == ("artefact", None)
    assert cell(desk, number, "CD").own is None
    assert [one.by for one in desk.snapshot("one", "CD").history] == ["CD"]
    assert [one.kind for one in desk.snapshot("one").history] == ["begin", "begin", "class"]
    assert desk.snapshot("one").history[-1].blind
    assert_equal_to_the_file(desk)
    desk.undo("one", "AB")
    assert cell(desk, number, "AB").own is None
    assert_equal_to_the_file(desk)


def test_agreement_is_that_of_the_same_names(desk: JournalDesk) -> None:
    first, second = (["monocyte"] * 6 + ["lymphocyte"] * 6, ["monocyte"] * 4 + ["lymphocyte"] * 8)
    cells = whole(desk)[:12]
    for by, names in (("AB", first), ("CD", second)):
        for number, name in zip(cells, names, strict=True):
            desk.classify("one", [number], name, None, by)
    extra = whole(desk)[12:15]
    desk.classify("one", extra[:1], "unclassified", None, "AB")
    desk.classify("one", extra[:1], "monocyte", None, "CD")
    desk.classify("one", extra[1:2], "neutrophil", "band neutrophil", "AB")
    found = desk.agreement("one", "AB", "CD")
    assert (found.both, found.unnamed, found.only_first, found.only_second) == (13, 1, 1, 0)
    assert (found.kappa.cells, found.kappa.agreed) == (12, 10)
    assert found.kappa == kappa_of(list(zip(first, second, strict=True)))[0]
    assert found.kappa.kappa == pytest.approx((10 / 12 - 0.5) / 0.5)
    assert found.kappa.low is not None
    assert found.kappa.low < 0.667 < (found.kappa.high or 0)
    assert [(one.cell_id, one.first[0], one.second[0], one.settled) for one in found.disagreements] == [
        (cells[4], "monocyte", "lymphocyte", False),
        (cells[5], "monocyte", "lymphocyte", False),
        (extra[0], "unclassified", "monocyte", False),
    ]
    with refused("not settled"):
        desk.sign("one", "EF", despite="a test")
    assert desk.settle_agreed("one", "AB", "CD", "EF") == 10
    assert [cell(desk, number).class_name for number in cells[:4]] == ["monocyte"] * 4
    assert cell(desk, cells[0]).word is not None
    with refused("nothing to settle"):
        desk.settle_agreed("one", "AB", "CD", "EF")
    with refused("not settled"):
        desk.sign("one", "EF", despite="a test")
    desk.settle("one", [cells[4], cells[5]], "lymphocyte", None, "EF")
    desk.classify("one", extra[:1], "monocyte", None, "EF")
    assert all(one.settled for one in desk.agreement("one", "AB", "CD").disagreements)
    assert_equal_to_the_file(desk)
    assert desk.sign("one", "EF", despite="a test").by == "EF"
    assert not desk.verify("one")[0].fault


def test_what_a_blind_reviewer_can_not_do(desk: JournalDesk) -> None:
    with refused("blind"):
        desk.add_cell("one", 0, 600.0, 610.0, "monocyte", "AB")
    with refused("blind"):
        desk.settle("one", whole(desk)[:1], "monocyte", None, "AB")


def test_who_begins_again_without_is_blind_no_more(desk: JournalDesk) -> None:
    number, other = whole(desk)[:2]
    desk.classify("one", [number], "artefact", None, "AB")
    desk.begin("one", "AB")
    desk.classify("one", [other], "artefact", None, "AB")
    assert differential_of(desk).artefacts == 1
    desk.undo("one", "AB")
    desk.undo("one", "AB")  # what was said blind
    assert desk.agreement("one", "AB", "CD").only_first == 0
    assert_equal_to_the_file(desk)


def test_a_blind_word_after_it_was_settled_opens_it_again(desk: JournalDesk) -> None:
    number = whole(desk)[0]
    desk.classify("one", [number], "artefact", None, "AB")
    desk.classify("one", [number], "monocyte", None, "CD")
    desk.settle("one", [number], "artefact", None, "EF")
    assert desk.agreement("one", "AB", "CD").disagreements[0].settled
    desk.classify("one", [number], "lymphocyte", None, "CD")
    assert not desk.agreement("one", "AB", "CD").disagreements[0].settled
