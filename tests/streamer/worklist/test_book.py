"""The list in SQLite and in PostgreSQL: what is put in is found, and nothing is lost when several write."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")

from sqlalchemy import create_engine, text

from streamer.worklist.address import address_of
from streamer.worklist.book import Worklist
from streamer.worklist.entries import WorklistError
from streamer.worklist.finding import Filter
from tests.streamer.worklist.entry_cases import entry, flag, reading, sending, signed


@pytest.fixture
def worklist(to):
    with Worklist(address_of(to), make=True) as worklist:
        yield worklist


@pytest.fixture
def journal(tmp_path):
    """Something at a path; a list never looks into it."""
    path = tmp_path / "a.db"
    path.touch()
    return path


def outcomes(worklist, *read):
    return [(one.outcome, one.other) for one in worklist.put(reading(*read))]


def states(worklist):
    return {one.entry.session: one.state for one in worklist.find()}


def test_what_is_put_in_is_found_as_it_was(worklist, journal):
    full = signed(
        "two",
        slide="B-17",
        accession="A ' \" % _ \\ é 血",
        operator="AK",
        instrument="scope 1",
        total=3_000_000_000,
        verdict=None,
        signature_fault="changed",
        flags=(flag(), flag("seen", "blast", "seen", "blast? 3 of 112"), flag("1.x", None, None, "low")),
        sendings=(sending(),),
    )
    plain = entry("one", begun_utc="2026-11-29T08:00:00.000000Z")
    assert outcomes(worklist, journal, plain, full) == [("new", None), ("new", None)]
    first, second = worklist.find()
    assert (first.entry, second.entry) == (full, plain)
    assert (first.journal, first.place, first.moved_from, first.remark) == (str(journal), "there", None, None)


def test_what_changed_is_updated_and_what_did_not_is_said_to_be_unchanged(worklist, journal):
    outcomes(worklist, journal, entry("one", flags=(flag(), flag("left shift"))), entry("two"))
    assert outcomes(worklist, journal, entry("one", flags=(flag(),)), entry("two")) == [
        ("updated", None),
        ("unchanged", None),
    ]
    assert {one.entry.session: len(one.entry.flags) for one in worklist.find()} == {"one": 1, "two": 0}
    assert outcomes(worklist, journal, entry("one", total=101), entry("two", slide="B")) == [("updated", None)] * 2
    assert {one.entry.session: (one.entry.total, one.entry.slide) for one in worklist.find()} == {
        "one": (101, None),
        "two": (100, "B"),
    }


def test_states(worklist, journal):
    later, before = "2026-11-30T09:00:01Z", "2026-11-30T08:59:59Z"
    amended = {"review": "amended"}
    cases = {
        "runs": (entry, {"ended": False}, "running"),
        "unsigned": (entry, {}, "preliminary"),
        "in review": (entry, {"review": "in review", "reviewed_by": "AB", "reviewed_utc": before}, "preliminary"),
        "sent while preliminary": (entry, {"sendings": (sending(status="P"),)}, "preliminary"),
        "signed": (signed, {}, "signed"),
        "sent before": (signed, {"sendings": (sending(status="P", stored_utc=before),)}, "signed"),
        "sent before, said final": (signed, {"sendings": (sending(stored_utc=before),)}, "signed"),
        "sent later as preliminary": (signed, {"sendings": (sending(status="P", stored_utc=later),)}, "signed"),
        "sent in the same second": (signed, {"sendings": (sending(stored_utc="2026-11-30T09:00:00Z"),)}, "sent"),
        "sent": (signed, {"sendings": (sending(stored_utc=later),)}, "sent"),
        "amended, not sent again": (signed, {**amended, "sendings": (sending(stored_utc=before),)}, "signed"),
        "amended, sent as final": (signed, {**amended, "sendings": (sending(stored_utc=later),)}, "signed"),
        "amended and sent": (signed, {**amended, "sendings": (sending(status="C", stored_utc=later),)}, "sent"),
    }
    outcomes(worklist, journal, *(make(name, **fields) for name, (make, fields, _) in cases.items()))
    expected = {name: state for name, (_, _, state) in cases.items()}
    assert states(worklist) == expected
    for state in ("running", "preliminary", "signed", "sent"):
        found = {one.entry.session for one in worklist.find(Filter(state=state))}
        assert found == {name for name, expected_state in expected.items() if expected_state == state}


def test_what_was_acknowledged_stays_so_when_the_store_is_gone(worklist, journal):
    outcomes(worklist, journal, signed(sendings=(sending(1),)))
    both = signed(sendings=(sending(2, receiver="mllp://other:1"), sending(1)))
    assert outcomes(worklist, journal, both) == [("updated", None)]
    assert outcomes(worklist, journal, both) == [("unchanged", None)]
    assert outcomes(worklist, journal, signed()) == [("unchanged", None)]
    [one] = worklist.find()
    assert one.state == "sent"
    assert {sent.control_id for sent in one.entry.sendings} == {"M1", "M2"}


def test_a_journal_that_moved(worklist, tmp_path, journal):
    moved = tmp_path / "moved.db"
    outcomes(worklist, journal, entry())
    journal.rename(moved)
    [one] = worklist.find()
    assert (one.place, one.journal) == ("vanished", str(journal))
    assert outcomes(worklist, moved, entry()) == [("moved", str(journal))]
    [one] = worklist.find()
    assert (one.place, one.journal, one.moved_from) == ("there", str(moved), str(journal))
    assert [place.path for place in worklist.known(one.host)] == [str(moved)]
    assert outcomes(worklist, moved, entry()) == [("unchanged", None)]
    assert worklist.find()[0].moved_from == str(journal)


def test_of_two_copies_that_is_listed_in_which_more_happened(worklist, tmp_path, journal):
    copy = tmp_path / "copy.db"
    copy.touch()
    outcomes(worklist, journal, entry(progress=10))
    assert outcomes(worklist, copy, entry(progress=10)) == [("copy", str(journal))]
    assert outcomes(worklist, copy, entry(progress=9, total=1)) == [("copy", str(journal))]
    assert worklist.find()[0].entry.total == 100
    assert worklist.fingerprint(reading(copy).place) is None  # so that it is read again once the other has gone
    assert outcomes(worklist, copy, entry(progress=11, total=101)) == [("moved", str(journal))]
    [one] = worklist.find()
    assert (one.journal, one.entry.total) == (str(copy), 101)
    copy.unlink()
    assert outcomes(worklist, journal, entry(progress=10)) == [("copy", str(copy))]
    assert worklist.find()[0].place == "vanished"


def test_a_journal_in_whose_place_another_one_is(worklist, journal):
    outcomes(worklist, journal, entry("old", progress=99), entry("stays"))
    outcomes(worklist, journal, entry("stays"), entry("new"))
    assert {one.entry.session: one.place for one in worklist.find()} == {
        "old": "not in it",
        "stays": "there",
        "new": "there",
    }


def test_a_journal_of_another_machine(worklist, journal):
    worklist.put(reading("/data/a.db", entry(), host="scope-2"))
    [one] = worklist.find()
    assert (one.place, one.host) == ("elsewhere", "scope-2")
    assert outcomes(worklist, journal, entry()) == [("moved", "scope-2:/data/a.db")]


def test_a_journal_that_is_in_use_is_listed_before_it_is_read(worklist, journal):
    place = reading(journal).place
    worklist.could_not_read(place, "in use by process 7")
    [one] = worklist.find()
    assert (one.state, one.entry, one.journal, one.remark) == ("running", None, str(journal), "in use by process 7")
    assert worklist.find(Filter(state="running", words=("A.DB",))) == [one]
    for none in (Filter(state="signed"), Filter(verdict="incomplete"), Filter(flag="any"), Filter(words=("b.db",))):
        assert worklist.find(none) == []
    outcomes(worklist, journal, entry())
    worklist.could_not_read(place, "in use by process 8")
    [one] = worklist.find()
    assert (one.state, one.entry.session, one.remark) == ("preliminary", "one", "in use by process 8")
    outcomes(worklist, journal, entry())
    assert worklist.find()[0].remark is None


def test_filters(worklist, journal):
    outcomes(
        worklist,
        journal,
        entry("1", slide="B-17", verdict="incomplete", begun_utc="2026-11-01T00:00:00.000000Z"),
        entry("2", accession="100%_x", operator="ÄK", flags=(flag("seen", "blast", "seen", "blast? 3 of 112"),)),
        entry("3", source="left", instrument="B-17", flags=(flag("left shift", None, None, "bands 20 %"),)),
    )

    def found(**what):
        return "".join(sorted(one.entry.session for one in worklist.find(Filter(**what))))

    assert found() == "123"
    assert (found(verdict="incomplete"), found(verdict="do not use")) == ("1", "")
    assert [found(flag=name) for name in ("blast", "SEEN", "Left Shift", "any", "basophil", "%")] == [
        *("2", "2", "3", "23", "", "")
    ]
    assert found(since_utc="2026-11-01T00:00:00.000000Z") == "123"
    assert found(since_utc="2026-11-01T00:00:00.000001Z") == "23"
    cases = {"b-17": "13", "B-17 LEFT": "3", "äk": "2", "100%": "2", "0_x": "", "%_": "2", "112": "2", "a.db": "123"}
    assert {words: found(words=tuple(words.split())) for words in cases} == cases
    assert found(words=("\\",)) == ""
    assert [one.entry.session for one in worklist.find(Filter(limit=2))] == ["2", "3"]


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=st.lists(TEXTS, min_size=1, max_size=4), word=TEXTS | st.sampled_from(["%", "_", "\\", "ß", "SS", "'"]))
def test_words_are_found_as_they_are_written(tmp_path_factory, names, word):
    with Worklist(address_of(str(tmp_path_factory.mktemp("words"))), make=True) as worklist:
        worklist.put(reading("/x", *(entry(f"{number}0", slide=name, source="0") for number, name in enumerate(names))))
        found = {one.entry.slide for one in worklist.find(Filter(words=(word,)))}
    always = any(word.casefold() in text for text in ("/x", "0", "00", "10", "20", "30"))
    assert found == {name for name in names if always or word.casefold() in name.casefold()}


def test_nothing_is_written_of_a_journal_that_changed_while_it_was_read(worklist, journal):
    assert worklist.put(reading(journal, entry()), is_current=lambda: False) is None
    assert worklist.find() == []


def test_a_fault_in_between_leaves_nothing_of_a_journal(worklist, journal):
    with pytest.raises(WorklistError):
        worklist.put(reading(journal, entry("one"), entry("two", source=None)))
    assert worklist.find() == []


def test_who_writes_waits_for_who_writes(worklist, to, journal, tmp_path):
    other = tmp_path / "other.db"
    done = threading.Event()

    def put_more():
        with Worklist(address_of(to)) as second:
            outcomes(second, other, entry(progress=11, total=101))
        done.set()

    thread = threading.Thread(target=put_more)

    def meanwhile():
        thread.start()
        assert not done.wait(0.5)
        return True

    worklist.put(reading(journal, entry(progress=10, total=100)), is_current=meanwhile)
    thread.join(30)
    assert done.is_set()
    [one] = worklist.find()
    assert (one.entry.total, one.journal, one.moved_from) == (101, str(other), str(journal))


WRITER = """
import json, sys
from streamer.worklist.address import address_of
from streamer.worklist.book import Worklist
from tests.streamer.worklist.entry_cases import entry, flag, reading, sending
to, path, first, rounds = json.loads(sys.stdin.read())
for number in range(rounds):
    with Worklist(address_of(to), make=True) as worklist:
        said = {"flags": (flag(),) * (number % 3), "sendings": (sending(f"{first}{number}"),)}
        both = entry("both", progress=number, total=number, **said)
        worklist.put(reading(path, entry(f"{first}-{number}"), both))
