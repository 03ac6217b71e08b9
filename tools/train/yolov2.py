"""Train the YOLOv2 localiser of the leukaemia system on PBC's five types, by the publication's protocol.

    python -m tools.train yolov2 --out runs/yolov2-onnx
    python -m tools.export leukocyte-detector runs/yolov2-onnx/last.pt --name yolov2-onnx --long-side-px 128

128x128 pictures, stochastic gradient descent with momentum, rate 1e-3, batches of 12, 100 epochs; four anchors fitted
to the boxes. For less time than 100 epochs take, --cosine lets the rate fall to a hundredth over the run, and
--precision bf16 takes half the time on a processor that knows it. Writes last.pt and log.jsonl into --out; --resume
goes on where a run stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from tools import data as datasets
from tools.architectures.yolov2 import CLASSES, INPUT_PX, YOLOv2
from tools.commands import command_parser
from tools.data import leukocytes
from tools.data.fields import FieldPool
from tools.data.tiles import TileMaker, TileOptions
from tools.train.anchors import fit_anchors
from tools.train.detector import anchor_sizes
from tools.train.loop import load_checkpoint, plain_settings, run_epochs
from tools.train.step_training import StepTrainer
from tools.train.yolov2_loss import YOLOv2Loss

ANCHORS = 4


class YOLOv2Trainer(StepTrainer[YOLOv2]):
    """Stochastic gradient descent with momentum, as the publication has it."""

    def __init__(
        self,
        network: YOLOv2,
        maker: TileMaker,
        *,
        rate: float,
        batch: int,
        momentum: float,
        seed: int,
        device: str,
        precision: str = "fp32",
        cosine_steps: int | None = None,
    ) -> None:
        super().__init__(
            network,
            maker,
            lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum),
            rate=rate,
            batch=batch,
            seed=seed,
            device=device,
            precision=precision,
            cosine_steps=cosine_steps,
        )
        self.loss = YOLOv2Loss(network.anchors_px)

    def forward(self, images: Tensor) -> Any:
        return self.network.train()(images)

    def losses(self, made: Any, targets: Any, known: Any) -> tuple[Tensor, dict[str, float]]:
        return self.loss(made, targets, known)


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.train yolov2", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--epoch-steps", type=int, help="steps an epoch; else as many as show every picture once")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--cosine", action="store_true", help="let the rate fall over the run; else it stays")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--colour", type=float, nargs=2, default=(0.05, 0.6), help="least and most change of stain")
    parser.add_argument("--rbc-diameter-px", type=float, nargs=2, default=(18.0, 34.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--limit", type=int, default=10**6, help="pictures a class at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    low, high = options.rbc_diameter_px
    fields = leukocytes.pbc_fields(datasets.TRAIN, CLASSES)
    pools = {name: FieldPool(members[: options.limit], 1.5 * high) for name, members in fields.items()}
    shares = leukocytes.shares({name: pool.fields for name, pool in pools.items()})
    tile_options = TileOptions(
        side_px=INPUT_PX, rbc_diameter_px=(low, high), colour=tuple(options.colour), stain_share=0.0, red=-1
    )
    maker = TileMaker(pools, shares, len(CLASSES), tile_options)
    pictures = sum(map(len, pools.values()))
    anchors = fit_anchors(anchor_sizes(maker, options.seed), options.seed, levels=1, per_level=ANCHORS)[0]
    steps = options.epoch_steps or max(1, pictures // options.batch)
    trainer = YOLOv2Trainer(
        YOLOv2(anchors_px=np.asarray(anchors).tolist()),
        maker,
        rate=options.rate,
        batch=options.batch,
        momentum=options.momentum,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        cosine_steps=steps * options.epochs if options.cosine else None,
    )
    if options.resume:
        trainer.restore(load_checkpoint(options.out / "last.pt"))
    description = {
        "architecture": "yolov2-onnx",
        "class_names": list(CLASSES),
        "settings": {**plain_settings(options), "side_px": INPUT_PX},
        "shares": {"pbc": 1.0},
        "fields": {"pbc": pictures},
    }
    say = Console(stderr=True).print
    run_epochs(trainer, options.out, description, steps=steps * options.epochs, epoch_steps=steps, say=say)
    return 0
