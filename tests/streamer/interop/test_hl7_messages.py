"""HL7 messages, read back by hl7apy and by an independent package."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("hl7apy", reason="hl7apy is not installed")
pytest.importorskip("hl7", reason="the package hl7 is not installed")

import hl7
from hl7apy.parser import parse_message

from streamer.cli import main
from streamer.interop.hl7_messages import hl7_message
from tests.streamer.interop.result_cases import EVIL, percent, result

KINDS = ["oul", "oru"]


def made(kind, one=None, at=datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)):
    return hl7_message(kind, result() if one is None else one, now=lambda: at)


def field(message, segment, number):
    """As the independent package reads it."""
    return str(hl7.parse(message.er7).segment(segment)[number])


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_valid_by_the_tables_of_its_version(kind):
    read = parse_message(made(kind).er7, find_groups=True)
    assert read.validate()
    assert read.version == "2.5.1"
    assert read.name == {"oul": "OUL_R22", "oru": "ORU_R01"}[kind]


def test_the_header_is_that_of_lab_29():
    message = made("oul")
    expected = {3: "LEUKOSTREAM", 7: "20260506070809+0000", 9: "OUL^R22^OUL_R22", 10: message.control_id, 11: "T"}
    expected |= {12: "2.5.1", 15: "ER", 16: "AL", 18: "UNICODE UTF-8", 21: "LAB-29^IHE"}
    assert {number: field(message, "MSH", number) for number in expected} == expected
    assert "LAB-29" not in made("oru").er7


@pytest.mark.parametrize("kind", KINDS)
def test_observations_are_read_alike_by_both_packages(kind):
    message = made(kind)
    group = "OUL_R22_OBXTCDSIDNTE_SUPPGRP" if kind == "oul" else "ORU_R01_OBSERVATION"
    read = parse_message(message.er7)
    if kind == "oul":
        order = read.oul_r22_specimen.oul_r22_order
    else:
        order = read.oru_r01_patient_result.oru_r01_order_observation
    ours = [one.obx for one in order.children.get(group)]
    theirs = list(hl7.parse(message.er7).segments("OBX"))
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        assert a.obx_5.to_er7() == str(b[5])
        assert a.obx_3.to_er7() == str(b[3])
    assert [str(one[5]) for one in theirs] == ["60", "0.5", "1234567"]
    assert [str(one[3]) for one in theirs][:2] == [
        "26511-6^Neutrophils/Leukocytes in Blood^LN^neutrophil^Neutrophil^99LEUKO",
        "26446-5^Blasts/Leukocytes in Blood^LN^blast^Blast^99LEUKO",
    ]
    assert str(theirs[2][3]) == "edge^Cut by an edge^99LEUKO"
    assert [str(one[6]) for one in theirs][1:] == ["%^percent^UCUM", "{cells}^cells^UCUM"]
    assert [str(one[7]) for one in theirs] == ["", "", ""]  # limits are no reference range
    assert [str(one[8]) for one in theirs] == ["H", "A", ""]
    assert "95 % limits of sampling 0.0 to 99.0 (clopper-pearson)" in message.er7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("state", "code"), [("unsigned", "P"), ("signed", "F"), ("amended", "C")])
def test_the_review_is_in_every_observation_and_the_request(kind, state, code):
    message = made(kind, result(state=state))
    assert {str(one[11]) for one in hl7.parse(message.er7).segments("OBX")} == {code}
    assert field(message, "OBR", 25) == code


@pytest.mark.parametrize("kind", KINDS)
def test_a_percentage_of_no_cells_has_no_value(kind):
    message = made(kind, result(observations=(percent("monocyte", 0, 0),)))
    assert (field(message, "OBX", 5), field(message, "OBX", 11)) == ("", "X")


@pytest.mark.parametrize("kind", KINDS)
def test_research_is_marked_unless_it_is_for_routine_use(kind):
    assert (field(made(kind), "MSH", 11), field(made(kind), "NTE", 3)[:12]) == ("T", "Research use")
    assert field(made(kind, result(production=True)), "MSH", 11) == "P"


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_becomes_a_separator_and_both_packages_read_it_back(kind):
    evil = percent(EVIL, 1, 200, text=EVIL)
    message = made(kind, result(slide=EVIL, method=EVIL, program=EVIL, notes=(EVIL,), observations=(evil,)))
    plain = EVIL.replace("\r", " ").replace("\n", " ")
    read = hl7.parse(message.er7)
    assert {str(one[0]) for one in read} >= {"MSH", "PID", "SPM", "OBR", "OBX", "NTE"}
    assert len(list(read.segments("MSH"))) == 1
    for escaped in (str(read.segment("NTE")[3]), str(read.segment("OBX")[3][0][0]), str(read.segment("OBX")[17][0][1])):
        assert read.unescape(escaped) == plain
    again = parse_message(message.er7)
    assert again.validate()
    assert again.to_er7().rstrip("\r") == message.er7.rstrip("\r")


def test_the_same_result_has_the_same_control_id_whenever_it_is_made():
    later = datetime(2026, 5, 6, tzinfo=UTC) + timedelta(days=3)
    first, again = made("oul"), made("oul", at=later)
    assert first.er7 != again.er7
    assert first.control_id == again.control_id
    others = [made("oru"), made("oul", result(1)), made("oul", result(state="signed")), made("oul", result(notes=()))]
    assert len({first.control_id, *(one.control_id for one in others)}) == 5
    assert all(len(one.control_id) == 20 for one in others)  # all that MSH-10 holds


@pytest.mark.parametrize("kind", KINDS)
def test_a_journal_is_exported_as_one_message_a_session(kind, walk, tmp_path):
    out = tmp_path / "out.hl7"
    assert main(["export", str(walk), "--format", kind, "-o", str(out)]) == 0
    text = out.read_bytes().decode("utf-8")
    [message] = hl7.split_file(text)
    read = hl7.parse(message)
    assert str(read.segment("PID")[5]) == "^^^^^^U"
    assert str(read.segment("SPM")[2]) == "slide&LEUKOSTREAM"
    assert {str(one[11]) for one in read.segments("OBX")} == {"P"}
    assert parse_message(text.rstrip("\r")).validate()
