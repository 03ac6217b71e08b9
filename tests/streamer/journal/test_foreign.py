"""A journal that came from elsewhere: whatever its file says, every command that reads one ends with what it found or
with one line, and nothing in it runs."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streamer.analysis import models
from streamer.cli import main
from streamer.journal import JournalError, JournalHistory, JournalReader
from streamer.journal import schema as journal_schema
from streamer.run import session
from tests.streamer.journal.journal_cases import classifier, detector, write_images

FRAMES = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the journal of a run over some images, one of its cells reclassified, and the images."""
    folder = tmp_path_factory.mktemp("foreign")
    images = write_images(folder / "frames")
    for picture in images.iterdir():
        if picture.name not in {f"frame{number}.png" for number in range(FRAMES)}:
            picture.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CHECKPOINT_EVERY_FRAMES", 5)
        patch.setattr(models, "load_detector", lambda *_, **__: detector())
        patch.setattr(models, "load_classifier", lambda *_, **__: classifier())
        named = ["--slide", "B-17", "--accession", "H26-4", "--wbc", "6.2"]
        assert main(["run", "--source", f"slide={images}", "--journal", str(folder / "made.db"), *named]) == 0
        with closing(sqlite3.connect(folder / "made.db")) as database, database:
            [cell] = database.execute("SELECT cell_id FROM cells LIMIT 1").fetchone()
            database.execute(
                "INSERT INTO commands (session, run_id, after_frame, given_utc, by, request_id, request, body)"
                " VALUES (1, 'run', 7, '', 'anyone', 'one', 'reclassify', ?)",
                (f'{{"cell_id": {cell}, "class": "basophil"}}',),
            )
        yield folder


@pytest.fixture
def journal(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "made.db", tmp_path / "one.db"))


READERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "recount": lambda journal, made: ["recount", str(journal)],
    "csv": lambda journal, made: [
        *("export", str(journal), "--format", "csv", "-o", f"{journal}.csv"),
        *("--pictures", str(journal.parent / "pictures")),
    ],
    "coco": lambda journal, made: ["export", str(journal), "--format", "coco", "-o", f"{journal}.coco"],
    "json": lambda journal, made: ["export", str(journal), "--format", "json", "-o", f"{journal}.json"],
    "labelstudio": lambda journal, made: ["export", str(journal), "--format", "labelstudio", "-o", f"{journal}.tasks"],
    "mosaic": lambda journal, made: ["mosaic", str(journal), "-o", f"{journal}.png"],
    "report": lambda journal, made: ["report", str(journal), "-o", f"{journal}.html"],
    "resume": lambda journal, made: [
        *("run", "--source", f"slide={made / 'frames'}", "--journal", str(journal), "--resume"),
    ],
}
if importlib.util.find_spec("hl7apy") is not None:
    READERS["oul"] = lambda journal, made: ["export", str(journal), "--format", "oul", "-o", f"{journal}.hl7"]
if importlib.util.find_spec("fhir") is not None:
    READERS["fhir"] = lambda journal, made: ["export", str(journal), "--format", "fhir", "-o", f"{journal}.fhir"]


