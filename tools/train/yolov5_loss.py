"""The YOLOv5 loss (CIoU + objectness + class BCE) for pictures of which some classes or places are not labelled.

Assignment as published for YOLOv5: an object belongs to every anchor, on every level, whose sides differ from its own
by less than `max_ratio`, in the cell of its centre and in the two nearest neighbours.

What is not labelled gives no negative evidence. `known` says for each stride-8 cell and class whether the annotation
is complete there:

* all classes known: the usual objectness BCE, towards 0 where no object is assigned;
* some known: instead of objectness alone, the product score σ(objectness)·σ(class) of each *known* class goes to 0,
  so that the class logit of an unlabelled class gets no gradient at all, and objectness next to none where that class
  is what the network sees;
* none known: no negative term.

Assigned objects always count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.architectures.yolov5 import STRIDES


@dataclass(frozen=True)
class LossWeights:
    """Gains of the three terms; `balance` weighs the objectness of the three levels (small objects most).

    `of_class`: what an object of each class weighs in the class term; empty where all weigh the same.
    """

    box: float = 0.05
    objectness: float = 0.25
    classes: float = 0.15
    balance: tuple[float, float, float] = (4.0, 1.0, 0.4)
    max_ratio: float = 4.0
    of_class: tuple[float, ...] = ()


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU (Zheng 2020, arXiv:2005.03572) of boxes (n,4) as centre x, y, width, height; float (n,), 1 at equality."""
    aw, ah, bw, bh = a[:, 2], a[:, 3], b[:, 2], b[:, 3]
    left = torch.maximum(a[:, 0] - aw / 2, b[:, 0] - bw / 2)
    right = torch.minimum(a[:, 0] + aw / 2, b[:, 0] + bw / 2)
    top = torch.maximum(a[:, 1] - ah / 2, b[:, 1] - bh / 2)
    bottom = torch.minimum(a[:, 1] + ah / 2, b[:, 1] + bh / 2)
    overlap = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    iou = overlap / (aw * ah + bw * bh - overlap + 1e-7)
    hull_w = torch.maximum(a[:, 0] + aw / 2, b[:, 0] + bw / 2) - torch.minimum(a[:, 0] - aw / 2, b[:, 0] - bw / 2)
    hull_h = torch.maximum(a[:, 1] + ah / 2, b[:, 1] + bh / 2) - torch.minimum(a[:, 1] - ah / 2, b[:, 1] - bh / 2)
    distance = ((a[:, :2] - b[:, :2]) ** 2).sum(1) / (hull_w**2 + hull_h**2 + 1e-7)
    aspect = (4 / math.pi**2) * (torch.atan(bw / (bh + 1e-7)) - torch.atan(aw / (ah + 1e-7))) ** 2
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + 1e-7)
    return iou - distance - alpha * aspect


