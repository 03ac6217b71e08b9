"""FHIR bundles, read back by the models of fhir.resources and checked against R4's own schema."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fhir.resources", reason="fhir.resources is not installed")

from fhir.resources.R4B.bundle import Bundle

from streamer.cli import main
from streamer.interop.fhir import bundle_of
from tests.requirements import FHIR_SCHEMA, why_no_fhir_schema
from tests.streamer.interop.result_cases import EVIL, percent, result


def resources(bundle, kind):
    return [entry.resource for entry in bundle.entry if entry.resource.get_resource_type() == kind]


@pytest.fixture(scope="module")
def written(walk, tmp_path_factory):
    """The file of a journal."""
    out = tmp_path_factory.mktemp("fhir") / "bundle.json"
    assert main(["export", str(walk), "--format", "fhir", "-o", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_the_bundle_of_a_journal_is_read_back(written):
    bundle = Bundle.model_validate_json(written)
    [report] = resources(bundle, "DiagnosticReport")
    observations = resources(bundle, "Observation")
    assert report.status == "preliminary"
    assert report.code.coding[0].code == "69738-3"
    assert report.conclusion.startswith("Research use only: not a medical device.\nverdict on slide: incomplete")
    assert [one.code.text for one in observations][:2] == ["Neutrophils", "Lymphocytes"]
    known = {entry.fullUrl for entry in bundle.entry}
    assert {one.reference for one in report.result} == {f"urn:uuid:{one.id}" for one in observations}
    assert {report.specimen[0].reference, observations[0].device.reference} <= known
    for one in observations:
        assert one.status == "preliminary"
        assert one.method.text == "leukostream 0.1.0: scripted-detector + scripted-classifier"
        assert one.referenceRange is None
        assert one.subject.identifier.value.startswith("urn:uuid:")
        assert one.subject.reference is None
    assert not resources(bundle, "Patient")


def test_limits_counts_and_flags_are_where_they_belong():
    [entry] = [one for one in bundle_of([result()]).entry if one.fullUrl.endswith(_id_of("neutrophil"))]
    one = entry.resource
    assert float(one.valueQuantity.value) == 60.0
    assert (one.valueQuantity.system, one.valueQuantity.code) == ("http://unitsofmeasure.org", "%")
    assert one.interpretation[0].coding[0].code == "H"
    parts = {part.code.text: part for part in one.component}
    assert float(parts["lower 95 % limit of sampling (clopper-pearson)"].valueQuantity.value) == 0.0
    assert float(parts["upper 95 % limit of sampling (clopper-pearson)"].valueQuantity.value) == 99.0
    assert parts["cells of this class"].valueInteger == 120
    assert parts["white cells counted"].valueInteger == 200


def _id_of(name):
    report = json.loads(bundle_of([result()]).model_dump_json())
    return next(
        one["resource"]["id"]
        for one in report["entry"]
        if one["resource"].get("code", {}).get("text", "").lower() == name
    )


def test_a_percentage_of_no_cells_is_absent_and_not_zero():
    bundle = bundle_of([result(observations=(percent("monocyte", 0, 0),))])
    [one] = resources(bundle, "Observation")
    assert one.valueQuantity is None
    assert one.dataAbsentReason.coding[0].code == "not-performed"


@pytest.mark.parametrize(
    ("state", "status"), [("unsigned", "preliminary"), ("signed", "final"), ("amended", "corrected")]
)
def test_what_is_signed_takes_the_place_of_what_was_not(state, status):
    first, then = bundle_of([result()]), bundle_of([result(state=state)])
    assert [entry.request.url for entry in first.entry] == [entry.request.url for entry in then.entry]
    assert {entry.request.method for entry in then.entry} == {"PUT"}
    graded = resources(then, "DiagnosticReport") + resources(then, "Observation")
    assert {one.status for one in graded} == {status}


def test_two_slides_share_nothing():
    bundle = bundle_of([result(1), result(2)])
    assert len({entry.fullUrl for entry in bundle.entry}) == len(bundle.entry) == 2 * 6


@pytest.mark.skipif(why_no_fhir_schema() is not None, reason="FHIR R4's schema is not here")
def test_bundles_are_valid_by_r4s_own_schema(written):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(FHIR_SCHEMA.read_text(encoding="utf-8"))
    assert schema["id"] == "http://hl7.org/fhir/json-schema/4.0"
    made = bundle_of([result(slide=EVIL, notes=(EVIL,)), result(2, "amended", observations=(percent("blast", 0, 0),))])
    validator = jsonschema.Draft6Validator({"$ref": "#/definitions/Bundle", "definitions": schema["definitions"]})
    for text in (written, made.model_dump_json()):
        validator.validate(json.loads(text))
    wrong = json.loads(written)
    wrong["entry"][0]["resource"]["status"] = "signed"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(wrong)
