"""How the publications trained: their protocols, and the splits that they dealt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tools.data.splits import TRAIN, VALIDATION

TEST = "test"


@dataclass(frozen=True)
class Protocol:
    """How a publication trained. shares: of the groups in training, validation and test; patience: epochs without a
    better validation accuracy after which training stops, None where it does not; repetitions: Monte-Carlo splits;
    optimizer: "sgdm" is gradient descent with a momentum of 0.9."""

    publication: str
    input_px: int
    rate: float
    batch: int
    epochs: int
    patience: int | None
    shares: tuple[float, float, float]
    repetitions: int = 1
    optimizer: Literal["adam", "sgdm"] = "adam"


_KATAR = Protocol("Katar & Kilincer 2022", 224, 1e-4, 64, 50, 5, (0.7, 0.2, 0.1))
PROTOCOLS: Mapping[str, Protocol] = {
    "mobilenetv3-small": _KATAR,
    "resnet50": _KATAR,
    "vgg19": _KATAR,
    "ml-cnn": Protocol("Cheuque et al. 2022", 128, 1e-3, 32, 50, None, (0.7, 0.0, 0.3), repetitions=10),
    "mobilenet": Protocol("body of ML-CNN, Cheuque et al. 2022", 128, 1e-3, 32, 50, None, (0.7, 0.0, 0.3)),
    "darknet53": Protocol(
        "DarkNet-53 of the leukaemia system, 2022", 256, 1e-3, 12, 100, None, (0.7, 0.0, 0.3), optimizer="sgdm"
    ),
}
"""ML-CNN's batch and epochs are not published; 32 and 50 are ours."""


def published_split(
    classes: Sequence[str], groups: Sequence[str], shares: tuple[float, float, float], seed: int
) -> list[str]:
    """The part ("train", "validation", "test") of each cell: random by seed, the same shares of every class, and all
    cells of a group (re-exports of one picture, a slide) in the same part as its first."""
    if abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares: got {shares}, expected three that sum to 1")
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    by_class: dict[str, list[str]] = {}
    for group, indices in members.items():
        by_class.setdefault(classes[indices[0]], []).append(group)
    rng = np.random.default_rng(seed)
    parts = [""] * len(classes)
    for name in sorted(by_class):
        names = sorted(by_class[name])
        rng.shuffle(names)
        ends = np.round(np.cumsum(shares) * len(names)).astype(int)
        for place, group in enumerate(names):
            part = (TRAIN, VALIDATION, TEST)[int(np.searchsorted(ends, place, side="right"))]
            for index in members[group]:
                parts[index] = part
    return parts
