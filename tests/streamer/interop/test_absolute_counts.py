"""Absolute counts and what is said of the slide as laboratories are told of them: HL7 and FHIR, read back."""

from __future__ import annotations

import pytest

from streamer.cli import main
from streamer.interop.loinc import loinc_of_volume
from streamer.interop.result import result_of
from streamer.interop.sessions import exported
from streamer.interop.status import Review
from streamer.journal import opened
from streamer.records import SlideInfo
from tests.streamer.interop.result_cases import EVIL, result
from tests.streamer.journal.journal_cases import write_walk

SAID = SlideInfo(name="B-17", accession="H26-4", operator="AK", instrument="BX41", stain="MGG", fields={"batch": "7"})


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    return write_walk(tmp_path_factory.mktemp("wbc") / "walk.db", slide=SlideInfo(name="B-17", wbc=8.0))


def test_both_values_are_told_with_codes_without_a_method(counted):
    with opened(str(counted)) as journal:
        told = result_of(exported(journal.sessions[0]))
    of = {one.name: one for one in told.observations}
    percent, absolute = of["neutrophil"], of["neutrophil per volume"]
    assert absolute.value == pytest.approx(8.0 * percent.value / 100)
    assert (absolute.low, absolute.high) == pytest.approx((8.0 * percent.low / 100, 8.0 * percent.high / 100))
    assert (absolute.unit.ucum, absolute.loinc.code) == ("10*9/L", "26499-4")
    assert absolute.count is None
    assert "white cells corrected" not in of
    assert sum(one.value for name, one in of.items() if name.endswith(" per volume")) == pytest.approx(8.0)
    note = "white-cell count from elsewhere, 8 x 10^9/L, not corrected for nucleated red cells"
    assert any(one.startswith(note) for one in told.notes)
    assert (told.slide, told.info.name) == ("B-17", "B-17")


def test_codes_of_a_manual_count_are_those_of_the_domain_where_every_cell_was_confirmed():
    manual = {"neutrophil": "753-4", "lymphocyte": "732-8", "monocyte": "743-5", "eosinophil": "712-0"}
    manual |= {"basophil": "705-4", "band neutrophil": "763-3", "segmented neutrophil": "768-2"}
    for name, code in manual.items():
        assert loinc_of_volume(name, manual=True).code == code
        assert loinc_of_volume(name, manual=True).display.endswith("[#/volume] in Blood by Manual count")
        assert loinc_of_volume(name, manual=False).code != code
    assert loinc_of_volume("promonocyte", manual=False) is None
    assert loinc_of_volume("unclassified", manual=True) is None


def test_a_count_that_is_given_later_takes_the_place_of_that_of_the_run(counted, tmp_path):
    pytest.importorskip("hl7apy", reason="hl7apy is not installed")
    texts = {}
    for name, options in (("run", ()), ("later", ("--wbc", "4")), ("includes", ("--wbc", "4", "--wbc-includes-nrbc"))):
        out = tmp_path / name
        assert main(["export", str(counted), "--format", "oul", "-o", str(out), *options]) == 0
        texts[name] = out.read_text(encoding="utf-8")
    assert "from elsewhere, 8 x 10\\S\\9/L, not corrected" in texts["run"]
    assert "from elsewhere, 4 x 10\\S\\9/L, not corrected" in texts["later"]
    assert "can't be corrected: the models have no class for them; so there are no absolute counts" in texts["includes"]
    assert "10*9/L^10\\S\\9/L" not in texts["includes"]
    assert texts["later"].count("|10*9/L^") == texts["run"].count("|10*9/L^") == 6


@pytest.mark.parametrize("kind", ["oul", "oru"])
@pytest.mark.parametrize("text", ["plain", EVIL.replace("\r\n", " ").strip()])
def test_hl7_has_a_field_for_each(kind, text):
    pytest.importorskip("hl7apy", reason="hl7apy is not installed")
    hl7 = pytest.importorskip("hl7", reason="the package hl7 is not installed")
    from hl7apy.parser import parse_message

    from streamer.interop.hl7_messages import hl7_message

    info = SlideInfo(name=text, accession=text, operator=text, instrument=text, stain=text, fields={"batch": text})
    message = hl7_message(kind, result(slide=text, info=info))
    assert parse_message(message.er7, find_groups=True).validate()
    read = hl7.parse(message.er7)
    plain = read.unescape
    obx = read.segment("OBX")
    assert plain(str(read.segment("SPM")[2])) == text
    assert plain(str(read.segment("OBR")[3])) == text
    assert plain(str(obx[16])) == text
    assert plain(str(obx[18][1])) == text
    notes = [plain(str(one[3])) for one in read.segments("NTE")]
    assert f"Stain: {text}" in notes
    assert f"batch: {text}" in notes


def test_without_names_hl7_has_those_of_our_own():
    pytest.importorskip("hl7apy", reason="hl7apy is not installed")
    from streamer.interop.hl7_messages import hl7_message

    one = result()
    lines = {line[:3]: line.split("|") for line in hl7_message("oul", one).er7.split("\r")}
    assert lines["SPM"][2] == f"{one.slide}&LEUKOSTREAM"
    assert lines["OBR"][3] == f"{one.subject}^LEUKOSTREAM"
    assert lines["OBX"][16] == ""


def test_fhir_has_an_element_for_each():
    pytest.importorskip("fhir.resources", reason="fhir.resources is not installed")
    from fhir.resources.R4B.bundle import Bundle

    from streamer.interop.fhir import bundle_of

    bundle = Bundle.model_validate_json(bundle_of([result(slide="B-17", info=SAID)]).model_dump_json())
    kinds: dict[str, list] = {}
    for entry in bundle.entry:
        kinds.setdefault(entry.resource.get_resource_type(), []).append(entry.resource)
    (specimen,) = kinds["Specimen"]
    assert specimen.identifier[0].value == "B-17"
    assert specimen.accessionIdentifier.value == "H26-4"
    assert specimen.processing[0].description == "Stained: MGG"
    assert [note.text for note in specimen.note] == ["batch: 7"]
    program, instrument = kinds["Device"]
    assert instrument.identifier[0].value == "BX41"
    assert program.parent.reference == f"urn:uuid:{instrument.id}"
    for one in (*kinds["Observation"], *kinds["DiagnosticReport"]):
        assert one.performer[0].identifier.value == "AK"
    (plain,) = [one.resource for one in bundle_of([result()]).entry if one.resource.get_resource_type() == "Device"]
    assert plain.parent is None


def test_a_corrected_count_is_told_by_its_own_code():
    from streamer.counting.absolute import described
    from streamer.interop.result import _absolute
    from tests.streamer.counting.test_absolute import TWO_HUNDRED

    found = described(TWO_HUNDRED, SlideInfo(wbc=11.0, wbc_includes_nrbc=True))
    *_, last = _absolute(found.classes, found.wbc, found.limits_method, Review())
    assert (last.loinc.code, last.value) == ("33256-9", pytest.approx(10.0))
