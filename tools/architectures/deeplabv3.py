"""DeepLabv3 (Chen et al. 2017, arXiv:1706.05587) on Xception (Chollet 2016, arXiv:1610.02357, figure 5).

Xception's depthwise-separable blocks with the last stride replaced by a dilation (output stride 16), the atrous
pyramid of a 1x1 convolution, three dilated ones and the image's mean, one 1x1 convolution to the classes, bilinear
enlargement to the input's size. Xception itself has 22,855,952 parameters with 1000 outputs.

For small inputs and small machines there are a share of every width, an output stride of 8, other dilations of the
pyramid, and the decoder of DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611), which joins features of stride 4 to the
pyramid's; with `detail` a second one joins those of stride 2, for edges. The defaults are the publication's: all of
the widths, stride 16, dilations of 6, 12 and 18, no decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """float32 (N, 3, H, W) -> features (N, w(2048), H/32, W/32), or H/16 or H/8 with `output_stride` 16 or 8.

    w(c) is `share` of c channels, a multiple of eight.
    """

    def __init__(self, output_stride: int = 32, *, share: float = 1.0) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: got {output_stride}, expected 8, 16 or 32")

        def w(channels: int) -> int:
            return max(8, round(channels * share / 8) * 8)

        third, middle = (1, 2) if output_stride == 8 else (2, 1)
        last, dilation = (2, 1) if output_stride == 32 else (1, 2 * middle)
        self.detail_channels, self.low_channels, self.channels = w(64), w(128), w(2048)
        self.entry = nn.Sequential(
            _conv(3, w(32), 3, 2),
            nn.ReLU(),
            _conv(w(32), w(64), 3),
            nn.ReLU(),
            Block((w(64), w(128), w(128)), stride=2, first_relu=False),
            Block((w(128), w(256), w(256)), stride=2),
            Block((w(256), w(728), w(728)), stride=third),
        )
        self.middle = nn.Sequential(*(Block((w(728),) * 4, dilation=middle) for _ in range(MIDDLE_BLOCKS)))
        self.exit = nn.Sequential(
            Block((w(728), w(728), w(1024)), stride=last, dilation=middle),
            Separable(w(1024), w(1536), dilation=dilation),
            nn.ReLU(),
            Separable(w(1536), w(2048), dilation=dilation),
            nn.ReLU(),
        )

    def detail(self, x: Tensor) -> Tensor:
        """Features of stride 2: float32 (N, w(64), H/2, W/2)."""
        out: Tensor = self.entry[:4](x)
        return out

    def low(self, detail: Tensor) -> Tensor:
        """Of those of stride 2, features of stride 4: float32 (N, w(128), H/4, W/4)."""
        out: Tensor = self.entry[4](detail)
        return out

    def rest(self, low: Tensor) -> Tensor:
        """All that follows `low`."""
        out: Tensor = self.exit(self.middle(self.entry[5:](low)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.low(self.detail(x)))


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: (N, cin, h, w) -> (N, width, h, w)."""

    def __init__(self, cin: int, width: int, rates: Sequence[int] = RATES) -> None:
        super().__init__()
        branches = [nn.Sequential(_conv(cin, width, 1), nn.ReLU())]
        branches += [nn.Sequential(_conv(cin, width, 3, dilation=rate), nn.ReLU()) for rate in rates]
        self.branches = nn.ModuleList(branches)
        self.image = nn.Sequential(nn.Conv2d(cin, width, 1), nn.ReLU())
        self.join = nn.Sequential(_conv(width * (len(rates) + 2), width, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.join(torch.cat([*(branch(x) for branch in self.branches), image], 1))
        return out


class Decoder(nn.Module):
    """DeepLabv3+'s: features enlarged to the size of earlier ones, beside these, through two separable convolutions:
    (N, cin, h, w), (N, low_channels, H, W) -> (N, width, H, W)."""

    def __init__(self, cin: int, low_channels: int, width: int) -> None:
        super().__init__()
        narrow = max(8, round(width * 48 / 256 / 8) * 8)
        self.low = nn.Sequential(_conv(low_channels, narrow, 1), nn.ReLU())
        self.join = nn.Sequential(Separable(cin + narrow, width), nn.ReLU(), Separable(width, width), nn.ReLU())

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        x = F.interpolate(x, size=low.shape[2:], mode="bilinear", align_corners=False)
        out: Tensor = self.join(torch.cat([x, self.low(low)], 1))
        return out


class DeepLabV3(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> logits (N, classes, H, W)."""

    def __init__(
        self,
        classes: int = len(CLASSES),
        *,
        width: int = 256,
        share: float = 1.0,
        output_stride: int = 16,
        rates: Sequence[int] = RATES,
        decoder: bool = False,
        detail: bool = False,
    ) -> None:
        """`detail` needs the decoder; it has half of its width. ValueError without."""
        super().__init__()
        if detail and not decoder:
            raise ValueError("detail: got no decoder, expected one: decoder=True")
        width = max(8, round(width * share / 8) * 8)
        self.backbone = Xception(output_stride, share=share)
        self.pyramid = Pyramid(self.backbone.channels, width, rates)
        self.decoder = Decoder(width, self.backbone.low_channels, width) if decoder else None
        half = max(8, round(width / 16) * 8)
        self.detail = Decoder(width, self.backbone.detail_channels, half) if detail else None
        self.classes = nn.Conv2d(half if detail else width, classes, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        detail = self.backbone.detail((x - 0.5) * 4)
        low = self.backbone.low(detail)
        features = self.pyramid(self.backbone.rest(low))
        if self.decoder is not None:
            features = self.decoder(features, low)
        if self.detail is not None:
            features = self.detail(features, detail)
        return F.interpolate(self.classes(features), size=x.shape[2:], mode="bilinear", align_corners=False)
