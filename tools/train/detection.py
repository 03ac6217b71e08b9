"""One training run as data: `Trainer.step()` takes the next batch, its state is everything that a resumed run
needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tools.architectures.yolov5 import YOLOv5, yolov5
from tools.data.tiles import Tile, TileMaker
from tools.train.loop import (
    MovingAverage,
    channels_last,
    descend,
    load_checkpoint,
    one_cycle,
    parameter_groups,
    save_checkpoint,
)
from tools.train.yolov5_loss import DetectionLoss, LossWeights


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up, then a cosine down to a hundredth of the peak at step `steps`."""

    steps: int
    batch: int = 16
    peak_lr: float = 2e-3
    warm_up: int = 200
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    clip_norm: float = 10.0

    def lr(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        return self.peak_lr * one_cycle(step, self.steps, self.warm_up)


def batch_tensors(tiles: Sequence[Tile], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images float (N,3,S,S) in 0..1 channels-last, targets (n,6) with the image index first, known bool
    (N,C,S/8,S/8)."""
    images = torch.from_numpy(np.stack([tile.image for tile in tiles])).to(device)
    images = images.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
    rows = [np.insert(tile.targets, 0, index, axis=1) for index, tile in enumerate(tiles)]
    targets = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(device)
    known = torch.from_numpy(np.stack([tile.known for tile in tiles])).to(device)
    return images, targets, known


@dataclass(frozen=True)
class TileSeries:
    """The tiles of every step: step n takes numbers n*batch … of the seed's endless series and nothing else is random.

    `large_share` of the steps, drawn by step number, take their tiles from `large_maker` instead, as many as have the
    pixels of a usual batch.
    """

    maker: TileMaker
    batch: int
    seed: int
    large_maker: TileMaker | None = None
    large_share: float = 0.0

    def step(self, number: int) -> list[Tile]:
        """The batch of step `number` (0-based)."""
        first, count, maker = number * self.batch, self.batch, self.maker
        if self.large_maker is not None and np.random.default_rng((self.seed, number, 1)).random() < self.large_share:
            ratio = maker.options.side_px / self.large_maker.options.side_px
            maker, count = self.large_maker, max(1, round(count * ratio**2))
        return [maker.make(self.seed, first + i) for i in range(count)]

    def from_step(self, first: int, end: int, workers: int) -> Iterator[list[Tile]]:
        """The batches of steps first … end-1 in their order, made ahead by so many processes (0: by this one)."""
        if workers == 0:
            return map(self.step, range(first, end))
        chosen = DataLoader(_Steps(self, first, end), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
        return iter(chosen)


class _Steps(Dataset[list[Tile]]):
    def __init__(self, series: TileSeries, first: int, end: int):
        self.series, self.first, self.end = series, first, end

    def __len__(self) -> int:
        return max(0, self.end - self.first)

    def __getitem__(self, index: int) -> list[Tile]:
        return self.series.step(self.first + index)


def _as_it_is(tiles: list[Tile]) -> list[Tile]:
    return tiles


class Trainer:
    """Trains `model` on the tiles of `maker`; `average` is the exponential moving average of the weights, what is
    evaluated and shipped.

    Its tiles follow from step and seed alone, so state + step continue a run exactly. precision: "bf16" runs the
    network in autocast (measured 1.6 times as fast as fp32 on a processor with AVX512-BF16), "fp32" does not.
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
        large_maker: TileMaker | None = None,
        large_share: float = 0.0,
    ):
        self.device = torch.device(device)
        self.model = channels_last(model.to(self.device))
        self._average = MovingAverage(self.model, schedule.ema_decay)
        self.series = TileSeries(maker, schedule.batch, seed, large_maker, large_share)
        self.schedule = schedule
        self.precision = precision
        self.loss = DetectionLoss(model.anchors_px, model.classes, weights)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            parameter_groups(model, schedule.weight_decay), lr=schedule.peak_lr
        )
        self.step_number = 0

    def step(self, tiles: Sequence[Tile] | None = None) -> dict[str, float]:
        """One optimiser step; the loss and its terms. `tiles`: those of this step, where they are made already."""
        images, targets, known = batch_tensors(tiles or self.series.step(self.step_number), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(self.step_number)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            maps = self.model(images)
        loss, terms = self.loss(maps, targets, known)
        reached = descend(loss, self.model, self.optimizer, self.schedule.clip_norm)
        self.step_number += 1
        self._average.update(self.model)
        return {"loss": reached, **terms}

    @property
    def average(self) -> YOLOv5:
        """The network of averaged weights, in evaluation mode; changes with every step."""
        network = self._average.network
        assert isinstance(network, YOLOv5)
        return network

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, for torch.save."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
            "seed": self.series.seed,
            "schedule": asdict(self.schedule),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; the schedule and the tiles are this trainer's own and may be longer
        or other ones."""
        self.model.load_state_dict(state["model"])
        self._average.load_state_dict({"network": state["average"], "updates": state["step"]})
        optimizer = copy.deepcopy(state["optimizer"])
        for entry in optimizer["state"].values():  # a small checkpoint has no first moments
            entry.setdefault("exp_avg", torch.zeros_like(entry["exp_avg_sq"]))
        self.optimizer.load_state_dict(optimizer)
        for group, ours in zip(
            self.optimizer.param_groups, parameter_groups(self.model, self.schedule.weight_decay), strict=True
        ):
            group["weight_decay"] = ours["weight_decay"]
        self.step_number = state["step"]
        self.series = replace(self.series, seed=state["seed"])


def save(path: Path, trainer: Trainer, description: dict[str, Any]) -> None:
    """Write the trainer's state with a description of the run (plain values only)."""
    save_checkpoint(path, {**trainer.state(), "description": description})


def load_averaged(path: Path) -> tuple[YOLOv5, dict[str, Any]]:
    """The averaged network of a checkpoint, in evaluation mode on the CPU, and the checkpoint's description."""
    state = load_checkpoint(path)
    description = state["description"]
    model = yolov5(description["size"], len(description["class_names"]))
    weights = {name: value.float() if value.is_floating_point() else value for name, value in state["average"].items()}
    model.load_state_dict(weights)
    return model.eval(), description
