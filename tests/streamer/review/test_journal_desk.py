"""The desk of a finished slide: what people say of its cells is an event, and the count that they leave is that of the
journal."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.commands.recount import recount
from streamer.journal import JournalError, JournalReader, recounted
from streamer.protocol.messages import CellMessage, DifferentialMessage
from streamer.records import UNCLASSIFIED
from streamer.review.desk import CellRecord, Change, ReviewRefused
from streamer.review.journal_desk import JournalDesk
from tests.streamer.journal.journal_cases import write_walk
from tests.streamer.network.service_cases import wait_for
from tests.streamer.review.review_cases import CLASSES, assert_equal_to_the_file, differential_of, write_slide

CELLS = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.db", CELLS)


@pytest.fixture
def desk(path: Path) -> Iterator[JournalDesk]:
    with JournalDesk(path) as desk:
        yield desk


def cell(desk: JournalDesk, cell_id: int, reviewer: str | None = None) -> CellRecord:
    return next(one for one in desk.snapshot("one", reviewer).cells if one.cell_id == cell_id)


def whole(desk: JournalDesk) -> list[int]:
    """White cells seen whole, by number."""
    return [one.cell_id for one in desk.snapshot("one").cells if one.kind == "white" and not one.partial]


def refused(code: str) -> contextlib.AbstractContextManager[object]:
    @contextlib.contextmanager
    def catching() -> Iterator[None]:
        with pytest.raises(ReviewRefused) as caught:
            yield
        assert caught.value.code == code
        assert "\n" not in caught.value.reason

    return catching()


def test_what_there_is_before_anyone_says_anything(desk: JournalDesk) -> None:
    (info,) = desk.sessions()
    assert (info.id, info.source, info.review.state, info.is_live) == ("one", "slide", "unsigned", False)
    snapshot = desk.snapshot("one")
    kinds = [(one.kind, one.partial, one.counted) for one in snapshot.cells]
    assert kinds.count(("white", False, True)) == CELLS
    assert kinds.count(("nucleated red", False, True)) == 1
    assert kinds.count(("white", True, False)) == 1
    assert (snapshot.reviewed, snapshot.to_review) == (0, CELLS + 1)
    assert snapshot.classes == (*CLASSES, "smudge cell", "artefact", UNCLASSIFIED)
    assert snapshot.subclasses == {"neutrophil": ("band neutrophil", "segmented neutrophil")}
    assert differential_of(desk).reviewed_cells == 0
    first = cell(desk, 0)
    assert [(view.frame_id, view.box_px, view.file) for view in first.views] == [
        (0, (25.0, 25.0, 55.0, 55.0), "frame0.png")
    ]
    assert first.has_picture
    assert desk.picture("one", 0) == b"\xff\xd8 picture"
    assert desk.picture("one", 10**6) is None
    assert_equal_to_the_file(desk)


def test_several_cells_get_a_class_at_once_and_lose_it_together(desk: JournalDesk) -> None:
    before = differential_of(desk)
    cells = whole(desk)[:5]
    names = {number: cell(desk, number).class_name for number in cells}
    desk.classify("one", [*cells, cells[0]], "neutrophil", "band neutrophil", "AB")
    for number in cells:
        one = cell(desk, number)
        assert (one.class_name, one.subclass, one.name) == ("neutrophil", "band neutrophil", "band neutrophil")
        assert one.word is not None
        assert (one.word.kind, one.word.by) == ("corrected", "AB")
    others = sum(name != "neutrophil" for name in names.values())
    assert differential_of(desk).classes["neutrophil"].count == before.classes["neutrophil"].count + others
    assert differential_of(desk).reviewed_cells == 5
    (entry,) = desk.snapshot("one").history
    assert [(one.cell_id, one.before and one.before[0], one.after) for one in entry.changes] == [
        (number, names[number], ("neutrophil", "band neutrophil")) for number in cells
    ]
    assert_equal_to_the_file(desk)
    desk.undo("one", "AB")
    assert {number: cell(desk, number).class_name for number in cells} == names
    after = differential_of(desk)
    assert after.review is not None
    assert (after.classes, after.flags, after.reviewed_cells, after.review.state) == (
        *(before.classes, before.flags, 0, "in review"),
    )
    assert [one.withdrawn for one in desk.snapshot("one").history] == [True, False]
    assert_equal_to_the_file(desk)
    with refused("nothing to undo"):
        desk.undo("one", "AB")


@pytest.mark.parametrize(("name", "field"), [("smudge cell", "smudge"), ("artefact", "artefacts")])
def test_what_is_no_cell_can_be_said_where_the_classifier_can_not(desk: JournalDesk, name: str, field: str) -> None:
    before = differential_of(desk)
    assert getattr(before, field) is None
    number = whole(desk)[3]
    desk.classify("one", [number], name, None, "AB")
    after = differential_of(desk)
    assert (getattr(after, field), after.total) == (1, before.total - 1)
    assert (cell(desk, number).class_name, cell(desk, number).counted) == (name, False)
    assert_equal_to_the_file(desk)
    desk.undo("one", "AB")
    assert getattr(differential_of(desk), field) is None
    assert differential_of(desk).total == before.total


def test_of_two_people_the_later_word_counts_and_withdrawing_the_earlier_one_leaves_it(desk: JournalDesk) -> None:
    number = whole(desk)[0]
    was = cell(desk, number).class_name
    desk.classify("one", [number], "monocyte", None, "AB")
    desk.classify("one", [number], "lymphocyte", None, "CD")
    desk.undo("one", "AB")
    assert cell(desk, number).class_name == "lymphocyte"
    assert_equal_to_the_file(desk)
    desk.undo("one", "CD")
    assert (cell(desk, number).class_name, cell(desk, number).word) == (was, None)
    assert_equal_to_the_file(desk)


def test_the_models_may_decide_again(desk: JournalDesk) -> None:
    number = whole(desk)[0]
    was = cell(desk, number).class_name
    desk.classify("one", [number], "artefact", None, "AB")
    desk.classify("one", [number], None, None, "CD")
    assert (cell(desk, number).class_name, cell(desk, number).word) == (was, None)
    assert differential_of(desk).reviewed_cells == 0
    desk.undo("one", "CD")
    assert cell(desk, number).class_name == "artefact"
    assert_equal_to_the_file(desk)


def test_every_cell_confirmed_changes_no_count_and_is_said_to_be_so(desk: JournalDesk, path: Path) -> None:
    before, snapshot = differential_of(desk), desk.snapshot("one")
    desk.confirm("one", [one.cell_id for one in snapshot.cells if not one.partial], "AB")
    after, confirmed = differential_of(desk), desk.snapshot("one")
    assert (after.classes, after.nrbc, after.total) == (before.classes, before.nrbc, before.total)
    assert confirmed.reviewed == confirmed.to_review == after.reviewed_cells == CELLS + 1
    assert {one.word.kind for one in confirmed.cells if one.word is not None} == {"confirmed"}
    assert [one.kind for one in confirmed.cells] == [one.kind for one in snapshot.cells]
    assert_equal_to_the_file(desk)
    desk.undo("one", "AB")
    assert desk.snapshot("one").reviewed == 0
    assert_equal_to_the_file(desk)


def test_a_missed_cell_is_added_counted_named_anew_and_withdrawn(desk: JournalDesk) -> None:
    before = differential_of(desk)
    number = desk.add_cell("one", 0, 600.0, 610.0, "monocyte", "AB", picture=b"\xff\xd8 mine")
    added = cell(desk, number)
    assert (added.class_name, added.looks, added.added, added.counted, added.partial) == (
        "monocyte",
        0,
        True,
        True,
        False,
    )
    assert (added.x_px, added.y_px, added.top_class, added.probabilities) == (600.0, 610.0, UNCLASSIFIED, {})
    assert [(view.frame_id, view.box_px) for view in added.views] == [(0, (585.0, 595.0, 615.0, 625.0))]
    assert desk.picture("one", number) == b"\xff\xd8 mine"
    assert differential_of(desk).total == before.total + 1
    assert_equal_to_the_file(desk)
    desk.classify("one", [number], "lymphocyte", None, "CD")
    assert_equal_to_the_file(desk)
    with refused("bad class"):
        desk.classify("one", [number], None, None, "CD")
    with refused("already counted"):
        desk.add_cell("one", 0, 605.0, 610.0, "monocyte", "CD")
    desk.undo("one", "CD")
    assert cell(desk, number).class_name == "monocyte"
    desk.classify("one", [number], "lymphocyte", None, "CD")
    desk.undo("one", "AB")
    assert number not in [one.cell_id for one in desk.snapshot("one").cells]
    assert differential_of(desk).total == before.total
    assert_equal_to_the_file(desk)
    desk.undo("one", "CD")  # of a cell that is gone
    assert desk.add_cell("one", 0, 600.0, 610.0, "monocyte", "AB") == number + 1
    assert_equal_to_the_file(desk)


@pytest.mark.parametrize(
    ("frame_id", "x_px", "y_px", "code"),
    [
        (7, 10.0, 10.0, "unknown frame"),
        (0, -1.0, 10.0, "no place"),
        (0, 10.0, 641.0, "no place"),
        (0, 40.0, 40.0, "already counted"),
    ],
)
def test_where_no_cell_can_be_added(desk: JournalDesk, frame_id: int, x_px: float, y_px: float, code: str) -> None:
    with refused(code):
        desk.add_cell("one", frame_id, x_px, y_px, "monocyte", "AB")
    assert desk.snapshot("one").history == ()


def test_comments_stand_beside_cells_and_the_slide(desk: JournalDesk) -> None:
    desk.comment("one", "<b>vacuoles?</b>\nsee 12", "AB", cell_id=3)
    desk.comment("one", "thick film", "CD")
    assert [(one.by, one.text) for one in cell(desk, 3).comments] == [("AB", "<b>vacuoles?</b>\nsee 12")]
    assert [(one.by, one.text) for one in desk.snapshot("one").comments] == [("CD", "thick film")]
    desk.undo("one", "AB")
    assert cell(desk, 3).comments == ()
    assert len(desk.snapshot("one").history) == 3
    assert_equal_to_the_file(desk)
    for text in ("", " \n", "bell \x07", "x" * 2001, "turned \u202e around"):
        with refused("bad text"):
            desk.comment("one", text, "AB")


def test_what_can_not_be_said_changes_nothing(desk: JournalDesk) -> None:
    before = desk.snapshot("one")
    with refused("unknown cell"):
        desk.classify("one", [0, 10**6], "monocyte", None, "AB")
    with refused("unknown cell"):
        desk.classify("one", [], "monocyte", None, "AB")
    with refused("bad class"):
        desk.classify("one", [0], "monocytes", None, "AB")
    with refused("bad class"):
        desk.classify("one", [0], "monocyte", "band neutrophil", "AB")
    for by in ("", "1", "A B", "A" * 17, "<b>", "A\n"):
        with refused("bad reviewer"):
            desk.classify("one", [0], "monocyte", None, by)
    with refused("unknown session"):
        desk.confirm("two", [0], "AB")
    with refused("not signed"):
        desk.amend("one", "AB", "because")
    assert desk.snapshot("one") == before


def test_a_red_cell_can_not_be_named(desk: JournalDesk) -> None:
    red = CELLS  # the frame's next box
    assert red not in [one.cell_id for one in desk.snapshot("one").cells]
    with refused("unknown cell"):
        desk.classify("one", [red], "monocyte", None, "AB")


def test_changes_are_told_in_order_with_their_messages_which_the_journal_has(desk: JournalDesk, path: Path) -> None:
    changes: list[Change] = []
    stop = desk.listen(changes.append)
    desk.classify("one", [1, 2], "monocyte", None, "AB")
    desk.comment("one", "hm", "AB", cell_id=4)
    number = desk.add_cell("one", 0, 600.0, 610.0, "monocyte", "AB")
    desk.undo("one", "AB")
    wait_for(lambda: len(changes) == 4)
    stop()
    desk.confirm("one", [1], "AB")
    assert [change.version for change in changes] == [1, 2, 3, 4]
    assert [[type(message) for message, _ in change.messages] for change in changes] == [
        [CellMessage, CellMessage, DifferentialMessage],
        [DifferentialMessage],
        [CellMessage, DifferentialMessage],
        [CellMessage, DifferentialMessage],
    ]
    assert [[one.cell_id for one in change.cells] for change in changes] == [[1, 2], [4], [number], []]
    assert [change.removed for change in changes] == [(), (), (), (number,)]
    taken_back = changes[3].messages[0][0]
    assert isinstance(taken_back, CellMessage)
    assert (taken_back.cell_id, taken_back.counted, taken_back.joined_to) == (number, False, None)
    told = [message for change in changes for message, _ in change.messages]
    assert [message.session_seq for message in told] == list(
        range(told[0].session_seq, told[0].session_seq + len(told))
    )
    desk.close()
    assert len(changes) == 4
    assert recount(str(path)) == 0
    with JournalReader(path) as reader:
        kept = [message for message, _ in reader.sessions[0].messages_after(told[0].session_seq - 1)]
    assert len(kept) == len(told) + 3  # the confirmed cell, its differential, the end


def test_a_listener_that_fails_is_said_and_the_others_go_on(path: Path) -> None:
    said: list[str] = []
    changes: list[Change] = []

    def fail(change: Change) -> None:
        raise RuntimeError("no")

    with JournalDesk(path, on_fault=said.append) as desk:
        desk.listen(fail)
        desk.listen(changes.append)
        desk.confirm("one", [1], "AB")
    assert len(changes) == 1
    assert said == ["review: a listener failed: RuntimeError: no"]


def test_many_people_at_once_lose_nothing(desk: JournalDesk) -> None:
    cells = whole(desk)[:30]

    def work(by: str, own: list[int]) -> None:
        for number in own:
            desk.classify("one", [number], "monocyte", None, by)
            desk.comment("one", f"{by} {number}", by, cell_id=number)

    people = [threading.Thread(target=work, args=(f"P{i}", cells[i::3])) for i in range(3)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    snapshot = desk.snapshot("one")
    assert [entry.number for entry in snapshot.history] == list(range(60))
    assert all(cell(desk, number).class_name == "monocyte" for number in cells)
    assert_equal_to_the_file(desk)


def test_the_desk_goes_on_where_the_last_one_ended(path: Path) -> None:
    with JournalDesk(path) as desk:
        desk.classify("one", [1], "monocyte", None, "AB")
        number = desk.add_cell("one", 0, 600.0, 610.0, "lymphocyte", "AB", subclass=None)
        before = desk.snapshot("one")
    with JournalDesk(path) as desk:
        after = desk.snapshot("one")
        assert after.cells == before.cells
        assert after.history == before.history
        assert desk.sessions()[0].review == before.info.review
        desk.undo("one", "AB")
        assert number not in [one.cell_id for one in desk.snapshot("one").cells]
        assert_equal_to_the_file(desk)
    with refused("closed"):
        desk.snapshot("one")
    desk.close()


def test_what_was_said_while_it_ran_is_part_of_it(tmp_path: Path) -> None:
    path = write_walk(tmp_path / "walk.db", ["basophil", "eosinophil"])
    with JournalDesk(path) as desk:
        snapshot = desk.snapshot("session")
        assert [(one.number, one.kind, one.by) for one in snapshot.history] == [(None, "class", "owner")] * 2
        words = [one for one in snapshot.cells if one.word is not None]
        assert [(one.class_name, one.word and one.word.by) for one in words] == [
            ("basophil", "owner"),
            ("eosinophil", "owner"),
        ]
        assert snapshot.info.review.state == "in review"
        desk.classify("session", [words[0].cell_id], None, None, "AB")
        assert desk.snapshot("session").reviewed == 1
        desk.undo("session", "AB")
        assert desk.snapshot("session").cells == snapshot.cells
        assert_equal_to_the_file(desk, "session")


def test_the_number_of_a_cell_that_was_joined_stands_for_the_other_one(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "twice.db", 20, twice=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        joined = database.execute(
            "SELECT cell_id, joined_to FROM cell_changes WHERE joined_to IS NOT NULL ORDER BY cell_id"
        ).fetchall()
    assert len(joined) >= 20
    gone, kept = joined[0]
    with JournalDesk(path) as desk:
        assert gone not in [one.cell_id for one in desk.snapshot("one").cells]
        assert [view.frame_id for view in cell(desk, kept).views] == [0, 1]
        desk.classify("one", [gone, kept], "artefact", None, "AB")
        desk.comment("one", "the same", "AB", cell_id=gone)
        desk.confirm("one", [joined[1][0]], "AB")
        assert [change.cell_id for change in desk.snapshot("one").history[0].changes] == [kept]
        assert (cell(desk, kept).class_name, len(cell(desk, kept).comments)) == ("artefact", 1)
        assert desk.picture("one", gone) == desk.picture("one", kept) == b"\xff\xd8 picture"
        assert_equal_to_the_file(desk)


def test_a_slide_whose_run_has_not_ended_is_shown_and_not_changed(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "cut.db", 5, finish=False)
    with JournalDesk(path) as desk:
        assert sum(not one.partial for one in desk.snapshot("one").cells) == 6
        for change in (lambda: desk.confirm("one", [0], "AB"), lambda: desk.sign("one", "AB")):
            with refused("not ended"):
                change()


def test_who_else_wants_the_journal_is_refused_until_the_desk_is_closed(path: Path) -> None:
    with JournalDesk(path):
        with pytest.raises(JournalError, match="locked"):
            JournalDesk(path)
        with pytest.raises(JournalError, match="locked"):
            JournalReader(path)
    JournalDesk(path).close()


def test_what_the_journal_does_not_take_is_refused_and_the_desk_shows_what_it_holds(
    desk: JournalDesk, path: Path
) -> None:
    desk.confirm("one", [1], "AB")
    before = desk.snapshot("one")
    size = desk._journal.database.execute("PRAGMA page_count").fetchone()[0]
    desk._journal.database.execute(f"PRAGMA max_page_count = {size}")
    with refused("not written"):
        for _ in range(200):
            desk.comment("one", "x" * 2000, "AB")
    assert len(desk.snapshot("one").history) < 200
    with refused("not written"):
        desk.confirm("one", [2], "AB")
    assert_equal_to_the_file(desk)
    assert desk.snapshot("one").cells[1] == before.cells[1]


def test_the_journals_slides_are_apart(path: Path) -> None:
    write_slide(path, 10, session="two", seed=1)
    write_slide(path, 10, session="three", source="other", seed=2)
    with JournalDesk(path) as desk:
        assert [(one.id, one.source) for one in desk.sessions()] == [
            ("one", "slide"),
            ("two", "slide"),
            ("three", "other"),
        ]
        desk.classify("two", [0], "artefact", None, "AB")
        assert [one.review.state for one in desk.sessions()] == ["unsigned", "in review", "unsigned"]
        for session in ("one", "two", "three"):
            assert_equal_to_the_file(desk, session)


@pytest.mark.lengthy
def test_a_change_on_a_slide_of_ten_thousand_cells_costs_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "large.db", 10_000)
    with JournalDesk(path) as desk:
        assert len(whole(desk)) == 10_000
        took_s = []
        for number in range(0, 10_000, 500):
            start = time.perf_counter()
            desk.classify("one", [number], "monocyte", None, "AB")
            desk.snapshot("one")
            took_s.append(time.perf_counter() - start)
        assert sorted(took_s)[len(took_s) // 2] < 0.1
        with desk.lock:
            again = recounted(desk.stored("one"))
        assert again.differential == differential_of(desk)
