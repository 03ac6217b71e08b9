"""Archives analysed again: what is one slide, what is done already, and that it equals a run of one slide alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")

from engines.base import UsageError  # noqa: E402
from streamer.cli import main  # noqa: E402
from streamer.commands.reanalyse.analysing import Job, analyse  # noqa: E402
from streamer.commands.reanalyse.shards import Shard, shards_of  # noqa: E402
from streamer.commands.reanalyse.workers import TRIES, on_processes  # noqa: E402
from streamer.config import Config  # noqa: E402
from streamer.interop.parquet import schema_of  # noqa: E402
from streamer.protocol.messages import FrameMessage  # noqa: E402
from streamer.recording import Recorder, TrackInfo  # noqa: E402
from streamer.records import Cell, Differential, Frame  # noqa: E402

SLIDES = ("sim:seed=3,cells=4,red=30,returns=0,jumps=0", "sim:seed=4,cells=4,red=30,returns=0,jumps=0")
QUICK = ("--long-side-px", "320")

OF_THE_RUN = {"session", "run_id", "session_seq", "published_ns", "published_utc", "seq", "captured_ns", "timings_ms"}
"""Columns of ids, times and hosts; those of a simulated slide have the wall's time of the grab too."""


def recorded(path: Path, *sources: str) -> Path:
    tracks = [TrackInfo(one, f"sim:{one}", "analysis") for one in sources]
    recorder = Recorder(path, tracks, run_id="run", keep="got", utc_offset_ns=0)
    writing = threading.Thread(target=recorder.run)
    writing.start()
    for one in sources:
        recorder.frame(Frame(one, 0, 1, np.zeros((16, 16, 3), np.uint8)))
    recorder.close()
    writing.join()
    return path


def tables(out: Path, name: str) -> dict[str, object]:
    """The rows of each table, without the columns that differ from run to run."""
    found = {}
    for table in ("frames", "cells", "differential"):
        rows = pq.read_table(out / table / f"{name}.parquet")
        found[table] = rows.drop_columns([one for one in rows.column_names if one in {*OF_THE_RUN, "captured_utc"}])
    return found


def test_columns_are_the_fields_of_the_records():
    for record in (FrameMessage, Cell, Differential):
        fields = [field.name for field in msgspec.inspect.type_info(record).fields]
        assert [one for one in schema_of(record).names if one not in ("session", "source")] == [
            one for one in fields if one not in ("session", "source")
        ]
    assert str(schema_of(FrameMessage).field("stage").type).startswith("struct<island: int64, x_px: double")


def test_each_track_of_a_recording_is_a_slide_and_names_differ(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        recorded(tmp_path / folder / "slide.rec", "left")
    two = recorded(tmp_path / "two.rec", "left", "right")
    given = [str(tmp_path / "a"), str(tmp_path / "b" / "*.rec"), f"replay:{two}", str(tmp_path / "a" / "slide.rec")]
    shards = shards_of(given, {})
    assert [(one.name, one.address) for one in shards] == [
        ("slide", f"replay:{tmp_path}/a/slide.rec,source=left"),
        ("slide-2", f"replay:{tmp_path}/b/slide.rec,source=left"),
        ("two-left", f"replay:{two},source=left"),
        ("two-right", f"replay:{two},source=right"),
    ]
    known = {shards[1].address: "slide", shards[0].address: "slide-2"}
    assert [one.name for one in shards_of(given, known)][:2] == ["slide-2", "slide"], "a slide keeps its name"


def test_what_is_damaged_is_a_slide_with_a_fault(tmp_path):
    (tmp_path / "cut.rec").write_bytes(b"LEUKOREC and no more")
    (tmp_path / "bad.journal").write_bytes(b"SQLite format 3\0 and no more")
    recorded(tmp_path / "good.rec", "left")
    shards = {one.name: one.fault for one in shards_of([str(tmp_path)], {})}
    assert shards["good"] is None
    assert "got no recording" in shards["cut"]
    assert "journal" in shards["bad"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("0", "got a camera or stream"),
        ("rtsp://host/stream", "got a camera or stream"),
        ("/no/such/folder", "got no such file or folder"),
        ("/no/such/*.rec", "got nothing that matches"),
    ],
)
def test_what_can_be_no_slide(given, fault):
    with pytest.raises(UsageError, match=fault):
        shards_of([given], {})


def test_a_name_for_two_slides(tmp_path):
    recorded(tmp_path / "a.rec", "left", "right")
    with pytest.raises(UsageError, match="got 2 slides for the name 'mine'"):
        shards_of([f"mine={tmp_path}/a.rec"], {})


