"""What a session writes is what it reads back when it goes on, column by column."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from streamer.counting.slide_map import SlideMap, SlideUpdate
from streamer.journal import Checkpoint, GivenCommand, Journal, JournalError, SeenFrame
from streamer.journal.reader import read_sessions
from streamer.records import Cell, Classifications, Detections, Observation, StagePosition
from streamer.stage.hidden import HiddenParts
from streamer.stage.keyframes import KeyframeState, Link
from streamer.stage.placement import Correction, Placement
from streamer.stage.preparation import PreparedFrame
from streamer.stage.registration import Shift
from streamer.stage.static_mask import StaticMask
from streamer.stage.tracker_state import StageChanges, TrackerState
from tests.cases import FIVE
from tests.streamer.journal.journal_cases import new_session, rules

NOTHING = SlideUpdate((), (), ())


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "one.db")
    yield opened
    opened.close()


@pytest.fixture
def session(journal):
    return new_session(journal)


def stored(journal, number=-1):
    return read_sessions(journal.database, journal.path)[number]


def picture(seed):
    fine = np.random.default_rng(seed).integers(-128, 128, (32, 48), np.int8)
    return PreparedFrame(64, 97, 2, fine, None, contrast=0.25 + seed, coherence=0.75, smear=1.0625)


SHIFT = Shift(1.5, -2.5, overlap=0.5, ncc=0.75, agreement=0.875, strength=50.0, growth=0.125, turn_rad=-0.25)
NOTHING_STATIC = StaticMask()
HIDDEN = HiddenParts(np.eye(32, 48, dtype=np.uint8), 2)
THERE = Placement(StagePosition(1, 5.5, -6.5, 0.75), 7, "why")


def tracker(last, found=None, static=NOTHING_STATIC):
    return TrackerState(
        next_island=3,
        reference=1,
        pending=((0, 2), (1, 2)),
        distorted={1: "turned"},
        given_up=4,
        was_found=True,
        last=(last, THERE),
        found=None if found is None else (found, 6, SHIFT),
        hunches=((0, 1, SHIFT), (2, 1, replace(SHIFT, x_px=9.0))),
        static=static,
    )


def seen(frame_id, **changes):
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp), ("WBC", "RBC"),
                       ("white", "red"), False)  # fmt: skip
    given = {"placement": THERE, "detections": empty, "looks": None, "accepted": True, "reasons": (), "focus": None}
    return SeenFrame(frame_id, 97, 64, **{**given, **changes}, file=f"{frame_id}.png", captured_utc="2026-01-01")


def keep(session, frame_id, state, *keyframes, update=NOTHING, checkpoint=None, **changes):
    session.frame(seen(frame_id, **changes), update, StageChanges(keyframes, state), [], checkpoint)


def same(one, two):
    assert np.array_equal(one.fine, two.fine)
    for name in ("height", "width", "factor", "contrast", "coherence", "smear"):
        assert getattr(one, name) == getattr(two, name)


def test_all_that_a_tracker_remembers_comes_back(journal, session):
    state = tracker(picture(1), picture(2))
    keep(session, 0, state)
    again = stored(journal).stage.tracker()
    for name in ("next_island", "reference", "pending", "distorted", "given_up", "was_found", "hunches"):
        assert getattr(again, name) == getattr(state, name)
    same(again.last[0], picture(1))
    assert again.last[1] == THERE
    same(again.found[0], picture(2))
    assert again.found[1:] == (6, SHIFT)


def test_the_frame_that_was_found_last_stays_while_others_come(journal, session):
    """It is the last frame at first, and another later: its picture is written when it is the last one no more."""
    first, second, third = (picture(seed) for seed in (1, 2, 3))
    for frame_id, (last, found) in enumerate([(first, first), (second, first), (third, first), (third, second)]):
        keep(session, frame_id, tracker(last, found))
        again = stored(journal).stage.tracker()
        same(again.last[0], last)
        same(again.found[0], found)
        assert (again.found[0] is again.last[0]) is (found is last)


def test_what_is_known_of_the_static_parts_comes_back(journal, session):
    rng = np.random.default_rng(4)
    history, found = rng.integers(0, 256, (32, 48), np.uint8), rng.integers(0, 2, (32, 48), np.uint8)
    for frame_id, known in enumerate([StaticMask(picture(3), 2, history, found), StaticMask(picture(4), 3, found)]):
        keep(session, frame_id, tracker(picture(1), static=known))
        again = stored(journal).stage.tracker().static
        same(again.last, known.last)
        assert again.pairs == known.pairs
        assert np.array_equal(again.history, known.history)
        assert (again.found is None) == (known.found is None)
    keep(session, 2, tracker(picture(1)))
    assert stored(journal).stage.tracker().static.last is None


def test_hidden_parts_come_back_from_the_frame_on_that_showed_them(journal, session):
    parts = HiddenParts(np.eye(4, 6, dtype=np.uint8), 3)
    for frame_id, hidden in enumerate([None, parts, parts, None]):
        keep(session, frame_id, tracker(picture(1)), placement=replace(THERE, hidden=hidden))
    for after in (-1, 1):
        got = {one.frame_id: one.placement.hidden for one in stored(journal).frames(after)}
        assert got.pop(0, None) is got.pop(3) is None
        assert all(one.same_as(parts) for one in got.values())
        assert 2 in got
    assert journal.database.execute("SELECT count(*) FROM hidden_parts").fetchone() == (2,)


def test_keyframes_come_back_with_where_they_were_announced_and_their_links(journal, session):
    links = (Link(0, 1.5, -2.5, 0.25), Link(2, -7.0, 8.0, 0.75))
    state = KeyframeState(1, 2, 10.5, 20.5, (11.5, 21.5), 3, links)
    keep(session, 0, tracker(picture(1)), (state, picture(5)))
    [(again, frame)] = stored(journal).stage.keyframes()
    assert again == state
    same(frame, picture(5))
    moved = replace(state, island=0, x_px=-1.0)
    keep(session, 1, tracker(picture(2)), (moved, picture(5)))
    assert [state for state, _ in stored(journal).stage.keyframes()] == [moved]


def test_a_frame_comes_back_with_its_boxes_looks_and_cells(journal, session):
    boxes = np.float32([[1, 2, 30, 40], [5, 6, 20, 22], [50, 2, 80, 33], [9, 9, 12, 12]])
    found = Detections(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 0, 2]), ("WBC", "RBC", "platelet"),
                       ("white", "red", "platelet"), True)  # fmt: skip
    probabilities, values = np.float32([[0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.6, 0.1, 0.1, 0.1]]), np.eye(2, 4)
    looks = Classifications(
        *(probabilities, FIVE, np.zeros((2, 0), np.float32), (), ()),
        attribute_probabilities=values.astype(np.float32),
        attributes=rules().attributes,
        novelty=np.float32([0.25, 0.75]),
    )
    numbers = (3, 4, None, 5)
    update = SlideUpdate(tuple(Observation(number, False, True) for number in numbers), (), ())
    keep(session, 0, tracker(picture(1)), update=update, detections=found, looks=looks, focus=0.625)
    keep(session, 1, tracker(picture(1)), accepted=False, reasons=("blurred", "dark"), placement=Placement(None, None))
    one, two = stored(journal).frames()
    assert (one.focus, one.detections.truncated, one.accepted, one.placement) == (0.625, True, True, THERE)
    assert np.array_equal(one.detections.boxes_px, boxes)
    for name in ("probabilities", "attribute_probabilities", "novelty"):
        assert np.array_equal(getattr(one.looks, name), getattr(looks, name))
    assert (two.focus, two.detections.truncated, two.looks) == (None, False, None)
    assert (two.accepted, two.reasons, two.placement.position) == (False, ("blurred", "dark"), None)
    of_looks = journal.database.execute("SELECT box, cell_id FROM looks ORDER BY box").fetchall()
    assert of_looks == [(0, 3), (2, None)]
    assert stored(journal).cells_of(0) == [3, 4, -1, 5]


def checkpoint(frame_id):
    slide = SlideMap()
    slide.update(replace(THERE, hidden=HIDDEN), seen(0).detections, (97, 64), frame_id)
    return Checkpoint(frame_id, frame_id + 1, frame_id, (), 0, {0: 1}, slide.state())


def test_the_newest_checkpoint_is_kept_and_a_frame_without_one_leaves_it(journal, session):
    keep(session, 0, tracker(picture(1)))
    assert stored(journal).checkpoint() is None
    for frame_id in (1, 2):
        keep(session, frame_id, tracker(picture(1)), checkpoint=checkpoint(frame_id))
    keep(session, 3, tracker(picture(1)))
    again = stored(journal).checkpoint()
    assert (again.frame_id, again.frames, again.accepted, again.islands) == (2, 3, 2, {0: 1})
    assert again.slide.visits.tolist() == [[2, 1, 7, 5.5, -6.5]]
    assert again.slide.hidden.same_as(HIDDEN)


def test_the_newest_session_of_a_source_is_gone_on_with(journal):
    for source, id_ in (("left", "a"), ("right", "b"), ("left", "c")):
        journal.new_session(source, id_, address="path:/x", live=False, rules=rules())
    assert journal.session("left").stored.id == "c"
    assert journal.session("right").stored.id == "b"
    assert journal.session("middle") is None


def test_an_end_is_noted_and_undone_when_a_run_goes_on(journal, session):
    corrections = (Correction(1, 0, 2.5, -3.5),)
    session.end(corrections, NOTHING, [])
    assert (stored(journal).ended, stored(journal).end_corrections) == (True, corrections)
    session.begin_run("second", "{}")
    assert (stored(journal).ended, stored(journal).end_corrections) == (False, ())
    assert [run.run_id for run in stored(journal).runs()] == ["second"]


def test_what_a_command_changed_stands_with_the_frame_that_it_came_after(journal, session):
    cell = Cell(1, 0, 5.0, 6.0, "white", "monocyte", None, "monocyte", {"monocyte": 1.0}, 2, False, 0, 3)
    given = GivenCommand("run", "anyone", "7", "reclassify", "{}")
    session.command(given, 12, SlideUpdate((), (cell,), ((2, 1),)), [])
    refused = replace(given, request_id="8", refused="unknown", reason="no such cell")
    session.command(refused, None, None, [])
    changes = journal.database.execute("SELECT frame_id, cell_id, class, joined_to FROM cell_changes").fetchall()
    assert changes == [(12, 2, None, 1), (12, 1, "monocyte", None)]
    assert journal.database.execute("SELECT after_frame, request_id, refused FROM commands").fetchall() == [
        (12, "7", None),
        (None, "8", "unknown"),
    ]
    assert stored(journal).commands() == [given, refused]


def half_written(journal, fault):
    with journal.transaction():
        journal.database.execute("UPDATE sessions SET next_seq = 99")
        fault()


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(journal, session):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_written(journal, interrupt)
    assert (stored(journal).next_seq, journal.broken, journal.database.in_transaction) == (0, False, False)
    session.begin_run("next", "{}")
    assert len(stored(journal).runs()) == 1


def test_a_file_that_can_not_be_written_is_broken_from_then_on_and_as_it_was(journal, session):
    with pytest.raises(JournalError) as error:
        half_written(journal, lambda: journal.database.execute("INSERT INTO runs SELECT * FROM nowhere"))
    assert isinstance(error.value.__cause__, sqlite3.Error)
    assert session.broken
    assert (stored(journal).next_seq, journal.database.in_transaction) == (0, False)
