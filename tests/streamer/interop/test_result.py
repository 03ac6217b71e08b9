"""What a laboratory is told of a session."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from streamer.interop.loinc import loinc_of
from streamer.interop.result import result_of
from streamer.interop.sessions import exported, pseudonym_of
from streamer.interop.status import Review, review_of, status_codes
from streamer.journal import opened, recounted
from tests.streamer.journal.journal_cases import write_walk


def results(path, **how):
    with opened(str(path)) as journal:
        return [result_of(exported(stored, **how)) for stored in journal.sessions]


@pytest.fixture(scope="module")
def told(walk):
    (one,) = results(walk)
    return one


def test_every_class_that_the_model_names_is_an_observation_and_no_other(told):
    names = [one.name for one in told.observations]
    assert names == ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "unclassified", "edge"]
    for one in told.observations[:-1]:
        assert one.of == 16
        assert one.value == pytest.approx(100 * one.count / 16)
        assert one.low <= one.value <= one.high
    assert sum(one.count for one in told.observations[:-1]) == 16


def test_subclasses_are_observations_and_what_was_not_divided_is_said(walk):
    with opened(str(walk)) as journal:
        one = exported(journal.sessions[0])
        rules = msgspec.structs.replace(
            one.stored.rules,
            subclass_names=("band neutrophil", "segmented neutrophil"),
            subclass_parents=("neutrophil", "neutrophil"),
        )
        told = result_of(replace(one, stored=replace(one.stored, rules=rules)))
    of = {one.name: one for one in told.observations}
    assert (of["band neutrophil"].count, of["band neutrophil"].loinc.code) == (0, "26508-2")
    assert of["segmented neutrophil"].high > 0
    count = of["neutrophil"].count
    note = f"neutrophil: {count} of {count} have no subclass: its subclasses may be more than is said"
    assert note in told.notes


def test_codes_are_those_without_a_method_until_a_person_confirmed_every_cell(told):
    assert told.observations[0].loinc.code == "26511-6"
    assert loinc_of("neutrophil", manual=True) == ("23761-0", "Neutrophils/Leukocytes in Blood by Manual count")
    assert loinc_of("plasma cell", manual=True) == loinc_of("plasma cell", manual=False)
    assert loinc_of("unclassified", manual=False) is None


def test_the_notes_say_what_it_is_for_the_verdict_and_what_was_not_assessed(told):
    assert told.notes[0] == "Research use only: not a medical device."
    assert told.notes[1].startswith("verdict on slide: incomplete")
    assert "2 cells named or confirmed by a person" in told.notes
    assert any(note.startswith("not assessed: blast") for note in told.notes)
    assert any(note.startswith("flags: ") for note in told.notes)
    assert told.notes[-1].startswith("limits are of sampling only")


def test_routine_use_has_to_be_asked_for(walk):
    (one,) = results(walk, production=True)
    assert one.production
    assert not any("Research use" in note for note in one.notes)


def test_a_pseudonym_leaves_nothing_of_the_source(walk):
    (one,) = results(walk, pseudonymised=True)
    with opened(str(walk)) as journal:
        session = journal.sessions[0].id
    assert one.slide == f"slide-{pseudonym_of(session).hex[:12]}"
    assert one.notes[1].startswith(f"verdict on {one.slide}")
    assert pseudonym_of(session) == pseudonym_of(session) != pseudonym_of("another")


def test_a_session_that_goes_on_says_so(tmp_path):
    (one,) = results(write_walk(tmp_path / "running.db", finish=False))
    assert "the session has not ended: this is what was counted so far" in one.notes


def test_the_time_is_that_of_the_last_frame(walk, told):
    with sqlite3.connect(walk) as database:
        [last] = database.execute("SELECT max(captured_utc) FROM frames").fetchone()
    assert told.observed == datetime.fromisoformat(last)


def test_what_people_named_is_in_review(walk, tmp_path):
    for path, state in ((walk, "in review"), (write_walk(tmp_path / "untouched.db"), "unsigned")):
        with opened(str(path)) as journal:
            assert review_of(recounted(journal.sessions[0])) == Review(state, every_cell_confirmed=False)


@pytest.mark.parametrize(
    ("state", "hl7", "fhir"),
    [
        ("unsigned", "P", "preliminary"),
        ("in review", "P", "preliminary"),
        ("signed", "F", "final"),
        ("amended", "C", "corrected"),
    ],
)
def test_a_result_is_final_once_it_is_signed(state, hl7, fhir):
    assert status_codes(state) == (hl7, fhir)
