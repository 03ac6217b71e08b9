"""A last layer for one laboratory: what it learns, what it must not forget, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.graphs.last_layer import LastLayer
from engines.models.adaptation import Adaptation, AdaptationError, Figures, HomeData, refusal_of
from engines.models.last_layer_fit import Cells, LayerFit, folds_of, log_probabilities

NAMES = ("lymphocyte", "monocyte", "neutrophil", "blast")
MEANS = 2.0 * np.eye(4, 6)
"""Of the classes' features at home."""
MOVED = np.array([0.5, -0.5, 2.0, -1.5, 1.0, -1.0])
"""By which the features of a laboratory with another stain lie beside them."""
BASE = LastLayer(2.0 * MEANS, np.full(4, -4.0) + np.array([0, 0, 0, 0.0]))
BLAST = NAMES.index("blast")


def cells(seed: int, counts: tuple[int, ...], moved: np.ndarray | float = 0.0) -> Cells:
    classes = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(0, 0.7, (len(classes), MEANS.shape[1]))
    return Cells(MEANS[classes] + noise + moved, classes.astype(np.intp))


HOME = HomeData(
    replayed=cells(11, (40, 40, 40, 40)), measured=cells(12, (40, 40, 40, 40)), blasts=cells(13, (0, 0, 0, 60)).features
)
SITE = cells(1, (40, 12, 48, 0), MOVED)
OTHERS = cells(2, (200, 200, 200, 0), MOVED)


def alone(some: Cells) -> list[str]:
    return [str(i) for i in range(len(some))]


def adaptation(home: HomeData | None = HOME) -> Adaptation:
    return Adaptation(BASE, NAMES, 0.5, home)


def recall(layer: LastLayer, some: Cells) -> float:
    right = log_probabilities(layer, some.features).argmax(1) == some.classes
    return float(np.mean([right[some.classes == c].mean() for c in np.unique(some.classes)]))


@pytest.mark.parametrize("home", [HOME, None], ids=["with home cells", "without"])
def test_a_laboratory_with_another_stain_is_learnt_and_measured_on_what_was_left_out(home) -> None:
    found = adaptation(home).adapted(SITE, alone(SITE))
    assert found.refusal is None
    assert recall(found.layer, OTHERS) > recall(BASE, OTHERS) + 0.1
    assert found.before.balanced_accuracy == pytest.approx(recall(BASE, SITE))
    assert found.after.balanced_accuracy == pytest.approx(recall(found.layer, OTHERS), abs=0.08)
    assert found.after.cells == len(SITE)


def test_home_cells_keep_the_home_figures() -> None:
    kept, lost = (adaptation(home).adapted(SITE, alone(SITE)).layer for home in (HOME, None))
    assert recall(kept, HOME.measured) > recall(lost, HOME.measured)
    found = adaptation().adapted(SITE, alone(SITE))
    assert found.home_before is not None
    assert found.home_after is not None
    assert found.home_before.balanced_accuracy == pytest.approx(recall(BASE, HOME.measured))
    assert found.home_after.balanced_accuracy == pytest.approx(recall(found.layer, HOME.measured))


def blasts_called_so(layer: LastLayer, features: np.ndarray) -> float:
    return float((log_probabilities(layer, features).argmax(1) == BLAST).mean())


def misnamed(layer: LastLayer, threshold: float, features: np.ndarray) -> float:
    logs = log_probabilities(layer, features)
    return float(((logs.argmax(1) != BLAST) & (np.exp(logs.max(1)) >= threshold)).mean())


@pytest.mark.parametrize("seed", range(4))
def test_no_blast_from_home_is_lost_by_a_laboratory_that_has_none(seed: int) -> None:
    """Its lymphocytes look like the blasts of home, so that a fit alone would take these for lymphocytes."""
    towards_blasts = 1.2 * (MEANS[BLAST] - MEANS[0])
    site = cells(seed, (60, 20, 40, 0))
    site = Cells(site.features + np.where(site.classes[:, None] == 0, towards_blasts, 0.0), site.classes)
    weak = replace(HOME, replayed=HOME.replayed[HOME.replayed.classes != BLAST])  # nothing but the guard holds them
    fit = LayerFit(BASE, site, weak.replayed).layer(np.arange(len(site)), 0.3)
    assert blasts_called_so(fit, HOME.blasts) < blasts_called_so(BASE, HOME.blasts)
    found = adaptation(weak).adapted(site, alone(site))
    assert found.raised > 0
    assert blasts_called_so(found.layer, HOME.blasts) >= blasts_called_so(BASE, HOME.blasts)
    if found.refusal is None:
        assert misnamed(found.layer, found.threshold, HOME.blasts) <= misnamed(BASE, 0.5, HOME.blasts)