def spoil(journal: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute(sql, values)


def told(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """(exit status, what the command said last on standard error); no control character reached the terminal."""
    capsys.readouterr()
    status = main(words)
    said = capsys.readouterr()
    assert all(character.isprintable() or character in "\n" for character in said.out + said.err)
    return status, (said.err.splitlines() or [""])[-1]


@pytest.mark.parametrize("reader", READERS)
def test_as_it_was_made_every_command_reads_it(
    journal: Path, made: Path, reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = 1 if reader == "recount" else 0  # the reclassified cell was published otherwise
    status, _ = told(capsys, READERS[reader](journal, made))
    assert status == expected


MALFORMED = {
    "boxes": ("UPDATE frames SET boxes = x'0102'", "frames.boxes of frame 0"),
    "boxes that are text": ("UPDATE frames SET boxes = 'many'", "boxes"),
    "too few scores": ("UPDATE frames SET scores = x'' WHERE frame_id = 1", "frame 1"),
    "a box that is nowhere": (
        f"UPDATE frames SET boxes = x'{'0000c07f' * 4}', scores = x'0000803f', labels = x'0000', cells = x'ffffffff'",
        "boxes",
    ),
    "labels": ("UPDATE frames SET labels = zeroblob(length(labels) - 1) || x'7f'", "labels"),
    "reasons": ("UPDATE frames SET reasons = '[1, '", "frames.reasons of frame 0"),
    "a number that is text": ("UPDATE frames SET width = 'wide'", "width"),
    "a place beyond any slide": ("UPDATE frames SET x_px = 9e300", "x_px"),
    "invalid UTF-8": ("UPDATE frames SET captured_utc = CAST(x'ff1b5b' AS TEXT)", "UTF-8"),
    "rules": ("UPDATE sessions SET rules = '{\"detector\": 3}'", "sessions.rules of session 1"),
    "rules nested deep": (f"UPDATE sessions SET rules = '{'[' * 100_000}'", "sessions.rules"),
    "a source that is a path": ("UPDATE sessions SET source = '../../etc/x'", "sessions.source"),
    "what is said of the slide": (
        "UPDATE slides SET info = json_set(info, '$.accession', char(27) || '[31m')",
        "slides.info of session 1",
    ),
    "a name that is too long": ("UPDATE slides SET info = json_set(info, '$.name', hex(zeroblob(50)))", "slides.info"),
    "more said of the slide than there is room for": (
        "UPDATE slides SET info = hex(zeroblob(20000))",
        "slides of session 1",
    ),
    "a white-cell count that is none": ("UPDATE slides SET info = json_set(info, '$.wbc', 1e9)", "slides.info"),
    "configuration": ("UPDATE runs SET configuration = '[]'", "runs.configuration"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_column_is_one_line_that_names_it(
    journal: Path, made: Path, reader: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sql, expected = MALFORMED[case]
    spoil(journal, sql)
    if reader == "resume":  # a checkpoint spares it the frames up to there
        spoil(journal, "DELETE FROM checkpoints")
    status, line = told(capsys, READERS[reader](journal, made))
    if reader == "resume" and case == "configuration":  # of the run before, which nobody needs
        assert status == 0
        return
    assert (status, line.startswith(f"leukostream: journal {journal}: ")) == (1, True), line
    assert expected in line


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE trackers SET state = '{}'", "trackers.state"),
        ("UPDATE trackers SET state = replace(state, 'next_island\":', 'next_island\":-')", "trackers.state"),
        ("UPDATE checkpoints SET state = x'00'", "checkpoints.state"),
        ("UPDATE checkpoints SET state = substr(state, 1, length(state) / 2)", "checkpoints.state"),
        ("UPDATE keyframes SET links = x'01'", "keyframes.links"),
        ("UPDATE keyframes SET number = number + 50", "keyframe"),
        ("UPDATE keyframe_pictures SET rows = 7", "keyframe_pictures.fine"),
        ("UPDATE keyframe_pictures SET height = -1", "height"),
    ],
)
def test_what_only_a_resumed_run_reads_is_one_line_too(
    journal: Path, made: Path, sql: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(journal, sql)
    status, line = told(capsys, READERS["resume"](journal, made))
    assert (status, expected in line) == (1, True), line


def every_column() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(journal_schema.SCHEMA)
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")]


@pytest.mark.slow
@pytest.mark.parametrize(("table", "column"), every_column())
def test_whatever_a_column_holds_no_command_fails_otherwise_than_with_a_line(
    made: Path, tmp_path: Path, table: str, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("x'1b5b324a00ff'", "CAST(x'1b5b324aff' AS TEXT)", "'\x1b[2J'", "-7", "4000000000"):
        journal = Path(shutil.copy(made / "made.db", tmp_path / "one.db"))
        with contextlib.suppress(sqlite3.IntegrityError):  # a key, which SQLite itself holds to whole numbers
            spoil(journal, f"UPDATE OR IGNORE {table} SET {column} = {value}")
        for reader in ("json", "mosaic", "report", "resume"):
            status, line = told(capsys, READERS[reader](journal, made))
            assert status in (0, 1, 2)
            assert status == 0 or line.startswith("leukostream: "), line


def test_no_control_character_of_a_class_or_a_path_reaches_the_terminal(
    journal: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = journal.rename(journal.with_name("\x1b[31mred\n.db"))
    with closing(sqlite3.connect(evil)) as database, database:
        for name in ("basophil", "monocyte"):
            database.execute(
                "UPDATE sessions SET rules = replace(rules, ?, ?)", (f'"{name}"', f'"\\u001b]0;{name}\\u0007\\u009b2J"')
            )
        database.execute("UPDATE commands SET refused = 'no'")
    for reader in ("recount", "mosaic"):
        assert told(capsys, READERS[reader](evil, made))[0] == (reader == "recount")  # other names than were published
    status, line = told(capsys, ["recount", f"{evil}\r\x9b2J"])
    assert (status, line.startswith("leukostream: journal ")) == (1, True)


@pytest.mark.parametrize("reader", [name for name in READERS if name in ("oul", "fhir")])
@pytest.mark.parametrize("value", ["'yesterday'", "'0001-01-01T00:00:00+14:00'", "''"])
def test_a_result_without_a_time_is_one_line(
    journal: Path, made: Path, reader: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(journal, f"UPDATE frames SET captured_utc = {value}")
    spoil(journal, f"UPDATE sessions SET created_utc = {value}")
    status, line = told(capsys, READERS[reader](journal, made))
    assert (status, "frames.captured_utc" in line) == (1, True), line


@pytest.mark.parametrize("reader", [name for name in READERS if name in ("oul", "fhir")])
@pytest.mark.parametrize("odd", ["", " ", "\\u001b]0;\\u0007", "\\ud800"])
def test_a_class_with_an_odd_name_is_exported_under_what_can_be_shown(
    journal: Path, made: Path, reader: str, odd: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(journal, "UPDATE sessions SET rules = replace(rules, ?, ?)", '"monocyte"', f'"{odd}"')
    status, line = told(capsys, READERS[reader](journal, made))
    assert status == 0 or "sessions.rules" in line, line


def test_a_message_that_is_none_is_one_line_for_recount_and_no_message_for_a_subscriber(
    journal: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(journal, "UPDATE messages SET header = x'7b1b'")
    status, line = told(capsys, READERS["recount"](journal, made))
    assert (status, "messages.header of session 1" in line) == (1, True), line
    with JournalReader(journal) as reader:
        [stored] = reader.sessions
        history = JournalHistory([stored])
        assert history.read(stored.id, -1, 1000, [b""], max_messages=10, max_bytes=1 << 20) is None


def test_a_command_that_was_given_before_and_is_no_text_is_one_line(journal: Path) -> None:
    spoil(journal, "UPDATE commands SET body = CAST(x'ff' AS TEXT)")
    with JournalReader(journal) as reader, pytest.raises(JournalError, match=r"commands\.body|UTF-8"):
        reader.sessions[0].carried_out("anyone", "one")


def test_a_journal_makes_mosaic_call_nobody(journal: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(journal, "UPDATE sessions SET address = 'stream:http://127.0.0.1:9/film'")
    status, line = told(capsys, READERS["mosaic"](journal, made))
    assert (status, "can't be read again" in line) == (1, True), line


RUNNING = {
    "an endless view": (
        "ALTER TABLE frames RENAME TO kept",
        "CREATE VIEW frames AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT kept.* FROM kept, n",
    ),
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM frames; END",),
    "a virtual table": ("CREATE VIRTUAL TABLE notes USING fts5(text)",),
    "a column that is computed": ("ALTER TABLE frames ADD COLUMN more BLOB AS (zeroblob(1000000000))",),
    "a table that is missing": ("DROP TABLE looks",),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", RUNNING)
def test_what_runs_when_it_is_read_is_refused_at_the_door(
    journal: Path, made: Path, reader: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for sql in RUNNING[case]:
        spoil(journal, sql)
    status, line = told(capsys, READERS[reader](journal, made))
    assert status == 1
    assert line.startswith(f"leukostream: journal {journal}: got ")


def test_a_query_without_end_is_ended(journal: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with JournalReader(journal) as reader:
        [stored] = reader.sessions
        with pytest.raises(JournalError, match="steps to read"), stored.reading("frames"):
            stored.database.execute(endless)
