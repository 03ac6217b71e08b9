"""Train a YOLOv5 detector of blood cells from nothing, or go on where a run stopped.

    python -m tools.train detector --out runs/yolov5n-blood --steps 6000
    python -m tools.train detector --out runs/yolov5n-blood --steps 12000 --resume

Writes into --out: last.pt (model, average, optimiser, step), best.pt (best validation score), log.jsonl (one line an
epoch), loss.png, run.json (the command and its settings). A resumed run equals an uninterrupted one; --steps, --shares
and --labels may be changed on resume (a longer schedule, new data).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from tools.architectures.yolov5 import SIZES, yolov5
from tools.commands import command_parser
from tools.data import sets
from tools.data.fields import CLASS_NAMES, Field, FieldPool
from tools.data.tiles import TileMaker, TileOptions
from tools.metrics.detection import summary, tally
from tools.metrics.plots import plot_loss
from tools.metrics.predict import TorchPredictor
from tools.train.anchors import best_ratio, fit_anchors
from tools.train.detection import Schedule, Trainer
from tools.train.loop import load_checkpoint, parse_shares, plain_settings, run_epochs
from tools.train.yolov5_loss import LossWeights

DEFAULT_SHARES = {"txl_pbc": 0.42, "pbc": 0.2, "bccd": 0.04, "bcd": 0.04, "chula_wbc": 0.3, "simulated": 0.0}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser("tools.train detector", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from last.pt in --out")
    parser.add_argument(
        "--start-from", type=Path, help="checkpoint whose averaged weights are the start (not its schedule)"
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="n")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--side-px", type=int, default=320, help="side of a training tile")
    parser.add_argument("--rbc-diameter-px", type=float, nargs=2, default=(11.0, 100.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--large-side-px", type=int, default=448, help="side of a large tile, for the largest cells")
    parser.add_argument("--large-rbc-diameter-px", type=float, nargs=2, default=(60.0, 160.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--large-share", type=float, default=0.0, help="share of the steps that take large tiles")
    parser.add_argument("--box-gain", type=float, default=LossWeights.box, help="weight of the CIoU term")
    parser.add_argument("--shares", default="", help="NAME=SHARE,… of the sets in the tiles")
    parser.add_argument("--labels", type=Path, help="labels by a model for partly labelled fields (label_fields)")
    parser.add_argument("--limit", type=int, default=3000, help="pictures a set at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that make tiles; for a GPU as many as cores")
    parser.add_argument("--epoch-steps", type=int, default=100)
    parser.add_argument("--validate-every", type=int, default=5, help="epochs between validations")
    return parser.parse_args(argv)


def anchor_sizes(maker: TileMaker, seed: int, tiles: int = 400) -> np.ndarray:
    """Box sizes (n,2) of sample tiles, for fitting anchors to what the network will be shown."""
    boxes = [maker.make(seed + 1, number).targets for number in range(tiles)]
    return np.concatenate(boxes)[:, 3:5].astype(np.float64)


def validate(trainer: Trainer, validation: dict[str, tuple[list[Field], int]]) -> dict[str, Any]:
    """Figures of the averaged network on each validation set at its long side."""
    figures = {}
    for name, (fields, long_side_px) in validation.items():
        predictor = TorchPredictor(trainer.average, long_side_px)
        tallies, _ = tally(fields, predictor, trainer.model.classes)
        figures[name] = summary(tallies, CLASS_NAMES, fields[0].complete, 0.3)
    return figures


def score(figures: dict[str, Any]) -> float:
    """What "best" means: mAP@0.5 and mAP@[.5:.95] where all is labelled, white-cell recall where only those are."""
    return sum(
        float(entry["map50"] + entry["map50_95"])
        if entry["map50"] is not None
        else float(entry["classes"]["WBC"]["recall"])
        for entry in figures.values()
    )


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    console = Console(stderr=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    try:
        shares = parse_shares(options.shares, DEFAULT_SHARES)
    except ValueError as error:
        console.print(str(error))
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    low, high = options.rbc_diameter_px
    large_low, large_high = options.large_rbc_diameter_px
    largest = max(high, large_high) if options.large_share else high
    tile_options = TileOptions(side_px=options.side_px, rbc_diameter_px=(low, high))
    fields = sets.training_fields({n for n, s in shares.items() if s > 0}, options.limit, options.seed, options.labels)
    pools = {name: FieldPool(members, largest_rbc_px=0.8 * largest) for name, members in fields.items()}
    maker = TileMaker(pools, {name: shares[name] for name in pools}, len(CLASS_NAMES), tile_options)
    large_options = TileOptions(side_px=options.large_side_px, rbc_diameter_px=(large_low, large_high))
    large_maker = TileMaker(pools, {name: shares[name] for name in pools}, len(CLASS_NAMES), large_options)
    validation = sets.validation_fields()
    for name, pool in pools.items():
        console.print(f"{name}: {len(pool)} fields, {pool.nbytes / 1e6:.0f} MB")

    schedule = Schedule(steps=options.steps, batch=options.batch, peak_lr=options.peak_lr)
    last = options.out / "last.pt"
    checkpoint = None
    if options.resume:
        checkpoint = load_checkpoint(last)
    elif options.start_from:
        checkpoint = load_checkpoint(options.start_from)
    if checkpoint is None:
        sizes = anchor_sizes(maker, options.seed)
        anchors = fit_anchors(sizes, options.seed)
        possible = float((best_ratio(sizes, anchors.reshape(-1, 2)) > 0.25).mean())
        console.print(f"anchors {anchors.round(1).tolist()}: {possible:.1%} of {len(sizes)} boxes can be assigned")
        model = yolov5(options.size, len(CLASS_NAMES), anchors_px=anchors.tolist())
    else:
        model = yolov5(options.size, len(CLASS_NAMES))
        model.load_state_dict(checkpoint["model" if options.resume else "average"])
    trainer = Trainer(
        model,
        maker,
        schedule,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        weights=LossWeights(box=options.box_gain),
        large_maker=large_maker,
        large_share=options.large_share,
    )
    if options.resume and checkpoint is not None:
        trainer.restore(checkpoint)

    description = {
        "size": options.size,
        "class_names": list(CLASS_NAMES),
        "settings": plain_settings(options),
        "shares": {name: shares[name] for name in pools},
        "fields": {name: len(pool) for name, pool in pools.items()},
    }
    (options.out / "run.json").write_text(json.dumps(description, indent=1))
    batches = trainer.series.from_step(trainer.step_number, options.steps, options.workers)

    def measure() -> tuple[dict[str, Any], float]:
        figures = validate(trainer, validation)
        return figures, score(figures)

    run_epochs(
        trainer,
        options.out,
        description,
        steps=options.steps,
        epoch_steps=options.epoch_steps,
        take=lambda: trainer.step(next(batches)),
        measure=measure,
        measure_every=options.validate_every,
        say=console.print,
    )
    plot_loss(options.out / "log.jsonl", options.out / "loss.png")
    return 0
