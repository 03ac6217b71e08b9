"""MobileNetV3-Small with two heads: cell classes and subclasses.

Howard et al., Searching for MobileNetV3, 2019, table 2. The squeeze-and-excite that the table marks at the last 1x1
convolution is left out, as in the authors' published code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Row(NamedTuple):
    """One bottleneck of table 2."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hard_swish: bool
    stride: int


SMALL: tuple[Row, ...] = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
STEM, LAST, HIDDEN = 16, 576, 1024
PLACES = (3, 6, 8)
"""Of the blocks, the stem being number 0: whose channel means say whether a crop is like what was trained on."""


def _divisible(channels: float) -> int:
    """The multiple of eight nearest to `channels`, never more than 10 % below it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(cin: int, cout: int, kernel: int, stride: int, groups: int, act: type[nn.Module] | None) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03),
    ]
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Channel weights from the mean of the map, a quarter of the channels wide, gated by hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = _divisible(channels / 4)
        self.reduce = nn.Conv2d(channels, narrow, 1)
        self.expand = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        weights = self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(weights)


class Bottleneck(nn.Module):
    """Expand, depthwise, squeeze-excite, project; the input is added where the shapes agree."""

    def __init__(self, cin: int, row: Row) -> None:
        super().__init__()
        act: type[nn.Module] = nn.Hardswish if row.hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if row.expanded != cin:
            layers.append(_conv(cin, row.expanded, 1, 1, 1, act))
        layers.append(_conv(row.expanded, row.expanded, row.kernel, row.stride, row.expanded, act))
        if row.squeeze:
            layers.append(SqueezeExcite(row.expanded))
        layers.append(_conv(row.expanded, row.out, 1, 1, 1, None))
        self.body = nn.Sequential(*layers)
        self.adds = row.stride == 1 and cin == row.out

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, h, w) -> (N, row.out, h/stride, w/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


def standardised(x: Tensor) -> Tensor:
    """(N, 3, H, W): each picture's channels less their means, over one spread for all three.

    Brightness, contrast and white balance of the whole picture cancel; colours relative to one another stay.
    """
    x = x - x.mean((2, 3), keepdim=True)
    return x / (x.square().mean((1, 2, 3), keepdim=True) + 1e-3).sqrt()


def density(x: Tensor) -> Tensor:
    """Optical density of float32 (N, 3, H, W) in 0..1: a lamp's colour is an offset there, gamma a factor."""
    return -torch.log(x * (255 / 256) + 1 / 256)


def mix_styles(x: Tensor) -> Tensor:
    """(N, C, h, w) whose channels' means and spreads are mixed with those of another picture of the batch.

    They carry stain and light more than shape (MixStyle, Zhou et al., 2021); most mixes stay near to one of the two.
    """
    mean = x.mean((2, 3), keepdim=True).detach()
    spread = ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt().detach()
    share = torch.distributions.Beta(0.2, 0.2).sample((len(x), 1, 1, 1)).to(x.device, x.dtype)
    other = torch.randperm(len(x), device=x.device)
    wanted_spread = share * spread + (1 - share) * spread[other]
    wanted_mean = share * mean + (1 - share) * mean[other]
    return (x - mean) / spread * wanted_spread + wanted_mean


class CropNetwork(nn.Module):
    """A network of single cells: features, and heads that all see one description of them.

    In training, `style_share` of the batches pass each of the first three features through `mix_styles`. A third head
    gives `attributes` logits; `forward` leaves it out, training and export call it.
    """

    features: nn.Sequential
    classes: nn.Linear
    subclasses: nn.Linear
    attributes: nn.Linear | None
    style_share: float

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, 3, H, W) in 0..1 -> float32 (N, classes), float32 (N, subclasses)."""
        hidden = self.describe(x)
        return self.classes(hidden), self.subclasses(hidden)

    def describe(self, x: Tensor) -> Tensor:
        """float32 (N, 3, H, W) in 0..1 -> float32 (N, width), what all heads see."""
        return self.describe_at(x, ())[0]

    def describe_at(self, x: Tensor, places: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """What all heads see, and the channel means (N, C) of the maps after the features at `places`."""
        raise NotImplementedError

    def walk(self, x: Tensor, places: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """The channel means of the last features, and of those at `places`."""
        means = []
        for i, block in enumerate(self.features):
            x = block(x)
            if self.training and i < 3 and float(torch.rand(())) < self.style_share:
                x = mix_styles(x)
            if i in places:
                means.append(x.mean((2, 3)))
        return x.mean((2, 3)), means


class MobileNetV3Small(CropNetwork):
    """float32 (N, 3, H, W) in 0..1 -> class logits (N, classes) and subclass logits (N, subclasses).

    `standardise` makes the network see each picture through `standardised`, its optical density where `by_density`,
    so that the lamp's colour cancels as well.
    """

    def __init__(
        self,
        classes: int,
        subclasses: int,
        dropout: float = 0.2,
        *,
        standardise: bool = False,
        by_density: bool = False,
        style_share: float = 0.0,
        attributes: int = 0,
    ) -> None:
        super().__init__()
        self.standardise = standardise
        self.by_density = by_density
        self.style_share = style_share
        widths = (STEM, *(row.out for row in SMALL))
        self.features = nn.Sequential(
            _conv(3, STEM, 3, 2, 1, nn.Hardswish),
            *(Bottleneck(cin, row) for cin, row in zip(widths, SMALL, strict=False)),
            _conv(widths[-1], LAST, 1, 1, 1, nn.Hardswish),
        )
        self.hidden = nn.Linear(LAST, HIDDEN)
        self.activation = nn.Hardswish()
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(HIDDEN, classes)
        self.subclasses = nn.Linear(HIDDEN, subclasses)
        self.attributes = nn.Linear(HIDDEN, attributes) if attributes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def describe_at(self, x: Tensor, places: tuple[int, ...] = PLACES) -> tuple[Tensor, list[Tensor]]:
        """What all heads see, float32 (N, 1024), and the channel means (N, C) of the maps after some blocks."""
        if self.by_density:
            x = density(x)
        x, means = self.walk(standardised(x) if self.standardise else (x - 0.5) * 4, places)
        hidden: Tensor = self.dropout(self.activation(self.hidden(x)))
        return hidden, means
