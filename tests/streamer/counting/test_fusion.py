import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import Attribute
from streamer.counting.fusion import Fusion, FusionConfig
from streamer.records import LOW_CONFIDENCE, UNLIKE_TRAINING, Classifications

CLASSES = ("neutrophil", "lymphocyte", "monocyte")
SUBCLASSES = ("band neutrophil", "segmented neutrophil")
ATTRIBUTES = (Attribute("nucleus", ("round", "bent", "split")), Attribute("ratio", ("low", "high")))
ONE = np.float32([1])


def looks(*rows, subclasses=None):
    probabilities = np.array(rows, np.float32)
    subclasses = np.zeros((len(rows), 0)) if subclasses is None else np.array(subclasses)
    names = SUBCLASSES if subclasses.shape[1] else ()
    return Classifications(probabilities, CLASSES, subclasses.astype(np.float32), names, ("neutrophil",) * len(names))


def fused(*rows, weights=None, config=None):
    fusion = Fusion(config or FusionConfig())
    cell = fusion.new_rows(1)
    for i, row in enumerate(rows):
        fusion.add(cell, looks(row), np.float32([1.0 if weights is None else weights[i]]))
    return fusion.probabilities(cell)[0]


def test_one_look_is_what_it_says():
    assert fused((0.7, 0.2, 0.1)) == pytest.approx((0.7, 0.2, 0.1), abs=1e-5)


def test_two_equal_looks_are_a_little_surer_than_one_and_far_from_independent():
    twice = fused((0.7, 0.2, 0.1), (0.7, 0.2, 0.1))
    independent = np.array([0.49, 0.04, 0.01]) / 0.54
    assert 0.7 < twice[0] < 0.5 * (0.7 + independent[0])
    # Two looks count as 2 / 1.7 independent ones.
    expected = np.array([0.7, 0.2, 0.1]) ** (2 / 1.7)
    assert twice == pytest.approx(expected / expected.sum(), abs=1e-5)


def test_a_thousand_equal_looks_stay_below_one_in_proportion_to_the_correlation():
    many = fused(*[(0.7, 0.2, 0.1)] * 1000)
    expected = np.array([0.7, 0.2, 0.1]) ** (1 / 0.7)
    assert many == pytest.approx(expected / expected.sum(), abs=2e-3)


def test_looks_that_contradict_each_other_leave_the_class_open():
    fusion = Fusion(FusionConfig(unclassified_below=0.5))
    cell = fusion.new_rows(1)
    fusion.add(cell, looks((0.9, 0.05, 0.05)), np.float32([1]))
    assert fusion.classes(cell).tolist() == [0]
    fusion.add(cell, looks((0.05, 0.9, 0.05)), np.float32([1]))
    assert fusion.probabilities(cell)[0][:2] == pytest.approx((0.466, 0.466), abs=0.01)
    assert fusion.classes(cell).tolist() == [-1]


def test_neither_the_last_nor_the_loudest_look_decides():
    """Three moderate looks outweigh one confident one that came last."""
    result = fused((0.6, 0.3, 0.1), (0.6, 0.3, 0.1), (0.6, 0.3, 0.1), (0.02, 0.9, 0.08))
    assert result[1] > result[2]
    assert abs(result[0] - result[1]) < 0.25


def test_a_light_look_says_little():
    heavy = fused((0.7, 0.2, 0.1), (0.1, 0.8, 0.1))
    light = fused((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), weights=(1.0, 0.1))
    assert light[0] > 0.6 > heavy[0]


def test_one_look_cannot_rule_a_class_out_for_ever():
    result = fused((0.0, 1.0, 0.0), *[(0.95, 0.03, 0.02)] * 8)
    assert result[0] > 0.5


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=6), st.data()
)
def test_the_order_of_looks_does_not_matter(rows, data):
    rows = [tuple(np.array(row) / sum(row)) for row in rows]
    shuffled = data.draw(st.permutations(rows))
    assert fused(*shuffled) == pytest.approx(fused(*rows), abs=1e-4)
    assert fused(*rows).sum() == pytest.approx(1, abs=1e-5)


