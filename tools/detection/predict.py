"""Run a detector over pictures for validation: letterbox, network, decode, NMS per class; from a checkpoint or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from tools.architectures.yolov5 import STRIDES, YOLOv5

STRIDE = 32
PAD = 114


@dataclass(frozen=True)
class Found:
    """Detections of one picture, best first: boxes_px float32 (n,4), scores float32 (n,), classes int64 (n,)."""

    boxes_px: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Predictor(Protocol):
    """Finds cells in one uint8 (H,W,3) BGR picture, in the picture's own pixels, down to the predictor's least score."""

    def __call__(self, picture: np.ndarray) -> Found: ...


def letterbox(picture: np.ndarray, long_side_px: int) -> tuple[np.ndarray, float, tuple[int, int]]:
    """The picture with its longer side `long_side_px`, padded to multiples of 32; with the factor and the (left, top) padding."""
    height, width = picture.shape[:2]
    factor = long_side_px / max(height, width)
    new_w, new_h = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(
        picture, (new_w, new_h), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    pad_w, pad_h = -new_w % STRIDE, -new_h % STRIDE
    left, top = pad_w // 2, pad_h // 2
    padded = cv2.copyMakeBorder(
        small, top, pad_h - top, left, pad_w - left, cv2.BORDER_CONSTANT, value=(PAD, PAD, PAD)
    )
    return padded, factor, (left, top)


def decode(maps: tuple[Tensor, ...], anchors_px: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps -> boxes (N,K,4) x1 y1 x2 y2 in input px and scores (N,K,C), K over all levels, anchors and cells."""
    boxes, scores = [], []
    for raw, stride, anchors in zip(maps, STRIDES, anchors_px, strict=True):
        n, channels, rows, columns = raw.shape
        values = raw.float().view(n, len(anchors), channels // len(anchors), rows, columns)
        values = values.permute(0, 1, 3, 4, 2).sigmoid()
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack((x, y), 2).to(values)
        xy = (values[..., :2] * 2 - 0.5 + cells) * stride
        wh = (values[..., 2:4] * 2) ** 2 * anchors[None, :, None, None]
        boxes.append(torch.cat((xy - wh / 2, xy + wh / 2), 4).flatten(1, 3))
        scores.append((values[..., 4:5] * values[..., 5:]).flatten(1, 3))
    return torch.cat(boxes, 1), torch.cat(scores, 1)


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, limit: int) -> np.ndarray:
    """Indices, best first, that greedy NMS per class keeps."""
    if not len(boxes):
        return np.zeros(0, np.int64)
    xywh = boxes.copy()
    xywh[:, 2:] -= xywh[:, :2]
    kept = np.asarray(cv2.dnn.NMSBoxesBatched(xywh.tolist(), scores.tolist(), classes.tolist(), 0.0, iou), np.int64)
    return kept.reshape(-1)[np.argsort(-scores[kept.reshape(-1)], kind="stable")][:limit]


class TorchPredictor:
    """A network in PyTorch at one input size."""

    def __init__(self, model: YOLOv5, long_side_px: int, *, least_score: float = 0.01, nms_iou: float = 0.5):
        self.model = model.eval()
        self.long_side_px = long_side_px
        self.least_score = least_score
        self.nms_iou = nms_iou

    @torch.no_grad()
    def __call__(self, picture: np.ndarray) -> Found:
        padded, factor, (left, top) = letterbox(picture, self.long_side_px)
        device = self.model.anchors_px.device
        images = torch.from_numpy(padded)[None].to(device).permute(0, 3, 1, 2).float().div_(255)
        boxes, scores = decode(self.model(images), self.model.anchors_px)
        best, label = scores[0].max(1)
        chosen = best >= self.least_score
        return finish(
            boxes[0][chosen].cpu().numpy(),
            best[chosen].cpu().numpy(),
            label[chosen].cpu().numpy(),
            self.nms_iou,
            factor,
            (left, top),
            picture.shape[:2],
        )


def finish(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    nms_iou: float,
    factor: float,
    padding: tuple[int, int],
    size: tuple[int, int],
) -> Found:
    """NMS, then from input px to the pixels of a picture of `size` (height, width)."""
    kept = suppress(boxes, scores, classes, nms_iou, 1000)
    height, width = size
    left, top = padding
    full = (boxes[kept] - (left, top, left, top)) / factor
    full = full.clip(0, (width, height, width, height)).astype(np.float32)
    return Found(full, scores[kept].astype(np.float32), classes[kept].astype(np.int64))