"""


@pytest.mark.lengthy
def test_two_who_write_at_once_from_the_first_moment_on_lose_nothing(to, tmp_path):
    rounds = 10
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for name, writer in zip("ab", writers, strict=True):
        writer.stdin.write(json.dumps([to, str(tmp_path / f"{name}.db"), name, rounds]))
        writer.stdin.close()
    for writer in writers:
        assert writer.wait(60) == 0, writer.stderr.read()
        writer.stderr.close()
    with Worklist(address_of(to)) as worklist:
        found = {one.entry.session: one.entry for one in worklist.find()}
    assert found.keys() == {"both", *(f"{name}-{number}" for name in "ab" for number in range(rounds))}
    both = found["both"]
    assert (both.progress, both.total, len(both.flags)) == (rounds - 1, rounds - 1, (rounds - 1) % 3)
    assert len(both.sendings) == 2 * rounds


def test_two_who_find_no_list_make_one(to):
    made, start = [], threading.Barrier(4)

    def make():
        start.wait()
        with Worklist(address_of(to), make=True) as worklist:
            made.append(worklist.find())

    makers = [threading.Thread(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert made == [[]] * 4


def change(to, *statements):
    engine = create_engine(address_of(to).url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_a_list_of_a_newer_version_is_refused(to):
    Worklist(address_of(to), make=True).close()
    change(to, "UPDATE leukostream_worklist SET version = 2")
    for make in (False, True):
        with pytest.raises(
            WorklistError, match=r"got a list of version 2 in .*, expected 1; use the version of"
        ) as told:
            Worklist(address_of(to), make=make)
        assert "\n" not in str(told.value)


def test_where_no_list_is_none_is_read(to):
    if not to.startswith("sqlite"):
        change(to, "CREATE TABLE other (x INTEGER)")
    with pytest.raises(WorklistError, match=r"expected one; leukostream worklist add makes it"):
        Worklist(address_of(to))


def test_the_file_of_another_program_is_left_as_it_is(tmp_path):
    to = f"sqlite:///{tmp_path}/other.sqlite"
    change(to, "CREATE TABLE other (x INTEGER)")
    before = (tmp_path / "other.sqlite").read_bytes()
    with pytest.raises(WorklistError, match="of another program, expected a worklist"):
        Worklist(address_of(to), make=True)
    assert (tmp_path / "other.sqlite").read_bytes() == before
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at\n" * 100)
    with pytest.raises(WorklistError, match="file is not a database"):
        Worklist(address_of(f"sqlite:///{tmp_path}/text"), make=True)


def test_a_row_that_is_none_is_one_line(worklist, to, journal):
    outcomes(worklist, journal, entry())
    change(to, "UPDATE leukostream_slides SET total = -1, begun_utc = 'x', verdict = 'odd'")
    assert worklist.find()[0].entry.total == -1  # of a type that it may be: it is shown
    if to.startswith("sqlite"):  # where a column takes any type
        change(to, "UPDATE leukostream_slides SET total = 'many'")
        with pytest.raises(WorklistError, match=r"got a row in .* that is none \(Expected `int`, got `str`"):
            worklist.find()


def test_a_wrong_password_is_one_line_without_it(server, schema, caplog):
    address = server.address(schema, password="s3cret%40wrong")
    with pytest.raises(WorklistError, match="password authentication failed") as told:
        Worklist(address_of(address), make=True)
    said = f"{told.value} {told.value!r} {told.value.__cause__!r} {caplog.text}"
    assert "\n" not in str(told.value)
    assert not [secret for secret in ("s3cret@wrong", "s3cret%40wrong") if secret in said]
    assert f"postgresql://lab@127.0.0.1:{server.port}/postgres" in said


def test_a_server_that_is_not_there_is_one_line(server, free_port):
    with pytest.raises(WorklistError, match=r"refused") as told:
        Worklist(address_of(f"postgresql://lab:s3cret@127.0.0.1:{free_port}/lab"))
    assert "s3cret" not in str(told.value)
    with pytest.raises(WorklistError, match=r'database "missing" does not exist'):
        Worklist(address_of(server.address("any").replace("/postgres", "/missing")))
    with pytest.raises(WorklistError, match=r"no schema has been selected to create in"):
        Worklist(address_of(server.address("missing")), make=True)


def test_who_may_only_read_reads(server, schema, journal):
    with Worklist(address_of(server.address(schema)), make=True) as worklist:
        outcomes(worklist, journal, entry())
    server.execute(
        "CREATE ROLE reader LOGIN PASSWORD 'reader'",
        f"GRANT USAGE ON SCHEMA {schema} TO reader",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader",
    )
    with Worklist(address_of(server.address(schema, user="reader", password="reader"))) as worklist:
        assert [one.entry.session for one in worklist.find()] == ["one"]
        with pytest.raises(WorklistError, match="permission denied"):
            outcomes(worklist, journal, entry(total=7))
