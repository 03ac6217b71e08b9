"""The localiser of the leukaemia system of 2022: YOLOv2 (Redmon & Farhadi 2016, arXiv:1612.08242) on a small backbone.

Input 128x128, an element-wise affine, five poolings down to 4x4x512, a head of 4x4x40: four anchors of (5 + five
classes).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tools.architectures.mobilenet import initialise

INPUT_PX, STRIDE = 128, 32
WIDTHS = (16, 32, 64, 128, 256, 512)
CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
ANCHORS_PX: tuple[tuple[float, float], ...] = ((30.0, 30.0), (44.0, 44.0), (60.0, 60.0), (84.0, 84.0))
"""(width, height) where none are given; training fits its own."""


class YOLOv2(nn.Module):
    """float32 (N, 3, 128, 128) in 0..1 -> raw map (N, A*(5+C), 4, 4), channel = anchor * (5+C) + (x, y, w, h,
    objectness, classes…); other sizes are multiples of 32 and keep the channels.

    `anchors_px` (A, 2) is a buffer, saved with the weights, in input px.
    """

    anchors_px: Tensor

    def __init__(self, classes: int = len(CLASSES), *, anchors_px: Sequence[Sequence[float]] = ANCHORS_PX) -> None:
        super().__init__()
        self.class_count = classes
        self.register_buffer("anchors_px", torch.tensor(anchors_px, dtype=torch.float32))
        self.scale = nn.Parameter(torch.full((1, 3, 1, 1), 4.0))
        self.shift = nn.Parameter(torch.full((1, 3, 1, 1), -2.0))
        layers: list[nn.Module] = []
        cin = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(cin, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1)]
            if width != WIDTHS[-1]:
                layers.append(nn.MaxPool2d(2))
            cin = width
        self.backbone = nn.Sequential(*layers)
        head: list[nn.Module] = []
        for _ in range(2):
            head += [nn.Conv2d(cin, cin, 3, padding=1, bias=False), nn.BatchNorm2d(cin), nn.ReLU()]
        last = nn.Conv2d(cin, len(self.anchors_px) * (5 + classes), 1)
        self.head = nn.Sequential(*head, last)
        initialise(self)
        nn.init.normal_(last.weight, std=0.01)  # a box starts as its anchor: exp() of more makes it huge

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x * self.scale + self.shift))
        return out


def transform(raw: Tensor, anchors_px: Tensor, stride: int = STRIDE) -> tuple[Tensor, Tensor, Tensor]:
    """The YOLOv2 transform: raw map -> boxes (N, K, 4) as x1 y1 x2 y2 in input px, objectness (N, K), class
    probabilities (N, K, C); K runs over anchor, row, column.

    Centre σ(x) in its cell, size anchor * exp(w), objectness σ, classes softmax.
    """
    n, channels, rows, columns = raw.shape
    anchors = len(anchors_px)
    values = raw.view(n, anchors, channels // anchors, rows, columns).permute(0, 1, 3, 4, 2)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centre = (values[..., :2].sigmoid() + torch.stack((x, y), 2).to(values)) * stride
    half = values[..., 2:4].clamp(max=6).exp() * anchors_px[None, :, None, None] / 2
    boxes = torch.cat((centre - half, centre + half), -1)
    return boxes.flatten(1, 3), values[..., 4].sigmoid().flatten(1), values[..., 5:].softmax(-1).flatten(1, 3)
