"""YOLOv5 (release 6 form) in PyTorch: CSPDarknet backbone, SPPF, PANet neck, three anchor-based heads.

Written from the literature: CSPNet (Wang 2020, arXiv:1911.11929), spatial pyramid pooling (He 2014, arXiv:1406.4729;
its "fast" form chains three 5x5 poolings), PANet (Liu 2018, arXiv:1803.01534), the sizes as published for YOLOv5 6.0
(width .25 and depth .33 make the "n" size), as used for leukocytes by Zhou 2023. The 6x6 stride-2 stem equals the
older Focus layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)

# The COCO anchors of the publication, (width, height) in input px, three a level; training fits its own.
COCO_ANCHORS_PX = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)

SIZES = {"n": (0.25, 1 / 3), "s": (0.5, 1 / 3), "m": (0.75, 2 / 3), "l": (1.0, 1.0)}  # name: (width, depth)


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch normalisation, SiLU; "same" padding unless given."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int | None = None):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class Bottleneck(nn.Module):
    """1x1 then 3x3 at constant width, added to the input in the backbone (`residual`), not in the neck."""

    def __init__(self, channels: int, residual: bool):
        super().__init__()
        self.body = nn.Sequential(ConvBlock(channels, channels, 1), ConvBlock(channels, channels, 3))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return x + found if self.residual else found


class C3(nn.Module):
    """Cross-stage partial block with three 1x1 convolutions: one half through `repeats` bottlenecks, one half
    past them."""

    def __init__(self, inputs: int, outputs: int, repeats: int, residual: bool = True):
        super().__init__()
        half = outputs // 2
        self.through = ConvBlock(inputs, half)
        self.past = ConvBlock(inputs, half)
        self.bottlenecks = nn.Sequential(*(Bottleneck(half, residual) for _ in range(repeats)))
        self.join = ConvBlock(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat((self.bottlenecks(self.through(x)), self.past(x)), 1))
        return joined


class SPPF(nn.Module):
    """Spatial pyramid pooling: the input beside its maxima over 5x5, 9x9 and 13x13."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = ConvBlock(channels, channels // 2)
        self.join = ConvBlock(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        maxima = [self.reduce(x)]
        for _ in range(3):
            maxima.append(self.pool(maxima[-1]))
        joined: Tensor = self.join(torch.cat(maxima, 1))
        return joined


class YOLOv5(nn.Module):
    """The network: images float (N,3,H,W) in 0..1, H and W multiples of 32, to the raw logit maps p3, p4, p5.

    Each map is (N, A*(5+C), H/s, W/s) for the strides s of `STRIDES`, channel = anchor * (5+C) + k with k = x, y, w, h,
    objectness, then the C classes; decoded as xy = (2σ-0.5+cell)*s, wh = (2σ)²*anchor, score = σ(objectness)*σ(class).

    `anchors_px` (3 levels, A anchors, (w, h)) is a buffer, saved with the weights, in input px.
    """

    anchors_px: Tensor

    def __init__(
        self,
        classes: int,
        *,
        width: float = 0.25,
        depth: float = 1 / 3,
        anchors_px: Sequence[Sequence[Sequence[float]]] = COCO_ANCHORS_PX,
    ):
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: got {classes}, expected at least one class name")
        anchors = torch.tensor(anchors_px, dtype=torch.float32)
        if anchors.ndim != 3 or anchors.shape[0] != 3 or anchors.shape[2] != 2:
            raise ValueError(f"anchors_px: got shape {tuple(anchors.shape)}, expected (3 levels, A, 2)")
        self.classes = classes
        self.anchors_per_level = anchors.shape[1]
        self.register_buffer("anchors_px", anchors)

        c1, c2, c3, c4, c5 = (int(8 * math.ceil(n * width / 8)) for n in (64, 128, 256, 512, 1024))
        r1, r2, r3 = (max(1, round(n * depth)) for n in (3, 6, 9))
        self.stem = ConvBlock(3, c1, 6, 2, 2)
        self.stage2 = nn.Sequential(ConvBlock(c1, c2, 3, 2), C3(c2, c2, r1))
        self.stage3 = nn.Sequential(ConvBlock(c2, c3, 3, 2), C3(c3, c3, r2))
        self.stage4 = nn.Sequential(ConvBlock(c3, c4, 3, 2), C3(c4, c4, r3))
        self.stage5 = nn.Sequential(ConvBlock(c4, c5, 3, 2), C3(c5, c5, r1), SPPF(c5))

        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral5 = ConvBlock(c5, c4)
        self.merge4 = C3(2 * c4, c4, r1, residual=False)
        self.lateral4 = ConvBlock(c4, c3)
        self.merge3 = C3(2 * c3, c3, r1, residual=False)
        self.down3 = ConvBlock(c3, c3, 3, 2)
        self.out4 = C3(2 * c3, c4, r1, residual=False)
        self.down4 = ConvBlock(c4, c4, 3, 2)
        self.out5 = C3(2 * c4, c5, r1, residual=False)

        channels = self.anchors_per_level * (5 + classes)
        self.heads = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in (c3, c4, c5))
        self.set_prior_biases()

    def set_prior_biases(self, objects_per_image: float = 20.0, side_px: int = 320) -> None:
        """Start each head near the frequencies to expect, so that the first steps aren't spent on learning
        "nothing here"."""
        for head, stride in zip(self.heads, STRIDES, strict=True):
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            bias = head.bias.detach().view(self.anchors_per_level, -1)
            bias[:, 4] = math.log(objects_per_image / 3 / (side_px / stride) ** 2)
            bias[:, 5:] = math.log(0.6 / self.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s3 = self.stage3(self.stage2(self.stem(images)))
        s4 = self.stage4(s3)
        l5 = self.lateral5(self.stage5(s4))
        l4 = self.lateral4(self.merge4(torch.cat((self.up(l5), s4), 1)))
        n3 = self.merge3(torch.cat((self.up(l4), s3), 1))
        n4 = self.out4(torch.cat((self.down3(n3), l4), 1))
        n5 = self.out5(torch.cat((self.down4(n4), l5), 1))
        return self.heads[0](n3), self.heads[1](n4), self.heads[2](n5)


def yolov5(size: str, classes: int, **options: Sequence[Sequence[Sequence[float]]]) -> YOLOv5:
    """A network of a published size: "n" (1.8 M parameters), "s", "m" or "l"."""
    if size not in SIZES:
        raise ValueError(f"size: got {size!r}, expected one of {', '.join(SIZES)}")
    width, depth = SIZES[size]
    return YOLOv5(classes, width=width, depth=depth, **options)