def test_rows_are_kept_apart_while_they_grow():
    fusion = Fusion(FusionConfig())
    first = fusion.new_rows(1)
    fusion.add(first, looks((0.7, 0.2, 0.1)), np.float32([1]))
    later = fusion.new_rows(500)
    fusion.add(later[-1:], looks((0.1, 0.8, 0.1)), np.float32([1]))
    assert fusion.probabilities(first)[0] == pytest.approx((0.7, 0.2, 0.1), abs=1e-5)
    assert fusion.probabilities(later[-1:])[0] == pytest.approx((0.1, 0.8, 0.1), abs=1e-5)
    assert np.isnan(fusion.probabilities(later[:1])).all()
    assert fusion.classes(later[:1]).tolist() == [-1]


def test_subclasses_are_fused_within_their_parent():
    fusion = Fusion(FusionConfig(unclassified_below=0.5))
    rows = fusion.new_rows(3)
    fusion.add(
        rows,
        looks((0.9, 0.05, 0.05), (0.9, 0.05, 0.05), (0.05, 0.9, 0.05), subclasses=[(0.8, 0.2), (0.5, 0.5), (0.8, 0.2)]),
        np.ones(3, np.float32),
    )
    assert fusion.subclass_probabilities(rows).sum(1) == pytest.approx([1, 1, 1], abs=1e-5)
    subclasses = fusion.subclasses(rows, fusion.classes(rows))
    assert subclasses[0] == 0
    assert subclasses[2] == -1  # a lymphocyte has none


def test_joined_rows_hold_the_looks_of_both():
    fusion = Fusion(FusionConfig())
    a, b = fusion.new_rows(2)
    fusion.add(np.array([a]), looks((0.7, 0.2, 0.1)), np.float32([1]))
    fusion.add(np.array([b]), looks((0.4, 0.5, 0.1)), np.float32([1]))
    fusion.join(int(a), int(b))
    assert fusion.probabilities(np.array([a]))[0] == pytest.approx(fused((0.7, 0.2, 0.1), (0.4, 0.5, 0.1)), abs=1e-5)


def test_a_joined_row_has_no_looks_of_its_own_any_more():
    fusion = Fusion(FusionConfig())
    rows = fusion.new_rows(2)
    fusion.add(rows, looks((0.7, 0.2, 0.1), (0.4, 0.5, 0.1)), np.ones(2, np.float32))
    fusion.join(0, 1)
    assert np.isnan(fusion.probabilities(rows[1:])).all()
    assert (fusion.classes(rows[1:]).tolist(), fusion.novelty(rows[1:]).tolist()) == ([-1], [1])
    fusion.add(rows[1:], looks((0.1, 0.8, 0.1)), ONE)
    assert fusion.probabilities(rows[1:])[0] == pytest.approx((0.1, 0.8, 0.1), abs=1e-5)


def test_a_light_look_alone_is_held_back_by_its_weight_and_by_nothing_else():
    alone = fused((0.7, 0.2, 0.1), weights=(0.25,))
    expected = np.array([0.7, 0.2, 0.1]) ** 0.25
    assert alone == pytest.approx(expected / expected.sum(), abs=1e-5)


def everything(*rows, subclasses, values, novelty):
    """Looks with all that a classifier may say."""
    return Classifications(
        *(np.float32(rows), CLASSES, np.float32(subclasses), SUBCLASSES, ("neutrophil",) * 2),
        attribute_probabilities=np.float32(values),
        attributes=ATTRIBUTES,
        novelty=np.float32(novelty),
    )


TWO = everything(
    *((0.7, 0.2, 0.1), (0.3, 0.6, 0.1)),
    subclasses=[(0.8, 0.2), (0.4, 0.6)],
    values=[(0.6, 0.3, 0.1, 0.2, 0.8), (0.1, 0.8, 0.1, 0.7, 0.3)],
    novelty=[0.2, 0.6],
)


