"""Train DeepLabv3 on Xception to tell nucleus, cytoplasm and background of a white cell, by the publication's protocol.

    python -m tools.train segmenter --out runs/deeplabv3-xception
    python -m tools.train segmenter --out runs/deeplabv3-xception --input-px 128 --margin 1.3 --share 0.25 --decoder \
        --detail --rates 2 4 6 --augment --strength 0.4 --balance --average --cosine --rate 0.03 --epochs 280 \
        --decay 0.0005 --overlap 0.5 --resume

Stochastic gradient descent with momentum, batches of 10, 40 epochs, from nothing, on whole pictures. The cells of each
laboratory of wbc_masks are dealt at random, by class, into 70 % training, 10 % validation and 20 % test. Writes
last.pt, log.jsonl and results.json (accuracies and IoU on the test cells, over all and by laboratory) into --out.

The options of the second line fit a small machine and few cells: crops around the cell as the stream cuts them, a
quarter of the widths, the decoder of DeepLabv3+ and one finer still, colour, focus and geometry changed at random, a
loss of IoU beside cross-entropy. The more `--strength`, the more foreign a laboratory may be and the longer it takes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures.deeplabv3 import CLASSES, RATES, DeepLabV3
from tools.commands import command_parser
from tools.data import TRAIN, VALIDATION, data_root
from tools.data.augment import Augmentation
from tools.data.masked_cells import Changes, MaskedCells, batch_of, drawn, load_cells
from tools.data.masks import figures
from tools.data.protocols import TEST
from tools.train import loop

AVERAGE_DECAY = 0.995


@torch.no_grad()
def confusion(
    network: nn.Module, cells: MaskedCells, chosen: Sequence[int] | np.ndarray, device: torch.device
) -> np.ndarray:
    """int64 (3, 3) pixels by true and predicted class."""
    network.eval()
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for index in chosen:
        x, truth = batch_of(cells, np.array([index]), None)
        found = network(x.to(device)).argmax(1).cpu().numpy()
        np.add.at(table, (truth.numpy().ravel(), found.ravel()), 1)
    return table


def loss_of(logits: Tensor, truth: Tensor, overlap: float) -> Tensor:
    """Cross-entropy, and `overlap` times what the IoU of cytoplasm and nucleus over the batch, taken of probabilities,
    lacks of 1."""
    loss = nn.functional.cross_entropy(logits, truth)
    if not overlap:
        return loss
    likely = logits.softmax(1)[:, 1:]
    true = nn.functional.one_hot(truth, len(CLASSES)).permute(0, 3, 1, 2)[:, 1:].to(likely.dtype)
    both = (likely * true).sum((0, 2, 3))
    either = (likely + true).sum((0, 2, 3)) - both
    return loss + overlap * (1 - (both + 1) / (either + 1)).mean()


class SegmenterTrainer:
    """One run in `out`, resumed at the start of an epoch."""

    def __init__(
        self,
        network: nn.Module,
        cells: MaskedCells,
        out: Path,
        *,
        rate: float,
        momentum: float,
        batch: int,
        seed: int,
        augment: bool = False,
        average: bool = False,
        balance: bool = False,
        epochs: int | None = None,
        decay: float = 0.0,
        overlap: float = 0.0,
        bfloat16: bool = False,
        resume: bool = False,
        device: str = "cpu",
    ) -> None:
        """`epochs`: the rate warms up over one epoch and falls along half a cosine to the last of them; None keeps
        it. `average`: what is measured and exported is the moving average of the weights. `balance`: an epoch has as
        many cells of each laboratory. `decay`: of the weights, each step. `overlap`: see `loss_of`. `bfloat16`: the
        network computes in it while it learns."""
        self.device = torch.device(device)
        # On a CPU depthwise convolutions of channels-last tensors take three quarters of the time.
        self.network = loop.channels_last(network.to(self.device))
        self.cells, self.out, self.batch, self.seed, self.augment = cells, out, batch, seed, augment
        self.rate, self.epochs, self.balance = rate, epochs, balance
        self.overlap, self.bfloat16 = overlap, bfloat16
        self.optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
        self.average = loop.MovingAverage(self.network, AVERAGE_DECAY) if average else None
        self.epoch = 0
        if resume and (out / "last.pt").exists():
            state = loop.load_checkpoint(out / "last.pt")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.epoch = state["epoch"]

    @property
    def measured(self) -> nn.Module:
        """The network that counts: the average where one is kept."""
        return self.network if self.average is None else self.average.network

    def run_epoch(self) -> dict[str, Any]:
        """One pass over the training cells; the line of log.jsonl."""
        rng = loop.seed_everything(self.seed, self.epoch)
        order = drawn(self.cells, rng) if self.balance else rng.permutation(self.cells.select(TRAIN))
        started, losses = time.monotonic(), []
        self.network.train()
        starts = range(0, len(order), self.batch)
        for step, start in enumerate(starts):
            if self.epochs is not None:
                done = self.epoch * len(starts) + step
                factor = loop.one_cycle(done, self.epochs * len(starts), len(starts))
                self.optimizer.param_groups[0]["lr"] = self.rate * factor
            chosen = order[start : start + self.batch]
            if len(chosen) < 2:  # the mean of the pyramid's image branch can't be normalised over one cell
                continue
            x, truth = batch_of(self.cells, chosen, rng if self.augment else None)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                logits = self.network(x.to(self.device))
            loss = loss_of(logits.float(), truth.to(self.device), self.overlap)
            losses.append(loop.descend(loss, self.network, self.optimizer))
            if self.average is not None:
                self.average.update(self.network)
        self.epoch += 1
        held = confusion(self.measured, self.cells, self.cells.select(VALIDATION), self.device)
        line = {
            "epoch": self.epoch,
            "loss": float(np.mean(losses)),
            "validation_mean_iou": figures(held)["mean_iou"] if held.any() else None,
            "seconds": round(time.monotonic() - started, 1),
        }
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        loop.save_checkpoint(self.out / "last.pt", state)
        loop.append_result(self.out / "log.jsonl", line)
        return line


def results(network: nn.Module, cells: MaskedCells, device: torch.device) -> dict[str, Any]:
    """Figures of the test cells, over all and by laboratory."""
    tested = cells.select(TEST)
    of = {name: [i for i in tested if cells.laboratories[i] == name] for name in sorted(set(cells.laboratories))}
    tables = {name: confusion(network, cells, members, device) for name, members in of.items()}
    return {"all": figures(np.sum(list(tables.values()), 0)), **{name: figures(t) for name, t in tables.items()}}


def measured_weights(run: Path) -> dict[str, Any]:
    """Of the network of a run that counts, the average where one was kept."""
    state = loop.load_checkpoint(run / "last.pt")
    weights: dict[str, Any] = state["average"]["network"] if "average" in state else state["network"]
    return weights


def chosen_changes(options: argparse.Namespace) -> Changes:
    """How crops change by the options of the command."""
    light = Augmentation(cut_share=0.0, gamma=options.gamma, brightness=options.brightness)
    light = light.weakened(options.strength)
    return Changes(zoom=tuple(options.zoom), shift=options.shift, bend=options.bend, swap=options.swap, light=light)


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
    parser = command_parser("tools.train segmenter", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--input-px", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--momentum", type=float, default=0.9)
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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "settings.json").write_text(json.dumps(settings, indent=1))
    cells = load_cells(data_root(), options.input_px, options.seed, options.margin)
    cells = replace(cells, changes=chosen_changes(options))
    network = build_network(settings)
    if options.start_from is not None:
        network.load_state_dict(measured_weights(options.start_from))
    trainer = SegmenterTrainer(
        network,
        cells,
        options.out,
        rate=options.rate,
        momentum=options.momentum,
        batch=options.batch,
        seed=options.seed,
        augment=options.augment,
        average=options.average,
        balance=options.balance,
        epochs=options.epochs if options.cosine else None,
        decay=options.decay,
        overlap=options.overlap,
        bfloat16=options.bfloat16,
        resume=options.resume,
        device=options.device,
    )
    while trainer.epoch < options.epochs:
        print(trainer.run_epoch(), flush=True)
    found = results(trainer.measured, cells, trainer.device)
    (options.out / "results.json").write_text(json.dumps({"settings": settings, **found}, indent=1))
    print(f"mean IoU of nucleus and cytoplasm {found['all']['mean_iou']:.4f}")
    return 0
