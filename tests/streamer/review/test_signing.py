"""Signed means frozen: with a hash of all that was signed, until somebody amends it, and both results stay."""

from __future__ import annotations

import copy
import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.cli import main
from streamer.counting.review_events import Signature
from streamer.interop.status import Review, review_of
from streamer.journal import JournalReader, canonical, recounted, sha256_of
from streamer.journal.signing import fault_of
from streamer.review.desk import ReviewRefused
from streamer.review.journal_desk import JournalDesk
from tests.streamer.review.review_cases import assert_equal_to_the_file, differential_of, write_slide
from tests.streamer.review.test_journal_desk import refused

CELLS = 40
BECAUSE = "one area of a small smear; counted by hand too"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.db", CELLS)


def signed(path: Path) -> Signature:
    with JournalDesk(path) as desk:
        desk.classify("one", [1, 2], "monocyte", None, "AB")
        return desk.sign("one", "AB", despite=BECAUSE)


def in_the_journal(path: Path) -> tuple[Review, list[Signature], str]:
    """What an export makes of it, its signatures, and its state."""
    with JournalReader(path) as reader:
        again = recounted(reader.sessions[0])
    return review_of(again), again.corrections.signatures, again.count.review.state


def test_the_hash_is_of_what_was_signed(path: Path) -> None:
    signature = signed(path)
    assert hashlib.sha256(signature.signed).hexdigest() == signature.sha256
    form = json.loads(signature.signed)
    assert canonical(form) == signature.signed
    assert (form["signed_by"], form["signed_utc"], form["slide"]["session"]) == ("AB", signature.at, "one")
    assert len(form["cells"]) == CELLS + 2
    assert form["cells"][1][:5] == [1, "monocyte", None, True, False]
    assert form["cells"][1][5][:2] == ["corrected", "AB"]
    assert form["cells"][3][5] is None
    leukocytes = [one for one in form["cells"] if one[1] != "erythroblast" and one[3]]
    assert form["differential"]["total"] == len(leukocytes) - 1  # without the nucleated red cell of the detector
    assert form["differential"]["reviewed_cells"] == 2
    assert "review" not in form["differential"]
    assert form["provenance"]["rules"]["classifier"] == {"name": "scripted", "sha256": "0" * 64}
    assert [run[0] for run in form["provenance"]["runs"]] == ["run"]
    review, (again,), state = in_the_journal(path)
    assert (review, state) == (Review("signed"), "signed")
    assert again == signature


def test_a_signed_slide_takes_no_change_until_it_is_amended(path: Path) -> None:
    signature = signed(path)
    with JournalDesk(path) as desk:
        before = desk.snapshot("one")
        changes: list[Callable[[], object]] = [
            lambda: desk.begin("one", "CD"),
            lambda: desk.classify("one", [3], "monocyte", None, "CD"),
            lambda: desk.confirm("one", [3], "CD"),
            lambda: desk.undo("one", "AB"),
            lambda: desk.undo("one", "CD"),
            lambda: desk.add_cell("one", 0, 600.0, 610.0, "monocyte", "CD"),
            lambda: desk.comment("one", "but", "CD"),
            lambda: desk.settle("one", [3], "monocyte", None, "CD"),
            lambda: desk.sign("one", "CD"),
        ]
        for change in changes:
            with refused("signed"):
                change()
        assert desk.snapshot("one") == before
        desk.amend("one", "CD", "cell 3 is a monocyte")
        reopened = desk.snapshot("one")
        assert reopened.info.review.state == "in review"
        assert reopened.signatures == (signature,)
        assert_equal_to_the_file(desk)
        desk.classify("one", [3], "monocyte", None, "CD")
        second = desk.sign("one", "CD", despite=BECAUSE)
        assert desk.snapshot("one").info.review.state == "amended"
        assert desk.snapshot("one").signatures == (signature, second)
        assert_equal_to_the_file(desk)
    first_form, second_form = json.loads(signature.signed), json.loads(second.signed)
    assert first_form["cells"][3][:2] != second_form["cells"][3][:2] == [3, "monocyte"]
    assert second.sha256 != signature.sha256
    review, signatures, state = in_the_journal(path)
    assert (review, signatures, state) == (Review("amended"), [signature, second], "amended")


