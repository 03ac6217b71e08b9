"""HL7 v2.5.1: a result as OUL^R22 in the manner of IHE LAW's LAB-29, or as ORU^R01 for older systems.

Made, validated and read by hl7apy. No conformance to LAW is claimed: that takes its queries and orders (LAB-27, LAB-28)
too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec
from hl7apy.core import Message

from streamer.dashboard.words import slide_rows
from streamer.interop.loinc import PANEL
from streamer.interop.result import Observation, SlideResult, result_of
from streamer.interop.sessions import ExportedSession
from streamer.interop.status import status_codes
from streamer.records import SlideInfo

VERSION = "2.5.1"
APPLICATION = "LEUKOSTREAM"
LOCAL = "99LEUKO"
"""The coding system of names that LOINC has no code for; table 0396 leaves 99… to laboratories and makers."""

Kind = Literal["oul", "oru"]

CONTROL_ID_CHARACTERS = 20
"""All that MSH-10 holds in 2.5.1; as hexadecimal digits 80 bits."""

Segments = Any
"""A group of hl7apy's, to which segments are added."""


def write_oul(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    _write("oul", sessions, file)


def write_oru(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    _write("oru", sessions, file)


def _write(kind: Kind, sessions: Sequence[ExportedSession], file: TextIO) -> None:
    """One message a session, one after the other."""
    for one in sessions:
        file.write(hl7_message(kind, result_of(one)).er7)


@dataclass(frozen=True, slots=True)
class Hl7Message:
    control_id: str
    """MSH-10: the same for the same content, whenever it is made, so that a receiver knows what it has had."""
    er7: str
    """Segments end in carriage returns, the last one too."""


def hl7_message(kind: Kind, result: SlideResult, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Hl7Message:
    """A result as a message, valid by hl7apy's tables of 2.5.1."""
    message = Message("OUL_R22" if kind == "oul" else "ORU_R01", version=VERSION)
    _add_header(message, kind, result)
    if kind == "oul":
        _add_oul(message, result)
    else:
        _add_oru(message, result)
    message.msh.msh_7 = _time(result.observed)
    message.msh.msh_10 = "-"
    content = message.to_er7()
    control_id = hashlib.sha256(content.encode()).hexdigest()[:CONTROL_ID_CHARACTERS].upper()
    message.msh.msh_7 = _time(now())
    message.msh.msh_10 = control_id
    message.validate()
    return Hl7Message(control_id, message.to_er7().rstrip("\r") + "\r")


def _add_header(message: Segments, kind: Kind, result: SlideResult) -> None:
    msh = message.msh
    msh.msh_3 = APPLICATION
    msh.msh_9 = "OUL^R22^OUL_R22" if kind == "oul" else "ORU^R01^ORU_R01"
    msh.msh_11 = "P" if result.production else "T"
    msh.msh_12 = VERSION
    msh.msh_15 = "ER"
    msh.msh_16 = "AL"
    msh.msh_18 = "UNICODE UTF-8"
    if kind == "oul":
        msh.msh_21 = "LAB-29^IHE"


def _add_oul(message: Segments, result: SlideResult) -> None:
    _add_patient(message.add_group("OUL_R22_PATIENT"), result)
    specimen = message.add_group("OUL_R22_SPECIMEN")
    _add_specimen(specimen, result)
    order = specimen.add_group("OUL_R22_ORDER")
    _add_request(order, result)
    orc = order.add_segment("ORC")
    orc.orc_1 = "SC"
    orc.orc_5 = "IP" if status_codes(result.review.state).hl7 == "P" else "CM"
    _add_notes(order, (*result.notes, *_preparation(result.info)))
    for number, one in enumerate(result.observations, start=1):
        _add_observation(order.add_group("OUL_R22_OBXTCDSIDNTE_SUPPGRP"), number, one, result)


def _add_oru(message: Segments, result: SlideResult) -> None:
    all_ = message.add_group("ORU_R01_PATIENT_RESULT")
    _add_patient(all_.add_group("ORU_R01_PATIENT"), result)
    order = all_.add_group("ORU_R01_ORDER_OBSERVATION")
    _add_request(order, result)
    _add_notes(order, (*result.notes, *_preparation(result.info)))
    for number, one in enumerate(result.observations, start=1):
        _add_observation(order.add_group("ORU_R01_OBSERVATION"), number, one, result)
    _add_specimen(order.add_group("ORU_R01_SPECIMEN"), result)


def _add_patient(group: Segments, result: SlideResult) -> None:
    """A pseudonym, and a name that is not given."""
    pid = group.add_segment("PID")
    pid.pid_3 = f"{result.subject}^^^{APPLICATION}^U"
    pid.pid_5 = "^^^^^^U"


def _add_specimen(group: Segments, result: SlideResult) -> None:
    spm = group.add_segment("SPM")
    spm.spm_1 = "1"
    spm.spm_2 = _escaped(result.slide) if result.info.name else f"{_escaped(result.slide)}&{APPLICATION}"
    spm.spm_4 = "BLD^Whole blood^HL70487"
    spm.spm_11 = "P^Patient specimen^HL70369"


def _add_request(group: Segments, result: SlideResult) -> None:
    obr = group.add_segment("OBR")
    obr.obr_1 = "1"
    obr.obr_2 = '""'
    accession = result.info.accession  # the laboratory's number of the order, which a filler order number is
    obr.obr_3 = f"{result.subject}^{APPLICATION}" if accession is None else _escaped(accession)
    obr.obr_4 = f"{PANEL.code}^{PANEL.display}^LN"
    obr.obr_7 = _time(result.observed)
    obr.obr_25 = status_codes(result.review.state).hl7


def _add_observation(group: Segments, number: int, one: Observation, result: SlideResult) -> None:
    obx = group.add_segment("OBX")
    obx.obx_1 = str(number)
    obx.obx_2 = "NM"
    if one.loinc is None:
        obx.obx_3 = f"{_escaped(one.name)}^{_escaped(one.text)}^{LOCAL}"
    else:
        obx.obx_3 = (
            f"{one.loinc.code}^{_escaped(one.loinc.display)}^LN^{_escaped(one.name)}^{_escaped(one.text)}^{LOCAL}"
        )
    obx.obx_4 = "1"
    if one.value is not None:
        obx.obx_5 = f"{one.value:.2f}".rstrip("0").rstrip(".")
    obx.obx_6 = f"{one.unit.ucum}^{one.unit.text}^UCUM"
    if one.interpretation is not None:
        obx.obx_8 = one.interpretation
    obx.obx_11 = "X" if one.value is None else status_codes(result.review.state).hl7
    obx.obx_14 = _time(result.observed)
    obx.obx_17 = f"{APPLICATION}^{_escaped(result.method)}^{LOCAL}"
    if result.info.operator is not None:
        obx.obx_16 = _escaped(result.info.operator)
    obx.obx_18 = f"{_escaped(result.program)}^{APPLICATION}"
    if result.info.instrument is not None:
        obx.add_field("obx_18").value = _escaped(result.info.instrument)
    obx.obx_19 = _time(result.observed)
    _add_notes(group, tuple(_about(one)))


def _preparation(info: SlideInfo) -> Iterator[str]:
    """What is said of the slide and has no field of its own."""
    others = msgspec.structs.replace(info, name=None, accession=None, operator=None, instrument=None)
    yield from (f"{label}: {value}" for label, value in slide_rows(others))


def _about(one: Observation) -> list[str]:
    """What a number is made of; its limits are no reference range, so they are not in OBX-7."""
    notes = []
    if one.count is not None and one.of is not None:
        limits = ""
        if one.low is not None and one.high is not None:
            limits = f"; 95 % limits of sampling {one.low:.1f} to {one.high:.1f} ({one.limits_method})"
        notes.append(f"{one.count} to {one.of} white cells" if one.low is None else f"{one.count} of {one.of}{limits}")
    elif one.low is not None and one.high is not None:
        notes.append(f"95 % limits of sampling {one.low:.2f} to {one.high:.2f} ({one.limits_method})")
    if one.size_corrected is not None:
        notes.append(f"corrected for the size of the cells {one.size_corrected:.1f} %")
    return notes


def _add_notes(group: Segments, notes: Sequence[str]) -> None:
    for number, note in enumerate(notes, start=1):
        nte = group.add_segment("NTE")
        nte.nte_1 = str(number)
        nte.nte_2 = "L"
        nte.nte_3 = _escaped(note)


_ESCAPES = str.maketrans(
    {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\", "\r": " ", "\n": " "}
    | {chr(code): " " for code in (*range(10), 11, 12, *range(14, 32), 127)}
)


def _escaped(text: str) -> str:
    """Free text without what ER7 and MLLP take for their own."""
    return text.translate(_ESCAPES)


def _time(moment: datetime) -> str:
    """To the second."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
