"""Grad-CAM in closed form against Grad-CAM by autograd, for the heads that classifiers end in."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from engines.base import ModelFormatError
from engines.graphs.gradcam import CAM, add_gradcam
from engines.graphs.graph import add_uint8_input
from engines.zoo.registry import find
from tests.engines.networks import model_of, run

torch = pytest.importorskip("torch", reason="the reference is PyTorch's autograd")
torch.set_num_threads(1)

from torch import Tensor, nn  # noqa: E402

from tools.architectures.mlcnn import CLASSES as SYSTEM_CLASSES  # noqa: E402
from tools.architectures.mlcnn import GROUPS, MLCNN  # noqa: E402
from tools.architectures.mobilenetv3 import MobileNetV3Small  # noqa: E402
from tools.export.eight_types import Fitted, Probabilities  # noqa: E402
from tools.graphs.conversion import to_onnx  # noqa: E402

CLASSES = 5


class Small(nn.Module):
    """Two convolutions, then one of the usual heads; `maps` are those that the head pools."""

    def __init__(self, head: str) -> None:
        super().__init__()
        swish = nn.Hardswish() if head == "hard-swish" else nn.ReLU()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 12, 3, 2, 1), swish)
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        if head == "one linear layer":
            self.head: nn.Module = nn.Linear(12, CLASSES)
        elif head == "hard-swish":
            self.head = nn.Sequential(nn.Linear(12, 20), nn.Hardswish(), nn.Dropout(), nn.Linear(20, CLASSES))
        else:
            self.pool = nn.MaxPool2d(2)
            layers = (
                nn.Linear(12 * 16, 30),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(30, 9),
                nn.ReLU(),
                nn.Linear(9, CLASSES),
            )
            self.head = nn.Sequential(*layers)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.4)

    def maps(self, x: Tensor) -> Tensor:
        return self.features(x)

    def score(self, maps: Tensor) -> Tensor:
        return self.head(self.pool(maps).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.score(self.maps(x)) / 1.7, 1)


def reference(maps: Tensor, score: Tensor, class_index: Tensor) -> np.ndarray:
    """Grad-CAM as published: mean gradients of the class score weigh the feature maps; what is positive stays."""
    chosen = score.gather(1, class_index[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, maps, retain_graph=True)
    return torch.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()


def crops(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, side, side, 3), np.uint8)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def outputs(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    names = [value.name for value in model.graph.output]
    return dict(zip(names, run(model, {"images": images}), strict=True))


@pytest.mark.parametrize("head", ["one linear layer", "hard-swish", "dense layers behind max pooling"])
def test_equal_to_autograd_for_every_class_and_for_the_likeliest(head: str) -> None:
    torch.manual_seed(1)
    network = Small(head).eval()
    plain = add_uint8_input(to_onnx(network, torch.zeros(2, 3, 32, 32), ("class_probabilities",), {0: "N"}))
    images = crops(4, 32)
    maps = network.maps(as_tensor(images))
    score = network.score(maps)
    every = outputs(add_gradcam(plain, every_class=True), images)
    for index in range(CLASSES):
        expected = reference(maps, score, torch.full((4,), index))
        np.testing.assert_allclose(every[CAM][:, index], expected, atol=1e-4)
    assert (every[CAM] > 0).any()
    top = outputs(add_gradcam(plain), images)
    assert top[CAM].shape == (4, 1, 8, 8)
    np.testing.assert_allclose(top[CAM][:, 0], reference(maps, score, score.argmax(1)), atol=1e-4)
    np.testing.assert_array_equal(top["class_probabilities"], run(plain, {"images": images})[0])


def test_equal_to_autograd_for_the_default_classifiers_network() -> None:
    torch.manual_seed(2)
    network = MobileNetV3Small(8, 5, standardise=True)
    with torch.no_grad():
        for _ in range(8):
            network(torch.rand(8, 3, 96, 96))
        for layer in (network.hidden, network.classes):
            nn.init.normal_(layer.weight, 0, 0.3)
    network.eval()
    example = torch.zeros(2, 3, 96, 96)
    graph = to_onnx(
        Probabilities(network, Fitted(1.4, 1.2)), example, ("class_probabilities", "subclass_probabilities"), {0: "N"}
    )
    images = crops(3, 96)
    with torch.no_grad():
        scaled = as_tensor(images)
        scaled = scaled - scaled.mean((2, 3), keepdim=True)
        scaled = scaled / (scaled.square().mean((1, 2, 3), keepdim=True) + 1e-3).sqrt()
        maps = network.features(scaled)
    maps.requires_grad_(True)
    score = network.classes(network.activation(network.hidden(maps.mean((2, 3)))))
    got = outputs(add_gradcam(add_uint8_input(graph), every_class=True), images)
    for index in range(8):
        expected = reference(maps, score, torch.full((3,), index))
        np.testing.assert_allclose(got[CAM][:, index], expected, atol=1e-4)


@pytest.mark.parametrize("choose", [True, False])
def test_a_system_of_two_levels_is_explained_by_the_network_that_names_the_class(choose: bool) -> None:
    torch.manual_seed(4)
    system = MLCNN(choose=choose, temperatures=(1.2, 0.8, 1.5))
    with torch.no_grad():
        for _ in range(4):
            system(torch.rand(4, 3, 64, 64))
        for network in (system.gate, *system.groups):
            nn.init.normal_(network.hidden.weight, 0, 0.2)
            nn.init.normal_(network.classes.weight, 0, 0.2)
    system.eval()
    plain = add_uint8_input(to_onnx(system, torch.zeros(2, 3, 64, 64), ("class_probabilities",), {0: "N"}))
    images = crops(3, 64)
    every = outputs(add_gradcam(plain, every_class=True), images)[CAM]
    for members, network in zip(GROUPS.values(), system.groups, strict=True):
        with torch.no_grad():
            maps = network.features(as_tensor(images) * 2 - 1)
        maps.requires_grad_(True)
        score = network.classes(torch.relu(network.hidden(maps.mean((2, 3)))))
        for label, name in enumerate(members):
            expected = reference(maps, score, torch.full((3,), label))
            np.testing.assert_allclose(every[:, SYSTEM_CLASSES.index(name)], expected, atol=1e-4)
    assert (every > 0).any()
    top = outputs(add_gradcam(plain), images)
    best = top["class_probabilities"].argmax(1)
    np.testing.assert_allclose(top[CAM][:, 0], every[np.arange(3), best], atol=1e-6)


def test_the_shipped_classifier_has_it_without_a_new_export() -> None:
    plain = find("mobilenetv3-small", "classifier").proto
    side = plain.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    images = crops(2, side)
    got = outputs(add_gradcam(plain), images)
    assert got[CAM].shape == (2, 1, side // 32, side // 32)
    assert (got[CAM] >= 0).all()
    np.testing.assert_array_equal(got["class_probabilities"], run(plain, {"images": images})[0])


def probe(nodes: list, channels: int = 3) -> ModelProto:
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", channels, 8, 8])
    out = helper.make_tensor_value_info("class_probabilities", TensorProto.FLOAT, ["N", channels])
    return model_of(nodes, [image], [out])


def test_graphs_without_a_closed_form_are_named() -> None:
    pool = helper.make_node("GlobalAveragePool", ["images"], ["p"])
    flat = helper.make_node("Flatten", ["p"], ["f"])
    tanh = helper.make_node("Tanh", ["f"], ["t"], name="odd")
    softmax = helper.make_node("Softmax", ["t"], ["class_probabilities"])
    with pytest.raises(ModelFormatError, match="layer 'odd': got Tanh, expected Gemm"):
        add_gradcam(probe([pool, flat, tanh, softmax]))
    sigmoid = helper.make_node("Sigmoid", ["f"], ["class_probabilities"], name="end")
    with pytest.raises(ModelFormatError, match="layer 'end': got Sigmoid, expected a Softmax"):
        add_gradcam(probe([pool, flat, sigmoid]))
    overlapping = helper.make_node("MaxPool", ["images"], ["m"], kernel_shape=[3, 3], strides=[2, 2], name="pool")
    means = helper.make_node("ReduceMean", ["m"], ["f"], axes=[2, 3], keepdims=0)
    ending = helper.make_node("Softmax", ["f"], ["class_probabilities"])
    with pytest.raises(ModelFormatError, match="layer 'pool': got MaxPool, expected a pooling without overlap"):
        add_gradcam(probe([overlapping, means, ending]))