def all_of(fusion, row):
    rows = np.array([row])
    told = fusion.probabilities, fusion.subclass_probabilities, fusion.attribute_probabilities
    return np.concatenate([*(tell(rows)[0] for tell in told), fusion.novelty(rows)])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_looks_at_one_cell_in_one_call_count_as_in_two(order):
    """Of everything that looks say; the weights differ, so that none can be forgotten."""
    weights, order = np.float32([0.9, 0.4]), list(order)
    together, apart = Fusion(FusionConfig()), Fusion(FusionConfig())
    for fusion in (together, apart):
        fusion.new_rows(2)
    together.add(np.array([1, 1]), TWO[np.array(order)], weights[order])
    for look in order:
        apart.add(np.array([1]), TWO[np.array([look])], weights[[look]])
    np.testing.assert_allclose(all_of(together, 1), all_of(apart, 1), rtol=1e-5)
    assert np.isnan(all_of(together, 0)[:-1]).all()


def test_every_sum_is_weighted():
    """Weights of .9 and .4: looks of 1.3 that count as 1.3 / (1 + .3 r) independent ones."""
    fusion = Fusion(FusionConfig(look_correlation=0.5))
    rows = np.repeat(fusion.new_rows(1), 2)
    fusion.add(rows, TWO, np.float32([0.9, 0.4]))
    pairs = [
        (TWO.probabilities, fusion.probabilities, [slice(0, 3)]),
        (TWO.subclass_probabilities, fusion.subclass_probabilities, [slice(0, 2)]),
        (TWO.attribute_probabilities, fusion.attribute_probabilities, [slice(0, 3), slice(3, 5)]),
    ]
    for said, tell, groups in pairs:
        for columns in groups:
            odds = (said[0, columns] ** 0.9 * said[1, columns] ** 0.4) ** (1 / 1.15)
            np.testing.assert_allclose(tell(rows[:1])[0, columns], odds / odds.sum(), rtol=1e-5)
    assert fusion.novelty(rows[:1]) == pytest.approx([0.2])


def test_one_look_rules_no_subclass_and_no_attribute_out_for_ever():
    fusion = Fusion(FusionConfig(min_probability=0.01, look_correlation=0.0))
    row = fusion.new_rows(1)
    sure = everything((1, 0, 0), subclasses=[(1, 0)], values=[(1, 0, 0, 0, 1)], novelty=[0])
    fusion.add(row, sure, ONE)
    floor = 0.01 / 1.01
    assert fusion.subclass_probabilities(row)[0] == pytest.approx([1 - floor, floor])
    assert fusion.attribute_probabilities(row)[0, 3:] == pytest.approx([floor, 1 - floor])
    assert fusion.attribute_probabilities(row)[0, :3] == pytest.approx([1 / 1.02, 0.01 / 1.02, 0.01 / 1.02])


def test_classes_and_subclasses_are_named_from_the_threshold_on():
    said = Classifications(
        *(np.float32([[0.45, 0.35, 0.2]]), CLASSES, np.float32([[0.45, 0.35, 0.2]])),
        *(("band", "segmented", "ring"), ("neutrophil",) * 3),
    )

    def named(threshold):
        fusion = Fusion(FusionConfig(unclassified_below=threshold))
        row = fusion.new_rows(1)
        fusion.add(row, said, ONE)
        best = fusion.probabilities(row)[0, 0], fusion.subclass_probabilities(row)[0, 0]
        return fusion.classes(row).tolist(), fusion.subclasses(row, np.int16([0])).tolist(), best

    *_, (of_class, of_subclass) = named(0.5)
    assert named(float(of_class))[0] == [0]
    assert named(float(np.nextafter(of_class, np.float32(1))))[0] == [-1]
    assert named(float(of_subclass))[1] == [0]
    assert named(float(np.nextafter(of_subclass, np.float32(1))))[1] == [-1]


def test_subclasses_of_two_parents_are_each_fused_by_themselves():
    fusion = Fusion(FusionConfig())
    row = fusion.new_rows(1)
    said, parents = (0.8, 0.2, 0.3, 0.7), ("neutrophil", "neutrophil", "lymphocyte", "lymphocyte")
    two = Classifications(
        *(np.float32([[0.1, 0.8, 0.1]]), CLASSES, np.float32([said])),
        *(("band", "segmented", "small", "variant"), parents),
    )
    fusion.add(row, two, ONE)
    assert fusion.subclass_probabilities(row)[0] == pytest.approx(said, abs=1e-5)
    assert fusion.subclasses(row, np.int16([0])).tolist() == [0]
    assert fusion.subclasses(row, np.int16([1])).tolist() == [3]
    assert fusion.subclasses(row, np.int16([2])).tolist() == [-1]


