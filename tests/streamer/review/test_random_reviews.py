"""Whatever people do in whatever order, what a desk keeps in memory is what its journal gives when it is counted again;
also when the process that wrote it was killed between two events, or within one."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

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
CORRECTIONS = 1000
PATIENCE_S = 600
"""For a process that is killed, of a machine that does other things too."""
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


FORKED = multiprocessing.get_context("forkserver")
"""Each process that is killed is a copy of one that has loaded everything: loading takes longer than its review."""
FORKED.set_forkserver_preload([__name__])


def review_until_killed(path: Path, seed: int, done: Any) -> None:
    """Go on with a review for ever; `done` counts the events that were said to be done."""
    desk, dice = JournalDesk(path), random.Random(seed)
    desk.snapshot("one")
    while True:
        if do_something(desk, dice) is None:
            done.value += 1


def kill_somewhere(path: Path, seed: int, most: int) -> int:
    """Go on with the review in another process until it is killed: after 1 to `most` events and a moment more, which
    ends between two events or within one. How many events it had said to be done."""
    dice, done = random.Random(seed), FORKED.RawValue("q", 0)
    process = FORKED.Process(target=review_until_killed, args=(path, seed, done), daemon=True)
    process.start()
    enough, until = dice.randint(1, most), time.monotonic() + PATIENCE_S
    while done.value < enough and process.is_alive():
        assert time.monotonic() < until, f"{done.value} events in {PATIENCE_S} s, expected {enough}"
        time.sleep(0.001)
    time.sleep(dice.uniform(0, 0.02))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return int(done.value)


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
    path, events = tmp_path / "slide.db", 0
    path.write_bytes(made.read_bytes())
    for seed in range(12):
        events = check_killed(path, events, kill_somewhere(path, seed, most=5))
    with JournalDesk(path) as desk:
        assert_equal_to_the_file(desk)


@pytest.mark.slow
def test_a_thousand_corrections_with_kills_in_between_leave_journal_page_and_exports_equal(
    made: Path, tmp_path: Path
) -> None:
    for name in ("fastapi", "uvicorn", "fhir.resources", "hl7apy", "hl7", "httpx"):
        pytest.importorskip(name, reason=f"pages and exports need the package {name}")
    from streamer.review.server.frames import NoFields
    from tests.streamer.review.results_cases import counts_of, said_of
    from tests.streamer.review.server.live_server import served

    path, events, kills = tmp_path / "slide.db", 0, 0
    path.write_bytes(made.read_bytes())
    while events < CORRECTIONS:
        events = check_killed(path, events, kill_somewhere(path, kills, most=30))
        kills += 1
        if kills % 10 and events < CORRECTIONS:
            continue
        with JournalDesk(path) as desk:
            assert_equal_to_the_file(desk)
            message = desk.snapshot("one").differential
            assert message is not None
            state = desk.snapshot("one").info.review.state
            with served(desk, NoFields()) as server:
                page = server.get("differential")
        assert page["review"]["state"] == state
        counts = counts_of(message)
        of_page = {name: one["count"] for name, one in page["classes"].items()}
        assert of_page | {"unclassified": page["unclassified"]} == counts
        for where, said in said_of(path).items():  # HL7 and FHIR have subclasses too, and no class without cells
            assert {name: said.get(name, 0) for name in counts} == counts, where
    assert kills >= CORRECTIONS // 31