@dataclass(frozen=True)
class Assignment:
    """The positives of one level: indices (n,) of image, anchor, row, column; class (n,); box (n,4) as x, y, w, h
    in cells,
    x and y relative to the cell's corner."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    label: Tensor
    box: Tensor


def assign(targets: Tensor, anchors: Tensor, rows: int, columns: int, max_ratio: float) -> Assignment:
    """Targets (n,6) of image, class, centre x, y, w, h in cells of a level with `anchors` (A,2) in cells ->
    positives."""
    n_anchors = len(anchors)
    repeated = targets[None].expand(n_anchors, -1, -1)
    ratio = repeated[..., 4:6] / anchors[:, None]
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < max_ratio
    anchor_index = torch.arange(n_anchors, device=targets.device)[:, None].expand_as(fits)[fits]
    chosen = repeated[fits]
    x, y = chosen[:, 2], chosen[:, 3]
    fx, fy = x % 1, y % 1
    inside = torch.ones_like(x, dtype=torch.bool)
    neighbours = (
        (0, 0, inside),
        (-1, 0, (fx < 0.5) & (x > 1)),
        (1, 0, (fx >= 0.5) & (x < columns - 1)),
        (0, -1, (fy < 0.5) & (y > 1)),
        (0, 1, (fy >= 0.5) & (y < rows - 1)),
    )
    parts, anchor_parts, cells = [], [], []
    for dx, dy, takes in neighbours:
        parts.append(chosen[takes])
        anchor_parts.append(anchor_index[takes])
        cells.append(torch.stack((x[takes].floor() + dx, y[takes].floor() + dy), 1))
    found, anchor, cell = torch.cat(parts), torch.cat(anchor_parts), torch.cat(cells)
    column = cell[:, 0].long().clamp(0, columns - 1)
    row = cell[:, 1].long().clamp(0, rows - 1)
    offset = found[:, 2:4] - torch.stack((column, row), 1)
    box = torch.cat((offset, found[:, 4:6]), 1)
    return Assignment(found[:, 0].long(), anchor, row, column, found[:, 1].long(), box)


class DetectionLoss:
    """The loss of raw maps (p3, p4, p5) against targets; see the module's text for what `known` does."""

    def __init__(self, anchors_px: Tensor, classes: int, weights: LossWeights | None = None):
        self.anchors_px = anchors_px.detach().float()
        self.classes = classes
        self.weights = weights or LossWeights()
        if len(self.weights.of_class) not in (0, classes):
            raise ValueError(f"of_class: got {len(self.weights.of_class)} weights, expected {classes}, one a class")
        self.importance = torch.tensor(self.weights.of_class or (1.0,) * classes)

    def __call__(self, maps: tuple[Tensor, ...], targets: Tensor, known: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The weighted loss (scalar, per image) and its three terms before weighting.

        targets: float (n,6), image index, class, centre x, y, width, height in input px.
        known: bool (N, classes, H/8, W/8), true where all objects of that class are labelled.
        """
        w = self.weights
        device = maps[0].device
        box_loss = torch.zeros((), device=device)
        objectness_loss = torch.zeros((), device=device)
        class_loss = torch.zeros((), device=device)
        anchors_px = self.anchors_px.to(device)
        for level, (raw, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            n, _, rows, columns = raw.shape
            n_anchors = len(anchors_px[level])
            logits = raw.float().view(n, n_anchors, 5 + self.classes, rows, columns).permute(0, 1, 3, 4, 2)
            in_cells = targets.clone()
            in_cells[:, 2:] /= stride
            anchors = anchors_px[level] / stride
            hit = assign(in_cells, anchors, rows, columns, w.max_ratio)
            wanted = torch.zeros(n * n_anchors * rows * columns, device=device)
            assigned = torch.zeros_like(wanted, dtype=torch.bool)
            if len(hit.label):
                chosen = logits[hit.image, hit.anchor, hit.row, hit.column]
                xy = chosen[:, :2].sigmoid() * 2 - 0.5
                wh = (chosen[:, 2:4].sigmoid() * 2) ** 2 * anchors[hit.anchor]
                ciou = complete_iou(torch.cat((xy, wh), 1), hit.box)
                box_loss = box_loss + (1 - ciou).mean()
                one_hot = F.one_hot(hit.label, self.classes).float()
                importance = self.importance.to(device)[hit.label]
                entropy = F.binary_cross_entropy_with_logits(chosen[:, 5:], one_hot, reduction="none").mean(1)
                class_loss = class_loss + (entropy * importance).sum() / importance.sum()
                flat = ((hit.image * n_anchors + hit.anchor) * rows + hit.row) * columns + hit.column
                wanted.scatter_reduce_(0, flat, ciou.detach().clamp(0), "amax")
                assigned[flat] = True
            wanted = wanted.view(n, n_anchors, rows, columns)
            assigned = assigned.view_as(wanted)
            step = stride // STRIDES[0]
            here = known[:, :, step // 2 :: step, step // 2 :: step]
            everything = here.all(1)[:, None].expand_as(assigned)
            something = (here.any(1) & ~here.all(1))[:, None].expand_as(assigned) & ~assigned
            terms = F.binary_cross_entropy_with_logits(logits[..., 4], wanted, reduction="none")
            total = (terms * (assigned | everything)).sum()
            if something.any():
                part = logits[something]
                score = part[:, 4:5].sigmoid() * part[:, 5:].sigmoid()
                mask = here.permute(0, 2, 3, 1)[:, None].expand(-1, n_anchors, -1, -1, -1)[something]
                total = total - (torch.log1p(-score.clamp(max=1 - 1e-6)) * mask).sum()
            objectness_loss = objectness_loss + w.balance[level] * total / assigned.numel()
        loss = w.box * box_loss + w.objectness * objectness_loss + w.classes * class_loss
        return loss, {
            "box": float(box_loss.detach()),
            "objectness": float(objectness_loss.detach()),
            "classes": float(class_loss.detach()),
        }
