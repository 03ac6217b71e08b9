"""Train a YOLOv5 detector of blood cells from nothing, or go on where a run stopped.

    python -m tools.train detector --out runs/yolov5n-blood --steps 6000
    python -m tools.train detector --out runs/yolov5n-blood --steps 12000 --resume

Writes into --out: last.pt (network, average, optimiser, step), best.pt (best validation score), results.jsonl (one line
an epoch), loss.png, run.json (the command and its settings). A resumed run equals an uninterrupted one; --steps,
--shares and --labels may be changed on resume (a longer schedule, new data).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tools.architectures.yolov5 import YOLOv5, yolov5
from tools.data import sets
from tools.data.fields import CLASS_NAMES, Field, FieldPool
from tools.data.tiles import TileMaker, TileOptions
from tools.metrics.detection import summary, tally
from tools.metrics.plots import plot_loss
from tools.metrics.predict import TorchPredictor
from tools.train.loop import RESULTS, load_checkpoint
from tools.train.options import parse_shares, run_parser, set_threads
from tools.train.tiles import TileSeries
from tools.train.yolov5 import YOLOv5Task, add_options, anchored, train_by
from tools.train.yolov5_loss import LossWeights

DEFAULT_SHARES = {"txl_pbc": 0.42, "pbc": 0.2, "bccd": 0.04, "bcd": 0.04, "chula_wbc": 0.3, "simulated": 0.0}


class BloodTask(YOLOv5Task):
    """Three classes, measured on the fields of every set at its long side."""

    validation: Mapping[str, tuple[list[Field], int]]

    def measure(self, network: YOLOv5) -> dict[str, Any]:
        figures = {}
        for name, (fields, long_side_px) in self.validation.items():
            tallies, _ = tally(fields, TorchPredictor(network, long_side_px), len(CLASS_NAMES))
            figures[name] = summary(tallies, CLASS_NAMES, fields[0].complete, 0.3)
        return figures

    def score(self, results: Mapping[str, Any]) -> float:
        """mAP@0.5 and mAP@[.5:.95] where all is labelled, white-cell recall where only those are."""
        return sum(
            float(entry["map50"] + entry["map50_95"])
            if entry["map50"] is not None
            else float(entry["classes"]["WBC"]["recall"])
            for entry in results.values()
        )


def main(argv: Sequence[str]) -> int:
    parser = run_parser("detector", __doc__)
    parser.add_argument(
        "--start-from", type=Path, help="checkpoint whose averaged weights are the start (not its schedule)"
    )
    add_options(parser, batch=16, side_px=320, rbc_px=(11.0, 100.0), limit=3000)
    parser.add_argument("--large-side-px", type=int, default=448, help="side of a large tile, for the largest cells")
    parser.add_argument("--large-rbc-diameter-px", type=float, nargs=2, default=(60.0, 160.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--large-share", type=float, default=0.0, help="share of the steps that take large tiles")
    parser.add_argument("--box-gain", type=float, default=LossWeights.box, help="weight of the CIoU term")
    parser.add_argument("--shares", default="", help="NAME=SHARE,… of the sets in the tiles")
    parser.add_argument("--labels", type=Path, help="labels by a model for partly labelled fields (label_fields)")
    parser.add_argument("--workers", type=int, default=0, help="processes that make tiles; for a GPU as many as cores")
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    set_threads(options.threads, options.seed)
    try:
        shares = parse_shares(options.shares, DEFAULT_SHARES)
    except ValueError as error:
        console.print(str(error))
        return 2
    low, high = options.rbc_diameter_px
    large_low, large_high = options.large_rbc_diameter_px
    largest = max(high, large_high) if options.large_share else high
    fields = sets.training_fields({n for n, s in shares.items() if s > 0}, options.limit, options.seed, options.labels)
    pools = {name: FieldPool(members, largest_rbc_px=0.8 * largest) for name, members in fields.items()}
    shares = {name: shares[name] for name in pools}
    maker, large_maker = (
        TileMaker(pools, shares, len(CLASS_NAMES), TileOptions(side_px=side_px, rbc_diameter_px=diameters))
        for side_px, diameters in ((options.side_px, (low, high)), (options.large_side_px, (large_low, large_high)))
    )
    for name, pool in pools.items():
        console.print(f"{name}: {len(pool)} fields, {pool.nbytes / 1e6:.0f} MB")
    if options.start_from and not options.resume:
        network = yolov5(options.size, len(CLASS_NAMES))
        network.load_state_dict(load_checkpoint(options.start_from)["average"]["network"])
    else:
        network = anchored(options, maker, len(CLASS_NAMES), console)
    task = BloodTask(
        network,
        TileSeries(maker, options.batch, options.seed, large_maker, options.large_share),
        CLASS_NAMES,
        peak_lr=options.peak_lr,
        weights=LossWeights(box=options.box_gain),
        device=options.device,
        precision=options.precision,
    )
    task.workers, task.validation = options.workers, sets.validation_fields()
    train_by(options, task, {name: len(pool) for name, pool in pools.items()}, shares)
    plot_loss(options.out / RESULTS, options.out / "loss.png")
    return 0