def test_without_blasts_from_home_no_class_gains_on_them_on_any_cell_of_the_laboratory() -> None:
    found = adaptation(None).adapted(SITE, alone(SITE))
    before, after = (log_probabilities(layer, SITE.features) for layer in (BASE, found.layer))
    after = after * found.temperature
    for c in range(BLAST):
        margin_before, margin_after = before[:, BLAST] - before[:, c], after[:, BLAST] - after[:, c]
        assert (margin_after >= margin_before - 1e-6).all()


def test_a_model_without_blasts_names_those_from_home_no_more_often_than_before() -> None:
    names, base = NAMES[:3], LastLayer(BASE.weights[:3], BASE.bias[:3])
    of_three = HOME.replayed.classes < 3
    home = HomeData(HOME.replayed[of_three], HOME.measured[HOME.measured.classes < 3], HOME.blasts)
    found = Adaptation(base, names, 0.5, home).adapted(SITE, alone(SITE))
    named = [
        (np.exp(log_probabilities(layer, HOME.blasts).max(1)) >= threshold).mean()
        for layer, threshold in ((base, 0.5), (found.layer, found.threshold))
    ]
    assert found.refusal is not None or named[1] <= named[0]
    assert found.threshold >= 0.5


def test_what_does_not_help_is_refused() -> None:
    at_home = cells(5, (30, 30, 30, 0))
    well = Adaptation(LastLayer(4 * BASE.weights, 4 * BASE.bias), NAMES, 0.5, HOME)
    noise = Cells(at_home.features, np.random.default_rng(0).permutation(at_home.classes))
    for some in (Cells(MEANS[at_home.classes], at_home.classes), noise):
        found = well.adapted(some, alone(some))
        assert found.refusal is not None
        assert "balanced accuracy on left-out cells" in found.refusal


def figures(balanced: float, **recall: float) -> Figures:
    return Figures(100, 0.9, balanced, 0.9, 0.95, recall, {})


@pytest.mark.parametrize(
    ("before", "after", "covered", "words"),
    [
        (figures(0.7, blast=0.5), figures(0.9, blast=0.49), True, "recall of blasts on left-out cells fell from 0.500"),
        (figures(0.7, blast=0.5), figures(0.7, blast=0.5), True, "went from 0.700 to 0.700, expected a rise"),
        (figures(0.7), figures(0.9), False, "blasts would be given the name of another class more often"),
        (figures(0.7, blast=0.5), figures(0.71, blast=0.5), True, None),
        (figures(0.7), figures(0.71), True, None),
    ],
)
def test_why_a_profile_is_refused(before: Figures, after: Figures, covered: bool, words: str | None) -> None:
    refusal = refusal_of(before, after, covered)
    assert (refusal is None) == (words is None)
    assert words is None or words in str(refusal)


@pytest.mark.parametrize(("counts", "words"), [((10, 9), "got 19, expected 20"), ((30,), "of a single class")])
def test_too_few_cells_and_a_single_class_are_told(counts: tuple[int, ...], words: str) -> None:
    some = cells(0, counts)
    with pytest.raises(AdaptationError, match=words):
        adaptation().adapted(some, alone(some))


def test_cells_of_a_slide_are_in_one_part_and_classes_in_all() -> None:
    classes = np.repeat([0, 1], [60, 20]).astype(np.intp)
    slides = [f"slide {i % 10}" for i in range(80)]
    folds = folds_of(classes, slides, 5)
    for slide in set(slides):
        assert len({folds[i] for i in range(80) if slides[i] == slide}) == 1
    single = folds_of(classes, [str(i) for i in range(80)], 5)
    assert [np.bincount(single[classes == c], minlength=5).tolist() for c in (0, 1)] == [[12] * 5, [4] * 5]


def test_a_stronger_prior_changes_less() -> None:
    fit = LayerFit(BASE, SITE, HOME.replayed)
    changes = [np.abs(fit.layer(np.arange(len(SITE)), s).weights - BASE.weights).sum() for s in (0.3, 3.0, 300.0)]
    assert changes[0] > changes[1] > 5 * changes[2]
