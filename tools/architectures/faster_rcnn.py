"""Faster R-CNN (Ren et al. 2015, arXiv:1506.01497): the first level of ML-CNN (Cheuque et al. 2022), which finds white
cells and parts them into mononuclear and polymorphonuclear ones.

One map of stride 16. Backbones: "mobilenet", the body of ML-CNN's second level (width 0.5) up to stride 16, what a CPU
carries; "resnet50", up to the end of its third stage. Two savings over the original: what RoI align cuts out is the
map reduced to 64 channels by a 1x1 convolution (Li et al. 2017, arXiv:1711.07264), and a box is corrected whatever
its class. RoI align (He et al. 2017, arXiv:1703.06870) stands in the place of RoI pooling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.geometry import nms
from engines.graphs.faster_rcnn_head import (
    AFTER,
    BEFORE,
    BOX_SCALE,
    LARGEST_LOG_SCALE,
    NMS_IOU,
    POOLED,
    SAMPLES,
    STRIDE,
)
from tools.architectures.mlcnn import GROUPS
from tools.architectures.mobilenet import MobileNet, initialise
from tools.architectures.resnet50 import ResNet50

CLASSES = tuple(GROUPS)
"""mononuclear, polymorphonuclear."""
BACKBONES = ("mobilenet", "resnet50")
ANCHORS_PX: tuple[tuple[float, float], ...] = tuple((side, side) for side in (32.0, 48.0, 72.0, 108.0, 160.0))
"""(width, height) where none are given; training fits its own to the cells, which are round."""
REDUCED, RPN_WIDTH, HIDDEN = 64, 128, 256


class _MobileNetBody(nn.Module):
    channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.features = MobileNet(1).features[: 1 + 2 * 11]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features(x * 2 - 1)
        return out


class _ResNetBody(nn.Module):
    channels = 1024

    def __init__(self) -> None:
        super().__init__()
        whole = ResNet50(1)
        self.stem, self.stages = whole.stem, whole.stages[:3]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stages(self.stem((x - 0.5) * 4))
        return out


class Body(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> features (N, 64, H/16, W/16) and the raw map of proposals (N, A*5, H/16, W/16),
    channel = anchor * 5 + (objectness, x, y, w, h); H and W are multiples of 32."""

    def __init__(self, backbone: str, anchors: int) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"backbone: got {backbone!r}, expected one of {', '.join(BACKBONES)}")
        self.backbone: nn.Module = _MobileNetBody() if backbone == "mobilenet" else _ResNetBody()
        channels: int = self.backbone.channels
        self.reduce = nn.Sequential(nn.Conv2d(channels, REDUCED, 1, bias=False), nn.BatchNorm2d(REDUCED), nn.ReLU())
        self.slide = nn.Sequential(nn.Conv2d(channels, RPN_WIDTH, 3, padding=1), nn.ReLU())
        self.proposals = nn.Conv2d(RPN_WIDTH, anchors * 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        return self.reduce(features), self.proposals(self.slide(features))


class BoxHead(nn.Module):
    """RoIs (M, 64, 7, 7) -> logits (M, 1 + classes), background first, and corrections (M, 4) of the boxes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(REDUCED * POOLED * POOLED, HIDDEN), nn.ReLU())
        self.classes = nn.Linear(HIDDEN, 1 + classes)
        self.boxes = nn.Linear(HIDDEN, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)
        return self.classes(hidden), self.boxes(hidden)


class FasterRCNN(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> what the compact head gives, best first: boxes (N, K, 4) as x1 y1 x2 y2 in input
    px, scores (N, K), classes (N, K), and the classes' shares of what is no background (N, K, C).

    `anchors_px` (A, 2) is a buffer, saved with the weights. The forward pass is that of the exported graph; training
    calls `body`, `proposals` and `looks`.
    """

    anchors_px: Tensor

    def __init__(
        self,
        classes: int = len(CLASSES),
        *,
        backbone: str = "mobilenet",
        anchors_px: Sequence[Sequence[float]] = ANCHORS_PX,
    ) -> None:
        super().__init__()
        self.class_count = classes
        self.register_buffer("anchors_px", torch.tensor(anchors_px, dtype=torch.float32))
        self.body = Body(backbone, len(self.anchors_px))
        self.box_head = BoxHead(classes)
        initialise(self)
        for layer in (self.body.proposals, self.box_head.classes, self.box_head.boxes):
            nn.init.normal_(layer.weight, std=0.01)  # as published: anchors and proposals start as what they are

    def proposals(
        self, raw: Tensor, size: tuple[int, int], *, before: int = BEFORE, after: int = AFTER
    ) -> tuple[Tensor, Tensor]:
        """The raw map -> the best `after` proposals (N, R, 4) inside a picture of (height, width) px, of the best
        `before` those that overlap no better one by more than `NMS_IOU`; and bool (N, R), false for what only fills
        the rows up."""
        boxes, objectness = decoded(raw.detach(), self.anchors_px)
        score, index = objectness.topk(min(before, objectness.shape[1]), 1)
        boxes = clipped(boxes.gather(1, index[..., None].expand(-1, -1, 4)), size)
        kept = torch.zeros_like(score)
        for n in range(len(boxes)):
            alike = np.zeros(boxes.shape[1], np.int64)
            chosen = nms(boxes[n].cpu().numpy(), score[n].float().cpu().numpy(), alike, NMS_IOU)
            kept[n, torch.from_numpy(chosen)] = 1
        best, order = (score * kept).topk(min(after, score.shape[1]), 1)
        return boxes.gather(1, order[..., None].expand(-1, -1, 4)), best > 0

    def looks(self, features: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Features and RoIs (N, R, 4) in input px -> logits (N, R, 1 + C) and corrections (N, R, 4)."""
        n, count = rois.shape[:2]
        logits, boxes = self.box_head(roi_align(features, rois))
        return logits.view(n, count, -1), boxes.view(n, count, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = x.shape[2], x.shape[3]
        features, raw = self.body(x)
        rois, real = self.proposals(raw, size)
        logits, corrections = self.looks(features, rois)
        boxes = clipped(applied(corrections, rois), size)
        of_class = logits.softmax(-1)[..., 1:]
        scores, order = torch.sort(of_class.amax(-1) * real, dim=1, descending=True, stable=True)
        shares = logits[..., 1:].softmax(-1)

        def picked(values: Tensor) -> Tensor:
            return values.gather(1, order[..., None].expand(-1, -1, values.shape[-1]))

        return picked(boxes), scores, picked(of_class).argmax(-1), picked(shares)


def anchor_boxes(anchors_px: Tensor, rows: int, columns: int) -> Tensor:
    """(A * rows * columns, 4) as x1 y1 x2 y2 in input px, by anchor, row, column."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centre = (torch.stack((x, y), 2).to(anchors_px) + 0.5) * STRIDE
    half = anchors_px[:, None, None] / 2
    return torch.cat((centre - half, centre + half), -1).flatten(0, 2)


def decoded(raw: Tensor, anchors_px: Tensor) -> tuple[Tensor, Tensor]:
    """Raw map (N, A*5, h, w) -> boxes (N, A*h*w, 4), objectness (N, A*h*w) in 0..1."""
    n, _, rows, columns = raw.shape
    table = raw.float().view(n, len(anchors_px), 5, rows, columns).permute(0, 1, 3, 4, 2).reshape(n, -1, 5)
    return applied(table[..., 1:], anchor_boxes(anchors_px, rows, columns)), table[..., 0].sigmoid()


def applied(corrections: Tensor, boxes: Tensor) -> Tensor:
    """Boxes (…, 4) moved and sized by corrections (…, 4): x, y in sides of the box, logarithms of w, h; each divided by
    `BOX_SCALE`."""
    scale = corrections.new_tensor(BOX_SCALE)
    change = corrections * scale
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + change[..., :2] * size
    half = change[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp() * size / 2
    return torch.cat((centre - half, centre + half), -1)


def corrections_to(targets: Tensor, boxes: Tensor) -> Tensor:
    """The corrections (n, 4) that turn boxes (n, 4) into targets (n, 4)."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    wanted = (targets[:, 2:] - targets[:, :2]).clamp(min=1)
    moved = (targets[:, :2] + targets[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / size
    return torch.cat((moved, (wanted / size).log()), 1) / boxes.new_tensor(BOX_SCALE)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (…, 4) inside a picture of (height, width) px."""
    height, width = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor((width, height, width, height)))


def roi_align(features: Tensor, rois: Tensor) -> Tensor:
    """Features (N, C, h, w) and RoIs (N, R, 4) in input px, inside the picture -> (N*R, C, 7, 7): ONNX's RoiAlign with
    half_pixel, the mean of 2x2 samples a bin."""
    n, count = rois.shape[:2]
    rows, columns = features.shape[2:]
    step = (torch.arange(POOLED * SAMPLES, device=rois.device) + 0.5) / (POOLED * SAMPLES)
    low, high = rois[..., :2] / STRIDE - 0.5, rois[..., 2:] / STRIDE - 0.5
    points = low[:, :, None] + (high - low)[:, :, None] * step[:, None]  # (N, R, 14, 2)
    limits = points.new_tensor((columns, rows))
    spread = points.clamp(min=0).minimum(limits - 1) / (limits - 1).clamp(min=1) * 2 - 1
    x = spread[..., 0][:, :, None, :].expand(-1, -1, len(step), -1)
    y = spread[..., 1][:, :, :, None].expand(-1, -1, -1, len(step))
    grid = torch.stack((x, y), -1).flatten(1, 2)  # (N, R*14, 14, 2)
    sampled = F.grid_sample(features.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    pooled = F.avg_pool2d(sampled, SAMPLES)  # (N, C, R*7, 7)
    split = pooled.view(n, -1, count, POOLED, POOLED).transpose(1, 2)
    return split.reshape(n * count, -1, POOLED, POOLED)
