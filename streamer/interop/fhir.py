"""FHIR R4: a transaction of one DiagnosticReport a slide, its Observations, the specimen and the device.

Made and read by the models of fhir.resources. Every resource has an id that follows from the session and is put under
it, so that a result sent again, or signed later, takes the place of the earlier one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import msgspec
from fhir.resources.R4B.bundle import Bundle

from streamer.dashboard.words import slide_rows
from streamer.interop.loinc import LOINC_URI, PANEL, Loinc
from streamer.interop.result import Interpretation, Observation, SlideResult, Unit, result_of
from streamer.interop.sessions import ExportedSession
from streamer.interop.status import status_codes
from streamer.records import SlideInfo

UCUM = "http://unitsofmeasure.org"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_WORDS: dict[Interpretation, str] = {"L": "Low", "H": "High", "A": "Abnormal"}

Resource = dict[str, Any]


def write(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    file.write(bundle_of([result_of(one) for one in sessions]).model_dump_json(indent=2) + "\n")


def bundle_of(results: Sequence[SlideResult]) -> Bundle:
    """A transaction; its resources are checked by their models."""
    entries = [
        {
            "fullUrl": f"urn:uuid:{resource['id']}",
            "resource": resource,
            "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"},
        }
        for result in results
        for resource in _resources(result)
    ]
    return Bundle.model_validate({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _resources(result: SlideResult) -> Iterator[Resource]:
    specimen, device, info = _id(result, "specimen"), _id(result, "device"), result.info
    people = {} if info.operator is None else {"performer": [_operator(info.operator)]}
    common = {
        "status": status_codes(result.review.state).fhir,
        "subject": {"type": "Patient", "identifier": _urn(result.subject)},
        "effectiveDateTime": result.observed.isoformat(),
    }
    observations = [
        {
            "resourceType": "Observation",
            "id": _id(result, f"observation {one.name}"),
            "category": [{"coding": [{"system": f"{_TERMINOLOGY}/observation-category", "code": "laboratory"}]}],
            "code": _code(one.loinc, one.text),
            "method": {"text": result.method},
            "specimen": _to(specimen),
            "device": _to(device),
            **common,
            **people,
            **_value(one),
        }
        for one in result.observations
    ]
    yield {
        "resourceType": "DiagnosticReport",
        "id": _id(result, "report"),
        "identifier": [_urn(result.subject)],
        "category": [{"coding": [{"system": f"{_TERMINOLOGY}/v2-0074", "code": "HM", "display": "Hematology"}]}],
        "code": _code(PANEL, "White-cell differential of a blood smear"),
        "specimen": [_to(specimen)],
        "result": [_to(one["id"]) for one in observations],
        "conclusion": "\n".join(result.notes),
        **common,
        **people,
    }
    yield from observations
    yield {
        "resourceType": "Specimen",
        "id": specimen,
        "identifier": [{"value": result.slide}],
        "type": {"text": "Blood smear"},
        "subject": common["subject"],
        **_preparation(info),
    }
    yield {
        "resourceType": "Device",
        "id": device,
        "deviceName": [{"name": result.program, "type": "user-friendly-name"}],
        "type": {"text": "Image analysis software"},
        "note": [{"text": result.method}],
        **({} if info.instrument is None else {"parent": _to(_id(result, "instrument"))}),
    }
    if info.instrument is not None:
        yield {
            "resourceType": "Device",
            "id": _id(result, "instrument"),
            "identifier": [{"value": info.instrument}],
            "type": {"text": "Microscope or camera"},
        }


def _operator(text: str) -> Resource:
    return {"type": "Practitioner", "identifier": {"value": text}}


def _preparation(info: SlideInfo) -> Resource:
    """What is said of the specimen."""
    said: Resource = {}
    if info.accession is not None:
        said["accessionIdentifier"] = {"value": info.accession}
    if info.stain is not None:
        said["processing"] = [{"description": f"Stained: {info.stain}"}]
    others = msgspec.structs.replace(info, name=None, accession=None, operator=None, instrument=None, stain=None)
    if rows := slide_rows(others):
        said["note"] = [{"text": f"{label}: {value}"} for label, value in rows]
    return said


def _value(one: Observation) -> Resource:
    """The value and, as components, its limits: they are no reference range."""
    value: Resource = {}
    if one.value is None:
        coding = {"system": f"{_TERMINOLOGY}/data-absent-reason", "code": "not-performed"}
        value["dataAbsentReason"] = {"coding": [coding], "text": "no white cell was counted"}
    else:
        value["valueQuantity"] = _quantity(one.value, one.unit)
    if one.interpretation is not None:
        system = f"{_TERMINOLOGY}/v3-ObservationInterpretation"
        word = _WORDS[one.interpretation]
        value["interpretation"] = [{"coding": [{"system": system, "code": one.interpretation, "display": word}]}]
    quantities = (
        (f"lower 95 % limit of sampling ({one.limits_method})", one.low),
        (f"upper 95 % limit of sampling ({one.limits_method})", one.high),
        ("corrected for the size of the cells", one.size_corrected),
    )
    components: list[Resource] = [
        {"code": {"text": text}, "valueQuantity": _quantity(number, one.unit)}
        for text, number in quantities
        if number is not None
    ]
    counts = (("cells of this class", one.count), ("white cells counted", one.of))
    components += [{"code": {"text": text}, "valueInteger": number} for text, number in counts if number is not None]
    return value | ({"component": components} if components else {})


def _quantity(value: float, unit: Unit) -> Resource:
    return {"value": round(value, 2), "unit": unit.text, "system": UCUM, "code": unit.ucum}


def _code(loinc: Loinc | None, text: str) -> Resource:
    if loinc is None:
        return {"text": text}
    return {"coding": [{"system": LOINC_URI, "code": loinc.code, "display": loinc.display}], "text": text}


def _id(result: SlideResult, what: str) -> str:
    return str(uuid.uuid5(result.subject, what))


def _to(id_: str) -> Resource:
    return {"reference": f"urn:uuid:{id_}"}


def _urn(number: uuid.UUID) -> Resource:
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{number}"}