def test_a_restored_one_numbers_its_rows_on():
    fusion = Fusion(FusionConfig())
    fusion.new_rows(3)
    again = Fusion(FusionConfig())
    again.restore({name: column.copy() for name, column in fusion.columns().items()}, fusion.names)
    assert again.new_rows(2).tolist() == fusion.new_rows(2).tolist() == [3, 4]


def test_another_classifiers_subclasses_are_refused():
    fusion = Fusion(FusionConfig())
    row = fusion.new_rows(1)
    fusion.add(row, looks((0.7, 0.2, 0.1)), ONE)
    with pytest.raises(ValueError, match=r"subclasses \('band neutrophil', 'segmented neutrophil'\), expected"):
        fusion.add(row, looks((0.7, 0.2, 0.1), subclasses=[(0.5, 0.5)]), ONE)


def test_another_classifier_is_refused():
    fusion = Fusion(FusionConfig())
    cell = fusion.new_rows(1)
    fusion.add(cell, looks((0.7, 0.2, 0.1)), np.float32([1]))
    other = Classifications(np.ones((1, 1), np.float32), ("blast",), np.zeros((1, 0), np.float32), (), ())
    with pytest.raises(ValueError, match=r"got classes .*blast.* expected .*neutrophil"):
        fusion.add(cell, other, np.float32([1]))


def told(*rows, novelty=None, values=(0.6, 0.3, 0.1, 0.2, 0.8)):
    return Classifications(
        np.array(rows, np.float32),
        CLASSES,
        np.zeros((len(rows), 0), np.float32),
        (),
        (),
        attribute_probabilities=np.tile(np.float32(values), (len(rows), 1)),
        attributes=ATTRIBUTES,
        novelty=None if novelty is None else np.float32(novelty),
    )


SURE = (0.9, 0.05, 0.05)


def test_a_cell_is_unlike_the_training_cells_only_while_all_its_looks_are():
    fusion = Fusion(FusionConfig(novel_above=0.99))
    cell = fusion.new_rows(1)
    assert fusion.reason(0) is None  # nobody looked yet
    fusion.add(cell, told(SURE, novelty=[0.999]), ONE)
    fusion.add(cell, told(SURE, novelty=[0.995]), ONE)
    assert fusion.classes(cell).tolist() == [-1]
    assert fusion.reason(0) == UNLIKE_TRAINING
    assert fusion.novelty(cell) == pytest.approx([0.995])
    assert fusion.probabilities(cell)[0].argmax() == 0
    fusion.add(cell, told(SURE, novelty=[0.99]), ONE)  # at the threshold is not beyond it
    assert fusion.classes(cell).tolist() == [0]
    assert fusion.reason(0) is None


def test_an_unsure_cell_says_so_and_without_a_threshold_nothing_is_novel():
    fusion = Fusion(FusionConfig())
    rows = fusion.new_rows(2)
    fusion.add(rows, told((0.4, 0.35, 0.25), SURE, novelty=[1, 1]), np.ones(2, np.float32))
    assert [fusion.reason(row) for row in (0, 1)] == [LOW_CONFIDENCE, None]
    silent = Fusion(FusionConfig(novel_above=0.5))
    row = silent.new_rows(1)
    silent.add(row, told(SURE), ONE)
    assert silent.classes(row).tolist() == [0]
    assert silent.novelty(row).tolist() == [0]


def test_attributes_are_pooled_log_linearly_each_by_itself():
    fusion = Fusion(FusionConfig())
    cell = fusion.new_rows(1)
    assert fusion.attributes_of(0) is None
    fusion.add(cell, told(SURE, values=(0.6, 0.3, 0.1, 0.2, 0.8)), ONE)
    fusion.add(cell, told(SURE, values=(0.2, 0.7, 0.1, 0.2, 0.8)), ONE)
    odds = (np.array([0.12, 0.21, 0.01])) ** (1 / 1.7)
    np.testing.assert_allclose(fusion.attribute_probabilities(cell)[0, :3], odds / odds.sum(), rtol=1e-4)
    said = fusion.attributes_of(0)
    assert {name: one.value for name, one in said.items()} == {"nucleus": "bent", "ratio": "high"}
    assert said["ratio"].confidence == pytest.approx(0.8 ** (2 / 1.7) / (0.8 ** (2 / 1.7) + 0.2 ** (2 / 1.7)), rel=1e-4)


