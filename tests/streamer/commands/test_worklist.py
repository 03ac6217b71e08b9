"""`leukostream worklist` as a person calls it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from streamer.cli import main
from streamer.review.journal_desk import JournalDesk
from tests.streamer.review.review_cases import write_slide

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")


@pytest.fixture
def journals(tmp_path):
    folder = tmp_path / "journals"
    folder.mkdir()
    for number in range(2):
        write_slide(folder / f"{number}.db", 20, seed=number, session=f"s{number}", source=f"slide{number}")
    write_slide(folder / "1.db", 5, session="s2", source="left", finish=False)
    return folder


@pytest.fixture
def to(tmp_path):
    return str(tmp_path / "lab")


def said(capsys, *words):
    """(status, lines of output, lines of standard error)"""
    status = main(["worklist", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err.splitlines()


def listed(capsys, to, *words):
    """By session, what is printed as JSON."""
    status, lines, _ = said(capsys, "list", "--to", to, "--jsonl", *words)
    assert status == 0
    return {one["entry"] and one["entry"]["session"]: one for one in map(json.loads, lines)}


def test_from_the_first_journal_to_a_list(journals, to, capsys):
    assert said(capsys, "list", "--to", to)[0] == 1
    assert said(capsys, "add", journals, "--to", to) == (
        0,
        [f"{journals}/0.db: 1 slide: 1 new", f"{journals}/1.db: 2 slides: 2 new"],
        [],
    )
    assert said(capsys, "add", "--to", to) == (
        0,
        [f"{journals}/{number}.db: nothing has changed" for number in range(2)],
        [],
    )
    status, lines, _ = said(capsys, "list", "--to", to)
    assert status == 0
    assert [re.split(r"  +", line.strip())[0] for line in lines] == ["slide", "left", "slide1", "slide0"]
    assert re.split(r"  +", lines[1].strip())[-2:] == ["running", f"{journals}/1.db"]
    assert {session: one["state"] for session, one in listed(capsys, to).items()} == {
        "s0": "preliminary",
        "s1": "preliminary",
        "s2": "running",
    }
    assert listed(capsys, to, "--state", "running").keys() == {"s2"}
    assert listed(capsys, to, "--text", "slide1").keys() == {"s1"}
    assert listed(capsys, to, "--since", "7d").keys() == {"s0", "s1", "s2"}
    assert listed(capsys, to, "--since", "2200-01-01").keys() == set()
    assert said(capsys, "list", "--to", to, "--state", "sent")[2] == [
        f"leukostream: {to}/worklist.sqlite: no slide of that kind in the list"
    ]


def test_a_signature_is_listed_when_the_journal_is_added_again(journals, to, capsys):
    said(capsys, "add", journals, "--to", to)
    with JournalDesk(str(journals / "0.db")) as desk:
        desk.sign("s0", "AB")
    assert said(capsys, "add", "--to", to)[1] == [
        f"{journals}/0.db: 1 slide: 1 updated",
        f"{journals}/1.db: nothing has changed",
    ]
    assert listed(capsys, to, "--state", "signed").keys() == {"s0"}
    _, lines, _ = said(capsys, "list", "--to", to, "--state", "signed")
    assert "by AB" in lines[1]


def test_a_journal_that_moved_is_said_to_have_vanished_until_it_is_added(journals, to, capsys):
    said(capsys, "add", journals, "--to", to)
    (journals / "0.db").rename(journals / "moved.db")
    assert listed(capsys, to)["s0"]["place"] == "vanished"
    status, _, err = said(capsys, "add", "--to", to)
    assert status == 0
    assert err == [
        f"leukostream: {journals}/0.db: vanished; the list keeps its slides as they were. Add it where it is now"
    ]
    assert said(capsys, "add", journals / "moved.db", "--to", to)[1] == [
        f"{journals}/moved.db: 1 slide: 1 moved, from {journals}/0.db"
    ]
    assert said(capsys, "add", "--to", to)[2] == []


def test_a_journal_in_use_is_listed_as_running(journals, to, capsys):
    with JournalDesk(str(journals / "0.db")):
        status, _, err = said(capsys, "add", journals / "0.db", "--to", to)
        assert status == 0
        assert "another process has locked" in err[0]
        assert "the list says so" in err[0]
        [one] = listed(capsys, to).values()
        assert (one["state"], one["entry"], one["journal"]) == ("running", None, f"{journals}/0.db")
        _, lines, _ = said(capsys, "list", "--to", to)
        assert "not read yet" in lines[1]
    said(capsys, "add", "--to", to)
    assert {session: one["state"] for session, one in listed(capsys, to).items()} == {"s0": "preliminary"}


def test_a_journal_that_can_not_be_read_leaves_the_others(journals, to, tmp_path, capsys):
    (tmp_path / "text.db").write_text("no journal")
    paths = [tmp_path / "missing.db", journals / "0.db", tmp_path / "text.db"]
    status, lines, err = said(capsys, "add", *paths, "--to", to)
    assert (status, lines, len(err)) == (1, [f"{journals}/0.db: 1 slide: 1 new"], 2)
    assert listed(capsys, to).keys() == {"s0"}


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["add", "{journals}"], 2, "--to"),
        (["list", "--to", "mysql://me:secret@db/lab"], 2, "another kind (mysql://)"),
        (["list", "--to", "postgresql://me:secret@127.0.0.1:1/lab"], 1, "postgresql://me@127.0.0.1:1/lab"),
        (["list", "--to", "missing"], 1, "got no list missing/worklist.sqlite"),
        (["add", "--to", "missing"], 1, "got no list missing/worklist.sqlite"),
        (["list", "--to", "x", "--since", "soon"], 2, "since: got 'soon'"),
        (["list", "--to", "x", "--state", "sentt"], 2, "did you mean 'sent'?"),
        (["list", "--to", "x", "--verdict", "fine"], 2, "ready for review"),
        (["list", "--to", "x", "--limit", "0"], 2, "at least 1"),
        (["add", "{empty}", "--to", "x"], 2, "got a folder without a journal"),
        (["add", "{journals}", "--to", "{journals}/0.db"], 2, "got a file, expected a folder"),
        (["add", "{journals}", "--to", "sqlite:///{journals}/0.db"], 1, "of another program"),
        (["serve", "--to", "missing"], 1, "got no list missing/worklist.sqlite"),
        (["serve", "--to", "missing", "--bind", "0.0.0.0:0"], 2, "--tls-cert and --tls-key"),
    ],
)
def test_what_can_not_be_done_is_one_line(words, status, expected, journals, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    given = [word.format(journals=journals, empty=tmp_path / "empty") for word in words]
    got, out, err = said(capsys, *given)
    assert (got, out, len(err)) == (status, [], 1)
    assert expected in err[0]
    assert "secret" not in err[0]


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("module", "to", "extra"), [("sqlalchemy", "lab", "worklist"), ("psycopg", "postgresql://db/lab", "postgresql")]
)
def test_a_missing_package_is_one_line(module, to, extra, tmp_path):
    code = f"import sys; sys.modules[{module!r}] = None; from streamer.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "worklist", "list", "--to", to]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"got no package {module}, expected it: pip install 'leukostream[{extra}]'" in done.stderr


@pytest.mark.lengthy
def test_the_first_line_of_serve_is_the_address_and_ctrl_c_ends_it(journals, to, capsys):
    httpx = pytest.importorskip("httpx", reason="the list's server is asked by the package httpx")
    said(capsys, "add", journals, "--to", to)
    command = [sys.executable, "-m", "streamer", "worklist", "serve", "--to", to]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        address = process.stdout.readline().strip()
        match = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]{43})", address)
        assert match is not None, address
        base, token = match.groups()
        assert httpx.get(f"{base}/api/v1/slides").status_code == 401
        slides = httpx.get(f"{base}/api/v1/slides", params={"token": token}, timeout=60).json()["slides"]
        assert [one["entry"]["session"] for one in slides] == ["s2", "s1", "s0"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert token not in errors
    assert "Traceback" not in errors
