"""Whatever people do in whatever order, what a desk keeps in memory is what its journal gives when it is counted again;
also when the process that wrote it was killed between two events, or within one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.journal import JournalReader, last_published, recounted, review_events
from streamer.protocol.messages import DifferentialMessage, decode
from streamer.review.desk import ReviewRefused
from streamer.review.journal_desk import JournalDesk
from tests.streamer.review.review_cases import CLASSES, assert_equal_to_the_file, write_slide

CELLS = 20
PEOPLE = ("AB", "CD", "EF")
NAMES = (*CLASSES, "smudge cell", "artefact", "unclassified", None)


def do_something(desk: JournalDesk, dice: random.Random) -> str | None:
    """One thing that a person may do; the code of the refusal where it can't be."""
    snapshot = desk.snapshot("one")
    by, cells = dice.choice(PEOPLE), [one.cell_id for one in snapshot.cells]
    some = dice.sample(cells, min(len(cells), dice.choice((1, 1, 1, 2, 5))))
    name = dice.choice(NAMES)
    subclass = dice.choice((None, "band neutrophil")) if name == "neutrophil" else None
    what = dice.choices(
        ("classify", "confirm", "undo", "add", "comment", "blind", "settle", "sign", "amend"),
        (30, 12, 25, 10, 6, 5, 4, 2, 6),
    )[0]
    try:
        if what == "classify":
            desk.classify("one", some, name, subclass, by)
        elif what == "confirm":
            desk.confirm("one", some, by)
        elif what == "undo":
            desk.undo("one", by)
        elif what == "add":
            x, y = dice.uniform(0, 640), dice.uniform(0, 640)
            desk.add_cell("one", 0, x, y, name or "monocyte", by, subclass=subclass, width_px=20.0, height_px=30.0)
        elif what == "comment":
            desk.comment("one", "a word", by, cell_id=dice.choice([*some, None]))
        elif what == "blind":
            desk.begin("one", by, blind=dice.random() < 0.5)
        elif what == "settle":
            desk.settle("one", some, name or "monocyte", subclass, by)
        elif what == "sign":
            desk.sign("one", by, despite="a test")
        else:
            desk.amend("one", by, "a test")
    except ReviewRefused as refusal:
        return refusal.code
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("made") / "slide.db", CELLS)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_random_reviews_are_what_their_journal_gives(made: Path, seed: int) -> None:
    path = made.with_name(f"{seed}.db")
    path.write_bytes(made.read_bytes())
    dice = random.Random(seed)
    with JournalDesk(path) as desk:
        outcomes = [do_something(desk, dice) for _ in range(25)]
        assert None in outcomes
        assert_equal_to_the_file(desk)
        before = desk.snapshot("one")
        assert not [one.fault for one in desk.verify("one") if one.fault]
    with JournalDesk(path) as desk:
        after = desk.snapshot("one")
        assert (after.cells, after.history, after.signatures) == (before.cells, before.history, before.signatures)
    path.unlink()


def test_all_undone_is_as_it_was(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "slide.db"
    path.write_bytes(made.read_bytes())
    dice = random.Random(5)
    with JournalDesk(path) as desk:
        before = desk.snapshot("one")
        for _ in range(40):
            do_something(desk, dice)
        if desk.snapshot("one").info.review.state in ("signed", "amended"):
            desk.amend("one", "AB", "go on")
        for by in PEOPLE:
            while desk._slides["one"].corrections.last_undone(by) is not None:
                desk.undo("one", by)
        after = desk.snapshot("one")
        assert after.cells == before.cells
        assert after.differential is not None
        assert before.differential is not None
        assert after.differential.classes == before.differential.classes
        assert len(after.history) > 40
        assert_equal_to_the_file(desk)


KILLED = """
import os, random, sys, threading, time
from pathlib import Path
from streamer.review.journal_desk import JournalDesk
from tests.streamer.review.test_random_reviews import do_something

path, seed, after_s, done = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), 0
desk = JournalDesk(path)
desk.snapshot("one")
threading.Thread(target=lambda: (time.sleep(after_s), os._exit(0)), daemon=True).start()
dice = random.Random(seed)
while True:
    if do_something(desk, dice) is None:
        done += 1
        os.write(1, b"%d\\n" % done)
"""


def kill_somewhere(path: Path, seed: int) -> int:
    """Go on with the review in another process until it is killed; how many events it had said to be done."""
    after_s = random.Random(seed).uniform(0.0, 0.25)
    words = [sys.executable, "-c", KILLED, str(path), str(seed), str(after_s)]
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ, cwd=Path(__file__).parents[3])
    assert ended.returncode == 0, ended.stderr
    return int((ended.stdout.split() or ["0"])[-1])


def check_killed(path: Path, before: int, done: int) -> int:
    """What was said to be done is in the journal, at most one event more, all of it counts, and what was published last
    is what it gives; how many events there are."""
    with JournalReader(path) as reader:
        stored = reader.sessions[0]
        again = recounted(stored)
        events = [given.number for given, _ in review_events(stored)]
        assert events == list(range(len(events)))
        assert before + done <= len(events) <= before + done + 1
        assert not again.faults
        message = last_published(stored)
        assert message is not None
        assert all(
            getattr(message, name) == getattr(again.differential, name) for name in ("classes", "review", "total")
        )
        numbers = [decode(header).session_seq for header, _ in stored.messages_after(-1)]
        assert numbers == list(range(len(numbers)))
        last = decode(stored.last_message("differential") or b"")
        assert isinstance(last, DifferentialMessage)
        assert last.final
    return len(events)


@pytest.mark.lengthy
def test_killed_between_events_and_within_them(made: Path, tmp_path: Path) -> None:
    _kill_again_and_again(made, tmp_path, 12)


@pytest.mark.slow
def test_killed_a_thousand_times(made: Path, tmp_path: Path) -> None:
    _kill_again_and_again(made, tmp_path, 1000)


def _kill_again_and_again(made: Path, folder: Path, times: int) -> None:
    path, events, cut = folder / "slide.db", 0, 0
    path.write_bytes(made.read_bytes())
    for seed in range(times):
        if events > 400:  # a recount takes as long as there are events
            path, events = folder / f"slide{seed}.db", 0
            path.write_bytes(made.read_bytes())
        done = kill_somewhere(path, seed)
        after = check_killed(path, events, done)
        cut += after - events > 0
        events = after
    assert cut > times // 3
    with JournalDesk(path) as desk:
        assert_equal_to_the_file(desk)
