from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from streamer.cli import main
from tools.bench.journals_alike import first_difference, tables_of


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alike") / "slide.journal"
    words = ["--source", "sim:seed=3,cells=2", "--mode", "analysis", "--no-dashboard"]
    assert main(["run", *words, "--journal", str(path)]) == 0
    return path


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE frames SET captured_utc = 'then'", None),
        ("UPDATE sessions SET id = 'another', created_utc = 'then'", None),
        ("DELETE FROM messages WHERE type = 'health'", None),
        ("DELETE FROM runs", None),
        ("UPDATE frames SET focus = focus + 1e-9 WHERE frame_id = 3", "frames, row 3: got"),
        ("DELETE FROM frames WHERE frame_id = 4", "frames, row 4: got"),
        ("DELETE FROM messages WHERE type = 'end'", "messages: got"),
        ("UPDATE sessions SET source = 'other'", "sources: got ['other'], expected ['sim']"),
    ],
)
def test_what_is_alike(journal: Path, tmp_path: Path, change: str, said: str | None) -> None:
    other = Path(shutil.copy(journal, tmp_path))
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute(change)
    found = first_difference(journal, other)
    assert (found is None) if said is None else (found is not None and found.startswith(said))


@pytest.mark.lengthy
def test_every_table_with_rows_is_compared(journal: Path) -> None:
    tables = tables_of(journal)["sim"]
    assert {"sessions", "frames", "looks", "cell_changes", "pictures", "messages", "keyframes", "trackers"} <= set(
        tables
    )
    assert len(tables["frames"]) > 5
