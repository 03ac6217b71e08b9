"""ResNet-50 (He et al. 2015, arXiv:1512.03385, table 1), with the stride in the 3x3 convolution of a bottleneck, as
all published weights of today have it: 25,557,032 parameters with 1000 outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tools.architectures.mobilenet import initialise

STAGES: tuple[tuple[int, int, int], ...] = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""(inner channels, bottlenecks, stride of the first)."""
EXPANSION = 4


def _conv(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(cout),
    )


class Bottleneck(nn.Module):
    """1x1 to `inner` channels, 3x3, 1x1 to four times as many, added to the input or its projection."""

    def __init__(self, cin: int, inner: int, stride: int) -> None:
        super().__init__()
        cout = EXPANSION * inner
        self.reduce, self.middle = _conv(cin, inner, 1), _conv(inner, inner, 3, stride)
        self.expand = _conv(inner, cout, 1)
        self.project = _conv(cin, cout, 1, stride) if stride != 1 or cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.middle(torch.relu(self.reduce(x))))
        return torch.relu(self.expand(y) + self.project(x))


class ResNet50(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> logits (N, classes); the publications' input is 224x224."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        stages, cin = [], 64
        for inner, count, stride in STAGES:
            blocks = [
                Bottleneck(cin if i == 0 else EXPANSION * inner, inner, stride if i == 0 else 1) for i in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            cin = EXPANSION * inner
        self.stages = nn.Sequential(*stages)
        self.classes = nn.Linear(cin, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classes(self.stages(self.stem((x - 0.5) * 4)).mean((2, 3)))
        return out

    def body_parameters(self) -> list[nn.Parameter]:
        """The early layers, frozen first when the network is fine-tuned: all but the last stage and the head."""
        return [*self.stem.parameters(), *self.stages[:3].parameters()]
