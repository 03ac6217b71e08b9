"""Train DeepLabv3 on Xception to tell nucleus, cytoplasm and background of a white cell, by the publication's protocol.

    python -m tools.train segmenter --out runs/deeplabv3-xception
    python -m tools.train segmenter --out runs/deeplabv3-xception --input-px 128 --margin 1.3 --share 0.25 --decoder \
        --detail --rates 2 4 6 --augment --strength 0.4 --balance --average --cosine --rate 0.03 --epochs 280 \
        --decay 0.0005 --overlap 0.5 --resume

Stochastic gradient descent with momentum, batches of 10, 40 epochs, from nothing, on whole pictures. The cells of each
laboratory of wbc_masks are dealt at random, by class, into 70 % training, 10 % validation and 20 % test. Writes
last.pt, results.jsonl and results.json (accuracies and IoU on the test cells, over all of wbc_masks and by laboratory)
into --out.

`--sets wbc_masks,krd` takes the cells of krd too, whose masks part cell from background but not nucleus from cytoplasm
(`loss_of`). They need `--margin`, for their fields show much more than the cell. Their parts are those of every other
model, whatever the seed; what is measured of them is `cell_iou`.

The options of the second line fit a small machine and few cells: crops around the cell as the stream cuts them, a
quarter of the widths, the decoder of DeepLabv3+ and one finer still, colour, focus and geometry changed at random, a
loss of IoU beside cross-entropy. The more `--strength`, the more foreign a laboratory may be and the longer it takes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures.deeplabv3 import CLASSES, RATES, DeepLabV3
from tools.data import TRAIN, VALIDATION, data_root
from tools.data.augment import Augmentation
from tools.data.masked_cells import Changes, MaskedCells, batch_of, drawn, load_cells
from tools.data.masks import CELL, MASK_SETS, WHOLE_CELLS, figures
from tools.data.protocols import TEST
from tools.train.loop import LAST, NetworkT, Schedule, Task, channels_last, epoch_batch, load_checkpoint, train
from tools.train.options import plain_settings, run_parser, set_threads

AVERAGE_DECAY = 0.995
DEFAULT_SETS = "wbc_masks"
MAY_BE = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]], dtype=torch.bool)
"""By true label, `CELL` the last: the classes that such a pixel may be."""


@torch.no_grad()
def confusion(network: nn.Module, cells: MaskedCells, chosen: Sequence[int] | np.ndarray, device: str) -> np.ndarray:
    """int64 (4, 3) pixels by true label (`CLASSES`, `CELL`) and predicted class."""
    network.eval()
    table = np.zeros((CELL + 1, len(CLASSES)), np.int64)
    for index in chosen:
        x, truth = batch_of(cells, np.array([index]), None)
        found = network(x.to(device)).argmax(1).cpu().numpy()
        np.add.at(table, (truth.numpy().ravel(), found.ravel()), 1)
    return table


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over the pixels of -log of the probability of all classes that the true label leaves open: of a class its
    own, of `CELL` that of cytoplasm and nucleus together."""
    open_classes = MAY_BE.to(truth.device)[truth].permute(0, 3, 1, 2)
    return -logits.log_softmax(1).masked_fill(~open_classes, -torch.inf).logsumexp(1).mean()


def loss_of(logits: Tensor, truth: Tensor, overlap: float, whole_cells: bool = False) -> Tensor:
    """Cross-entropy, and `overlap` times what the mean IoU of cytoplasm and nucleus over the batch, taken of
    probabilities, lacks of 1.

    whole_cells: truth has pixels of `CELL`. They are left out of the IoU of cytoplasm and of nucleus, as if they were
    not in the batch, and the mean has a third IoU: of the whole cell, the sum of both, over all pixels.
    """
    loss = cross_entropy(logits, truth) if whole_cells else nn.functional.cross_entropy(logits, truth)
    if not overlap:
        return loss
    likely = logits.softmax(1)[:, 1:]
    classes = truth.where(truth != CELL, 0) if whole_cells else truth
    true = nn.functional.one_hot(classes, len(CLASSES)).permute(0, 3, 1, 2)[:, 1:].to(likely.dtype)
    if whole_cells:
        cell, is_cell = likely.sum(1, keepdim=True), (truth > 0)[:, None].to(likely.dtype)
        likely = torch.cat([likely * (truth != CELL)[:, None], cell], 1)
        true = torch.cat([true, is_cell], 1)
    both = (likely * true).sum((0, 2, 3))
    either = (likely + true).sum((0, 2, 3)) - both
    return loss + overlap * (1 - (both + 1) / (either + 1)).mean()