def dies_until(marks: str) -> int:
    """Dies unless two calls before it did."""
    path = Path(marks)
    calls = len(list(path.iterdir()))
    (path / str(calls)).touch()
    if calls < TRIES - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return calls


def always_dies(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.lengthy
def test_a_worker_that_dies_is_tried_again(tmp_path):
    assert list(on_processes(dies_until, [str(tmp_path)], 2)) == [(str(tmp_path), TRIES - 1)]
    ((_, fault),) = on_processes(always_dies, [""], 1)
    assert fault == f"its process was ended by SIGKILL, {TRIES} times"


def test_a_worker_of_another_version_does_nothing(tmp_path):
    outcome = analyse(Job(Shard("s", SLIDES[0]), str(tmp_path), Config(), program="0.0.1"))
    assert outcome.fault is not None
    assert re.fullmatch(
        r"got a worker with leukostream \S+, expected 0\.0\.1; install that version on it", outcome.fault
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_journal_stands_for_its_recording_and_keeps_what_was_said_of_the_slide(tmp_path, capsys):
    recording, journal = str(tmp_path / "a.rec"), str(tmp_path / "b.journal")
    words = ["run", "--source", f"cam={SLIDES[0]}", "--slide", "B-17", "--stain", "MGG", "--no-dashboard", *QUICK]
    assert main([*words, "--record", recording, "--journal", journal]) == 0
    out = tmp_path / "out"
    assert main(["reanalyse", recording, journal, "-o", str(out), *QUICK]) == 0
    (row,) = pq.read_table(out / "differential").to_pylist()
    assert (row["source"], row["slide"]["name"], row["slide"]["stain"]) == ("b", "B-17", "MGG")
    Path(recording).unlink()
    capsys.readouterr()
    assert main(["reanalyse", journal, "-o", str(tmp_path / "other"), *QUICK]) == 0, (
        "the simulated slide is there still"
    )


@pytest.mark.slow
def test_an_archive_that_was_killed_equals_runs_of_one_slide_each(tmp_path, capsys):
    sources = [f"s{number}={address}" for number, address in enumerate(SLIDES)]
    for number, source in enumerate(sources):
        journal = str(tmp_path / f"s{number}.journal")
        assert main(["run", "--source", source, "--journal", journal, "--no-dashboard", *QUICK]) == 0
        assert main(["export", journal, "--format", "parquet", "-o", str(tmp_path / f"s{number}")]) == 0
        for table in ("frames", "cells", "differential"):  # where reanalyse puts them
            (tmp_path / "alone" / table).mkdir(parents=True, exist_ok=True)
            (tmp_path / f"s{number}" / f"{table}.parquet").rename(tmp_path / f"alone/{table}/s{number}.parquet")
    out = tmp_path / "out"
    words = ["reanalyse", *sources, "-o", str(out), "--workers", "2", *QUICK]
    driver = subprocess.Popen([sys.executable, "-m", "streamer", *words])
    log = out / "s0.journal-wal"
    while not (log.exists() and log.stat().st_size > 1_000_000):  # some frames are in
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    deadline_s = time.monotonic() + 60.0
    status = 1
    while status == 1 and time.monotonic() < deadline_s:  # its workers notice within moments
        capsys.readouterr()
        status = main(words)
    assert status == 0, capsys.readouterr().err
    for number in range(len(sources)):
        assert tables(out, f"s{number}") == tables(tmp_path / "alone", f"s{number}")

    assert main(words) == 0
    assert "2 of 2 slides, 2 of them done before, 0 failed" in capsys.readouterr().out
    assert main([*words, "--min-score", "0.9"]) == 2
    assert "got the option min_score 0.9, expected none, which its results were begun with" in capsys.readouterr().err


@pytest.mark.slow
def test_a_slide_that_fails_is_one_line_and_others_go_on(tmp_path, capsys):
    (tmp_path / "cut.rec").write_bytes(b"LEUKOREC and no more")
    out = tmp_path / "out"
    assert main(["reanalyse", str(tmp_path / "cut.rec"), f"s={SLIDES[0]}", "-o", str(out), *QUICK]) == 1
    said = capsys.readouterr()
    assert "1 of 2 slides, 0 of them done before, 1 failed" in said.out
    assert said.err.count("leukostream: cut: recording") == 1
    assert (out / "cells" / "s.parquet").exists()
