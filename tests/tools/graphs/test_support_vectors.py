"""Ranking, kernels, pairs and their probabilities; the graph says what scikit-learn says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("sklearn", reason="the machines are fitted by scikit-learn")

from sklearn.svm import SVC

from engines.backends.tensorrt.operators import check_operators
from tools.architectures import support_vectors
from tools.architectures.support_vectors import (
    Constants,
    Kernel,
    PairMachines,
    bhattacharyya,
    coupled,
    grouped_folds,
    optimised_kernel,
)
from tools.graphs.support_vectors import add_support_vectors, bare_features

QUADRATIC = Kernel("polynomial", 2, 4.0)
KERNELS = [QUADRATIC, Kernel("polynomial", 3, 4.0, 3.0), Kernel("gaussian", 0, 5.0, 10.0)]


def clouds(classes: int, count: int = 40, width: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of overlapping clouds whose last half says nothing, labels, groups of two."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    centres = np.zeros((classes, width))
    centres[:, : width // 2] = rng.normal(0, 0.9, (classes, width // 2))
    features = (centres[labels] + rng.normal(0, 1, (len(labels), width))) * np.linspace(0.2, 30, width) + 5
    return features.astype(np.float32), labels, np.array([f"g{i // 2}" for i in range(len(labels))])


def graph_says(constants: Constants, features: np.ndarray) -> np.ndarray:
    model = add_support_vectors(bare_features(features.shape[1]), constants)
    check_operators(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"features": features.astype(np.float32)})[0]


def test_the_distance_of_two_normal_distributions_is_the_textbooks() -> None:
    a, b = np.array([-1.0, 1.0, -1, 1]), np.array([3.0, 7.0, 3, 7])  # means 0 and 5, variances 1 and 4
    got = bhattacharyya(np.stack([np.concatenate([a, b]), np.ones(8)], 1), np.repeat([0, 1], 4))
    assert got == pytest.approx([25 / 5 / 4 + np.log((1 / 4 + 4 + 2) / 4) / 4, 0])
    with pytest.raises(ValueError, match="classes: got one"):
        bhattacharyya(np.ones((4, 2)), np.zeros(4))


def test_the_features_that_part_the_classes_are_kept() -> None:
    features, labels, groups = clouds(3)
    machines = PairMachines(features, labels, groups, QUADRATIC, kept=10)
    assert len(machines.selected) == 10
    assert machines.selected.max() < 15
    assert list(machines.selected) == sorted(machines.selected)
    x = machines.standardised(features)
    np.testing.assert_allclose([x.mean(0), x.std(0)], [np.zeros(10), np.ones(10)], atol=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("kernel", KERNELS, ids=["quadratic", "cubic", "gaussian"])
def test_the_graph_says_what_scikit_learn_says(kernel: Kernel, classes: int) -> None:
    features, labels, groups = clouds(classes)
    machines = PairMachines(features, labels, groups, kernel, kept=20, folds=3)
    unseen = np.concatenate([clouds(classes, seed=1)[0], 1.5 * clouds(classes, 5, seed=2)[0]])
    for given in (features, unseen):
        expected = machines.probabilities(given)
        got = graph_says(machines.constants(), given)
        np.testing.assert_allclose(got, expected, atol=1e-4)
        np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
    assert (machines.probabilities(features).argmax(1) == labels).mean() > 0.9


def test_votes_are_those_of_a_one_vs_one_machine_of_all_classes() -> None:
    features, labels, groups = clouds(4)
    machines = PairMachines(features, labels, groups, QUADRATIC, kept=20, folds=3)
    whole = SVC(kernel="poly", degree=2, gamma=1 / 16, coef0=1.0).fit(machines.standardised(features), labels)
    unseen = clouds(4, seed=1)[0]
    np.testing.assert_array_equal(machines.votes(unseen), whole.predict(machines.standardised(unseen)))


def test_a_temperature_flattens_and_keeps_the_order() -> None:
    features, labels, groups = clouds(3)
    machines = PairMachines(features, labels, groups, QUADRATIC, kept=20, folds=3)
    plain, flat = graph_says(machines.constants(), features), graph_says(machines.constants(2.0), features)
    roots = np.sqrt(plain)
    np.testing.assert_allclose(flat, roots / roots.sum(1, keepdims=True), atol=1e-4)


def test_coupling_gives_back_probabilities_that_pairs_agree_on() -> None:
    whole = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    pairs = np.stack([whole[:, b] / (whole[:, a] + whole[:, b]) for a, b in combinations(range(3), 2)], 1)
    np.testing.assert_allclose(coupled(pairs, 3), whole, atol=1e-12)
    np.testing.assert_allclose(coupled(np.array([[0.0], [0.3]]), 2), [[1, 0], [0.7, 0.3]], atol=1e-12)


def test_constants_are_kept_in_a_file(tmp_path: Path) -> None:
    features, labels, groups = clouds(3)
    constants = PairMachines(features, labels, groups, KERNELS[2], kept=20, folds=3).constants(1.5)
    constants.save(tmp_path / "machines.npz")
    again = Constants.load(tmp_path / "machines.npz")
    assert (again.kernel, again.classes, again.temperature) == (KERNELS[2], 3, 1.5)
    np.testing.assert_array_equal(graph_says(again, features), graph_says(constants, features))
    assert [path.name for path in tmp_path.iterdir()] == ["machines.npz"]


def test_folds_never_part_a_group() -> None:
    _, labels, groups = clouds(3)
    held = []
    for train, rows in grouped_folds(labels, groups, 4, 0):
        assert not set(groups[train]) & set(groups[rows])
        held += rows.tolist()
    assert sorted(held) == list(range(120))
    with pytest.raises(ValueError, match="got 21 with a class of 20 groups"):
        list(grouped_folds(labels, groups, 21, 0))


def test_the_search_finds_the_best_kernel_and_the_smoother_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    best = Kernel("gaussian", 0, 10.0 * 10 ** (1 / 3), 1.0 * 10 ** (-1 / 3))
    asked: list[tuple[Kernel, int]] = []

    def scripted(x: np.ndarray, labels: np.ndarray, kernel: Kernel, parts: Sequence[object]) -> float:
        asked.append((kernel, len(labels)))
        if kernel.function != "gaussian":
            return 0.0
        return 1 - abs(np.log10(kernel.scale / best.scale)) - abs(np.log10(kernel.box / best.box))

    monkeypatch.setattr(support_vectors, "cross_validated", scripted)
    features, labels, groups = clouds(2)
    found, score = optimised_kernel(features, labels, groups, folds=3, limit=50)
    assert (found.function, score) == ("gaussian", pytest.approx(1))
    assert (found.scale, found.box) == (pytest.approx(best.scale), pytest.approx(best.box))
    assert {count for _, count in asked} == {50}
    kernels = {kernel for kernel, _ in asked}
    assert len(kernels) == len(asked)
    assert all(1e-3 <= value <= 100 + 1e-9 for kernel in kernels for value in (kernel.scale, kernel.box))
    monkeypatch.setattr(support_vectors, "cross_validated", lambda *_: 0.9)
    found, _ = optimised_kernel(features, labels, groups, folds=3)
    assert (found.scale, found.box) == (100, pytest.approx(0.001))


def test_a_network_of_too_few_features_is_refused() -> None:
    features, labels, groups = clouds(2)
    constants = PairMachines(features, labels, groups, QUADRATIC, folds=3).constants()
    with pytest.raises(ValueError, match="features: got 12 of the network, expected more than 29"):
        add_support_vectors(bare_features(12), constants)
