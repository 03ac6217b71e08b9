"""One training run as data: `Trainer.step()` takes the next batch, its state is everything that a resumed run
needs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures.yolov5 import YOLOv5, yolov5
from tools.detection.loss import DetectionLoss, LossWeights
from tools.detection.tiles import Tile, TileMaker


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up, then a cosine down to `final_share` of the peak at step `steps`."""

    steps: int
    batch: int = 16
    peak_lr: float = 2e-3
    final_share: float = 0.01
    warm_up: int = 200
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    clip_norm: float = 10.0

    def lr(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        if step < self.warm_up:
            return self.peak_lr * (step + 1) / self.warm_up
        share = min(1.0, (step - self.warm_up) / max(1, self.steps - self.warm_up))
        return self.peak_lr * (self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * share)) / 2)


def batch_tensors(tiles: Sequence[Tile], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images float (N,3,S,S) in 0..1 channels-last, targets (n,6) with the image index first, known bool
    (N,C,S/8,S/8)."""
    images = torch.from_numpy(np.stack([tile.image for tile in tiles])).to(device)
    images = images.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
    rows = [np.insert(tile.targets, 0, index, axis=1) for index, tile in enumerate(tiles)]
    targets = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(device)
    known = torch.from_numpy(np.stack([tile.known for tile in tiles])).to(device)
    return images, targets, known


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Convolution weights decay; biases and normalisation don't."""
    decays = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class Trainer:
    """Trains `model` on the tiles of `maker`; `average` is the exponential moving average of the weights, what is
    evaluated and shipped.

    The tiles of step n are numbers n*batch … of the seed's series and nothing else is random, so state + step
    continue a run exactly. precision: "bf16" runs the network in autocast (measured 1.6 times as fast as fp32 on a
    processor with AVX512-BF16), "fp32" does not.
    """

    def __init__(
        self,
        model: YOLOv5,
        maker: TileMaker,
        schedule: Schedule,
        *,
        seed: int,
        device: str = "cpu",
        precision: str = "fp32",
        weights: LossWeights | None = None,
    ):
        self.device = torch.device(device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.maker = maker
        self.schedule = schedule
        self.seed = seed
        self.precision = precision
        self.loss = DetectionLoss(model.anchors_px, model.classes, weights)
        self.optimizer = torch.optim.AdamW(parameter_groups(model, schedule.weight_decay), lr=schedule.peak_lr)
        self.step_number = 0

    def step(self) -> dict[str, float]:
        """One optimiser step; the loss and its terms."""
        first = self.step_number * self.schedule.batch
        tiles = [self.maker.make(self.seed, first + i) for i in range(self.schedule.batch)]
        images, targets, known = batch_tensors(tiles, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(self.step_number)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            maps = self.model(images)
        loss, terms = self.loss(maps, targets, known)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip_norm)
        self.optimizer.step()
        self.step_number += 1
        self._update_average()
        return {"loss": float(loss.detach()), **terms}

    def _update_average(self) -> None:
        keep = self.schedule.ema_decay * (1 - math.exp(-self.step_number / 300))
        with torch.no_grad():
            theirs = self.model.state_dict()
            for name, value in self.average.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(theirs[name], 1 - keep)
                else:
                    value.copy_(theirs[name])

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, for torch.save."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
            "seed": self.seed,
            "schedule": asdict(self.schedule),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; the schedule and the tiles are this trainer's own and may be longer
        or other ones."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        optimizer = copy.deepcopy(state["optimizer"])
        for entry in optimizer["state"].values():  # a small checkpoint has no first moments
            entry.setdefault("exp_avg", torch.zeros_like(entry["exp_avg_sq"]))
        self.optimizer.load_state_dict(optimizer)
        for group, ours in zip(
            self.optimizer.param_groups, parameter_groups(self.model, self.schedule.weight_decay), strict=True
        ):
            group["weight_decay"] = ours["weight_decay"]
        self.step_number = state["step"]
        self.seed = state["seed"]


def save_checkpoint(path: Path, trainer: Trainer, description: dict[str, Any]) -> None:
    """Write atomically: a run killed while saving leaves the previous file whole."""
    partial = path.with_suffix(".partial")
    torch.save({**trainer.state(), "description": description}, partial)
    partial.replace(path)


def load_averaged(path: Path) -> tuple[YOLOv5, dict[str, Any]]:
    """The averaged network of a checkpoint, in evaluation mode on the CPU, and the checkpoint's description."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    description = state["description"]
    model = yolov5(description["size"], len(description["class_names"]))
    weights = {name: value.float() if value.is_floating_point() else value for name, value in state["average"].items()}
    model.load_state_dict(weights)
    return model.eval(), description
