"""YOLOv5, whatever its classes: its training and what its checkpoints hold."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tools.architectures.yolov5 import SIZES, YOLOv5, yolov5
from tools.data.tiles import TileMaker
from tools.train.anchors import best_ratio, fit_anchors
from tools.train.loop import LAST, Schedule, load_checkpoint, parameter_groups, train
from tools.train.options import plain_settings
from tools.train.tiles import CLIP, TileSeries, TileTask, anchor_sizes
from tools.train.yolov5_loss import DetectionLoss, LossWeights

WEIGHT_DECAY = 0.02


class YOLOv5Task(TileTask[YOLOv5]):
    """AdamW on the tiles of a series."""

    def __init__(
        self,
        network: YOLOv5,
        series: TileSeries,
        class_names: Sequence[str],
        *,
        peak_lr: float = 2e-3,
        weights: LossWeights | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        def optimizer(network: YOLOv5) -> torch.optim.Optimizer:
            return torch.optim.AdamW(parameter_groups(network, WEIGHT_DECAY), lr=peak_lr)

        network.to(device)  # before the loss, which sees the network's anchors, those that it resumes with too
        loss = DetectionLoss(network.anchors_px, network.classes, weights)
        super().__init__(network, series, loss, optimizer, class_names, device=device, precision=precision)


def schedule_of(
    steps: int, *, seed: int, warmup_steps: int = 200, epoch_steps: int = 100, measured_epochs: int = 5
) -> Schedule:
    """A line an epoch, measured after every `measured_epochs` of them."""
    return Schedule(
        steps, epoch_steps * measured_epochs, warmup_steps, 0.998, logged_every=epoch_steps, clip=CLIP, seed=seed
    )


def add_options(
    parser: argparse.ArgumentParser, *, batch: int, side_px: int, rbc_px: tuple[float, float], limit: int
) -> None:
    """The options of every training of YOLOv5."""
    parser.add_argument("--size", choices=sorted(SIZES), default="n")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--side-px", type=int, default=side_px, help="side of a training tile")
    parser.add_argument("--rbc-diameter-px", type=float, nargs=2, default=rbc_px, metavar=("LOW", "HIGH"))
    parser.add_argument("--limit", type=int, default=limit, help="pictures a set, or a class, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--epoch-steps", type=int, default=100)
    parser.add_argument("--validate-every", type=int, default=5, help="epochs between validations")


def anchored(options: argparse.Namespace, maker: TileMaker, classes: int, console: Console) -> YOLOv5:
    """A new network whose anchors are fitted to the tiles; one that will be resumed brings its own."""
    if options.resume:
        return yolov5(options.size, classes)
    sizes = anchor_sizes(maker, options.seed)
    anchors = fit_anchors(sizes, options.seed)
    possible = float((best_ratio(sizes, anchors.reshape(-1, 2)) > 0.25).mean())
    console.print(f"anchors {anchors.round(1).tolist()}: {possible:.1%} of {len(sizes)} boxes can be assigned")
    return yolov5(options.size, classes, anchors_px=anchors.tolist())


def train_by(options: argparse.Namespace, task: YOLOv5Task, fields: dict[str, int], shares: dict[str, float]) -> None:
    """Train by the options; the run's description, in its checkpoints and in run.json, says what of: fields and their
    shares by set."""
    description = {
        "size": options.size,
        "class_names": task.class_names,
        "settings": plain_settings(options),
        "shares": shares,
        "fields": fields,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "run.json").write_text(json.dumps(description, indent=1))
    schedule = schedule_of(
        options.steps,
        seed=options.seed,
        epoch_steps=options.epoch_steps,
        measured_epochs=options.validate_every,
    )
    resume = options.out / LAST if options.resume else None
    train(task, schedule, options.out, resume=resume, description=description)


def load_averaged(path: Path) -> tuple[YOLOv5, dict[str, Any]]:
    """The averaged network of a checkpoint, in evaluation mode on the CPU, and the checkpoint's description."""
    state = load_checkpoint(path)
    description = state["description"]
    network = yolov5(description["size"], len(description["class_names"]))
    network.load_state_dict(state["average"]["network"])
    return network.eval(), description
