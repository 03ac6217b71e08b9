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
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tools import data as datasets
from tools.architectures.yolov5 import SIZES, yolov5
from tools.commands import command_parser
from tools.data import leukocytes
from tools.data.fields import CLASS_NAMES as BLOOD_NAMES
from tools.data.fields import Field, FieldPool
from tools.data.tiles import TileMaker, TileOptions
from tools.metrics.detection import summary, tally
from tools.metrics.predict import TorchPredictor
from tools.train.detection import Schedule, Trainer
from tools.train.detector import anchor_sizes
from tools.train.loop import load_checkpoint, plain_settings, run_epochs
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


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser("tools.train leukocyte-detector", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from last.pt in --out")
    parser.add_argument("--start-from", type=Path, help="checkpoint of the blood detector (tools.train detector)")
    parser.add_argument("--classes", default="pbc", help="pbc, zhou, a file of names, or names between commas")
    parser.add_argument("--coco", type=Path, help="COCO boxes of other pictures than PBC's")
    parser.add_argument("--images", type=Path, help="folder of their pictures")
    parser.add_argument("--validation-coco", type=Path)
    parser.add_argument("--validation-images", type=Path)
    parser.add_argument("--rbc-px", type=float, default=43.0, help="diameter of a red cell in the pictures of --coco")
    parser.add_argument("--size", choices=sorted(SIZES), default="n")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--side-px", type=int, default=224, help="side of a training tile")
    parser.add_argument("--long-side-px", type=int, default=224, help="longer side of the validation's input")
    parser.add_argument("--rbc-diameter-px", type=float, nargs=2, default=(32.0, 62.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--colour", type=float, nargs=2, default=(0.05, 0.6), help="least and most change of stain")
    parser.add_argument("--other-stains", type=float, default=0.0, help="share of parts that are stained anew")
    parser.add_argument("--class-gain", type=float, default=0.5, help="weight of the loss of classes")
    parser.add_argument("--limit", type=int, default=10**6, help="pictures a class at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epoch-steps", type=int, default=100)
    parser.add_argument("--validate-every", type=int, default=5, help="epochs between validations")
    parser.add_argument("--validation-limit", type=int, default=360, help="pictures of a validation while training")
    return parser.parse_args(argv)


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


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    console = Console(stderr=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    try:
        names = leukocytes.class_list(options.classes)
        training, held = read_fields(options, names)
    except ValueError as error:
        console.print(str(error))
        return 2
    validation = evenly(held, options.validation_limit)
    options.out.mkdir(parents=True, exist_ok=True)
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
    console.print(f"{sum(map(len, pools.values()))} fields, {sum(p.nbytes for p in pools.values()) / 1e6:.0f} MB")

    last = options.out / "last.pt"
    if options.resume:
        checkpoint = load_checkpoint(last)
        model = yolov5(options.size, len(names))
        model.load_state_dict(checkpoint["model"])
    elif options.start_from:
        checkpoint = None
        model = yolov5(options.size, len(names))
        model.load_state_dict(start_from_blood(load_checkpoint(options.start_from)["average"], names))
    else:
        from tools.train.anchors import fit_anchors

        checkpoint = None
        anchors = fit_anchors(anchor_sizes(maker, options.seed), options.seed)
        model = yolov5(options.size, len(names), anchors_px=anchors.tolist())
    schedule = Schedule(steps=options.steps, batch=options.batch, peak_lr=options.peak_lr)
    weights = LossWeights(classes=options.class_gain, of_class=leukocytes.class_weights(names))
    trainer = Trainer(
        model,
        maker,
        schedule,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        weights=weights,
    )
    if checkpoint is not None:
        trainer.restore(checkpoint)
    description = {
        "size": options.size,
        "class_names": list(names),
        "settings": plain_settings(options),
        "shares": {"pbc" if options.coco is None else options.coco.stem: 1.0},
        "fields": {"pbc" if options.coco is None else options.coco.stem: sum(map(len, pools.values()))},
    }
    (options.out / "run.json").write_text(json.dumps(description, indent=1))

    def measure() -> tuple[dict[str, Any], float]:
        predictor = TorchPredictor(trainer.average, options.long_side_px)
        tallies, _ = tally(validation, predictor, len(names))
        figures = summary(tallies, names, validation[0].complete, 0.3)
        return figures, figures["map50"] or 0.0

    run_epochs(
        trainer,
        options.out,
        description,
        steps=options.steps,
        epoch_steps=options.epoch_steps,
        measure=measure,
        measure_every=options.validate_every,
        say=console.print,
    )
    return 0
