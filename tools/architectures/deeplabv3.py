"""DeepLabv3 (Chen et al. 2017, arXiv:1706.05587) on Xception (Chollet 2016, arXiv:1610.02357, figure 5).

Xception's depthwise-separable blocks with the last stride replaced by a dilation (output stride 16), the atrous
pyramid of a 1x1 convolution, three dilated ones and the image's mean, one 1x1 convolution to the classes, bilinear
enlargement to the input's size. Xception itself has 22,855,952 parameters with 1000 outputs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.architectures.mobilenet import initialise

CLASSES = ("background", "cytoplasm", "nucleus")
RATES = (6, 12, 18)
MIDDLE_BLOCKS = 8


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(cout),
    )


class Separable(nn.Module):
    """Depthwise 3x3, then pointwise, then normalisation."""

    def __init__(self, cin: int, cout: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(cin, cin, 3, stride, dilation, dilation, groups=cin, bias=False),
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Block(nn.Module):
    """ReLU and separable convolutions, perhaps a 3x3 max pooling of stride 2, added to the input or its projection."""

    def __init__(self, widths: tuple[int, ...], *, stride: int = 1, dilation: int = 1, first_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (cin, cout) in enumerate(pairwise(widths)):
            if index or first_relu:
                layers.append(nn.ReLU())
            layers.append(Separable(cin, cout, dilation=dilation))
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.body = nn.Sequential(*layers)
        projects = stride > 1 or widths[0] != widths[-1]
        self.project = _conv(widths[0], widths[-1], 1, stride) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.project(x)
        return out


class Xception(nn.Module):
    """float32 (N, 3, H, W) -> features (N, 2048, H/32, W/32), or H/16 with `output_stride` 16."""

    def __init__(self, output_stride: int = 32) -> None:
        super().__init__()
        if output_stride not in (16, 32):
            raise ValueError(f"output_stride: got {output_stride}, expected 16 or 32")
        last, dilation = (2, 1) if output_stride == 32 else (1, 2)
        self.entry = nn.Sequential(
            _conv(3, 32, 3, 2),
            nn.ReLU(),
            _conv(32, 64, 3),
            nn.ReLU(),
            Block((64, 128, 128), stride=2, first_relu=False),
            Block((128, 256, 256), stride=2),
            Block((256, 728, 728), stride=2),
        )
        self.middle = nn.Sequential(*(Block((728, 728, 728, 728)) for _ in range(MIDDLE_BLOCKS)))
        self.exit = nn.Sequential(
            Block((728, 728, 1024), stride=last),
            Separable(1024, 1536, dilation=dilation),
            nn.ReLU(),
            Separable(1536, 2048, dilation=dilation),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.exit(self.middle(self.entry(x)))
        return out


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: (N, cin, h, w) -> (N, width, h, w)."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        branches = [nn.Sequential(_conv(cin, width, 1), nn.ReLU())]
        branches += [nn.Sequential(_conv(cin, width, 3, dilation=rate), nn.ReLU()) for rate in RATES]
        self.branches = nn.ModuleList(branches)
        self.image = nn.Sequential(nn.Conv2d(cin, width, 1), nn.ReLU())
        self.join = nn.Sequential(_conv(width * (len(RATES) + 2), width, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.join(torch.cat([*(branch(x) for branch in self.branches), image], 1))
        return out


class DeepLabV3(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> logits (N, classes, H, W)."""

    def __init__(self, classes: int = len(CLASSES), *, width: int = 256) -> None:
        super().__init__()
        self.backbone = Xception(output_stride=16)
        self.pyramid = Pyramid(2048, width)
        self.classes = nn.Conv2d(width, classes, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classes(self.pyramid(self.backbone((x - 0.5) * 4)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)
