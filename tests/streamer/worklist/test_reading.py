"""A journal as the list has it: what recount, sign and send say of it."""

from __future__ import annotations

import sqlite3

import pytest

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")

from streamer.interop.sent import OutboxError, acknowledged
from streamer.journal import JournalInUseError, opened, recounted
from streamer.records import SlideInfo
from streamer.review.journal_desk import JournalDesk
from streamer.worklist.reading import fingerprint_of, is_journal, journals_in, place_of, read_journal
from tests.streamer.report.report_cases import Slide, write_journal
from tests.streamer.review.review_cases import write_slide


@pytest.fixture
def journal(tmp_path):
    return write_slide(tmp_path / "slide.db", 60)


def entries(path):
    return read_journal(place_of(path)).slides


def test_what_is_listed_is_what_the_journal_counts(journal):
    write_slide(journal, 20, seed=3, session="two", source="left", finish=False)
    first, second = entries(journal)
    with opened(str(journal)) as read:
        counted = [recounted(stored).differential for stored in read.sessions]
    assert [one.total for one in (first, second)] == [one.total for one in counted]
    assert (first.session, first.source, first.slide, first.ended, first.review) == (
        *("one", "slide", None, True, "unsigned"),
    )
    assert first.verdict == counted[0].verdict.state
    assert first.verdict_reason == counted[0].verdict.reasons[0].text
    assert [(flag.code, flag.class_, flag.direction, flag.text) for flag in first.flags] == [
        (flag.code, flag.class_, flag.direction, flag.text) for flag in counted[0].flags
    ]
    assert first.flags
    assert first.ended_utc == "2026-01-01T00:00:00Z"
    assert (second.ended, second.ended_utc) == (False, None)


def test_names_of_a_slide(tmp_path):
    info = SlideInfo(name="B-17", accession="4711", operator="AK", instrument="scope 1")
    path = write_journal(tmp_path / "named.db", [Slide(cells=5, info=info)])
    [one] = entries(path)
    assert (one.slide, one.accession, one.operator, one.instrument) == ("B-17", "4711", "AK", "scope 1")


def test_every_step_of_a_review_is_progress(journal):
    seen = [entries(journal)[0]]
    steps = [
        lambda desk: desk.comment("one", "look at this", "AB"),
        lambda desk: desk.classify("one", [0], "monocyte", None, "AB"),
        lambda desk: desk.sign("one", "CD"),
        lambda desk: desk.amend("one", "CD", "one more look"),
        lambda desk: desk.sign("one", "EF"),
    ]
    for step in steps:
        with JournalDesk(str(journal)) as desk:
            step(desk)
        seen.append(entries(journal)[0])
    assert [(one.review, one.reviewed_by) for one in seen] == [
        ("unsigned", None),
        ("in review", "AB"),
        ("in review", "AB"),
        ("signed", "CD"),
        ("in review", "CD"),
        ("amended", "EF"),
    ]
    progress = [one.progress for one in seen]
    assert progress == sorted(set(progress))
    assert all(one.reviewed_utc is not None for one in seen[1:])
    assert all(one.signature_fault is None for one in seen)


def test_a_signature_that_does_not_hold_makes_it_preliminary(journal):
    with JournalDesk(str(journal)) as desk:
        desk.sign("one", "AB")
    with sqlite3.connect(journal) as database:
        database.execute("UPDATE sessions SET address = 'path:/elsewhere'")
    database.close()
    [one] = entries(journal)
    assert one.review == "in review"
    assert "the journal gives another result than was signed" in one.signature_fault


def test_a_journal_in_use_can_not_be_read(journal):
    with JournalDesk(str(journal)), pytest.raises(JournalInUseError, match="another process has locked"):
        read_journal(place_of(journal))


def test_journals_of_a_folder(journal, tmp_path):
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE mine (x)").connection.close()
    (tmp_path / "text.db").write_text("no database")
    (tmp_path / "empty.db").touch()
    (tmp_path / "within").mkdir()
    write_slide(tmp_path / "within" / "deep.db", 5)
    write_slide(tmp_path / "a.journal", 5)
    assert [path.name for path in journals_in(tmp_path)] == ["a.journal", "slide.db"]
    assert not is_journal(tmp_path / "missing")


def test_the_fingerprint_changes_with_whatever_is_read(journal):
    seen = {fingerprint_of(str(journal))}
    assert fingerprint_of(str(journal)) in seen
    with JournalDesk(str(journal)) as desk:
        desk.comment("one", "look", "AB")
    seen.add(fingerprint_of(str(journal)))
    journal.with_name(f"{journal.name}.sent").write_bytes(b"x")
    seen.add(fingerprint_of(str(journal)))
    assert len(seen) == 3


def test_what_was_sent_is_read_from_its_store(journal):
    pytest.importorskip("hl7apy", reason="hl7apy is not installed")
    from streamer.interop.hl7_messages import hl7_message
    from streamer.interop.mllp import Answer, Receiver
    from streamer.interop.outbox import Outbox
    from streamer.interop.result import result_of
    from streamer.interop.sessions import exported

    store, receiver = journal.with_name(f"{journal.name}.sent"), Receiver("lis.lab", 2575)

    def send(code):
        with opened(str(journal)) as read, Outbox(store) as outbox:
            result = result_of(exported(read.sessions[0]))
            message = hl7_message("oul", result)
            outbox.put(receiver, message, str(result.subject), "oul")
            outbox.answered(receiver, Answer(code, message.control_id, "", "MSA"))

    assert acknowledged(store) == []
    send("AE")
    assert entries(journal)[0].sendings == ()
    send("AA")
    with JournalDesk(str(journal)) as desk:
        desk.sign("one", "AB")
    send("AA")
    with JournalDesk(str(journal)) as desk:
        desk.amend("one", "AB", "again")
        desk.sign("one", "AB")
    send("AA")
    sent = entries(journal)[0].sendings
    assert sorted(one.status for one in sent) == ["C", "F", "P"]
    assert {(one.receiver, one.kind) for one in sent} == {("mllp://lis.lab:2575", "oul")}
    with Outbox(store):  # as while leukostream send runs
        reading = read_journal(place_of(journal))
        assert reading.slides[0].sendings == ()
        assert reading.fingerprint is None
        assert "another process sends from" in reading.remark
    store.write_text("no database, but not short either\n" * 100)
    with pytest.raises(OutboxError, match="not a database"):
        acknowledged(store)
