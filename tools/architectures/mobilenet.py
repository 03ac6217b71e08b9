"""MobileNet (Howard et al. 2017, arXiv:1704.04861, table 1), as ML-CNN uses it: width 0.5, one dense layer of 512.

Cheuque et al. 2022 (Diagnostics 12, 248): 1,093,218 parameters with two outputs, counted as Keras counts, running
statistics included; 263,682 of them train while the body is frozen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BODY: tuple[tuple[int, int], ...] = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""(channels at width 1, stride) of each depthwise-separable block."""


def _conv(cin: int, cout: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, eps=1e-3, momentum=0.1),
        nn.ReLU6(),
    )


class MobileNet(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> logits (N, classes); the publication's input is 128x128."""

    def __init__(self, classes: int, *, width: float = 0.5, hidden: int = 512) -> None:
        super().__init__()
        widths = [int(32 * width), *(int(channels * width) for channels, _ in BODY)]
        blocks: list[nn.Module] = [_conv(3, widths[0], 3, 2)]
        for cin, cout, (_, stride) in zip(widths, widths[1:], BODY, strict=False):
            blocks += [_conv(cin, cin, 3, stride, groups=cin), _conv(cin, cout, 1, 1)]
        self.features = nn.Sequential(*blocks)
        self.hidden = nn.Linear(widths[-1], hidden)
        self.classes = nn.Linear(hidden, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, 3, H, W) in 0..1 -> float32 (N, classes)."""
        features = self.features(x * 2 - 1).mean((2, 3))
        out: Tensor = self.classes(torch.relu(self.hidden(features)))
        return out

    def body_parameters(self) -> list[nn.Parameter]:
        """Those that are frozen while only the head trains."""
        return list(self.features.parameters())


def initialise(network: nn.Module) -> None:
    """He initialisation of convolutions, Glorot's of dense layers, no biases. By fan-in, which counts one channel for a
    depthwise convolution: by fan-out its outputs would be as small as the epsilon of their normalisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def keras_count(network: nn.Module) -> int:
    """Parameters as Keras counts them: with the running mean and variance of each normalised channel."""
    statistics = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    return sum(p.numel() for p in network.parameters()) + statistics
