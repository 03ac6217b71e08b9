"""`leukostream qc`: what it says first, and its exit status."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from streamer.analysis import models
from streamer.cli import main
from tests.streamer.journal import journal_cases
from tests.streamer.journal.journal_cases import write_images
from tests.streamer.report.report_cases import Slide, read, write_journal


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The walk's files, recorded, and what was counted of them."""
    folder = tmp_path_factory.mktemp("qc")
    images = write_images(folder / "frames")
    words = ["run", "--source", f"slide={images}", "--journal", str(folder / "a.db"), "--record", str(folder / "a.rec")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
        patched.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())
        assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A folder of six slides, and what else lies there."""
    folder = tmp_path_factory.mktemp("history")
    for number in range(6):
        write_journal(folder / f"{number}.db", [Slide(source=f"s{number}", cells=20, rejected=1)])
        with closing(sqlite3.connect(folder / f"{number}.db")) as database, database:
            database.execute(
                "UPDATE sessions SET id = ?, created_utc = ?", (f"s{number}", f"2031-02-0{number + 1}T00:00Z")
            )
    (folder / "notes.txt").write_text("no journal")
    return folder


def focus(journal, value):
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute("UPDATE frames SET focus = ?", (value,))


@pytest.mark.lengthy
@pytest.mark.parametrize("reference", ["a.rec", "frames"])
def test_the_same_models_give_the_same_result(ran, tmp_path, capsys, reference):
    kept, out = tmp_path / "kept.db", tmp_path / "qc.html"
    words = ["qc", str(ran / reference), "--accepted", str(ran / "a.db"), "--journal", str(kept), "-o", str(out)]
    assert main(words) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "PASS: reference slide: 6 classes within sampling, 13 of 13 white cells found again, kappa 1.00"
    )
    assert "  kappa: 1.00: " in "\n".join(rest)
    assert read(out.read_text()).section("outcome").text.startswith("✓ Pass")
    assert main(["qc", str(ran / reference), "--accepted", str(kept)]) == 0  # what is kept can be accepted


@pytest.mark.lengthy
def test_another_classifier_fails_and_is_named(ran, capsys, monkeypatch):
    def other():
        made = journal_cases.classifier()
        run = made.engine.infer

        def turned(feeds):
            answer = run(feeds)
            return {**answer, "class_probabilities": answer["class_probabilities"][:, ::-1].copy()}

        monkeypatch.setattr(made.engine, "infer", turned, raising=False)
        return made

    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: other())
    assert main(["qc", str(ran / "a.rec"), "--accepted", str(ran / "a.db")]) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("FAIL: reference slide: ")
    assert "at least 0.8 expected" in first
    assert any(line.startswith("  most often accepted and now: ") for line in rest)


@pytest.mark.lengthy
def test_the_scale_and_what_was_ignored_are_those_of_the_accepted_run(ran, tmp_path):
    words = ["--ignore-box", "0,0,40,40", "--um-per-px", "0.1", "--journal", str(tmp_path / "b.db")]
    assert main(["run", "--source", f"slide={ran / 'frames'}", *words]) == 0
    kept = tmp_path / "kept.db"
    assert main(["qc", str(ran / "a.rec"), "--accepted", str(tmp_path / "b.db"), "--journal", str(kept)]) == 0
    with closing(sqlite3.connect(kept)) as database:
        (configuration,) = database.execute("SELECT configuration FROM runs").fetchone()
    assert '"ignore_box":["0,0,40,40"]' in configuration
    assert '"um_per_px":["0.1"]' in configuration


def test_a_history_in_control_and_one_that_is_not(history, tmp_path, capsys):
    assert main(["qc", "--history", str(history), "--baseline", "4"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "PASS: camera:0: the newest of 6 slides is in control"
    assert rest[0] == "camera:0: 6 slides, 2 judged"
    for path in history.glob("*.db"):
        shutil.copy(path, tmp_path)
    focus(tmp_path / "5.db", 0.2)
    out = tmp_path / "qc.html"
    assert main(["qc", "--history", str(tmp_path), "--baseline", "4", "-o", str(out)]) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("FAIL: camera:0: focus of s5 (-")
    assert first.endswith("breaks 1-2s, 1-3s")
    assert any("1-3s (beyond 3 SD)" in line for line in rest)
    assert "1-3s" in read(out.read_text()).section("instrument-1").text


def test_a_history_too_short_is_not_judged(history, tmp_path, capsys):
    out = tmp_path / "qc.html"
    assert main(["qc", "--history", str(history), "-o", str(out)]) == 2
    assert capsys.readouterr().out.startswith(
        "NOT JUDGED: camera:0: 6 slides, too few for a baseline of 20 and what follows\n"
    )
    assert read(out.read_text()).section("outcome").text.startswith("! Not judged")


def test_what_of_a_folder_is_no_journal_or_has_not_ended_is_said(history, tmp_path, capsys):
    shutil.copy(history / "0.db", tmp_path / "0.db")
    write_journal(tmp_path / "running.db", [Slide(source="running", cells=20, ends=None)])
    with closing(sqlite3.connect(tmp_path / "other.db")) as database, database:
        database.execute("CREATE TABLE mine (x)")
    assert main(["qc", "--history", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "running has not ended, and is left out" in err
    assert f"--history: left out: journal {tmp_path / 'other.db'}" in err


BAD = [
    ([], "got neither REFERENCE nor --history"),
    (["a.rec"], "got REFERENCE without --accepted JOURNAL"),
    (["--accepted", "a.db", "--history", "a.db"], "got --accepted without REFERENCE"),
    (["a.rec", "--accepted", "missing.db"], "missing.db"),
    (["missing.rec", "--accepted", "a.db"], "missing.rec"),
    (["0", "--accepted", "a.db"], "REFERENCE: got '0', expected a recording or another source that ends"),
    (["a.rec", "--accepted", "a.db", "--source", "up"], "got source 'up', expected --source with one of: slide"),
    (["a.rec", "--accepted", "a.db", "--journal", "a.db"], "--journal a.db: got a file that is there"),
    (["a.rec", "--accepted", "a.db", "--least-kappa", "2"], "--least-kappa: got 2, expected 0 to 1"),
    (["--history", "a.db", "--baseline", "2"], "--baseline: got 2, expected at least 3 slides"),
    (["--history", "a.db", "--journal", "b.db"], "--journal: got no REFERENCE"),
    (["--history", "frames"], "got no slide that has ended in frames"),
    (["--history", "a.rec"], "a.rec"),
    (["--history", "a.db", "-o", "missing/qc.html"], "-o missing/qc.html: got 'No such file or directory'"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[says for _, says in BAD])
def test_what_cannot_be_judged_is_one_line_and_status_2(ran, capsys, monkeypatch, words, says):
    monkeypatch.chdir(ran)
    assert main(["qc", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("leukostream: ")
    assert says in line
