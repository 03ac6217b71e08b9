"""Run a detector over pictures for validation: letterbox, network, decode, NMS per class; from a checkpoint or an
ONNX file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from engines import geometry
from engines.backends.onnxruntime import Threads
from engines.graphs.graph import fix_input_shape
from engines.models.loading import load_detector
from streamer.analysis.magnification import Magnification
from streamer.records import Frame
from tools.architectures.yolov5 import STRIDES, YOLOv5

NMS_IOU = 0.45
"""Measured on TXL-PBC validation at .35 … .55: fewest double boxes of touching red cells without loss of AP."""


@dataclass(frozen=True)
class Found:
    """Detections of one picture, best first: boxes_px float32 (n,4), scores float32 (n,), classes int64 (n,)."""

    boxes_px: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Predictor(Protocol):
    """Finds cells in one uint8 (H,W,3) BGR picture, in the picture's own pixels, down to the predictor's least
    score."""

    def __call__(self, picture: np.ndarray) -> Found: ...


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


class TorchPredictor:
    """A network in PyTorch at one input size."""

    def __init__(self, model: YOLOv5, long_side_px: int, *, least_score: float = 0.01, nms_iou: float = NMS_IOU):
        self.model = model.eval()
        self.long_side_px = long_side_px
        self.least_score = least_score
        self.nms_iou = nms_iou

    @torch.no_grad()
    def __call__(self, picture: np.ndarray) -> Found:
        padded, fit = letterboxed(picture, self.long_side_px)
        device = self.model.anchors_px.device
        images = torch.from_numpy(padded).to(device).permute(0, 3, 1, 2).float().div_(255)
        boxes, scores = decode(self.model(images), self.model.anchors_px)
        best, label = scores[0].max(1)
        chosen = (best >= self.least_score).cpu().numpy()
        found = (boxes[0].cpu().numpy()[chosen], best.cpu().numpy()[chosen], label.cpu().numpy()[chosen])
        return finish(*found, self.nms_iou, fit, picture)


class OnnxPredictor:
    """A zoo file (uint8 input, compact head) in ONNX Runtime at one input size; sessions are kept by input shape."""

    def __init__(
        self,
        model: onnx.ModelProto,
        long_side_px: int,
        *,
        least_score: float = 0.01,
        nms_iou: float = NMS_IOU,
        threads: int = 1,
    ):
        self.model = model
        self.long_side_px = long_side_px
        self.least_score = least_score
        self.nms_iou = nms_iou
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.sessions: dict[tuple[int, int], onnxruntime.InferenceSession] = {}
        self.network_ms: list[float] = []

    def __call__(self, picture: np.ndarray) -> Found:
        padded, fit = letterboxed(picture, self.long_side_px)
        height, width = padded.shape[1:3]
        if (height, width) not in self.sessions:
            fixed = fix_input_shape(self.model, 1, height, width).SerializeToString()
            session = onnxruntime.InferenceSession(fixed, self.options, providers=["CPUExecutionProvider"])
            session.run(None, {"images": padded})  # the first run allocates
            self.sessions[height, width] = session
        started = time.perf_counter()
        boxes, scores, classes = self.sessions[height, width].run(["boxes", "scores", "classes"], {"images": padded})
        self.network_ms.append((time.perf_counter() - started) * 1e3)
        chosen = scores[0] >= self.least_score
        return finish(boxes[0][chosen], scores[0][chosen], classes[0][chosen], self.nms_iou, fit, picture)


class StreamPredictor:
    """A model of the zoo, or an ONNX file with its card, as the stream runs it: the input size follows from the red
    cells in the first pictures of each size."""

    def __init__(self, name_or_path: str, *, least_score: float = 0.01, threads: int = 1):
        workers_and_threads = Threads(threads, 1)
        self.detector = load_detector(name_or_path, min_score=least_score, threads=workers_and_threads)
        self.said: list[str] = []
        self.magnification = Magnification(self.detector, say=self.said.append)
        self.seen = 0

    def __call__(self, picture: np.ndarray) -> Found:
        frame = Frame("pictures", self.seen, 0, picture)
        self.seen += 1
        self.magnification.look(frame)
        found = self.magnification.detector_for(frame).detect([picture])[0]
        return Found(found.boxes_px, found.scores, found.labels.astype(np.int64))


def letterboxed(picture: np.ndarray, long_side_px: int) -> tuple[np.ndarray, geometry.Letterbox]:
    """uint8 (1,h,w,3) as the run-time makes it, and how the picture lies in it."""
    height, width = picture.shape[:2]
    fit = geometry.fit_letterbox(width, height, *geometry.input_size(width, height, long_side_px))
    out = np.empty((1, fit.input_height, fit.input_width, 3), np.uint8)
    geometry.letterbox(picture, fit, out[0])
    return out, fit


def finish(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    nms_iou: float,
    fit: geometry.Letterbox,
    picture: np.ndarray,
) -> Found:
    """NMS per class, then from input px to the pixels of the picture."""
    kept = geometry.nms(boxes.astype(np.float32), scores, classes, nms_iou)
    height, width = picture.shape[:2]
    full = geometry.clip_boxes(fit.to_frame(boxes[kept].astype(np.float32)), width, height)
    return Found(full, scores[kept].astype(np.float32), classes[kept].astype(np.int64))
