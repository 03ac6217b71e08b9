"""Train ML-CNN's first level: a Faster R-CNN that finds white cells and parts them into mononuclear and
polymorphonuclear ones.

    python -m tools.train faster-rcnn --out runs/faster-rcnn-two-level
    python -m tools.train faster-rcnn --out runs/faster-rcnn-two-level --split parts --epochs 10 --epoch-steps 250 \
        --batch 8 --cosine --precision bf16 --resume

Adam at 1e-3 and ten Monte-Carlo repetitions of a 70/30 split, as ML-CNN's publication has it; 256 anchors and 128
proposals teach a picture, as Faster R-CNN's has it. Batch, epochs and input are not published: 2, 50 and 192 px are
ours. A random split draws whole groups; --split parts takes this project's parts and measures on validation. Every
repetition leaves last.pt and results.jsonl in OUT/repetition-K; OUT/results.json has the figures on its test pictures,
their mean and standard deviation. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools import data as datasets
from tools.architectures.faster_rcnn import BACKBONES, CLASSES, FasterRCNN
from tools.data.fields import Field, FieldPool
from tools.data.groups import SETS, GroupField, group_fields, pools_of, shares_of
from tools.data.protocols import TEST, published_split
from tools.data.splits import build_groups
from tools.data.tiles import TileMaker, TileOptions
from tools.metrics.classification import spread
from tools.metrics.groups import measured
from tools.metrics.predict import NMS_IOU, Found, finish, letterboxed
from tools.train.anchors import fit_anchors
from tools.train.faster_rcnn_loss import FasterRCNNLoss, Sampling
from tools.train.loop import LAST, load_checkpoint, train
from tools.train.options import plain_settings, run_parser, set_threads
from tools.train.tiles import TileSeries, TileTask, add_tile_options, anchor_sizes, epoch_schedule

ANCHORS = 5
THRESHOLD = 0.5
SHARES = (0.7, 0.0, 0.3)


class FasterRCNNTask(TileTask[FasterRCNN]):
    """Adam, as ML-CNN's publication has it; what is sampled of each picture follows from seed and step."""

    def __init__(
        self,
        network: FasterRCNN,
        series: TileSeries,
        rate: float,
        sampling: Sampling | None = None,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        def optimizer(network: FasterRCNN) -> torch.optim.Optimizer:
            return torch.optim.Adam(network.parameters(), lr=rate)

        self.sampled_loss = FasterRCNNLoss(network, sampling)
        super().__init__(network, series, self.sampled_loss, optimizer, CLASSES, device=device, precision=precision)

    def forward(self, images: Tensor) -> Any:
        return self.network.body(images)

    def losses(
        self, made: Any, targets: Tensor, known: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        features, raw = made
        return self.sampled_loss(features, raw, targets, known, rng)


class TorchGroups:
    """The network in PyTorch as a predictor; a picture larger than `long_side_px` is reduced, none is enlarged."""

    def __init__(self, network: FasterRCNN, long_side_px: int, least_score: float = 0.01) -> None:
        self.network, self.long_side_px, self.least_score = network.eval(), long_side_px, least_score

    @torch.no_grad()
    def __call__(self, picture: np.ndarray) -> Found:
        padded, fit = letterboxed(picture, min(self.long_side_px, max(picture.shape[:2])))
        device = self.network.anchors_px.device
        images = torch.from_numpy(padded).to(device).permute(0, 3, 1, 2).float().div_(255)
        boxes, scores, classes, _ = (values[0].cpu().numpy() for values in self.network(images))
        sure = scores >= self.least_score
        one_kind = np.zeros(int(sure.sum()), np.int64)
        found = finish(boxes[sure], scores[sure], one_kind, NMS_IOU, fit, picture)
        return Found(found.boxes_px, found.scores, _groups_of(found.scores, scores[sure], classes[sure]))


def _groups_of(kept: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The classes of those that suppression kept: both are sorted by score."""
    places = np.searchsorted(-scores, -kept, side="left")
    return classes[places].astype(np.int64)


def parts_of(fields: Sequence[GroupField], split: str, repetition: int) -> list[str]:
    """The part of each field: this project's, or a random one of whole groups."""
    keys = [one.field.name for one in fields]
    if split == "parts":
        known = datasets.load_splits()
        return [known.get(key, "") for key in keys]
    group_by_key = {key: group for group, members in build_groups().items() for key in members}
    return published_split([one.own for one in fields], [group_by_key[key] for key in keys], SHARES, repetition)


def evaluate(network: FasterRCNN, fields: Sequence[Field], long_side_px: int) -> dict[str, Any]:
    """The figures of each set among `fields`."""
    predict = TorchGroups(network, long_side_px)
    by_set = {name: [item for item in fields if item.source == name] for name in SETS}
    return {name: measured(members, predict, THRESHOLD) for name, members in by_set.items() if members}


def summary(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over repetitions of each set's figures; the deviation of one repetition is 0."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name in results[0]["figures"]:
        for key in ("recall", "ap50", "group_accuracy"):
            values = [r["figures"][name][key] for r in results if r["figures"][name][key] is not None]
            if values:
                out.setdefault(name, {})[key] = spread(values)
    return out


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = run_parser("faster-rcnn", __doc__)
    parser.add_argument("--sets", default=",".join(SETS), help="comma-separated")
    parser.add_argument("--split", choices=("published", "parts"), default="published")
    parser.add_argument("--repetitions", type=int, default=10, help="of a published split")
    parser.add_argument("--backbone", choices=BACKBONES, default="mobilenet")
    parser.add_argument(
        "--start-from",
        default="",
        help="best.pt of tools.train published --architecture mobilenet: begin with its body",
    )
    add_tile_options(parser, epochs=50, batch=2, rate=1e-3, rbc_px=(16.0, 64.0))
    parser.add_argument("--side-px", type=int, default=192, help="side of a training tile, a multiple of 32")
    parser.add_argument("--long-side-px", type=int, default=416, help="of the pictures that are measured")
    parser.add_argument("--colour", type=float, nargs=2, default=(0.2, 1.1), help="least and most change of stain")
    parser.add_argument("--anchors", type=int, default=256, help="anchors of a picture that teach")
    parser.add_argument("--rois", type=int, default=128, help="proposals of a picture that teach")
    return parser.parse_args(argv)


def start_from(network: FasterRCNN, checkpoint: Path) -> None:
    """Take the body of a classifier of the same backbone; ValueError where it has not all of it."""
    given = load_checkpoint(checkpoint)["network"]
    backbone = network.body.backbone
    wanted = backbone.state_dict()
    missing = [name for name, value in wanted.items() if name not in given or given[name].shape != value.shape]
    if missing:
        raise ValueError(
            f"--start-from {checkpoint}: got no {missing[0]} that fits, expected the network of a classifier of the "
            "same backbone"
        )
    backbone.load_state_dict({name: given[name] for name in wanted})


def trained(options: argparse.Namespace, fields: dict[str, list[Field]], seed: int, out: Path) -> FasterRCNN:
    """One repetition: the trained network, in evaluation mode."""
    torch.manual_seed(seed)
    low, high = options.rbc_diameter_px
    pools = {name: FieldPool(members[: options.limit], high) for name, members in fields.items()}
    colour = (options.colour[0], options.colour[1])
    tile_options = TileOptions(side_px=options.side_px, rbc_diameter_px=(low, high), colour=colour, red=-1)
    maker = TileMaker(pools, shares_of(fields), len(CLASSES), tile_options)
    pictures = sum(map(len, pools.values()))
    anchors = fit_anchors(anchor_sizes(maker, seed), seed, levels=1, per_level=ANCHORS)[0]
    network = FasterRCNN(backbone=options.backbone, anchors_px=anchors.tolist())
    if options.start_from:
        start_from(network, Path(options.start_from))
    sampling = Sampling(anchors=options.anchors, rois=options.rois)
    series = TileSeries(maker, options.batch, seed)
    task = FasterRCNNTask(network, series, options.rate, sampling, options.device, options.precision)
    description = {
        "architecture": "faster-rcnn",
        "backbone": options.backbone,
        "class_names": list(CLASSES),
        "settings": plain_settings(options),
        "sampling": asdict(sampling),
        "fields": {name: len(members) for name, members in fields.items()},
    }
    resume = out / LAST if options.resume and (out / LAST).exists() else None
    schedule = epoch_schedule(options, pictures, seed)
    return train(task, schedule, out, resume=resume, description=description).network


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    set_threads(options.threads)
    fields = group_fields(options.sets.split(","))
    results = []
    for repetition in range(options.repetitions if options.split == "published" else 1):
        parts = parts_of(fields, options.split, options.seed + repetition)
        inside = [one for one, part in zip(fields, parts, strict=True) if part == datasets.TRAIN]
        tested = TEST if options.split == "published" else datasets.VALIDATION
        outside = [one.field for one, part in zip(fields, parts, strict=True) if part == tested]
        folder = options.out / f"repetition-{repetition}"
        network = trained(options, pools_of(inside), options.seed + repetition, folder)
        figures = evaluate(network, outside, options.long_side_px)
        results.append({"repetition": repetition, "measured_on": tested, "figures": figures})
        (options.out / "results.json").write_text(
            json.dumps({"repetitions": results, "summary": summary(results)}, indent=1)
        )
    return 0
