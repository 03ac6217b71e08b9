"""The exported classifier of abnormal cells: equal to the network, explained in closed form, with the card it needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from torch import nn  # noqa: E402

from engines.graphs.gradcam import CAM, add_gradcam  # noqa: E402
from engines.zoo.slide_flags import SlideFlag  # noqa: E402
from tests.engines.graphs.test_gradcam import as_tensor, outputs, reference  # noqa: E402
from tests.tools.metrics.predicted import predicted  # noqa: E402
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES  # noqa: E402
from tools.data.squares import LOOK_RED_CELLS, SUBCLASS_NAMES  # noqa: E402
from tools.export import novelty  # noqa: E402
from tools.export.classifier import CLASS_OFFSETS, Fitted, build_graph, in_order, tempered, values_of  # noqa: E402
from tools.export.crops import classifier_of  # noqa: E402
from tools.metrics.classification import lowest_threshold  # noqa: E402
from tools.train.classifier import Recipe, build_network  # noqa: E402

PX = 64
TEMPERATURE = 1.4


def crops(n: int, side: int) -> np.ndarray:
    """Pictures of a few colours each, which a network without training tells apart."""
    rng = np.random.default_rng(3)
    few = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
    return few.repeat(side // 4, 1).repeat(side // 4, 2)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(input_px=PX)


@pytest.fixture(scope="module")
def network(recipe: Recipe) -> nn.Module:
    torch.manual_seed(5)
    made = build_network(recipe, pretrained=False)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain means, so that a few batches settle the statistics
    with torch.no_grad():
        for _ in range(4):
            made(as_tensor(crops(16, PX)))
        for head in (made.classes, made.subclasses, made.attributes):
            nn.init.normal_(head.weight, 0, 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def fitted(network: nn.Module) -> Fitted:
    means = network.describe_at(as_tensor(crops(40, PX)))[1]
    features = torch.cat(means, 1).detach().numpy()
    gaussians = novelty.fit(features, np.arange(40) % 3, np.ones(40))
    return Fitted(TEMPERATURE, 0.6, (gaussians, novelty.Calibration(0.1, 2.0)))


def test_the_graph_says_what_the_network_says(network, recipe, fitted) -> None:
    images = crops(3, PX)
    got = outputs(build_graph(network, recipe, fitted), images)
    with torch.no_grad():
        hidden, means = network.describe_at(as_tensor(images))
        offsets = torch.tensor([CLASS_OFFSETS.get(name, 0.0) for name in ABNORMAL_CLASSES])
        classes = torch.softmax((network.classes(hidden) + offsets) / TEMPERATURE, 1).numpy()
        logits = network.subclasses(hidden).numpy()
    assert np.ptp(classes, 0).max() > 0.05  # they differ, so that equal ones mean something
    np.testing.assert_allclose(got["class_probabilities"], classes, atol=1e-5)
    alone = SUBCLASS_NAMES.index("variant lymphocyte")
    expected = 1 / (1 + np.exp(-logits[:, alone].astype(float)))
    np.testing.assert_allclose(got["subclass_probabilities"][:, alone], expected, atol=1e-5)
    bands = [i for i, name in enumerate(SUBCLASS_NAMES) if ABNORMAL_SUBCLASSES[name] == "neutrophil"]
    np.testing.assert_allclose(got["subclass_probabilities"][:, bands].sum(1), 1, atol=1e-5)
    odds = np.exp(logits[:, bands])
    np.testing.assert_allclose(got["subclass_probabilities"][:, bands], odds / odds.sum(1, keepdims=True), atol=1e-5)
    gaussians, calibration = fitted.novelty
    distances = gaussians.distances(torch.cat(means, 1).numpy().astype(float))
    wanted = 1 / (1 + np.exp(-calibration.slope * (np.log(distances) - calibration.centre)))
    np.testing.assert_allclose(got["novelty"], wanted, atol=1e-3)


def test_grad_cam_is_that_of_autograd(network, recipe, fitted) -> None:
    images = crops(3, PX)
    with torch.no_grad():
        maps = network.features((as_tensor(images) - 127 / 255) * (255 / 128))
    maps.requires_grad_(True)
    score = network.classes(maps.mean((2, 3)))
    got = outputs(add_gradcam(build_graph(network, recipe, fitted), every_class=True), images)
    for index in range(len(ABNORMAL_CLASSES)):
        np.testing.assert_allclose(got[CAM][:, index], reference(maps, score, torch.full((3,), index)), atol=1e-4)
    assert (got[CAM] > 0).any()


def test_the_card_makes_it_look_twice_once_at_a_fixed_size(network, recipe, fitted) -> None:
    graph = build_graph(network, recipe, fitted)
    classifier = classifier_of(graph, values_of("new", recipe, 7, graph.SerializeToString(), fitted))
    assert classifier.class_names == ABNORMAL_CLASSES
    assert classifier.card.input.fixed_look_rbc == LOOK_RED_CELLS
    assert classifier.card.training["steps"] == 7
    assert classifier.threshold == 0.6
    frame = crops(1, 200)[0]
    box = np.float32([[80, 80, 120, 110]])
    known, unknown = classifier.crop(frame, box, rbc_px=30.0), classifier.crop(frame, box)
    np.testing.assert_array_equal(known[0, 0], unknown[0, 0])
    np.testing.assert_array_equal(unknown[0, 1], unknown[0, 0][:, ::-1])
    assert not np.array_equal(known[0, 1], unknown[0, 1])


def test_the_card_says_what_flags_a_slide_for_blasts(network, recipe, fitted) -> None:
    flag = SlideFlag("blast", 0.8, 0.001, ("promyelocyte",), ("lymphoblast",))
    graph = build_graph(network, recipe, fitted)
    for flags in ((flag,), ()):
        values = values_of("new", recipe, 7, b"", dataclasses.replace(fitted, slide_flags=flags))
        assert classifier_of(graph, values).card.slide_flags == flags


def test_probabilities_are_tempered_as_the_graph_tempers_them() -> None:
    found = predicted({"blast": 3, "monocyte": 3})
    warm = tempered(found, 2.0)
    odds = found.probabilities**0.5
    np.testing.assert_allclose(warm.probabilities, odds / odds.sum(1, keepdims=True), atol=1e-9)
    assert warm.classes is found.classes


def test_the_threshold_is_the_lowest_that_keeps_errors_within_the_risk() -> None:
    p = np.array([[0.95, 0.05], [0.85, 0.15], [0.7, 0.3], [0.6, 0.4]])
    truth = np.array([0, 0, 1, 0])
    weights = np.ones(4)
    assert lowest_threshold(p, truth, weights, 0.0) == 0.71
    assert lowest_threshold(p, truth, weights, 0.25) == 0.3
    assert lowest_threshold(p, truth, np.array([1.0, 1.0, 9.0, 1.0]), 0.25) == 0.71
    assert lowest_threshold(p, np.array([1, 1, 1, 1]), weights, 0.0) == 0.9
    assert lowest_threshold(np.array([[0.7, 0.3], [0.695, 0.305]]), np.array([0, 1]), weights[:2], 0.0) == 0.7


def test_families_of_subclasses_stand_side_by_side() -> None:
    assert in_order([[2, 3, 4], [], [0, 1], [5], [6], [7]]) == [[0, 1], [2, 3, 4], [5], [6], [7]]
    with pytest.raises(ValueError, match="side by side"):
        in_order([[0, 2], [1, 3, 4], [5], [6], [7]])
