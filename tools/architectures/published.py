"""The published classifiers: their networks, what each network is taught, and each as one system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures import mlcnn
from tools.architectures.darknet53 import TypedDarkNet53
from tools.architectures.mobilenet import MobileNet
from tools.architectures.mobilenetv3 import MobileNetV3Small
from tools.architectures.resnet50 import ResNet50
from tools.architectures.vgg19 import VGG19

CLASSES = mlcnn.CLASSES
"""The five types, in the order of every network here."""

WHOLE = "network"
"""Name of the one part of a system that is a single network."""


@dataclass(frozen=True)
class Part:
    """One network of a system. labels: class -> its label; classes that are not in it don't teach it."""

    name: str
    make: Callable[[int], nn.Module]
    """Side of the input in px -> the untrained network, images in 0..1 to logits."""
    labels: Mapping[str, int]
    tensors: str
    """What the names of its tensors begin with in the graph of the whole system (`assemble`)."""


class _OneHead(nn.Module):
    """MobileNetV3-Small without its head of subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MobileNetV3Small(len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)[0]
        return logits


_FIVE = {name: label for label, name in enumerate(CLASSES)}


def _mobilenet(classes: int) -> Callable[[int], nn.Module]:
    return lambda _: MobileNet(classes)


def parts_of(architecture: str) -> tuple[Part, ...]:
    """The networks of a system; ValueError for one that is not known."""
    if architecture == "ml-cnn":
        return (
            Part("gate", _mobilenet(len(mlcnn.GROUPS)), {name: mlcnn.group_of(name) for name in CLASSES}, "gate."),
            *(
                Part(group, _mobilenet(len(members)), {name: i for i, name in enumerate(members)}, f"groups.{number}.")
                for number, (group, members) in enumerate(mlcnn.GROUPS.items())
            ),
        )
    networks: dict[str, Callable[[int], nn.Module]] = {
        "mobilenetv3-small": lambda _: _OneHead(),
        "resnet50": lambda _: ResNet50(len(CLASSES)),
        "vgg19": lambda side_px: VGG19(len(CLASSES), side_px=side_px),
        "mobilenet": _mobilenet(len(CLASSES)),
        "darknet53": lambda _: TypedDarkNet53(len(CLASSES)),
    }
    if architecture not in networks:
        raise ValueError(f"architecture: got {architecture!r}, expected one of {', '.join((*networks, 'ml-cnn'))}")
    return (Part(WHOLE, networks[architecture], _FIVE, "network."),)


class Tempered(nn.Module):
    """Class probabilities of one network: softmax of its logits over a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.network(x) / self.temperature, 1)


def assemble(
    architecture: str, networks: Sequence[nn.Module], temperatures: Sequence[float] = (), *, choose: bool = True
) -> nn.Module:
    """The whole system of its trained networks, in the order of `parts_of`: images in 0..1 to probabilities (N, 5)."""
    given = tuple(temperatures) or (1.0,) * len(networks)
    if architecture != "ml-cnn":
        return Tempered(networks[0], given[0]).eval()
    system = mlcnn.MLCNN(choose=choose, temperatures=given)
    gate, *groups = networks
    assert isinstance(gate, MobileNet)
    system.gate, system.groups = gate, nn.ModuleList(groups)
    return system.eval()


def before_temperature(
    architecture: str, probabilities: np.ndarray, temperatures: Sequence[float], *, choose: bool = True
) -> np.ndarray:
    """float32 (n, 5): what a system's probabilities (n, 5) were with all temperatures at 1, in closed form; a gate that
    chooses does so at any temperature."""
    if architecture != "ml-cnn":
        raised = np.maximum(probabilities, 1e-30).astype(np.float64) ** temperatures[0]
        return np.asarray(raised / raised.sum(1, keepdims=True), np.float32)
    out = np.zeros(probabilities.shape, np.float64)
    columns = [[CLASSES.index(name) for name in members] for members in mlcnn.GROUPS.values()]
    gate = np.stack([probabilities[:, chosen].sum(1) for chosen in columns], 1).astype(np.float64)
    gate **= 1.0 if choose else temperatures[0]
    gate /= gate.sum(1, keepdims=True)
    for number, (chosen, temperature) in enumerate(zip(columns, temperatures[1:], strict=True)):
        raised = np.maximum(probabilities[:, chosen], 1e-30).astype(np.float64) ** temperature
        out[:, chosen] = gate[:, number : number + 1] * raised / raised.sum(1, keepdims=True)
    return np.asarray(out, np.float32)