def test_a_reopened_slide_is_preliminary_again(path: Path) -> None:
    signed(path)
    with JournalDesk(path) as desk:
        desk.amend("one", "CD", "wrong slide")
    assert in_the_journal(path)[0] == Review("in review")


def test_every_cell_confirmed_is_a_claim_of_persons(path: Path) -> None:
    with JournalDesk(path) as desk:
        cells = [one.cell_id for one in desk.snapshot("one").cells if not one.partial]
        desk.confirm("one", cells[1:], "AB")
    assert not in_the_journal(path)[0].every_cell_confirmed
    with JournalDesk(path) as desk:
        desk.confirm("one", cells[:1], "CD")
        desk.sign("one", "CD", despite=BECAUSE)
    assert in_the_journal(path)[0] == Review("signed", every_cell_confirmed=True)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every leaf."""
    if isinstance(value, dict):
        return [one for key, inner in value.items() for one in _paths(inner, (*path, key))]
    if isinstance(value, list):
        return [one for key, inner in enumerate(value) for one in _paths(inner, (*path, key))]
    return [path]


def test_the_hash_changes_when_any_of_it_does(path: Path) -> None:
    signature = signed(path)
    form = json.loads(signature.signed)
    leaves = _paths(form)
    assert len(leaves) > 300
    for leaf in leaves:
        other = copy.deepcopy(form)
        inside = other
        for key in leaf[:-1]:
            inside = inside[key]
        inside[leaf[-1]] = "other" if inside[leaf[-1]] != "other" else None
        changed = canonical(other)
        assert sha256_of(changed) != signature.sha256
        assert fault_of(changed, signature.sha256, form) is not None
        if leaf != ("form",):
            assert fault_of(changed, sha256_of(changed), form) is not None, leaf
    assert fault_of(signature.signed, signature.sha256, form) is None


TAMPERED = {
    "a look": "UPDATE looks SET probabilities = (SELECT probabilities FROM looks WHERE box = 9) WHERE box = 5",
    "a correction": (
        "UPDATE review_events SET body = replace(body, '\"monocyte\"', '\"lymphocyte\"') WHERE number = 0"
    ),
    "who corrected": "UPDATE review_events SET by = 'ZZ' WHERE number = 0",
    "who signed": "UPDATE review_events SET by = 'ZZ' WHERE number = 1",
    "when it was signed": "UPDATE review_events SET given_utc = '2020-01-01T00:00:00.000000Z' WHERE number = 1",
    "the model": "UPDATE sessions SET rules = replace(rules, '0000', '1111')",
    "the program": "UPDATE runs SET program = '9.9'",
    "the hash": "UPDATE review_events SET body = replace(body, substr(body, 30, 8), 'abcdef01') WHERE number = 1",
}


@pytest.mark.parametrize("case", TAMPERED)
def test_who_changes_the_journal_breaks_the_signature_and_everything_says_so(
    path: Path, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed(path)
    assert main(["recount", str(path)]) == 0
    capsys.readouterr()
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(TAMPERED[case]).rowcount > 0
    review, (signature,), _ = in_the_journal(path)
    assert signature.fault is not None
    assert (review.state, review.fault) == ("in review", signature.fault)
    assert main(["recount", str(path)]) == 1
    said = capsys.readouterr()
    assert "does not hold" in said.err
    assert "signature does not hold" not in said.out or "signed by" in said.out
    assert main(["report", str(path), "-o", str(tmp_path / "a.html")]) == 0
    assert "Signature does not hold" in (tmp_path / "a.html").read_text()
    with JournalDesk(path) as desk:
        assert desk.verify("one")[0].fault == signature.fault == desk.snapshot("one").signatures[0].fault


def test_what_stands_beside_the_signature_can_not_be_exchanged(path: Path) -> None:
    signature = signed(path)
    form = json.loads(signature.signed)
    form["cells"][3][1] = "blast"
    assert "its SHA-256 is another" in (fault_of(canonical(form), signature.sha256, form) or "")


def test_a_verdict_that_forbids_it_needs_a_reason(path: Path) -> None:
    with JournalDesk(path) as desk:
        found = differential_of(desk).verdict
        assert found is not None
        slide = desk._slides["one"]
        if found.state != "do not use":
            real = slide.corrections.count.differential

            def forbidden(*, final: bool) -> Any:
                differential = real(final=final)
                verdict = msgspec.structs.replace(found, state="do not use")
                return msgspec.structs.replace(differential, verdict=verdict)

            slide.corrections.count.differential = forbidden  # type: ignore[method-assign]
        with refused("do not use"):
            desk.sign("one", "AB")
        with refused("bad text"):
            desk.sign("one", "AB", despite=" ")
        assert desk.sign("one", "AB", despite=BECAUSE).despite == BECAUSE


def test_a_page_of_a_signed_slide_says_so(path: Path, tmp_path: Path) -> None:
    def page() -> str:
        assert main(["report", str(path), "-o", str(tmp_path / "a.html")]) == 0
        return (tmp_path / "a.html").read_text()

    assert "Not reviewed, not signed." in page()
    signature = signed(path)
    text = page()
    assert "Not reviewed" not in text
    assert "This result is signed." in text
    assert signature.sha256 in text
    with JournalDesk(path) as desk:
        desk.amend("one", "CD", "wrong")
    text = page()
    assert "In review, not signed." in text
    assert "the result signed before is being amended" in text
    assert signature.sha256 in text


# The command


def sign(path: Path, *words: str) -> int:
    return main(["sign", str(path), *words])


def test_the_command_signs_and_says_what(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sign(path, "--reviewer", "AB", "--despite", BECAUSE) == 0
    _, (signature,), _ = in_the_journal(path)
    said = capsys.readouterr().out
    total = json.loads(signature.signed)["differential"]["total"]
    assert said.startswith(f"slide: signed by AB, {signature.at}, SHA-256 {signature.sha256}; {total} white cells, ")
    assert said.endswith("0 of 41 cells reviewed\n")
    assert sign(path, "--reviewer", "CD", "--despite", BECAUSE) == 1
    assert "got a slide that AB signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--reviewer", "A B"], 2, "--reviewer: got the initials 'A B'"),
        ([], 2, "--reviewer"),
        (["--reviewer", "AB", "--source", "other"], 2, "got no slide of that name"),
        (["--reviewer", "AB", "--despite", "\x07"], 2, "got a control character"),
    ],
)
def test_bad_usage_of_the_command(
    path: Path, words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(path, *words) == status
    assert said in capsys.readouterr().err
    assert in_the_journal(path)[2] == "unsigned"


def test_one_slide_is_signed_at_a_time(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_slide(path, 5, session="two", seed=1)
    assert sign(path, "--reviewer", "AB", "--source", "slide") == 2
    assert "got 2 slides, expected one" in capsys.readouterr().err
    assert sign(path, "--reviewer", "AB", "--session", "two", "--despite", BECAUSE) == 0
    with JournalDesk(path) as desk:
        assert [one.review.state for one in desk.sessions()] == ["unsigned", "signed"]


def test_a_slide_that_still_runs_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_slide(tmp_path / "cut.db", 5, finish=False)
    assert sign(path, "--reviewer", "AB") == 1
    assert "whose run has not ended" in capsys.readouterr().err
    whole = write_slide(tmp_path / "whole.db", 5)
    with JournalDesk(whole):
        assert sign(whole, "--reviewer", "AB") == 1
    assert "another process has locked" in capsys.readouterr().err
    assert sign(tmp_path / "none.db", "--reviewer", "AB") == 1
    assert sign(tmp_path, "--reviewer", "AB") == 1


def test_refusals_are_one_exception_with_a_code() -> None:
    refusal = ReviewRefused("signed", "got a signed slide")
    assert (refusal.code, refusal.reason, str(refusal)) == ("signed", *["got a signed slide"] * 2)
