"""A network that ships, taken back for training: it says what its graph says, and says what it lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="the networks are written in PyTorch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads  # noqa: E402
from engines.graphs.storage import narrowed, widened  # noqa: E402
from tools.architectures.published import CLASSES, assemble, parts_of  # noqa: E402
from tools.graphs.conversion import to_onnx  # noqa: E402
from tools.graphs.shipped_weights import begin_with_graph, weights_of  # noqa: E402


class Toy(nn.Module):
    """Two normalised convolutions, the second with a bias of its own, and one without a normalisation."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU6())
        second = nn.Sequential(nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.features = nn.Sequential(first, second, nn.Conv2d(16, 16, 1))
        self.classes = nn.Linear(16, classes)

    def forward(self, x):
        return self.classes(self.features(x).mean((2, 3)))


class LooseNorm(nn.Module):
    """A normalisation that no convolution of its Sequential precedes, so that export doesn't fold it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.body(x).mean((2, 3))


def trained(network: nn.Module) -> nn.Module:
    """The network with statistics, scales, shifts and biases as training leaves them, far from 0 and 1; of tensors that
    are equal a graph keeps one."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.2, 3)
    return network.eval()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def exported(network: nn.Module, path: Path, outputs: tuple[str, ...] = ("logits",)) -> Path:
    onnx.save(to_onnx(network, torch.rand(2, 3, 32, 32), outputs, {0: "N"}), path)
    return path


def given_by(path: Path, x: np.ndarray, output: str = "logits") -> np.ndarray:
    engine = OnnxRuntimeEngine(widened(onnx.load(path)), device="cpu", threads=Threads(1))
    return engine.infer({"images": x})[output].copy()


def batches(count: int = 3) -> list[torch.Tensor]:
    return [torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(count)]


@pytest.mark.parametrize("make", [Toy, LooseNorm])
def test_the_network_says_what_the_graph_says(tmp_path: Path, make: type[nn.Module]) -> None:
    path = exported(trained(make()), tmp_path / "toy.onnx")
    subject = make()
    begin_with_graph(subject, weights_of(path), batches())
    x = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(subject.eval()(x).numpy(), given_by(path, x.numpy()), atol=1e-4)


def test_its_normalisations_know_the_pictures_it_begins_with(tmp_path: Path) -> None:
    path = exported(trained(Toy()), tmp_path / "toy.onnx")
    subject = Toy().train()
    begin_with_graph(subject, weights_of(path), batches())
    assert subject.training
    x = torch.cat(batches())
    with torch.no_grad():
        before = subject.features[0][0](x)
        learning = subject(x)  # by the statistics of these pictures, which are the ones it was given
        subject.eval()
        settled = subject(x)
    norm = subject.features[0][1]
    for channel in range(8):
        values = before[:, channel]
        assert norm.weight[channel].item() == pytest.approx((values.var(correction=0) + norm.eps).sqrt().item(), 1e-3)
    torch.testing.assert_close(learning, settled, atol=1e-4, rtol=1e-4)


def test_parts_of_a_system_are_found_by_their_prefix_in_a_file_of_half_precision(tmp_path: Path) -> None:
    parts = parts_of("ml-cnn")
    networks = [trained(part.make(32)) for part in parts]
    graph = to_onnx(assemble("ml-cnn", networks), torch.rand(2, 3, 32, 32), ("class_probabilities",), {0: "N"})
    path = tmp_path / "system.onnx"
    onnx.save(narrowed(graph), path)
    taken = []
    for part in parts:
        network = part.make(32)
        begin_with_graph(network, weights_of(path, part.tensors), batches())
        taken.append(network.eval())
    x = torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        got = assemble("ml-cnn", taken)(x).numpy()
    np.testing.assert_allclose(got, given_by(path, x.numpy(), "class_probabilities"), atol=1e-4)
    assert got.shape == (6, len(CLASSES))


def test_a_network_alone_has_its_prefix_too(tmp_path: Path) -> None:
    (part,) = parts_of("mobilenet")
    network = trained(part.make(32))
    path = exported(assemble("mobilenet", [network]), tmp_path / "alone.onnx", ("class_probabilities",))
    taken = part.make(32)
    begin_with_graph(taken, weights_of(path, part.tensors), batches())
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(taken.eval()(x), network(x), atol=1e-4, rtol=1e-4)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = exported(trained(Toy()), tmp_path / "toy.onnx")
    with pytest.raises(FileNotFoundError, match=r"got no file at .*none\.onnx, expected an ONNX file"):
        weights_of(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match=r"toy\.onnx: got no tensor gate\.…"):
        weights_of(path, "gate.")
    with pytest.raises(ValueError, match=r"weights classes\.weight: got \(4, 16\), expected \(5, 16\)"):
        begin_with_graph(Toy(5), weights_of(path), batches())
    without = {name: value for name, value in weights_of(path).items() if name != "classes.bias"}
    with pytest.raises(ValueError, match=r"weights classes\.bias: got none, expected \(4,\)"):
        begin_with_graph(Toy(), without, batches())
    with pytest.raises(ValueError, match="pictures to begin with: got none"):
        begin_with_graph(Toy(), weights_of(path), [])
