"""A reference beside its accepted result: what passes, and what of it fails by which words."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from contextlib import closing

import pytest

from streamer.journal import opened
from streamer.qc.counts import counted_slide
from streamer.qc.reference import checked_against
from tests.streamer.journal.journal_cases import write_walk


@pytest.fixture(scope="module")
def journals(tmp_path_factory):
    """The walk as it was counted, and with twelve cells named otherwise."""
    folder = tmp_path_factory.mktemp("reference")
    return write_walk(folder / "plain.db"), write_walk(folder / "renamed.db", ["basophil"] * 12)


@contextlib.contextmanager
def check(accepted, now, **how):
    with opened(str(accepted)) as one, opened(str(now)) as other:
        yield checked_against(
            counted_slide(one.sessions[0]), counted_slide(other.sessions[0]), **{"recording": True, **how}
        )


def spoiled(journal, tmp_path, sql, *values):
    path = tmp_path / "spoiled.db"
    path.write_bytes(journal.read_bytes())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(sql, values)
    return path


def test_the_same_count_passes(journals):
    plain, _ = journals
    with check(plain, plain) as found:
        assert found.failures == []
        assert found.changes == []
        kappa, unnamed, differing = found.kappa
        assert (kappa.kappa, differing) == (1.0, ())
        assert found.found == kappa.cells + unnamed == found.accepted.total == 16
        assert all(one.first == one.second and not one.differs for one in found.classes)


def test_cells_with_other_names_fail_by_kappa(journals):
    with check(*journals) as found:
        (failure,) = [one for one in found.failures if one.startswith("kappa")]
        assert found.kappa[0].kappa < 0.8
        assert failure == f"kappa {found.kappa[0].kappa:.2f}, at least 0.8 expected"
        assert found.found == 16
        assert found.kappa[2]
    with check(*journals, least_kappa=0.0) as found:
        assert not [one for one in found.failures if one.startswith("kappa")]


def test_cells_that_are_no_longer_found_fail(journals, tmp_path):
    plain, _ = journals
    fewer = spoiled(plain, tmp_path, "DELETE FROM frames WHERE frame_id > 12")
    with closing(sqlite3.connect(fewer)) as database, database:
        database.execute("DELETE FROM looks WHERE frame_id > 12")
    with check(plain, fewer) as found:
        assert found.found < 16
        assert f"only {found.found} of 16 white cells found again" in found.failures


def test_a_verdict_that_got_worse_fails_and_one_that_got_better_does_not(journals, tmp_path):
    plain, _ = journals
    verdict = {"verdict": {"states": {"few_cells": "do not use"}}}
    worse = spoiled(plain, tmp_path, "UPDATE runs SET configuration = ?", json.dumps(verdict))
    with check(plain, worse) as found:
        assert found.verdicts == ("incomplete", "do not use")
        assert found.failures == ["verdict: do not use, it was incomplete"]
    with check(worse, plain) as found:
        assert found.failures == []


def test_models_and_thresholds_that_changed_are_named_and_fail_nothing(journals, tmp_path):
    plain, _ = journals
    with closing(sqlite3.connect(plain)) as database:
        rules = json.loads(database.execute("SELECT rules FROM sessions").fetchone()[0])
    rules["classifier"]["sha256"] = "ab" * 32
    rules["operating_score"] = 0.41
    changed = spoiled(plain, tmp_path, "UPDATE sessions SET rules = ?", json.dumps(rules))
    with check(plain, changed) as found:
        assert {one.what for one in found.changes} == {"names the white cells", "a box counts from a score of"}
        by_what = {one.what: one for one in found.changes}
        assert by_what["names the white cells"].now.endswith(f"(SHA-256 {'ab' * 8}…)")
        assert by_what["a box counts from a score of"].now == "0.41"


def test_a_class_that_sampling_does_not_explain_fails(journals):
    with check(*journals) as found:
        differing = [one for one in found.classes if one.differs]
        assert "basophil" in {one.name for one in differing}
        for one in differing:
            low, high = one.expected
            assert f"{one.name}: {one.second} cells, {low} to {high} expected, {one.first} accepted" in found.failures
        assert len([one for one in found.failures if "expected, " in one]) == len(differing)


def test_a_recording_of_a_camera_goes_by_the_numbers_of_its_frames(journals, tmp_path):
    """A live run does not analyse every frame that its recording has."""
    plain, _ = journals
    live = spoiled(plain, tmp_path, "UPDATE sessions SET live = 1, address = 'camera:0'")
    with closing(sqlite3.connect(live)) as database, database:
        for table in ("frames", "looks"):
            database.execute(f"DELETE FROM {table} WHERE frame_id IN (7, 19)")
    with check(live, plain) as found:
        assert found.kappa[0].kappa > 0.7
        assert found.found >= 15
    with check(live, plain, recording=False) as found:
        assert found.kappa == "the frames of a camera are not the same twice"
        assert found.found is None
