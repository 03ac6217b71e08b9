"""The loss of YOLOv2 (Redmon & Farhadi 2016): an object belongs to the best anchor in the cell of its centre."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.architectures.yolov2 import STRIDE, transform


@dataclass(frozen=True)
class YOLOv2Weights:
    """Gains of the terms, as published; candidates that overlap an object by more than `ignored_iou` are no
    background."""

    box: float = 5.0
    objectness: float = 5.0
    background: float = 1.0
    classes: float = 1.0
    ignored_iou: float = 0.6


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """(n, 2) and (A, 2) widths and heights -> (n, A) IoU of boxes of one centre."""
    shared = torch.minimum(sizes[:, None], anchors[None]).prod(2)
    return shared / (sizes.prod(1)[:, None] + anchors.prod(1)[None] - shared)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4) and (m, 4) as x1 y1 x2 y2 -> (n, m)."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


class YOLOv2Loss:
    """The loss of a raw map (N, A*(5+C), h, w) against targets (n, 6): image, class, centre x, y, width, height in px;
    `known` bool (N, classes, H/8, W/8) as for YOLOv5: a cell of the map is background only where all is known."""

    def __init__(self, anchors_px: Tensor, weights: YOLOv2Weights | None = None, stride: int = STRIDE) -> None:
        self.anchors_px, self.stride = anchors_px.detach().float(), stride
        self.weights = weights or YOLOv2Weights()

    def __call__(self, raw: Tensor, targets: Tensor, known: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The weighted loss per picture (scalar), and its terms before weighting."""
        w, anchors = self.weights, self.anchors_px.to(raw.device)
        n, channels, rows, columns = raw.shape
        values = raw.float().view(n, len(anchors), channels // len(anchors), rows, columns).permute(0, 1, 3, 4, 2)
        boxes, _, _ = transform(raw.float(), anchors, self.stride)
        boxes = boxes.detach().view(n, len(anchors), rows, columns, 4)
        objectness = values[..., 4]
        per = known.shape[2] // rows
        everything = known.all(1).view(n, rows, per, columns, per).all(4).all(2)
        background = everything[:, None].expand_as(objectness).clone()
        image = targets[:, 0].long()
        corners = torch.cat((targets[:, 2:4] - targets[:, 4:] / 2, targets[:, 2:4] + targets[:, 4:] / 2), 1)
        for index in range(n):
            objects = corners[image == index]
            if len(objects):
                overlap = box_iou(boxes[index].reshape(-1, 4), objects).amax(1)
                background[index] &= (overlap <= w.ignored_iou).view_as(background[index])
        zero = raw.sum() * 0
        terms = {"box": zero, "objectness": zero, "classes": zero}
        if len(targets):
            in_cells = targets[:, 2:4] / self.stride
            column = in_cells[:, 0].long().clamp(0, columns - 1)
            row = in_cells[:, 1].long().clamp(0, rows - 1)
            anchor = shape_iou(targets[:, 4:], anchors).argmax(1)
            chosen = values[image, anchor, row, column]
            background[image, anchor, row, column] = False
            offset = in_cells - torch.stack((column, row), 1)
            log_scale = (targets[:, 4:] / anchors[anchor]).log()
            terms["box"] = ((chosen[:, :2].sigmoid() - offset) ** 2).sum() + ((chosen[:, 2:4] - log_scale) ** 2).sum()
            found = boxes[image, anchor, row, column]
            iou = torch.stack([box_iou(a[None], b[None])[0, 0] for a, b in zip(found, corners, strict=True)])
            terms["objectness"] = ((chosen[:, 4].sigmoid() - iou) ** 2).sum()
            terms["classes"] = F.cross_entropy(chosen[:, 5:], targets[:, 1].long(), reduction="sum")
        terms["background"] = (objectness.sigmoid() ** 2 * background).sum()
        gains = {"box": w.box, "objectness": w.objectness, "classes": w.classes, "background": w.background}
        loss = sum((gains[name] * value for name, value in terms.items()), zero) / n
        return loss, {name: float(value.detach()) / n for name, value in terms.items()}
