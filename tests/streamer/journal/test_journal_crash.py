"""`leukostream run --journal` killed at random moments, in real processes: whatever the moment, the resumed run ends as
the one that nobody killed, and everything that was published is in the journal."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from streamer.commands.recount import recounted
from streamer.journal import JournalReader
from streamer.protocol.messages import decode, encode
from tests.streamer.journal.journal_cases import BLANK, PLACES, write_images

if not hasattr(os, "fork"):
    pytest.skip("no fork on this system", allow_module_level=True)


class Runner:
    """Starts runs in processes that cost no imports."""

    def __init__(self, errors):
        self._errors = errors
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.streamer.journal.journal_cases"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
        )

    def start(self, *arguments):
        self._server.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def status(self):
        return int(self._server.stdout.readline())

    def run(self, *arguments):
        """(exit status, lines of standard output and error)."""
        before = len(self._errors.read_text())
        self.start(*arguments)
        status = self.status()
        return status, self._errors.read_text()[before:].splitlines()

    def close(self):
        self._server.stdin.close()
        self._server.wait(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def runner(folder):
    runner = Runner(folder / "said.txt")
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def frames(folder):
    return write_images(folder / "frames")


@pytest.fixture(scope="module")
def undisturbed(folder, frames, runner):
    """(what a run that nobody killed came to, seconds that it took)."""
    begin = time.monotonic()
    status, said = runner.run("run", "--source", f"slide={frames}", "--journal", folder / "whole.db")
    assert status == 0, said
    return outcome(folder / "whole.db"), time.monotonic() - begin


def outcome(path):
    """All that a session comes to, less the times and ids of its runs."""
    with JournalReader(path) as journal:
        (stored,) = journal.sessions
        counted = recounted(stored)
        assert stored.ended
        assert counted.differential.final
        frames = [
            (f.frame_id, f.file, f.placement.position, f.accepted, stored.cells_of(f.frame_id)) for f in stored.frames()
        ]
        return counted.differential, [asdict(cell) for cell in counted.count.cells()], frames


def hold_to_what_was_published(path, lines):
    """Each published message is in the journal as it was published, numbered without gaps; the last count is the
    journal's."""
    with JournalReader(path) as journal:
        (stored,) = journal.sessions
        kept = [header for header, _ in stored.messages_after(-1)]
        assert [json.loads(header)["session_seq"] for header in kept] == list(range(len(kept)))
        published = [encode(decode(line)) for line in lines]
        assert set(published) <= set(kept)
        assert len(published) == len(set(published))
        new = [
            box["cell_id"]
            for header in kept
            for box in json.loads(header).get("detections", [])
            if box["is_new"] and box["kind"] == "white"
        ]
        assert len(new) == len(set(new))
        told = {
            message["cell_id"]: message for message in map(json.loads, kept) if message["type"] == "cell"
        }  # the newest of each
        counted = {number for number, message in told.items() if message["counted"]}
        assert counted == {cell.cell_id for cell in recounted(stored).count.cells()}


def lines_of(path):
    """The whole lines of a file that a killed process may have left a torn one in."""
    if not path.exists():
        return []
    return [line for line in path.read_bytes().split(b"\n") if line.endswith(b"}") and line.startswith(b"{")]


