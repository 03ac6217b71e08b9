"""The loss of Faster R-CNN (Ren et al. 2015), both of its stages trained together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.architectures.faster_rcnn import FasterRCNN, anchor_boxes, corrections_to
from tools.data.tiles import CELL_PX
from tools.train.yolov2_loss import box_iou


@dataclass(frozen=True)
class Sampling:
    """What teaches, as published: anchors and proposals of a picture, and how much they have to overlap an object."""

    anchors: int = 256
    anchor_positive_iou: float = 0.7
    anchor_negative_iou: float = 0.3
    rois: int = 128
    roi_positive_iou: float = 0.5
    roi_positive_share: float = 0.25


class FasterRCNNLoss:
    """The loss of a network on pictures with targets (n, 6): image, class, centre x, y, width, height in px; `known`
    bool (N, classes, H/8, W/8): what is centred where not all is known is no background."""

    def __init__(self, network: FasterRCNN, sampling: Sampling | None = None) -> None:
        self.network, self.sampling = network, sampling or Sampling()

    def __call__(
        self, features: Tensor, raw: Tensor, targets: Tensor, known: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of what `network.body` gave (scalar), and its four terms; `rng` draws the samples."""
        size = known.shape[2] * CELL_PX, known.shape[3] * CELL_PX
        everything = known.all(1)
        corners = torch.cat((targets[:, 2:4] - targets[:, 4:] / 2, targets[:, 2:4] + targets[:, 4:] / 2), 1)
        in_picture = [targets[:, 0].long() == n for n in range(len(raw))]
        objects = [(corners[chosen], targets[chosen, 1].long()) for chosen in in_picture]
        objectness, anchored = self._of_proposals(raw.float(), objects, everything, rng)
        classes, boxes = self._of_looks(features.float(), raw, objects, everything, size, rng)
        terms = {"objectness": objectness, "proposals": anchored, "classes": classes, "boxes": boxes}
        return objectness + anchored + classes + boxes, {name: float(term.detach()) for name, term in terms.items()}

    def _of_proposals(
        self, raw: Tensor, objects: list[tuple[Tensor, Tensor]], everything: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        s, anchors_px = self.sampling, self.network.anchors_px
        n, _, rows, columns = raw.shape
        anchors = anchor_boxes(anchors_px, rows, columns)
        table = raw.view(n, len(anchors_px), 5, rows, columns).permute(0, 1, 3, 4, 2).reshape(n, -1, 5)
        right, moved, count = raw.sum() * 0, raw.sum() * 0, 0
        for picture, (boxes, _) in enumerate(objects):
            overlap = box_iou(anchors, boxes) if len(boxes) else anchors.new_zeros(len(anchors), 1)
            best, which = overlap.max(1)
            positive = best >= s.anchor_positive_iou
            if len(boxes):  # the best anchor of every object, however small its overlap
                positive |= (overlap >= overlap.amax(0).clamp(min=0.1)).any(1)
            negative = (best < s.anchor_negative_iou) & ~positive & _known_at(anchors, everything[picture])
            hits = _drawn(positive, s.anchors // 2, rng)
            misses = _drawn(negative, s.anchors - len(hits), rng)
            said = torch.cat((table[picture, hits, 0], table[picture, misses, 0]))
            truth = torch.cat((torch.ones(len(hits)), torch.zeros(len(misses)))).to(said)
            right = right + F.binary_cross_entropy_with_logits(said, truth, reduction="sum")
            count += len(said)
            if len(hits):
                wanted = corrections_to(boxes[which[hits]], anchors[hits])
                moved = moved + F.smooth_l1_loss(table[picture, hits, 1:], wanted, reduction="sum")
        return right / max(1, count), moved / max(1, count)

    def _of_looks(
        self,
        features: Tensor,
        raw: Tensor,
        objects: list[tuple[Tensor, Tensor]],
        everything: Tensor,
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Every picture gives `rois` places to look at; where it has fewer, some twice, which then don't count."""
        s = self.sampling
        proposals, real = self.network.proposals(raw, size)
        rois, labels, wanted = [], [], []
        for picture, (boxes, classes) in enumerate(objects):
            places = torch.cat((proposals[picture, real[picture]], boxes))
            if not len(places):
                places = raw.new_tensor([[0.0, 0.0, size[1], size[0]]])
            overlap = box_iou(places, boxes) if len(boxes) else places.new_zeros(len(places), 1)
            best, which = overlap.max(1)
            positive = best >= s.roi_positive_iou
            negative = ~positive & _known_at(places, everything[picture])
            hits = _drawn(positive, int(s.rois * s.roi_positive_share), rng)
            misses = _drawn(negative, s.rois - len(hits), rng)
            idle = s.rois - len(hits) - len(misses)
            chosen = torch.cat((hits, misses, torch.zeros(idle, dtype=torch.long, device=hits.device)))
            rois.append(places[chosen])
            label = torch.full((s.rois,), -1, device=raw.device)
            label[: len(hits) + len(misses)] = 0
            target = places[chosen]
            if len(hits):
                label[: len(hits)] = 1 + classes[which[hits]]
                target = torch.cat((boxes[which[hits]], target[len(hits) :]))
            labels.append(label)
            wanted.append(target)
        logits, corrections = self.network.looks(features, torch.stack(rois))
        label, flat = torch.cat(labels), torch.cat(rois)
        count = max(1, int((label >= 0).sum()))
        named = F.cross_entropy(logits.flatten(0, 1), label, ignore_index=-1, reduction="sum") / count
        on = label > 0
        truth = corrections_to(torch.cat(wanted)[on], flat[on])
        moved = F.smooth_l1_loss(corrections.flatten(0, 1)[on], truth, reduction="sum") / count
        return named, moved


def _known_at(boxes: Tensor, everything: Tensor) -> Tensor:
    """bool (n,): whether all objects around the centres of boxes (n, 4) are labelled, by `everything` (H/8, W/8)."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 / CELL_PX).long()
    rows, columns = everything.shape
    return everything[centre[:, 1].clamp(0, rows - 1), centre[:, 0].clamp(0, columns - 1)]


def _drawn(chosen: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """Indices of at most so many of those that are true, drawn at random."""
    indices = chosen.nonzero().flatten()
    if len(indices) <= most:
        return indices
    return indices[torch.from_numpy(rng.choice(len(indices), most, replace=False)).to(indices.device)]
