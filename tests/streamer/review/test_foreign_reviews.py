"""A review that came from elsewhere: what leukostream does not write there is one line, and old journals have none."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from streamer.cli import main
from streamer.journal import JournalError, JournalReader, opened, recounted
from streamer.journal.holder import holder_of
from streamer.journal.reader import read_sessions
from streamer.review.journal_desk import JournalDesk
from tests.streamer.review.review_cases import write_slide

CELLS = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Begun, a class, a comment, an added cell, one withdrawn, signed: events 0 to 5."""
    path = write_slide(tmp_path_factory.mktemp("made") / "slide.db", CELLS)
    with JournalDesk(path) as desk:
        desk.begin("one", "AB")
        desk.classify("one", [1, 2], "monocyte", None, "AB")
        desk.comment("one", "hm", "AB", cell_id=1)
        desk.add_cell("one", 0, 600.0, 610.0, "monocyte", "AB")
        desk.undo("one", "AB")
        desk.sign("one", "AB", despite="a test")
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "slide.db"
    copy.write_bytes(made.read_bytes())
    return copy


def spoil(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(sql, values).rowcount > 0


BODY = "UPDATE review_events SET body = ? WHERE number = 1"
ADDED = (
    '{"kind":"add","cell_id":%s,"frame_id":0,"island":%s,"box_px":[%s],"frame_box_px":[1.0,1.0,9.0,9.0],'
    '"class_name":"%s","subclass":null}'
)
HOSTILE: dict[str, tuple[str, tuple[object, ...]]] = {
    "a body that is no JSON": (BODY, ("{",)),
    "a body nested deep": (BODY, ("[" * 100_000,)),
    "an event of no kind": (BODY, ('{"kind":"delete"}',)),
    "a field that is none": (BODY, ('{"kind":"begin","blind":false,"shell":"rm"}',)),
    "a cell that is none": (BODY, ('{"kind":"class","cells":[[999,"monocyte",null,"monocyte",null]]}',)),
    "a negative cell": (BODY, ('{"kind":"class","cells":[[-1,"monocyte",null,"monocyte",null]]}',)),
    "a huge cell": (BODY, ('{"kind":"class","cells":[[99999999999,"monocyte",null,"monocyte",null]]}',)),
    "a red cell": (BODY, (f'{{"kind":"class","cells":[[{CELLS},"monocyte",null,"monocyte",null]]}}',)),
    "no cells": (BODY, ('{"kind":"class","cells":[]}',)),
    "a class that is none": (BODY, ('{"kind":"class","cells":[[1,"monocyte",null,"blast",null]]}',)),
    "a subclass that is none": (BODY, ('{"kind":"class","cells":[[1,"a",null,"monocyte","band neutrophil"]]}',)),
    "confirmed as nothing": (BODY, ('{"kind":"confirm","cells":[[1,"monocyte",null,null,null]]}',)),
    "an added cell of another number": (BODY, (ADDED % (7, 0, "1.0,1.0,9.0,9.0", "monocyte"),)),
    "an added cell on no island": (BODY, (ADDED % (23, 9999, "1.0,1.0,9.0,9.0", "monocyte"),)),
    "an added cell without extent": (BODY, (ADDED % (23, 0, "1.0,1.0,1.0,9.0", "monocyte"),)),
    "an added cell beyond any slide": (BODY, (ADDED % (23, 0, "1.0,1.0,9e300,9.0", "monocyte"),)),
    "an added cell of no class": (BODY, (ADDED % (23, 0, "1.0,1.0,9.0,9.0", "blast"),)),
    "what was never said withdrawn": (BODY, ('{"kind":"withdraw","number":1}',)),
    "what is to come withdrawn": (BODY, ('{"kind":"withdraw","number":3}',)),
    "a comment without end": (BODY, ('{"kind":"comment","cell_id":null,"text":"' + "x" * 3000 + '"}',)),
    "a comment that moves the cursor": (BODY, ('{"kind":"comment","cell_id":null,"text":"\\u001b[2J"}',)),
    "an amendment of nothing": (BODY, ('{"kind":"amend","reason":"x"}',)),
    "a signature without what was signed": (BODY, ('{"kind":"sign","sha256":"' + "0" * 64 + '","despite":null}',)),
    "something signed by a comment": ("UPDATE review_events SET signed = x'00' WHERE number = 2", ()),
    "what was signed is damaged": ("UPDATE review_events SET signed = x'789c00' WHERE number = 5", ()),
    "what was signed is cut off": (
        "UPDATE review_events SET signed = substr(signed, 1, length(signed) - 9) WHERE number = 5",
        (),
    ),
    "a hash that is none": ("UPDATE review_events SET body = replace(body, 'sha256\":\"', 'sha256\":\"x')", ()),
    "initials that are none": ("UPDATE review_events SET by = '<script>' WHERE number = 1", ()),
    "another's event withdrawn": ("UPDATE review_events SET by = 'ZZ' WHERE number = 4", ()),
    "a gap": ("DELETE FROM review_events WHERE number = 2", ()),
    "a number that is text": ("UPDATE review_events SET number = 'one' WHERE number = 1", ()),
    "a time without end": ("UPDATE review_events SET given_utc = ? WHERE number = 1", ("9" * 99,)),
    "a body of bytes": ("UPDATE review_events SET body = x'ff00' WHERE number = 1", ()),
    "a change after the signature": (
        "INSERT INTO review_events SELECT session, 6, given_utc, by, body, NULL FROM review_events WHERE number = 1",
        (),
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_review_that_is_none_is_one_line(path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    sql, values = HOSTILE[case]
    spoil(path, sql, *values)
    with pytest.raises(JournalError) as caught, opened(str(path)) as reader:
        recounted(reader.sessions[0])
    line = str(caught.value)
    assert line.startswith(f"journal {path}: ")
    assert "review_events" in line
    assert "\n" not in line
    assert line.isprintable()
    assert main(["recount", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bomb_is_not_unpacked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.journal.reviewing.SIGNED_MAX_BYTES", 1 << 20)
    spoil(path, "UPDATE review_events SET signed = ? WHERE number = 5", zlib.compress(b" " * (2 << 20)))
    with pytest.raises(JournalError, match="got more than 1048576 bytes"), opened(str(path)) as reader:
        recounted(reader.sessions[0])


@pytest.mark.parametrize("signed", [b"{}", b"[]", b"[" * 100_000, b'{"form":2}', b"null", b"\xff"])
def test_whatever_stands_there_as_signed_does_not_hold(path: Path, signed: bytes) -> None:
    spoil(path, "UPDATE review_events SET signed = ? WHERE number = 5", zlib.compress(signed))
    with opened(str(path)) as reader:
        assert len(recounted(reader.sessions[0]).faults) == 1


def test_another_table_of_that_name_is_refused(path: Path) -> None:
    spoil_ddl(path, "ALTER TABLE review_events ADD COLUMN more TEXT")
    with pytest.raises(JournalError, match="got other columns in table review_events"):
        JournalReader(path)
    spoil_ddl(path, "DROP TABLE review_events", "CREATE VIEW review_events AS SELECT 1 AS session")
    with pytest.raises(JournalError, match="none of leukostream's"):
        JournalReader(path)


def spoil_ddl(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for sql in statements:
            database.execute(sql)


def test_a_journal_without_reviews_is_one_of_before(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_slide(path.with_name("old.db"), CELLS)
    with closing(sqlite3.connect(other)) as database:
        assert database.execute("SELECT 1 FROM sqlite_master WHERE name = 'review_events'").fetchone() is None
    assert main(["recount", str(other)]) == 0
    assert "not reviewed, not signed" in capsys.readouterr().out


def test_a_reviewed_session_is_not_gone_on_with(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        (stored,) = read_sessions(database, path)
        with pytest.raises(JournalError, match="people have reviewed since it ended"):
            stored.check(str(path))


def test_who_holds_a_journal_is_said_where_the_system_knows(path: Path, tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    inode = path.stat().st_ino
    locks.write_text(f"1: POSIX  ADVISORY  READ 1 fd:00:{inode} 0 EOF\n2: -> POSIX ADVISORY WRITE 7 fd:00:1 0 EOF\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamer.journal.holder.LOCKS", locks)
        holder = holder_of(path)
        assert holder is not None
        assert holder.startswith("process 1")
        locks.write_text("1: FLOCK ADVISORY WRITE 12\n")
        assert holder_of(path) is None
        locks.unlink()
        assert holder_of(path) is None
