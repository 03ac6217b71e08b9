"""ML-CNN (Cheuque et al. 2022): a group of white cells first, then the class within the group, as one network.

The publication's first level is a Faster R-CNN that finds the cell as well (`faster_rcnn`). Here a gate on the crop
takes its place, so that the system works on bare crops and behind any detector; behind the Faster R-CNN its group goes
over the gate's, by leaving the other group's classes out (engines.models.groups). The MobileNets see the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tools.architectures.mobilenet import MobileNet

GROUPS: Mapping[str, tuple[str, ...]] = {
    "mononuclear": ("lymphocyte", "monocyte"),
    "polymorphonuclear": ("basophil", "eosinophil", "neutrophil"),
}
CLASSES: tuple[str, ...] = tuple(sorted(name for members in GROUPS.values() for name in members))


def group_of(name: str) -> int:
    """Index of the group that a class belongs to."""
    return next(index for index, members in enumerate(GROUPS.values()) if name in members)


def group_name(name: str) -> str:
    """The group that a class belongs to."""
    return tuple(GROUPS)[group_of(name)]


OTHER = 1e-3
"""Of the group that was not chosen: little enough to change no class, enough for float16."""


class MLCNN(nn.Module):
    """float32 (N, 3, 128, 128) in 0..1 -> probabilities (N, 5) in the order of `CLASSES`.

    `choose`: the likelier group's network gives the class, as published, and the other one has `OTHER` of the
    probability, so that what it says can still be read; else both do, each by the probability of its group.
    `temperatures` are of the gate and of each group's network.
    """

    def __init__(self, *, choose: bool = True, temperatures: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.gate = MobileNet(len(GROUPS))
        self.groups = nn.ModuleList(MobileNet(len(members)) for members in GROUPS.values())
        self.choose = choose
        self.temperatures = tuple(temperatures)
        grouped = [name for members in GROUPS.values() for name in members]
        self.order = [grouped.index(name) for name in CLASSES]

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.softmax(self.gate(x) / self.temperatures[0], 1)
        if self.choose:
            first = (gate[:, :1] >= 0.5).to(gate.dtype) * (1 - 2 * OTHER) + OTHER
            gate = torch.cat((first, 1 - first), 1)
        parts = [
            torch.softmax(network(x) / temperature, 1) * gate[:, index : index + 1]
            for index, (network, temperature) in enumerate(zip(self.groups, self.temperatures[1:], strict=True))
        ]
        return torch.cat(parts, 1)[:, self.order]
