"""What is said of a slide, through every format: there by its name, and under a pseudonym none of it."""

from __future__ import annotations

import csv
import json
from functools import cache

import pytest

from streamer.cli import main
from streamer.interop.formats import FORMATS
from streamer.interop.pseudonyms import pseudonymous
from streamer.journal import Journal
from streamer.records import SlideInfo
from tests.streamer.journal.journal_cases import analysed, rules, session_of, write_walk

IDENTIFYING = {
    "name": "NAMED-B17",
    "accession": "ACCESSION-H26",
    "operator": "OPERATOR-AK",
    "instrument": "INSTRUMENT-BX41",
    "a field's name": "OWNFIELD-ward",
    "a field": "OWNTEXT-seven",
}
SLIDE = SlideInfo(
    name=IDENTIFYING["name"],
    accession=IDENTIFYING["accession"],
    operator=IDENTIFYING["operator"],
    instrument=IDENTIFYING["instrument"],
    stain="May-Grünwald",
    magnification="100x oil",
    um_per_px=0.08,
    fields={IDENTIFYING["a field's name"]: IDENTIFYING["a field"]},
    wbc=6.2,
)
TEXTS = [name for name, one in FORMATS.items() if not one.makes_files]
NAME_ONLY = {"labelstudio"}
"""Formats that hold no more of a slide than what it is called."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The text of a format, plain or under a pseudonym, and the names of its pictures; each written once."""
    folder = tmp_path_factory.mktemp("named")
    path = write_walk(folder / "walk.db", ["monocyte"], slide=SLIDE)

    @cache
    def text(format_, *options):
        pictures = folder / f"pictures{len(options)}"
        names = exported(path, folder, format_, *options, "--pictures", str(pictures))
        return "\n".join([names, *(picture.name for picture in pictures.iterdir())])

    return text


def exported(path, tmp_path, format_, *options):
    for package in {"oul": ["hl7apy"], "oru": ["hl7apy"], "fhir": ["fhir.resources"]}.get(format_, []):
        pytest.importorskip(package, reason=f"{package} is not installed")
    out = tmp_path / f"out.{format_}"
    assert main(["export", str(path), "--format", format_, "-o", str(out), *options]) == 0
    return out.read_text(encoding="utf-8")


@pytest.mark.parametrize("field", IDENTIFYING)
@pytest.mark.parametrize("format_", TEXTS)
def test_what_identifies_is_there_and_not_under_a_pseudonym(written, format_, field):
    if field == "name" or format_ not in NAME_ONLY:
        assert IDENTIFYING[field] in written(format_)
    assert IDENTIFYING[field] not in written(format_, "--pseudonymise")


@pytest.mark.parametrize("format_", [name for name in TEXTS if name not in NAME_ONLY])
def test_how_a_slide_was_made_stays(written, format_):
    hidden = written(format_, "--pseudonymise")
    assert "May-Grünwald" in hidden
    assert "100x oil" in hidden
    assert "0.08" in hidden


def test_the_same_name_has_the_same_pseudonym_in_every_slide_and_format(tmp_path):
    journal = Journal(tmp_path / "two.db")
    frames = analysed()[:4]
    for number, slide in enumerate((SLIDE, SlideInfo(name="other", operator=SLIDE.operator))):
        kept = journal.new_session("slide", f"s{number}", address="path:/frames", live=False, rules=rules())
        session = session_of(kept, slide=slide)
        for one in frames:
            session.update(one)
        session.finish("finished", "end of the source")
    journal.close()
    told = json.loads(exported(tmp_path / "two.db", tmp_path, "json", "--pseudonymise"))["sessions"]
    first, second = (one["slide"] for one in told)
    assert first["operator"] == second["operator"]
    assert first["name"] != second["name"]
    assert first == told[0]["differential"]["slide"]
    rows = list(csv.DictReader(exported(tmp_path / "two.db", tmp_path, "csv", "--pseudonymise").splitlines()))
    assert {row["operator"] for row in rows} == {first["operator"]}
    assert {row["slide"] for row in rows} == {first["name"], second["name"]}
    again = json.loads(exported(tmp_path / "two.db", tmp_path, "json", "--pseudonymise"))["sessions"]
    assert [one["slide"] for one in again] == [first, second]


def test_pseudonyms_follow_from_the_journal_so_that_no_list_of_names_tells_them():
    one, same, other = (pseudonymous(SLIDE, key) for key in ("a", "a", "b"))
    assert one == same
    for name in ("name", "accession", "operator", "instrument", "fields"):
        assert getattr(one, name) != getattr(other, name)
    assert (one.stain, one.magnification, one.um_per_px, one.wbc) == ("May-Grünwald", "100x oil", 0.08, 6.2)
    assert pseudonymous(SlideInfo(), "a") == SlideInfo()
    assert pseudonymous(SlideInfo(name="x", accession="x"), "a").accession != "slide-x"


def test_formulas_in_names_stay_words_in_a_table(tmp_path):
    path = write_walk(tmp_path / "walk.db", slide=SlideInfo(name="=cmd|' /C calc'!A0", fields={"a": "b"}))
    rows = list(csv.DictReader(exported(path, tmp_path, "csv").splitlines()))
    assert {row["slide"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert json.loads(rows[0]["slide_fields"]) == {"a": "b"}


def test_a_journal_without_names_has_the_table_that_it_had(walk, tmp_path):
    assert "slide_fields" not in exported(walk, tmp_path, "csv").splitlines()[0]