@dataclass(eq=False, kw_only=True)
class SegmenterTask(Task[NetworkT]):
    """The cells of training, all of them once an epoch or as many of each laboratory."""

    network: NetworkT
    cells: MaskedCells
    rate: float
    momentum: float
    batch: int
    seed: int
    augment: bool = False
    """Change them at random."""
    balance: bool = False
    """An epoch has as many cells of each laboratory."""
    decay: float = 0.0
    """Of the weights, each step."""
    overlap: float = 0.0
    """See `loss_of`."""
    bfloat16: bool = False
    """The network computes in it while it learns."""
    device: str = "cpu"
    whole_cells: bool = field(init=False)
    """Some cells have masks of `CELL`, so the loss has a term of the whole cell in every batch."""

    def __post_init__(self) -> None:
        # On a CPU depthwise convolutions of channels-last tensors take three quarters of the time.
        self.network = channels_last(self.network.to(self.device))
        self.whole_cells = bool(self.cells.whole.any())
        # The mean of the pyramid's image branch can't be normalised over one cell: a last one alone is left out.
        self.epoch_steps = -(-(len(self._order(np.random.default_rng())) - 1) // self.batch)

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        return drawn(self.cells, rng) if self.balance else rng.permutation(self.cells.select(TRAIN))

    def settings(self) -> dict[str, Any]:
        settings = {"batch": self.batch, "seed": self.seed, "augment": self.augment, "balance": self.balance}
        # Only where there are some: the checkpoints of runs from before `--sets` do not have it.
        return {**settings, "whole_cells": True} if self.whole_cells else settings

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=self.rate, momentum=self.momentum, weight_decay=self.decay)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = epoch_batch(self._order, step, self.epoch_steps, self.batch, self.seed)
        x, truth = batch_of(self.cells, chosen, rng if self.augment else None)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(x.to(self.device))
        return loss_of(logits.float(), truth.to(self.device), self.overlap, self.whole_cells), {}

    def measure(self, network: NetworkT) -> dict[str, Any]:
        held, whole = self.cells.select(VALIDATION), self.cells.whole
        chosen = {"mean_iou": held[~whole[held]]}
        if self.whole_cells:
            chosen["cell_iou"] = held[whole[held]]
        tables = {key: confusion(network, self.cells, members, self.device) for key, members in chosen.items()}
        return {key: figures(table)[key] if table.any() else None for key, table in tables.items()}


def schedule_of(task: SegmenterTask[Any], epochs: int, *, cosine: bool = False, average: bool = False) -> Schedule:
    """Measured after every epoch. cosine: the rate warms up over one epoch and falls along half a cosine. average: what
    is measured and exported is the moving average of the weights."""
    return Schedule(
        steps=epochs * task.epoch_steps,
        measured_every=task.epoch_steps,
        warmup_steps=task.epoch_steps if cosine else None,
        average_decay=AVERAGE_DECAY if average else None,
        clip=None,
        seed=task.seed,
    )


def results(network: nn.Module, cells: MaskedCells, device: str) -> dict[str, Any]:
    """Figures of the test cells, by laboratory that has some, and over all whose masks part nucleus from cytoplasm."""
    tested = cells.select(TEST)
    of = {name: [i for i in tested if cells.laboratories[i] == name] for name in sorted(set(cells.laboratories))}
    tables = {name: confusion(network, cells, members, device) for name, members in of.items() if members}
    parted = np.sum([table for name, table in tables.items() if name != WHOLE_CELLS], 0)
    by_name = {name: {"cells": len(of[name]), **figures(table)} for name, table in tables.items()}
    return {"all": {"cells": int((~cells.whole[tested]).sum()), **figures(parted)}, **by_name}


def measured_weights(run: Path) -> dict[str, Any]:
    """Of the network of a run that counts, the average where one was kept."""
    state = load_checkpoint(run / LAST)
    weights: dict[str, Any] = state["average"]["network"] if "average" in state else state["network"]
    return weights


def chosen_changes(options: argparse.Namespace) -> Changes:
    """How crops change by the options of the command."""
    light = Augmentation(cut_share=0.0, gamma=options.gamma, brightness=options.brightness)
    light = light.weakened(options.strength)
    return Changes(zoom=tuple(options.zoom), shift=options.shift, bend=options.bend, swap=options.swap, light=light)


