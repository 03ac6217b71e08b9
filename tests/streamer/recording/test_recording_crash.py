"""`leukostream run --record` on a full disk and killed, in real processes: what is there plays, and the run is worth
what it was."""

import json
import os
import signal
import time

import pytest

from streamer.recording import Recording
from tests.streamer.journal.journal_cases import PLACES, write_images
from tests.streamer.journal.test_journal_crash import Runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    write_images(folder / "frames")
    return folder


@pytest.fixture(scope="module")
def runner(folder):
    runner = Runner(folder / "said.txt")
    yield runner
    runner.close()


def final_of(path):
    """What the last differential of a JSON Lines file says of the cells."""
    found = [json.loads(line) for line in path.read_text().splitlines() if '"type":"differential"' in line]
    assert found[-1]["final"]
    return {name: found[-1][name] for name in ("total", "classes", "rbc_seen", "platelets_seen", "frames")}


@pytest.fixture(scope="module")
def undisturbed(folder, runner):
    out = folder / "whole.jsonl"
    status, said = runner.run("run", "--source", f"slide={folder / 'frames'}", "--jsonl", out)
    assert status == 0, said
    return final_of(out)


def test_a_full_disk_is_one_line_and_the_run_goes_on_counting(folder, runner, undisturbed):
    path, out = folder / "full.rec", folder / "full.jsonl"
    arguments = ["run", "--source", f"slide={folder / 'frames'}", "--record", path, "--jsonl", out]
    status, said = runner.run("limit", 3_000_000, *arguments)
    assert status == 0, said
    assert final_of(out) == undisturbed
    (line,) = [line for line in said if "expected room and a working disk" in line]
    assert line.startswith(f"leukostream: --record {path}: got 'File too large'")
    (told,) = [line for line in said if line.startswith("recorded ")]
    with Recording(path) as recording:
        track = recording.track(None)
        assert 5 < len(track.frames) < len(PLACES)
        assert f"recorded {len(track.frames)} frames" in told
        assert f"lost {len(PLACES) - len(track.frames)} frames (not written)" in told
        assert all(recording.frame(track, number) is not None for number in track.frame_ids())


def test_a_killed_run_leaves_a_recording_that_plays_and_is_gone_on_with(folder, runner, undisturbed):
    path, journal = folder / "killed.rec", folder / "killed.db"
    arguments = ["run", "--source", f"slide={folder / 'frames'}", "--record", path, "--journal", journal]
    process = runner.start(*arguments)
    until = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 2_000_000) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    assert runner.status() == -signal.SIGKILL

    with Recording(path) as recording:
        assert recording.ending.fault is not None
        kept = len(recording.track(None).frames)
    assert 3 < kept < len(PLACES)
    out = folder / "rest.jsonl"
    status, said = runner.run("run", "--source", f"slide=replay:{path}", "--jsonl", out)
    assert status == 0, said
    assert final_of(out)["frames"] == kept
    assert len([line for line in said if "skipped what followed frame" in line]) == 1

    status, said = runner.run(*arguments, "--resume")
    assert status == 0, said
    with Recording(path) as recording:
        assert recording.track(None).frame_ids() == list(range(len(PLACES)))
        assert recording.ending.fault is None
    status, said = runner.run("run", "--source", f"slide=replay:{path}", "--jsonl", folder / "again.jsonl")
    assert status == 0, said
    assert final_of(folder / "again.jsonl") == undisturbed
    status, said = runner.run("mosaic", journal, "-o", folder / "slide.png")
    assert status == 0, said
    assert f"{len(PLACES) - 1} frames" in said[-1]
