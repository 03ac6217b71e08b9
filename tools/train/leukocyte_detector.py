"""Train a YOLOv5 detector whose classes are the kinds of leukocyte.

    python -m tools.train leukocyte-detector --out runs/yolov5n-leukocyte --start-from runs/yolov5n-blood/best.pt
    python -m tools.train leukocyte-detector --out runs/zhou --classes zhou --coco train.json --images train/ \\
        --validation-coco val.json --validation-images val/

Without --coco the pictures are PBC's with its twelve classes. --classes takes a list by name (pbc: twelve, zhou:
fifteen), a file of one name a line, or names between commas. --start-from takes the blood detector's weights: the
heads' rows of a class start as those of the blood class that its kind is. Writes what tools.train detector writes,
and goes on with --resume in the same way.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tools import data as datasets
from tools.architectures.yolov5 import YOLOv5, yolov5
from tools.data import leukocytes
from tools.data.fields import CLASS_NAMES as BLOOD_NAMES
from tools.data.fields import Field, FieldPool
from tools.data.tiles import TileMaker, TileOptions
from tools.metrics.detection import summary, tally
from tools.metrics.predict import TorchPredictor
from tools.train.loop import load_checkpoint
from tools.train.options import run_parser, set_threads
from tools.train.tiles import TileSeries
from tools.train.yolov5 import YOLOv5Task, add_options, anchored, train_by
from tools.train.yolov5_loss import LossWeights

BLOOD_OF_KIND = {"white": "WBC", "nucleated red": "WBC", "other": "WBC", "red": "RBC", "platelet": "platelet"}


def start_from_blood(state: Mapping[str, Tensor], names: Sequence[str], anchors: int = 3) -> dict[str, Tensor]:
    """Weights of a network of `names` from those of the three-class blood detector.

    Backbone, neck, boxes and objectness are the same; each class starts as the blood class that its kind is.
    """
    rows = [BLOOD_NAMES.index(BLOOD_OF_KIND[leukocytes.kind_of(name)]) for name in names]
    chosen = torch.tensor([*range(5), *(5 + row for row in rows)])
    out = {}
    for key, value in state.items():
        if key.startswith("heads."):
            value = value.reshape(anchors, 5 + len(BLOOD_NAMES), *value.shape[1:])[:, chosen].flatten(0, 1)
        out[key] = value.float() if value.is_floating_point() else value
    return out


def read_fields(
    options: argparse.Namespace, names: tuple[str, ...]
) -> tuple[dict[str, list[Field]], dict[str, list[Field]]]:
    """Training and validation fields by the class of their main cell."""
    if options.coco is None:
        return leukocytes.pbc_fields(datasets.TRAIN, names), leukocytes.pbc_fields(datasets.VALIDATION, names)
    given = (options.images, options.validation_coco, options.validation_images)
    if None in given:
        raise ValueError("--coco: got it alone, expected --images, --validation-coco and --validation-images with it")
    train = leukocytes.coco_fields(options.coco, options.images, names, options.rbc_px)
    held = leukocytes.coco_fields(options.validation_coco, options.validation_images, names, options.rbc_px)
    return leukocytes.by_main_class(train, names), leukocytes.by_main_class(held, names)


def evenly(fields: dict[str, list[Field]], limit: int) -> list[Field]:
    """At most `limit` fields, as many of each class as there are, rare ones whole."""
    each = max(1, limit // max(1, len(fields)))
    return list(chain.from_iterable(members[:each] for members in fields.values()))


class LeukocyteTask(YOLOv5Task):
    """Kinds of leukocyte, measured on fields at one long side."""

    validation: list[Field]
    long_side_px: int

    def measure(self, network: YOLOv5) -> dict[str, Any]:
        tallies, _ = tally(self.validation, TorchPredictor(network, self.long_side_px), len(self.class_names))
        return summary(tallies, self.class_names, self.validation[0].complete, 0.3)

    def score(self, results: Mapping[str, Any]) -> float:
        return results["map50"] or 0.0


def main(argv: Sequence[str]) -> int:
    parser = run_parser("leukocyte-detector", __doc__)
    parser.add_argument("--start-from", type=Path, help="checkpoint of the blood detector (tools.train detector)")
    parser.add_argument("--classes", default="pbc", help="pbc, zhou, a file of names, or names between commas")
    parser.add_argument("--coco", type=Path, help="COCO boxes of other pictures than PBC's")
    parser.add_argument("--images", type=Path, help="folder of their pictures")
    parser.add_argument("--validation-coco", type=Path)
    parser.add_argument("--validation-images", type=Path)
    parser.add_argument("--rbc-px", type=float, default=43.0, help="diameter of a red cell in the pictures of --coco")
    add_options(parser, batch=32, side_px=224, rbc_px=(32.0, 62.0), limit=10**6)
    parser.add_argument("--long-side-px", type=int, default=224, help="longer side of the validation's input")
    parser.add_argument("--colour", type=float, nargs=2, default=(0.05, 0.6), help="least and most change of stain")
    parser.add_argument("--other-stains", type=float, default=0.0, help="share of parts that are stained anew")
    parser.add_argument("--class-gain", type=float, default=0.5, help="weight of the loss of classes")
    parser.add_argument("--validation-limit", type=int, default=360, help="pictures of a validation while training")
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    set_threads(options.threads, options.seed)
    try:
        names = leukocytes.class_list(options.classes)
        training, held = read_fields(options, names)
    except ValueError as error:
        console.print(str(error))
        return 2
    low, high = options.rbc_diameter_px
    tile_options = TileOptions(
        side_px=options.side_px,
        rbc_diameter_px=(low, high),
        colour=tuple(options.colour),
        stain_share=options.other_stains,
        haze_share=0.5 * options.other_stains,
        red=leukocytes.red_label(names),
    )
    pools = {name: FieldPool(members[: options.limit], 1.5 * high) for name, members in training.items()}
    shares = leukocytes.shares({name: pool.fields for name, pool in pools.items()})
    maker = TileMaker(pools, shares, len(names), tile_options)
    pictures = sum(map(len, pools.values()))
    console.print(f"{pictures} fields, {sum(p.nbytes for p in pools.values()) / 1e6:.0f} MB")
    if options.start_from and not options.resume:
        network = yolov5(options.size, len(names))
        network.load_state_dict(start_from_blood(load_checkpoint(options.start_from)["average"]["network"], names))
    else:
        network = anchored(options, maker, len(names), console)
    task = LeukocyteTask(
        network,
        TileSeries(maker, options.batch, options.seed),
        names,
        peak_lr=options.peak_lr,
        weights=LossWeights(classes=options.class_gain, of_class=leukocytes.class_weights(names)),
        device=options.device,
        precision=options.precision,
    )
    task.validation, task.long_side_px = evenly(held, options.validation_limit), options.long_side_px
    source = "pbc" if options.coco is None else options.coco.stem
    train_by(options, task, {source: pictures}, {source: 1.0})
    return 0
