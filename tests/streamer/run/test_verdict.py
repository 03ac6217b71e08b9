"""The verdict on the way: from the source through the pipeline into the journal, and back."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

import msgspec
import pytest

from engines.base import EngineError
from streamer.commands.recount import recount
from streamer.dashboard import format_differential
from streamer.journal import Journal
from streamer.protocol.messages import DifferentialMessage, decode
from streamer.records import SourceProgress, Verdict
from tests.cases import Collected, ScriptedSource, always, find_by_script
from tests.streamer.journal.journal_cases import analysed, new_session, session_of
from tests.streamer.run.test_pipeline import one_cell_in_view, panned, run
from tools.bench.journals_alike import first_difference


@dataclass
class Counted(ScriptedSource):
    """One that knows how many frames it holds."""

    @property
    def length(self) -> int:
        return len(self.items)


def final_of(published: Collected) -> Verdict:
    final = published.of(DifferentialMessage)[-1]
    assert final.final
    assert final.verdict is not None
    return final.verdict


def reasons(verdict: Verdict) -> dict[str, str]:
    return {reason.code: reason.text for reason in verdict.reasons}


def test_a_source_read_to_its_end_was_not_cut_short_and_one_that_is_enough_neither():
    detector = find_by_script(one_cell_in_view(30))
    for stop_at in (None, 1):
        verdict = final_of(run([Counted(panned(30))], detector, always(0), workers=1, stop_at=stop_at))
        assert reasons(verdict)["few_cells"] == "too few cells: 1 of 100"
        assert "cut_short" not in reasons(verdict)


def test_a_run_that_fails_says_how_far_it_came():
    detector = find_by_script(one_cell_in_view(20))
    analyse = detector.detect

    def failing(images, halves=None):
        if images[0][0, 0, 0] == 9:
            raise EngineError("engine: got nonsense, expected sense")
        return analyse(images, halves)

    detector.detect = failing
    published = Collected()
    with pytest.raises(EngineError):
        run([Counted(panned(20))], detector, always(2), workers=1, sink=published)
    verdict = final_of(published)
    assert reasons(verdict)["cut_short"] == "stopped before the end of the source: 9 of 20 frames"
    assert "frames_lost" in reasons(verdict)


def test_files_that_are_no_images_are_losses():
    items = [*panned(8), "notes.txt", "thumbs.db"]
    verdict = final_of(run([Counted(items)], find_by_script(one_cell_in_view(8)), always(2)))
    assert "20 % (2 of 10) of the frames were lost (2 not an image (file))" in reasons(verdict)["frames_lost"]


@pytest.fixture(scope="module")
def seen():
    return analysed()


def test_losses_add_up_over_the_runs_of_a_session_and_a_recount_has_them(tmp_path, seen, capsys):
    path = tmp_path / "slide.db"
    journal = Journal(path)
    session = session_of(new_session(journal), "one")
    for number, one in enumerate(seen[:10]):
        session.update(one, SourceProgress(33, {"stale": number}))
    journal.close()
    journal = Journal(path, resume=True)
    session = session_of(journal.session("slide"), "two")
    for one in seen[10:]:
        session.update(one, SourceProgress(33, {"stale": 1}, {"unreadable": 2}))
    session.finish("stopped", "by the user", SourceProgress(33, {"stale": 1}, {"unreadable": 3}, cut_short=True))
    assert session.count.progress == SourceProgress(33, {"stale": 10}, {"unreadable": 3}, cut_short=True)
    journal.close()
    assert recount(str(path)) == 0
    said = capsys.readouterr().out
    assert "28 % (13 of 46) of the frames were lost (10 stale, 3 unreadable (file))" in said
    assert said.splitlines()[-1].startswith("equal to the final differential published")


def test_the_journal_of_a_resumed_session_has_what_that_of_one_run_has(tmp_path, seen):
    for name, parts in (("whole", [seen[:20]]), ("resumed", [seen[:10], seen[10:20]])):
        for number, part in enumerate(parts):
            journal = Journal(tmp_path / name, resume=number > 0)
            kept = journal.session("slide") if number else new_session(journal)
            session = session_of(kept, str(number))
            for one in part:
                session.update(one, SourceProgress(33))
            if part is parts[-1]:
                session.finish("finished", "end of the source", SourceProgress(33, cut_short=False))
            journal.close()
    assert first_difference(tmp_path / "whole", tmp_path / "resumed") is None


def test_the_next_slide_of_a_run_begins_without_the_losses_of_the_one_before(seen):
    first = session_of(None)
    first.update(seen[0], SourceProgress(None, {"stale": 5}, {"unreadable": 1}))
    session = session_of(None)
    session.go_on_from(first)
    session.update(seen[1], SourceProgress(None, {"stale": 7}, {"unreadable": 1}))
    assert session.count.progress == SourceProgress(None, {"stale": 2}, {})


def test_a_journal_of_before_there_were_verdicts_is_read_and_gone_on_with_and_says_what_it_lacks(
    tmp_path, seen, capsys
):
    path = tmp_path / "old.db"
    journal = Journal(path)
    session = session_of(new_session(journal))
    for one in seen[:20]:
        session.update(one)
    session.finish("finished", "end of the source")
    journal.close()
    database = sqlite3.connect(path)
    database.execute("DROP TABLE frame_evidence")
    rows = database.execute("SELECT session_seq, header FROM messages WHERE type = 'differential'").fetchall()
    for number, header in rows:
        old = {name: value for name, value in json.loads(header).items() if name != "verdict"}
        database.execute("UPDATE messages SET header = ? WHERE session_seq = ?", (json.dumps(old).encode(), number))
    (rules,) = database.execute("SELECT rules FROM sessions").fetchone()
    old = {name: value for name, value in json.loads(rules).items() if name != "known"}
    database.execute("UPDATE sessions SET rules = ?", (json.dumps(old),))
    database.commit()
    database.close()
    assert recount(str(path)) == 0
    assert "colours were not measured when this was counted" in capsys.readouterr().out
    journal = Journal(path, resume=True)
    session = session_of(journal.session("slide"), "two")
    emissions = [emission for one in seen[20:] for emission in session.update(one, SourceProgress(33))]
    emissions += session.finish("finished", "end of the source", SourceProgress(33, cut_short=False))
    journal.close()
    final = emissions[-2][0]
    assert [reason.text for reason in final.verdict.reasons if reason.code == "not_measured"] == [
        "colours were not measured when this was counted"
    ]
    assert recount(str(path)) == 0


def test_a_subscriber_reads_differentials_of_older_streamers(seen):
    session = session_of(None)
    message = session.finish("finished", "end of the source")[-2][0]
    fields = msgspec.to_builtins(message)
    assert decode(msgspec.json.encode(fields)).verdict == message.verdict
    del fields["verdict"]
    older = decode(msgspec.json.encode(fields))
    assert older.verdict is None
    assert format_differential(older).startswith("differential of slide")
