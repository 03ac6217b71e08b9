"""Which flags a differential raises, what they say, and where it can't be said that there is none."""

from __future__ import annotations

import pytest

from streamer.config import FIVE_PART_RANGES
from streamer.counting.differential import CLOPPER_PEARSON, CONFIDENCE_SEQUENCE, Tally, differential

FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
ALL = (*FIVE, "immature granulocyte", "erythroblast", "platelet")
SUBCLASSES = ("band neutrophil", "segmented neutrophil", "metamyelocyte", "myelocyte", "promyelocyte")
PARENTS = ("neutrophil", "neutrophil", *3 * ("immature granulocyte",))
USUAL = {"neutrophil": 56, "lymphocyte": 34, "monocyte": 6, "eosinophil": 3, "basophil": 1}
"""100 cells, each class in its range."""
JUDGED = dict.fromkeys(FIVE, "not outside")


def count(*, subclasses=None, names=ALL, subclass_names=SUBCLASSES, ranges=FIVE_PART_RANGES, usual=USUAL, **others):
    """The differential of the usual count with other counts for some classes."""
    tally_of = {name: others.pop(name) for name in ("edge_seen", "seen_ids") if name in others}
    how = {name: others.pop(name) for name in ("error_rates", "method") if name in others}
    classes = {**usual, **{name.replace("_", " "): number for name, number in others.items()}}
    parents = PARENTS if subclass_names == SUBCLASSES else ()
    tally = Tally(classes=classes, subclasses=subclasses or {}, **tally_of)
    return differential(tally, names, subclass_names=subclass_names, subclass_parents=parents, ranges=ranges, **how)


def texts(result):
    return [flag.text for flag in result.flags]


def test_a_usual_count_raises_no_flag_and_all_ranges_were_judged():
    result = count()
    assert (result.flags, result.ranges) == ((), JUDGED)


def test_a_flag_says_value_count_limits_and_range():
    """The issue's own example."""
    result = count(usual={"basophil": 2, "neutrophil": 3}, method=CONFIDENCE_SEQUENCE)
    [flag] = result.flags
    assert flag.text == "basophil 40 % (2 of 5; limits 3–90; usual 0–1)"
    assert (flag.code, flag.class_, flag.direction) == ("range", "basophil", "high")
    assert (flag.count, flag.of, flag.percent, flag.range) == (2, 5, 40.0, (0.0, 1.0))
    assert (flag.low, flag.high) == (result.classes["basophil"].low, result.classes["basophil"].high)
    assert (flag.expected_by_error, flag.cell_ids) == (None, ())


def test_below_a_hundred_cells_a_range_may_be_left_and_no_other_is_judged():
    result = count(usual={"basophil": 20, "neutrophil": 79})
    assert result.ranges == {
        "neutrophil": "outside high",
        "lymphocyte": "outside low",
        "monocyte": "can't be judged",
        "eosinophil": "can't be judged",
        "basophil": "outside high",
    }
    assert [flag.class_ for flag in result.flags] == ["neutrophil", "lymphocyte", "basophil"]
    assert all(f"of {result.total};" in text for text in texts(result))
    assert count(usual={name: number - (name == "neutrophil") for name, number in USUAL.items()}).ranges == (
        dict.fromkeys(FIVE, "can't be judged")
    )


def test_nothing_counted_judges_no_range():
    result = count(usual={})
    assert (result.flags, result.ranges) == ((), dict.fromkeys(FIVE, "can't be judged"))


@pytest.mark.parametrize(
    ("name", "usual", "inside", "outside", "text"),
    [
        ("neutrophil", (40, 60), 69, 70, "neutrophil 70 % (70 of 100; limits 60–79; usual 40–60)"),
        ("neutrophil", (40, 60), 31, 30, "neutrophil 30 % (30 of 100; limits 21–40; usual 40–60)"),
        ("eosinophil", (1, 4), 8, 9, "eosinophil 9 % (9 of 100; limits 4–17; usual 1–4)"),
        ("band neutrophil", (0, 10), 16, 17, "band neutrophil 17 % (17 of 100; limits 10–26; usual 0–10)"),
    ],
)
def test_a_range_is_left_by_the_interval_and_not_by_the_point(name, usual, inside, outside, text):
    def counted(number):
        classes = {name: number, "lymphocyte": 100 - number}
        subclasses = {}
        if name in SUBCLASSES:
            classes, subclasses = {"neutrophil": 100}, {name: number, "segmented neutrophil": 100 - number}
        return count(usual=classes, subclasses=subclasses, ranges={name: usual})

    assert not usual[0] <= inside <= usual[1]
    assert (counted(inside).flags, counted(inside).ranges) == ((), {name: "not outside"})
    assert texts(counted(outside)) == [text]


@pytest.mark.parametrize(
    ("lymphocytes", "unclassified", "state"),
    [
        (9, 0, "outside low"),  # 4 to 17 %
        (9, 2, "outside low"),  # though both were lymphocytes: 11 of 100 are 6 to 19 %
        (9, 3, "can't be judged"),  # were they lymphocytes, it would be 12, up to 20.02 %
        (12, 3, "not outside"),
        (50, 0, "not outside"),  # 39.8 to 60.2 %
        (51, 0, "outside high"),
        (48, 5, "can't be judged"),
        (51, 40, "outside high"),
    ],
)
def test_no_range_rests_on_what_was_not_named(lymphocytes, unclassified, state):
    usual = {"lymphocyte": lymphocytes, "unclassified": unclassified, "neutrophil": 100 - lymphocytes - unclassified}
    result = count(usual=usual, ranges={"lymphocyte": (20.0, 40.0)})
    assert result.ranges == {"lymphocyte": state}
    assert [flag.direction for flag in result.flags if flag.code == "range"] == (
        [state.removeprefix("outside ")] if state.startswith("outside") else []
    )