def chosen_sets(text: str, margin: float | None) -> list[str]:
    """The sets of `--sets`. ValueError where a network can't learn from them."""
    names = text.split(",")
    if DEFAULT_SETS not in names or len(set(names)) < len(names) or not set(names) <= set(MASK_SETS):
        raise ValueError(
            f"--sets: got {text}, expected {DEFAULT_SETS}, alone or with {WHOLE_CELLS}: {','.join(MASK_SETS)}"
        )
    if WHOLE_CELLS in names and margin is None:
        raise ValueError(
            f"--sets {text}: got no --margin, expected one: fields of {WHOLE_CELLS} show much more than the cell; "
            "add --margin 1.3"
        )
    return names


def build_network(settings: Mapping[str, Any]) -> DeepLabV3:
    """The network that the settings of a run describe."""
    return DeepLabV3(
        share=settings["share"],
        output_stride=settings["output_stride"],
        rates=settings["rates"],
        decoder=settings["decoder"],
        detail=settings["detail"],
    )


def main(argv: Sequence[str]) -> int:
    parser = run_parser("segmenter", __doc__)
    parser.add_argument("--input-px", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--sets", default=DEFAULT_SETS, help=f"data sets, comma-separated: {','.join(MASK_SETS)}")
    parser.add_argument("--margin", type=float, help="train on the square around each cell, its side this many times")
    parser.add_argument("--share", type=float, default=1.0, help="of every width of the network")
    parser.add_argument("--output-stride", type=int, default=16, choices=(8, 16))
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES), help="dilations of the pyramid")
    parser.add_argument("--decoder", action="store_true", help="of DeepLabv3+; the publication has none")
    parser.add_argument("--detail", action="store_true", help="a second decoder, with features of stride 2")
    parser.add_argument("--augment", action="store_true", help="the publication has none")
    usual = Changes()
    parser.add_argument("--zoom", type=float, nargs=2, default=list(usual.zoom), help="of augmented crops")
    parser.add_argument("--gamma", type=float, default=usual.light.gamma, help="of augmented crops' light")
    parser.add_argument("--brightness", type=float, default=usual.light.brightness, help="likewise")
    parser.add_argument("--strength", type=float, default=1.0, help="of light, colour and focus together, 0 to 1")
    parser.add_argument("--shift", type=float, default=usual.shift, help="of augmented crops, in the cell's size")
    parser.add_argument("--bend", type=float, default=usual.bend, help="of augmented crops, in their side: 0.02")
    parser.add_argument("--swap", type=float, default=usual.swap, help="share of crops in another cell's surroundings")
    parser.add_argument("--decay", type=float, default=0.0, help="of the weights")
    parser.add_argument("--overlap", type=float, default=0.0, help="weight of a loss of IoU beside cross-entropy")
    parser.add_argument("--bfloat16", action="store_true", help="compute in it while learning: faster where it is")
    parser.add_argument("--average", action="store_true", help="keep a moving average of the weights")
    parser.add_argument("--balance", action="store_true", help="as many cells of each laboratory in every epoch")
    parser.add_argument("--start-from", type=Path, metavar="RUN", help="begin with the weights of another run")
    parser.add_argument("--cosine", action="store_true", help="let the rate fall along half a cosine")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        sets = chosen_sets(options.sets, options.margin)
    except ValueError as error:
        parser.error(str(error))
    set_threads(options.threads, options.seed)
    settings = plain_settings(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "settings.json").write_text(json.dumps(settings, indent=1))
    cells = load_cells(data_root(), options.input_px, options.seed, options.margin, sets)
    cells = replace(cells, changes=chosen_changes(options))
    network = build_network(settings)
    if options.start_from is not None:
        network.load_state_dict(measured_weights(options.start_from))
    names = ("rate", "momentum", "batch", "seed", "augment", "balance", "decay", "overlap", "bfloat16", "device")
    task = SegmenterTask(network=network, cells=cells, **{name: getattr(options, name) for name in names})
    schedule = schedule_of(task, options.epochs, cosine=options.cosine, average=options.average)
    resume = options.out / LAST if options.resume and (options.out / LAST).exists() else None
    found = results(train(task, schedule, options.out, resume=resume).network, cells, task.device)
    (options.out / "results.json").write_text(json.dumps({"settings": settings, **found}, indent=1))
    print(f"mean IoU of nucleus and cytoplasm {found['all']['mean_iou']:.4f}")
    if WHOLE_CELLS in found:
        print(f"IoU of the whole cell, {WHOLE_CELLS} {found[WHOLE_CELLS]['cell_iou']:.4f}")
    return 0
