"""The cells by class that each reader of a journal is told: the report, HL7 and FHIR, each by a parser of its own."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import hl7

from streamer.interop import fhir
from streamer.interop.hl7_messages import hl7_message
from streamer.interop.result import result_of
from streamer.interop.sessions import exported
from streamer.journal import opened
from streamer.protocol.messages import DifferentialMessage
from streamer.records import Differential
from streamer.report.page import page
from streamer.report.slide import show
from tests.streamer.report.report_cases import read

MADE_UTC = "2026-11-30T10:00:00Z"
OF = re.compile(r"(\d+) of \d+; 95 %")


def said_of(journal: Path) -> dict[str, dict[str, int]]:
    """Of the first slide, by who says it."""
    with opened(str(journal)) as reader:
        stored = reader.sessions[0]
        result = exported(stored)
        bundle = io.StringIO()
        fhir.write([result], bundle)
        return {
            "hl7": of_hl7(hl7_message("oul", result_of(result)).er7),
            "fhir": of_fhir(bundle.getvalue()),
            "report": of_report(page([show(stored, made_utc=MADE_UTC, with_picture=False)], made_utc=MADE_UTC)),
        }


def counts_of(found: Differential | DifferentialMessage) -> dict[str, int]:
    return {name: one.count for name, one in found.classes.items()} | {"unclassified": found.unclassified}


def of_hl7(text: str) -> dict[str, int]:
    """Cells by class: of each percentage the note behind it."""
    counts: dict[str, int] = {}
    name: str | None = None
    for segment in hl7.parse(text):
        if str(segment[0]) == "OBX":
            code = str(segment[3]).split("^")  # ours stands behind LOINC's, where there is one
            name = code[3] if len(code) > 3 else code[0]
        elif str(segment[0]) == "NTE" and name is not None and (found := OF.match(str(segment[3]))):
            counts[name], name = int(found[1]), None
    return counts


def of_fhir(text: str) -> dict[str, int]:
    counts = {}
    for entry in json.loads(text)["entry"]:
        for part in entry["resource"].get("component", ()):
            if part["code"]["text"] == "cells of this class":
                counts[entry["resource"]["code"]["text"].lower().removesuffix("s").removesuffix(" white cell")] = part[
                    "valueInteger"
                ]
    return counts


def of_report(html: str) -> dict[str, int]:
    """Cells by class: of each row its name, without what is said below it."""
    counts = {}
    for row in read(html).section("slide-1-differential").all("table")[0].all("tr"):
        numbers = row.all("td", "num")
        if numbers and "White cells" not in (name := row.all("th")[0].text):
            for below in row.all("th")[0].children:
                name = name.replace(below.text, "", 1) if below.text else name
            counts[name.strip().lower()] = int(numbers[0].text)
    return counts