def test_a_subclass_may_be_among_the_cells_of_its_class_that_have_none():
    ranges = {"segmented neutrophil": (30.0, 60.0)}
    named = count(usual={"neutrophil": 60, "lymphocyte": 40}, ranges=ranges, subclasses={"segmented neutrophil": 20})
    assert named.ranges == {"segmented neutrophil": "can't be judged"}
    bands = {"segmented neutrophil": 20, "band neutrophil": 40}
    told = count(usual={"neutrophil": 60, "lymphocyte": 40}, ranges=ranges, subclasses=bands)
    assert told.ranges == {"segmented neutrophil": "outside low"}


def test_a_class_that_the_model_cannot_name_is_not_judged():
    result = count(names=FIVE[:4], subclass_names=(), usual={**USUAL, "basophil": 0, "neutrophil": 57})
    assert result.ranges == {**JUDGED, "basophil": "can't be judged"}


@pytest.mark.parametrize("name", ["basophil", "eosinophil"])
def test_few_basophils_and_eosinophils_are_no_finding_unless_the_laboratory_says_so(name):
    usual = {"neutrophil": 1100, "lymphocyte": 700, "monocyte": 100, "eosinophil": 60, "basophil": 10, name: 0}
    assert count(usual=usual).ranges == JUDGED
    own = count(usual=usual, ranges={name: (0.5, 4.0)})
    assert [(flag.class_, flag.direction) for flag in own.flags] == [(name, "low")]


@pytest.mark.parametrize("name", ["promyelocyte", "myelocyte"])
def test_any_promyelocyte_or_myelocyte_is_flagged(name):
    result = count(immature_granulocyte=1, neutrophil=55, subclasses={name: 1}, seen_ids={name: (17,)})
    [flag] = result.flags
    assert flag.text == f"{name} seen 1 % (1 of 100; limits 0–6)"
    assert (flag.code, flag.class_, flag.direction, flag.cell_ids) == ("seen", name, "seen", (17,))


@pytest.mark.parametrize("name", ["myelocyte", "blast"])
def test_a_class_of_its_own_is_flagged_as_a_subclass_is(name):
    result = count(names=(*ALL, name), subclass_names=(), neutrophil=55, **{name: 1})
    assert texts(result) == [f"{name} seen 1 % (1 of 100; limits 0–6)"]


def test_an_immature_granulocyte_without_a_subclass_is_flagged():
    result = count(immature_granulocyte=3, neutrophil=53, subclasses={"metamyelocyte": 2})
    assert texts(result) == ["immature granulocyte without a subclass seen 1 % (1 of 100; limits 0–6)"]
    assert count(immature_granulocyte=2, neutrophil=54, subclasses={"metamyelocyte": 2}).flags == ()


def test_any_nucleated_red_cell_is_flagged():
    [flag] = count(erythroblast=2).flags
    assert flag.text == "nucleated red cell seen (2 beside 100 white cells)"
    assert (flag.class_, flag.count, flag.of, flag.percent, flag.low) == ("erythroblast", 2, 100, None, None)


def test_what_is_flagged_for_being_seen_is_flagged_at_an_edge_too():
    seen_ids = {"blast": (4, 9), "erythroblast": (5,)}
    result = count(
        names=(*ALL, "blast"), blast=1, neutrophil=55, seen_ids=seen_ids, edge_seen={"blast": 1, "erythroblast": 1}
    )
    blast, nucleated_red = result.flags
    assert blast.text == "blast seen 1 % (1 of 100; limits 0–6; 1 more cut by an edge)"
    assert (blast.count, blast.cell_ids) == (1, (4, 9))
    assert nucleated_red.text == "nucleated red cell seen (1 cut by an edge, in no percentage)"
    assert (nucleated_red.count, nucleated_red.cell_ids, result.nrbc) == (0, (5,), 0)


@pytest.mark.parametrize(("number", "flagged"), [(2, False), (3, True)])
def test_metamyelocytes_are_flagged_from_three_of_a_hundred_by_the_count_itself(number, flagged):
    result = count(immature_granulocyte=number, neutrophil=56 - number, subclasses={"metamyelocyte": number})
    expected = ["metamyelocyte 3 % (3 of 100; limits 0–9; usual 0–2)"] if flagged else []
    assert texts(result) == expected
    assert [(flag.code, flag.direction) for flag in result.flags] == [("left shift", "high")] * flagged


@pytest.mark.parametrize(("number", "flagged"), [(5, False), (6, True)])
def test_more_than_five_percent_unclassified_is_a_flag(number, flagged):
    result = count(unclassified=number, neutrophil=56 - number)
    assert [flag.code for flag in result.flags] == ["unclassified"] * flagged
    if flagged:
        assert texts(result) == ["unclassified 6 % (6 of 100; limits 2–13; usual 0–5)"]


def test_what_errors_alone_would_give_is_said_where_the_card_has_a_figure():
    result = count(names=(*ALL, "blast"), blast=1, erythroblast=1, neutrophil=55, error_rates={"blast": 0.004})
    assert [(flag.class_, flag.expected_by_error) for flag in result.flags] == [("blast", 0.4), ("erythroblast", None)]


def test_flags_follow_the_limits_that_are_shown():
    usual, ranges = {"neutrophil": 72, "lymphocyte": 28}, {"neutrophil": (40.0, 60.0)}
    assert count(usual=usual, ranges=ranges, method=CLOPPER_PEARSON).ranges == {"neutrophil": "outside high"}
    running = count(usual=usual, ranges=ranges, method=CONFIDENCE_SEQUENCE)
    assert (running.ranges, running.classes["neutrophil"].low < 60.0) == ({"neutrophil": "not outside"}, True)
