"""How the threshold for blasts is chosen by predicted cells, and what is said of how well it does."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from engines.zoo.card import parse_card  # noqa: E402
from streamer.config import FIVE_PART_RANGES  # noqa: E402
from streamer.counting.suspects import cells_needed  # noqa: E402
from tests.tools.metrics.predicted import predicted  # noqa: E402
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES  # noqa: E402
from tools.export.cards import toml  # noqa: E402
from tools.export.crops import class_tables  # noqa: E402
from tools.metrics.slide_flags import (  # noqa: E402
    OTHERS,
    SIZES,
    Scored,
    best_threshold,
    card_rows,
    choose,
    false_rates,
    flag_cells,
    flagged_by_error,
    found_slides,
    lasting_rate,
    measured,
    scored,
)

ORDINARY = dict.fromkeys(FIVE_PART_RANGES, 400)


def laboratories(**mistaken: float):
    """`mistaken`: by laboratory the share of its monocytes that look like blasts; patients are those of "clinic"."""
    found = {
        name: predicted(ORDINARY, seed=seed, mistaken=share) for seed, (name, share) in enumerate(mistaken.items())
    }
    blasts = {"blast": 120, "promyelocyte": 30}
    patients = [f"patient {i % 6}" for i in range(150)]
    found["clinic"] = predicted(ORDINARY | blasts, seed=7, mistaken=0.02, patients=[""] * 2000 + patients)
    return found


def test_a_laboratory_weighs_as_much_as_another_and_its_types_as_in_normal_blood():
    cells = flag_cells({"large": predicted(ORDINARY), "small": predicted({"neutrophil": 120, "monocyte": 30}, seed=1)})
    for laboratory in ("large", "small"):
        own = cells.laboratories == laboratory
        assert cells.weights[own].sum() == pytest.approx(1)
        of_class = {name: cells.weights[own & (cells.predicted.classes == ABNORMAL_CLASSES.index(name))].sum()
                    for name in ("neutrophil", "monocyte")}  # fmt: skip
        assert of_class["neutrophil"] == pytest.approx(10 * of_class["monocyte"])  # 50 and 5 % in the middle
    assert cells.weights[cells.predicted.classes == ABNORMAL_CLASSES.index("blast")].sum() == 0


def test_promyelocytes_are_sought_in_patients_only():
    kinds, patients = {"promyelocyte": 4, "blast": 2}, ["", "", "one", "one", "", "one"]
    assert flag_cells({"clinic": predicted(kinds, patients=patients)}).blasts.tolist() == [0, 0, 1, 1, 1, 1]
    assert flag_cells({"home": predicted(kinds)}).blasts.tolist() == [0, 0, 0, 0, 1, 1]


def test_small_laboratories_are_taken_together():
    few = {name: predicted({"neutrophil": 60}, seed=seed) for seed, name in enumerate(("a", "b"))}
    assert set(flag_cells({"large": predicted(ORDINARY), **few}).laboratories) == {"large", OTHERS}


@pytest.mark.parametrize("rates", [(0.001, 0.001, 0.001), (0.0, 0.0, 0.006), (0.01, 0.02, 0.03), (0.0, 0.0, 0.0)])
def test_of_normal_slides_of_any_size_one_in_twenty_is_flagged_at_most(rates):
    scores = [np.linspace(0, 1, 1000, endpoint=False) for _ in rates]
    ordinary = {
        str(i): (own, np.where(own >= 0.5, 2 * rate, 2 * (1 - rate)) / 1000)
        for i, (own, rate) in enumerate(zip(scores, rates, strict=True))
    }
    cells = Scored(np.zeros(0), ordinary, {"p": np.ones(5)})
    assert false_rates(cells, 0.5) == pytest.approx(np.array(rates))
    rate = lasting_rate(cells, 0.5)
    assert rate >= max(np.mean(rates), 1 / 3000) - 1e-5
    rng = np.random.default_rng(0)
    for size in SIZES:
        assert flagged_by_error(rate, np.array(rates), size).mean() <= 0.05
        drawn = rng.binomial(size, np.tile(rates, 4000))
        assert (drawn >= cells_needed(rate, size)).mean() < 0.06


def test_a_slide_is_found_as_often_as_enough_of_its_ten_blasts_count():
    blasts = np.array([0.9] * 8 + [0.2] * 2)
    assert found_slides(0.0001, 0.5, blasts) == pytest.approx(1 - 0.2**10)
    assert found_slides(0.0001, 0.95, blasts) == 0
    assert found_slides(0.2, 0.5, blasts) == 0  # more than ten are needed


def test_the_threshold_keeps_what_is_mistaken_below_and_blasts_above():
    cells = scored(flag_cells(laboratories(home=0.0, away=0.05)), ())
    above, rate, sensitivity = best_threshold(cells)
    assert sensitivity > 0.99
    assert (false_rates(cells, above) <= rate).all() or false_rates(cells, above).mean() <= rate
    worse = scored(flag_cells(laboratories(home=0.0, away=0.9)), ())
    assert lasting_rate(worse, above) > rate


def test_the_flag_that_is_chosen_goes_into_a_card_and_comes_back():
    flag = choose(flag_cells(laboratories(home=0.0, away=0.05)))
    assert (flag.name, flag.untested) == ("blast", ("lymphoblast",))
    assert (flag.sensitivity.units, flag.specificity.units) == (6, 3)
    assert flag.sensitivity.low < flag.sensitivity.share <= flag.sensitivity.high
    tables = class_tables(ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, attributes=False)
    text = toml({"task": "classifier", "input": {"height_px": 32, "width_px": 32}, **tables,
                 "slide_flags": card_rows([flag])})  # fmt: skip
    assert parse_card(text, "card.toml", stem="card").slide_flags == (flag,)


def test_limits_are_those_of_as_many_patients():
    nine = measured([1.0] * 9)
    assert (nine.share, nine.high, nine.units) == (1.0, 1.0, 9)
    assert nine.low == pytest.approx(0.025 ** (1 / 9), abs=1e-4)
    assert measured([0.0] * 4).high == pytest.approx(1 - 0.025 ** (1 / 4), abs=1e-4)
    assert measured([1.0, 0.5, 0.5]).share == pytest.approx(0.6667)


def test_without_blasts_or_ordinary_cells_nothing_is_chosen():
    with pytest.raises(ValueError, match="0 patients of 5 blasts"):
        choose(flag_cells({"home": predicted(ORDINARY)}))
    with pytest.raises(ValueError, match="0 laboratories"):
        choose(flag_cells({"home": predicted({"blast": 50})}))
