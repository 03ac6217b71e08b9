"""Train the YOLOv2 localiser of the leukaemia system on PBC's five types, by the publication's protocol.

    python -m tools.train yolov2 --out runs/yolov2-onnx
    python -m tools.export leukocyte-detector runs/yolov2-onnx/last.pt --name yolov2-onnx --long-side-px 128

128x128 pictures, stochastic gradient descent with momentum, rate 1e-3, batches of 12, 100 epochs; four anchors fitted
to the boxes. For less time than 100 epochs take, --cosine lets the rate fall to a hundredth over the run, and
--precision bf16 takes half the time on a processor that knows it. Writes last.pt and results.jsonl into --out; --resume
goes on where a run stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tools import data as datasets
from tools.architectures.yolov2 import CLASSES, INPUT_PX, YOLOv2
from tools.data import leukocytes
from tools.data.fields import FieldPool
from tools.data.tiles import TileMaker, TileOptions
from tools.train.anchors import fit_anchors
from tools.train.loop import LAST, train
from tools.train.options import plain_settings, run_parser, set_threads
from tools.train.tiles import TileSeries, TileTask, add_tile_options, anchor_sizes, epoch_schedule
from tools.train.yolov2_loss import YOLOv2Loss

ANCHORS = 4


def task_of(
    network: YOLOv2, series: TileSeries, rate: float, momentum: float, device: str = "cpu", precision: str = "fp32"
) -> TileTask[YOLOv2]:
    """Stochastic gradient descent with momentum, as the publication has it."""

    def optimizer(network: YOLOv2) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)

    loss = YOLOv2Loss(network.to(device).anchors_px)
    return TileTask(network, series, loss, optimizer, CLASSES, device=device, precision=precision)


def main(argv: Sequence[str]) -> int:
    parser = run_parser("yolov2", __doc__)
    add_tile_options(parser, epochs=100, batch=12, rate=1e-3, rbc_px=(18.0, 34.0))
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--colour", type=float, nargs=2, default=(0.05, 0.6), help="least and most change of stain")
    options = parser.parse_args(argv)
    set_threads(options.threads, options.seed)
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
    network = YOLOv2(anchors_px=np.asarray(anchors).tolist())
    series = TileSeries(maker, options.batch, options.seed)
    task = task_of(network, series, options.rate, options.momentum, options.device, options.precision)
    description = {
        "architecture": "yolov2-onnx",
        "class_names": list(CLASSES),
        "settings": {**plain_settings(options), "side_px": INPUT_PX},
        "shares": {"pbc": 1.0},
        "fields": {"pbc": pictures},
    }
    schedule = epoch_schedule(options, pictures, options.seed)
    train(task, schedule, options.out, resume=options.out / LAST if options.resume else None, description=description)
    return 0