def test_joined_and_restored_rows_keep_attributes_and_the_nearest_look():
    fusion = Fusion(FusionConfig(novel_above=0.9))
    rows = fusion.new_rows(2)
    fusion.add(rows, told(SURE, SURE, novelty=[0.95, 0.3]), np.ones(2, np.float32))
    again = Fusion(FusionConfig(novel_above=0.9))
    again.restore({name: column.copy() for name, column in fusion.columns().items()}, fusion.names)
    for one in (fusion, again):
        assert one.classes(rows).tolist() == [-1, 0]
        one.join(0, 1)
        assert one.classes(rows[:1]).tolist() == [0]
        assert one.novelty(rows[:1]) == pytest.approx([0.3])
        assert one.attributes_of(0)["nucleus"].value == "round"


def test_a_subclass_without_siblings_is_told_against_the_usual_cell():
    """A variant lymphocyte or a usual one: nothing else is called a lymphocyte's subclass."""

    def of(*shares: float) -> float:
        fusion = Fusion(FusionConfig())
        cell = fusion.new_rows(1)
        for share in shares:
            look = Classifications(
                np.array([[0.1, 0.8, 0.1]], np.float32),
                CLASSES,
                np.array([[share]], np.float32),
                ("variant lymphocyte",),
                ("lymphocyte",),
            )
            fusion.add(cell, look, np.float32([1]))
        return float(fusion.subclass_probabilities(cell)[0, 0])

    assert of(0.2) == pytest.approx(0.2, abs=1e-4)
    assert of(0.9) == pytest.approx(0.9, abs=1e-4)
    assert of(0.2, 0.8) == pytest.approx(0.5, abs=1e-4)
    odds = 4 ** (2 / 1.7)  # two looks count as 2 / 1.7 independent ones
    assert of(0.8, 0.8) == pytest.approx(odds / (1 + odds), abs=1e-3)


def test_a_cell_has_the_same_probabilities_to_the_bit_alone_and_beside_others():
    rng = np.random.default_rng(5)
    fusion = Fusion(FusionConfig())
    rows = fusion.new_rows(200)
    shares = rng.dirichlet(np.full(len(CLASSES), 0.5), 200)
    fusion.add(rows, looks(*shares, subclasses=rng.uniform(0.01, 0.99, (200, 2))), np.ones(200, np.float32))
    for asked in (fusion.probabilities, fusion.subclass_probabilities):
        assert (asked(rows) == np.concatenate([asked(rows[i : i + 1]) for i in range(200)])).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "lighten", "join", "new", "ask"]), st.integers(0, 7), st.integers(0, 7)))
)
def test_what_is_remembered_of_probabilities_is_what_the_looks_say(steps):
    fusion = Fusion(FusionConfig())
    both = looks((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), subclasses=[(0.3, 0.7), (0.6, 0.4)])
    fusion.add(fusion.new_rows(2), both, np.ones(2, np.float32))
    for step, one, other in steps:
        row, second = one % fusion.rows, other % fusion.rows
        if step == "add":
            look = looks(((one + 1) / 10, (9 - one) / 10, 0), subclasses=[((other + 1) / 10, (9 - other) / 10)])
            fusion.add(np.array([row]), look, ONE)
        elif step == "lighten":
            fusion.lighten(np.array([row]), 0.3)
        elif step == "join" and row != second:
            fusion.join(row, second)
        elif step == "new":
            fusion.new_rows(1 + 40 * one)
        every, forgetful = np.arange(fusion.rows), Fusion(FusionConfig())
        forgetful.restore(fusion.columns(), fusion.names)
        for asked in ("probabilities", "subclass_probabilities"):
            np.testing.assert_array_equal(getattr(fusion, asked)(every), getattr(forgetful, asked)(every))
        assert (fusion.surest(every) == np.nan_to_num(forgetful.probabilities(every)).max(1)).all()