def kill_after(child, seconds):
    """Or not, where it has ended by then."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(child, 0)
            time.sleep(max(0, min(0.01, deadline - time.monotonic())))
        os.kill(child, signal.SIGKILL)


def kill_until_done(runner, frames, journal, moments):
    """Resume until a run ends by itself; each is killed after the next of `moments` seconds, while there are any.
    Returns how many were killed."""
    killed = 0
    while True:
        jsonl = journal.with_suffix(".jsonl")
        child = runner.start("run", "--source", f"slide={frames}", "--journal", journal, "--jsonl", jsonl, "--resume")
        if moments:
            kill_after(child, moments.pop(0))
        status = runner.status()
        assert status in (0, -signal.SIGKILL)
        if status == 0:
            return killed
        killed += 1


def kill_at_random(seed, kills, folder, frames, undisturbed, runner):
    expected, duration_s = undisturbed
    rng = random.Random(seed)
    done = chain = 0
    while done < kills:
        journal = folder / f"seed{seed}-{chain}.db"
        in_this = min(kills - done, rng.randint(1, 4))
        moments = [rng.uniform(0, duration_s / rng.choice((1, 2, 4))) for _ in range(in_this)]
        killed = kill_until_done(runner, frames, journal, moments)
        if killed < in_this:  # the machine was slower when the undisturbed run was timed
            duration_s *= 0.8
        done += killed
        assert outcome(journal) == expected
        hold_to_what_was_published(journal, lines_of(journal.with_suffix(".jsonl")))
        chain += 1


def test_the_undisturbed_run_is_the_walk_that_the_tests_mean(undisturbed):
    differential, cells, frames = undisturbed[0]
    assert (differential.total, differential.rbc_seen, differential.platelets_seen) == (16, 20, 10)
    assert len(cells) == 16
    assert [number for number, *_ in frames] == list(range(len(PLACES)))
    assert {position.island for _, _, position, *_ in frames if position is not None} == {0, 1}
    assert frames[BLANK][2] is None


def test_a_run_killed_at_five_random_moments_ends_as_the_one_that_was_not(folder, frames, undisturbed, runner):
    kill_at_random(1, 5, folder, frames, undisturbed, runner)


@pytest.mark.slow
def test_a_run_killed_at_fifty_random_moments_ends_as_the_one_that_was_not(folder, frames, undisturbed, runner):
    kill_at_random(2, 50, folder, frames, undisturbed, runner)


def test_a_run_that_was_stopped_goes_on_where_it_was(folder, frames, undisturbed, runner):
    journal = folder / "stopped.db"
    where = ("run", "--source", f"slide={frames}", "--journal", journal)
    status, said = runner.run(*where, "--stop-at", 5)
    assert status == 0, said
    status, said = runner.run(*where, "--resume")
    assert status == 0, said
    assert outcome(journal) == undisturbed[0]


def test_a_finished_session_can_be_gone_on_with_and_comes_to_the_same(folder, frames, undisturbed, runner):
    journal = folder / "finished.db"
    where = ("run", "--source", f"slide={frames}", "--journal", journal)
    for options in ((), ("--resume",), ("--resume",)):
        status, said = runner.run(*where, *options)
        assert status == 0, said
    assert outcome(journal) == undisturbed[0]
    status, said = runner.run("recount", journal)
    assert (status, said[-1].startswith("equal to the final differential published")) == (0, True)


def test_a_journal_in_use_is_refused_and_the_run_that_uses_it_is_not_disturbed(folder, frames, undisturbed, runner):
    journal = folder / "shared.db"
    slow = Runner(folder / "slow.txt")
    try:
        child = slow.start("run", "--source", "slide=sim:cells=60", "--mode", "live", "--journal", journal)
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.with_name("shared.db-wal").exists()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for arguments in (("run", "--source", f"slide={frames}", "--resume", "--journal"), ("recount",)):
            status, said = runner.run(*arguments, journal)
            assert status == 1
            assert len(said) == 1
            assert "another process has locked" in said[0]
        os.kill(child, signal.SIGTERM)
        assert slow.status() == 0
    finally:
        slow.close()
    with JournalReader(journal) as kept:
        assert kept.sessions[0].ended


def test_a_full_disk_stops_the_run_with_the_count_of_the_journal(folder, frames, undisturbed, runner):
    """The limit on a file's size stands for the disk: a write beyond it fails in the same place."""
    journal = folder / "full.db"
    jsonl = folder / "full.jsonl"
    where = ("run", "--source", f"slide={frames}", "--journal", journal)
    status, said = runner.run("limit", 1_200_000, *where, "--jsonl", jsonl)
    assert status == 1
    (fault,) = [line for line in said if line.startswith("leukostream: journal")]
    assert "--resume" in fault
    final = json.loads(lines_of(jsonl)[-2])
    assert (final["type"], final["final"]) == ("differential", True)
    with JournalReader(journal) as kept:
        (stored,) = kept.sessions
        counted = recounted(stored)
        frame_ids = [seen.frame_id for seen in stored.frames()]
    assert 0 < len(frame_ids) < len(PLACES)
    published = [json.loads(line)["frame_id"] for line in lines_of(jsonl) if b'"type":"frame"' in line]
    assert published == frame_ids
    counted.count.finish(())
    assert final["frames"] == counted.differential.frames
    status, said = runner.run(*where, "--resume")
    assert status == 0, said
    assert outcome(journal) == undisturbed[0]


def test_without_resume_an_existing_file_is_refused(tmp_path, frames, runner):
    journal = tmp_path / "old.db"
    journal.write_bytes(b"something else")
    status, said = runner.run("run", "--source", f"slide={frames}", "--journal", journal)
    assert (status, len(said)) == (2, 1)
    assert "--resume" in said[0]
    assert journal.read_bytes() == b"something else"


def test_resume_without_a_journal_is_bad_usage(frames, runner):
    status, said = runner.run("run", "--source", f"slide={frames}", "--resume")
    assert (status, len(said)) == (2, 1)
    assert "--journal" in said[0]
