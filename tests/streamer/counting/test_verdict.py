"""Each reason of a verdict, at its limit and beyond it, and what it makes of a differential."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from engines.base import UsageError
from engines.zoo.card import Appearance
from engines.zoo.figures import MeasuredOn
from streamer.config import VERDICT_STATES, VerdictConfig, load_config
from streamer.counting.differential import Tally, differential
from streamer.counting.known import Known, known_of
from streamer.counting.verdict import SlideEvidence, judge, with_smudge_cells
from streamer.records import SourceProgress, WorstLaboratory
from tests.cases import FIVE, card

HOME, AWAY = (
    Appearance("home", (0.1, 0.1, 0.1), (0.3, 0.5, 0.2), 50.0, 0.45),
    Appearance("away", (0.3, 0.1, 0.1), (0.2, 0.3, 0.1), 80.0),
)
KNOWN = Known((HOME, AWAY), {"home": 2.0, "away": 12.0}, WorstLaboratory("far", 23.0))
GOOD = SlideEvidence(
    white_cells=100,
    unclassified=4,
    unlike_training=1,
    mean_novelty=0.5,
    seen={"neutrophil": 60, "lymphocyte": 36},
    smudge_cells=None,
    frames=200,
    rejected={"out of focus": 20},
    progress=SourceProgress(200, cut_short=False),
    slides={"slide7": 200},
    rbc_px=55.0,
    plasma=(0.1, 0.1, 0.12),
    red=(0.31, 0.5, 0.2),
    light_range=0.05,
    only_extent_px=20_000.0,
    has_colours=True,
    known=KNOWN,
)
CONFIG = VerdictConfig()


def codes(evidence: SlideEvidence, config: VerdictConfig = CONFIG) -> list[str]:
    return [reason.code for reason in judge(evidence, config).reasons]


def test_nothing_against_a_slide_makes_it_ready_for_review():
    verdict = judge(GOOD, CONFIG)
    assert (verdict.state, verdict.reasons) == ("ready for review", ())


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"white_cells": 8, "unclassified": 0, "unlike_training": 0}, "few_cells", "8 of 100"),
        (
            {"progress": SourceProgress(112, cut_short=True), "frames": 35, "rejected": {}},
            "cut_short",
            "35 of 112 frames",
        ),
        ({"progress": SourceProgress(None, cut_short=True), "frames": 35, "rejected": {}}, "cut_short", "35 frames"),
        ({"unlike_training": 11}, "unlike_training", "11 % (11 of 100)"),
        ({"unclassified": 16}, "unclassified", "16 % (16 of 100)"),
        ({"mean_novelty": 0.7}, "unfamiliar", "higher by 0.25"),
        ({"rejected": {"out of focus": 99, "lost": 2}}, "frames_rejected", "99 out of focus, 2 lost"),
        ({"progress": SourceProgress(None, {"stale": 30})}, "frames_lost", "30 stale"),
        ({"progress": SourceProgress(None, {}, {"unreadable": 30})}, "frames_lost", "30 unreadable"),
        ({"rbc_px": 200.0, "only_extent_px": None}, "magnification", "200 px wide"),
        ({"rbc_px": 20.0}, "magnification", "20 px wide"),
        ({"red": (0.9, 0.5, 0.2)}, "stain", "0.60"),
        ({"light_range": 0.9}, "light_changes", "0.90"),
        ({"slides": {"A-1": 90, "B-2": 10}}, "several_slides", "A-1 90, B-2 10"),
        ({"only_extent_px": 3_000.0}, "one_area", "0.41 mm"),
        ({"smudge_cells": 11}, "smudge_cells", "albumin smear"),
        ({"seen": {"blast": 1}}, "person_needed", "blast 1"),
        ({"unclassified": 6}, "person_needed", "6 % (6 of 100)"),
        ({"rbc_px": None}, "not_measured", "magnification"),
        ({"red": None}, "not_measured", "stain"),
        ({"progress": None}, "not_measured", "losses"),
        ({"has_colours": False}, "not_measured", "colours"),
        ({"known": Known((), {}, None)}, "not_measured", "card"),
    ],
)
def test_a_reason_says_what_was_measured_and_makes_its_state(change, code, text):
    verdict = judge(replace(GOOD, **change), CONFIG)
    (reason,) = [reason for reason in verdict.reasons if reason.code == code]
    assert text in reason.text
    assert {one.code for one in verdict.reasons} <= {code, "person_needed"}
    assert verdict.state == VERDICT_STATES[code]


@pytest.mark.parametrize(
    "change",
    [
        {"progress": SourceProgress(None, {"queue full": 900, "passed over": 900})},
        {"white_cells": 100},
        {"unlike_training": 10, "unclassified": 5},
        {"mean_novelty": 0.54},
        {"mean_novelty": None},
        {"rejected": {"out of focus": 100}},
        {"progress": SourceProgress(None, {"stale": 22})},
        {"rbc_px": 119.0},
        {"rbc_px": 34.0},
        {"slides": {"A-1": 90, "B-2": 2}},
        {"only_extent_px": None},
        {"smudge_cells": 10},
        {"light_range": None},
        {"plasma": (0.4, 0.4, 0.42)},
    ],
)
def test_at_its_limit_nothing_is_said(change):
    assert codes(replace(GOOD, **change)) == []


def test_the_gravest_reason_comes_first_and_decides():
    evidence = replace(GOOD, white_cells=8, unclassified=0, unlike_training=0, red=(0.9, 0.5, 0.2), seen={"blast": 1})
    verdict = judge(evidence, CONFIG)
    assert [reason.code for reason in verdict.reasons] == ["stain", "few_cells", "person_needed"]
    assert verdict.state == "do not use"


def test_the_configuration_says_what_a_reason_makes():
    config = VerdictConfig(states={"few_cells": "do not use", "stain": "ready for review"})
    assert judge(replace(GOOD, white_cells=8, unclassified=0, unlike_training=0), config).state == "do not use"
    verdict = judge(replace(GOOD, red=(0.9, 0.5, 0.2)), config)
    assert (verdict.state, [reason.code for reason in verdict.reasons]) == ("ready for review", ["stain"])


def test_thresholds_and_states_are_read_from_a_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[verdict]\nleast_cells = 200\n[verdict.states]\none_area = "ready for review"\n')
    config = load_config(str(file), {}).verdict
    assert (config.least_cells, config.state_of("one_area"), config.state_of("stain")) == (
        200,
        "ready for review",
        "do not use",
    )
    file.write_text('[verdict.states]\none_aria = "incomplete"\n')
    with pytest.raises(UsageError, match=r"one_aria.*one_area"):
        load_config(str(file), {})


def test_the_nearest_laboratory_is_named_with_what_is_wrong_there_and_the_worst_unseen_one_always():
    verdict = judge(replace(GOOD, plasma=(0.31, 0.1, 0.1), red=(0.2, 0.3, 0.1), rbc_px=80.0), CONFIG)
    assert (verdict.nearest.name, verdict.nearest.wrong_percent) == ("away", 12.0)
    assert verdict.nearest.distance == pytest.approx(0.008, abs=0.001)
    assert judge(replace(GOOD, rbc_px=90.0), CONFIG).nearest.name == "away"  # by magnification
    assert judge(replace(GOOD, red=None), CONFIG).nearest is None
    assert judge(replace(GOOD, red=None), CONFIG).worst_unseen == WorstLaboratory("far", 23.0)


def test_smudge_cells_are_given_as_lymphocytes_too_where_there_are_many():
    counts = {"neutrophil": 20, "lymphocyte": 70, "monocyte": 10, "smudge cell": 100}
    found = differential(Tally(classes=counts), (*FIVE, "smudge cell"))
    verdict = judge(replace(GOOD, smudge_cells=100), CONFIG)
    both = with_smudge_cells(verdict, found)
    assert found.classes["lymphocyte"].percent == 70.0
    assert {name: one.count for name, one in both.items() if one.count} == {
        "neutrophil": 20,
        "lymphocyte": 170,
        "monocyte": 10,
    }
    assert both["lymphocyte"].percent == 85.0
    assert with_smudge_cells(judge(GOOD, CONFIG), found) is None


def test_what_is_known_comes_from_the_card():
    tables = {
        MeasuredOn("home", "", "validation"): {"accuracy_classified": 0.9},
        MeasuredOn("home", "", "holdout"): {"accuracy_classified": 0.95},
        MeasuredOn("far", "left out", "validation"): {"accuracy_classified": 0.7},
        MeasuredOn("near", "left out", "validation"): {"accuracy_classified": 0.8},
        MeasuredOn("strange", "", "validation"): {"accuracy_classified": 0.75},
    }
    plain = replace(card("classifier", FIVE, ["white"] * 5, 0.5), training={"data": ["home", "far", "near"]})
    known = known_of(replace(plain, appearances=(HOME, AWAY), figures=tables))
    assert known == Known((HOME, AWAY), {"home": 5.0}, WorstLaboratory("far", 30.0))
    assert msgspec.json.decode(msgspec.json.encode(known), type=Known) == known
    assert known_of(plain) == Known((), {}, None)
    del tables[MeasuredOn("far", "left out", "validation")]
    assert known_of(replace(plain, figures=tables)).worst_unseen == WorstLaboratory("strange", 25.0)
