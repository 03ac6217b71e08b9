"""Train a published classifier of the five types by the protocol of its publication, scaled by options.

    python -m tools.train published --architecture resnet50 --out runs/resnet50
    python -m tools.train published --architecture ml-cnn --out runs/ml-cnn --repetitions 1 --split parts --augment
    python -m tools.train published --architecture vgg19 --out runs/vgg19 --input-px 96 --epochs 20 --resume
    python -m tools.train published --architecture resnet50 --out runs/larger --start runs/resnet50 --input-px 64
    python -m tools.train published --architecture ml-cnn --out runs/ml-cnn --start engines/zoo/published/ml-cnn.onnx

What is not given is the publication's: input, rate, batch, epochs or early stopping, split, Monte-Carlo repetitions
(tools/architectures/published.py). --split parts takes this project's parts, so that what is measured on `holdout`
was never seen. --start begins with the weights of another run, so that early epochs can be of a smaller input, and
ML-CNN's networks with the body of `--architecture mobilenet`, which was taught all five types; or with those of a file
that tools.export published made, where the run is gone (tools/graphs/shipped_weights.py). Every network of a system
(ML-CNN has three) leaves last.pt and best.pt in OUT/repetition-K/NAME; OUT/results.json has the figures of each
repetition on its test cells, their mean and standard deviation. A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures.published import CLASSES, WHOLE, Part, assemble, parts_of
from tools.data import HOLDOUT, TRAIN, VALIDATION, data_root
from tools.data.crops import load_stored
from tools.data.protocols import PROTOCOLS, TEST, Protocol
from tools.data.typed_cells import Cells
from tools.graphs.shipped_weights import GRAPH, begin_with_graph, card_beside, weights_of
from tools.metrics import classification as measures
from tools.train.loop import (
    BEST,
    LAST,
    Schedule,
    Task,
    begin_with,
    channels_last,
    epoch_batch,
    load_checkpoint,
    seed_everything,
    train,
)
from tools.train.options import plain_settings, run_parser, set_threads

BEGINNING_BATCHES = 16
"""Training batches from which the normalisations of a network that begins with a graph take their statistics."""


@torch.no_grad()
def predicted(network: nn.Module, cells: Cells, chosen: np.ndarray, input_px: int, device: str) -> np.ndarray:
    """What a network gives for cells, float32 (n, outputs)."""
    network.eval()
    found = [np.zeros((0, 0), np.float32)]
    for start in range(0, len(chosen), 64):
        x = cells.crops(chosen[start : start + 64], input_px).to(device)
        found.append(network(x).float().cpu().numpy())
    return np.concatenate(found[1:])


@dataclass(eq=False)
class PartTask(Task[nn.Module]):
    """One network of a system, on the training cells of its labels; begun from the weights of `start` where it is
    given. `parts`: that of each cell."""

    part: Part
    cells: Cells
    parts: Sequence[str]
    protocol: Protocol
    seed: int
    augment: bool = False
    frozen_epochs: int = 0
    one_cycle: bool = False
    bfloat16: bool = False
    device: str = "cpu"
    start: Path | None = None

    def __post_init__(self) -> None:
        self.labels = np.array([self.part.labels.get(name, -1) for name in self.cells.classes])
        inside = np.array(self.parts)
        self.train_cells = np.flatnonzero((inside == TRAIN) & (self.labels >= 0))
        self.held_cells = np.flatnonzero((inside == VALIDATION) & (self.labels >= 0))
        if not len(self.train_cells):
            raise ValueError(f"{self.part.name}: got no training cell of {', '.join(self.part.labels)}, expected some")
        self.epoch_steps = max(1, len(self.train_cells) // self.protocol.batch)
        rng = seed_everything(self.seed, 2**31)
        network = self.part.make(self.protocol.input_px)
        if self.start is not None:
            self._begin(network, self.start, rng)
        self.network = channels_last(network.to(self.device))

    def _begin(self, network: nn.Module, start: Path, rng: np.random.Generator) -> None:
        """Give `network`, on the CPU, the weights of a checkpoint or of this part's tensors in a graph."""
        if start.suffix == GRAPH:
            size = self.protocol.batch * BEGINNING_BATCHES
            chosen = rng.choice(self.train_cells, min(size, len(self.train_cells)), replace=False)
            batches = (
                self._pictures(chosen[first : first + self.protocol.batch], rng)
                for first in range(0, len(chosen), self.protocol.batch)
            )
            weights = weights_of(start, self.part.tensors)
            begin_with_graph(network, weights, batches)
            print(f"{self.part.name}: {len(weights)} tensors from {start}", flush=True)
            return
        taken = begin_with(network, load_checkpoint(start)["network"])
        print(f"{self.part.name}: {taken[0]} of {taken[1]} tensors from {start}", flush=True)

    def _pictures(self, chosen: np.ndarray, rng: np.random.Generator) -> Tensor:
        """float32 (n, 3, input_px, input_px) in 0..1 of the cells numbered `chosen`, as the run trains with them."""
        px = self.protocol.input_px
        return self.cells.augmented(chosen, px, rng) if self.augment else self.cells.crops(chosen, px)

    def settings(self) -> dict[str, Any]:
        settings = {**asdict(self.protocol), "seed": self.seed, "augment": self.augment, "part": self.part.name}
        if not self.one_cycle:
            del settings["epochs"]  # a longer run may go on
        return {**settings, "one_cycle": self.one_cycle, "start": None if self.start is None else str(self.start)}

    def optimizer(self) -> torch.optim.Optimizer:
        if self.protocol.optimizer == "sgdm":
            return torch.optim.SGD(self.network.parameters(), lr=self.protocol.rate, momentum=0.9)
        return torch.optim.Adam(self.network.parameters(), lr=self.protocol.rate)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.frozen_epochs:
            for parameter in self.network.body_parameters():  # type: ignore[operator]
                parameter.requires_grad_(step >= self.frozen_epochs * self.epoch_steps)
        order = epoch_batch(self._order, step, self.epoch_steps, self.protocol.batch, self.seed)
        x = self._pictures(order, rng).to(self.device, memory_format=torch.channels_last)
        labels = torch.from_numpy(self.labels[order]).to(self.device)
        device = torch.device(self.device).type
        with torch.autocast(device, torch.bfloat16, enabled=self.bfloat16 or device == "cuda"):
            logits = self.network(x)
        return nn.functional.cross_entropy(logits.float(), labels), {}

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.train_cells)

    def measure(self, network: nn.Module) -> dict[str, Any]:
        if not len(self.held_cells):
            return {}
        logits = predicted(network, self.cells, self.held_cells, self.protocol.input_px, self.device)
        return {"accuracy": float((logits.argmax(1) == self.labels[self.held_cells]).mean())}

    def score(self, results: Mapping[str, Any]) -> float | None:
        return results.get("accuracy")

    def schedule(self) -> Schedule:
        """Measured after every epoch; with one cycle the rate warms up over half of one."""
        patience = self.protocol.patience
        return Schedule(
            steps=self.protocol.epochs * self.epoch_steps,
            measured_every=self.epoch_steps,
            warmup_steps=self.epoch_steps // 2 if self.one_cycle else None,
            patience=None if patience is None else patience * self.epoch_steps,
            clip=None,
            seed=self.seed,
        )


def train_part(task: PartTask, out: Path, *, resume: bool = False) -> nn.Module:
    """Train what is missing of a run in `out`; the network of the best validation accuracy, or of the last step without
    validation, in evaluation mode."""
    train(task, task.schedule(), out, resume=out / LAST if resume and (out / LAST).exists() else None)
    if not len(task.held_cells):
        shutil.copyfile(out / LAST, out / BEST)
    task.network.load_state_dict(load_checkpoint(out / BEST)["network"])
    return task.network.eval()


def figures(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Accuracy, macro recall, precision and F1 as the publications give them, and the confusion table."""
    table = measures.confusion(truth, probabilities.argmax(1), len(CLASSES))
    hits = np.diag(table).astype(float)
    occurring = table.sum(1) > 0
    recall = hits[occurring] / table.sum(1)[occurring]
    precision = hits[occurring] / np.maximum(table.sum(0)[occurring], 1)
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-12)
    return {
        "cells": len(truth),
        "accuracy": float(hits.sum() / len(truth)),
        "recall": float(recall.mean()),
        "precision": float(precision.mean()),
        "f1": float(f1.mean()),
        "confusion": table.tolist(),
    }


def summary(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over repetitions of each figure; the deviation of one repetition is 0."""
    return {key: measures.spread([r[key] for r in results]) for key in ("accuracy", "recall", "precision", "f1")}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = run_parser("published", __doc__)
    parser.add_argument("--architecture", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--sets", default="pbc", help="sets with typed cells, comma-separated")
    parser.add_argument("--split", choices=("published", "parts"), default="published")
    parser.add_argument("--input-px", type=int, help="else the publication's, as the following")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--patience", type=int)
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--frozen-epochs", type=int, default=0, help="epochs in which early layers stay as they are")
    parser.add_argument("--one-cycle", action="store_true", help="warm up and down the rate; the publications keep it")
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16, as is done on a GPU anyway")
    parser.add_argument("--start", type=Path, help="run, or exported file, whose weights to begin with")
    parser.add_argument("--augment", action="store_true", help="random crops and light; the publications have none")
    parser.add_argument("--strength", type=float, default=1.0, help="of --augment, 0 to 1; few epochs bear less")
    parser.add_argument("--margin", type=float, default=1.3, help="side of a crop over its box; 0: whole pictures")
    parser.add_argument("--cells", type=Path, default=Path("runs/cells"), help="folder of the stored cells (1.9 GB)")
    parser.add_argument("--limit", type=int, help="cells at most, to try it out")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def protocol_of(options: argparse.Namespace) -> Protocol:
    """The publication's protocol with what was given in its place."""
    given = {k: getattr(options, k) for k in ("input_px", "rate", "batch", "epochs", "patience", "repetitions")}
    return replace(PROTOCOLS[options.architecture], **{k: v for k, v in given.items() if v is not None})


def load_typed(folder: Path, sets: str, margin: float, strength: float = 1.0) -> Cells:
    """The typed cells of sets separated by commas, stored in `folder`."""
    names = sets.split(",")
    return Cells(load_stored(data_root(), folder, sets=names), names, margin, strength)


def cells_of_run(document: Mapping[str, Any], folder: Path) -> tuple[Cells, list[str]]:
    """The cells that a run was made with, given its results.json and the folder of the stored cells, and the part of
    each."""
    settings = document["settings"]
    cells = load_typed(folder, settings["sets"], settings["margin"])
    if settings["split"] != "published":
        return cells, cells.parts
    protocol = protocol_of(SimpleNamespace(**settings))  # type: ignore[arg-type]
    return cells, cells.split(protocol, settings["seed"])


def start_of(run: Path, part: Part) -> Path:
    """What a part begins with: the checkpoint of the part of its name in `run`, else of a run of one network; or
    `run` itself, where it is a graph."""
    if run.suffix == GRAPH:
        return run
    for name in (part.name, WHOLE):
        path = run / "repetition-0" / name / "best.pt"
        if path.is_file():
            return path
    raise FileNotFoundError(f"--start: got no {part.name}/best.pt nor {WHOLE}/best.pt in {run}/repetition-0")


def made_by(start: Path) -> dict[str, Any]:
    """For results.json: the SHA-256 of the graph that a run begins with and the commands that its card was built by,
    since an export may replace both; nothing for a run, whose folder has its own results.json."""
    if start.suffix != GRAPH:
        return {}
    return {
        "start_sha256": hashlib.sha256(start.read_bytes()).hexdigest(),
        "start_build": list(card_beside(start).build),
    }


def train_all(options: argparse.Namespace, cells: Cells) -> dict[str, Any]:
    """All repetitions; what results.json holds."""
    protocol = protocol_of(options)
    names = ("augment", "frozen_epochs", "one_cycle", "bfloat16", "device")
    chosen: dict[str, Any] = {name: getattr(options, name) for name in names}
    results = []
    for repetition in range(protocol.repetitions if options.split == "published" else 1):
        parts = cells.split(protocol, options.seed + repetition) if options.split == "published" else cells.parts
        networks = []
        for part in parts_of(options.architecture):
            start = None if options.start is None else start_of(options.start, part)
            task = PartTask(part, cells, parts, protocol, options.seed + repetition, start=start, **chosen)
            out = options.out / f"repetition-{repetition}" / part.name
            networks.append(train_part(task, out, resume=options.resume))
        system = assemble(options.architecture, networks).to(options.device)
        tested = TEST if options.split == "published" else VALIDATION
        rows = np.flatnonzero(np.array(parts) == tested)
        truth = np.array([CLASSES.index(cells.classes[i]) for i in rows])
        found = figures(predicted(system, cells, rows, protocol.input_px, options.device), truth)
        results.append({"repetition": repetition, "measured_on": tested, **found})
        print(f"repetition {repetition}: accuracy {found['accuracy']:.4f}", flush=True)
    return {"repetitions": results, "summary": summary(results)}


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    set_threads(options.threads)
    cells = load_typed(options.cells, options.sets, options.margin, options.strength)
    if options.limit:
        chosen = np.linspace(0, len(cells.classes) - 1, options.limit).astype(int)
        cells.indices = cells.indices[chosen]
        cells.classes, cells.keys, cells.parts = (
            [values[i] for i in chosen] for values in (cells.classes, cells.keys, cells.parts)
        )
    began_with = {} if options.start is None else made_by(options.start)
    found = train_all(options, cells)
    document = {
        "settings": plain_settings(options),
        "protocol": asdict(protocol_of(options)),
        "classes": CLASSES,
        "unseen": HOLDOUT,
        **found,
        **began_with,
    }
    (options.out / "results.json").write_text(json.dumps(document, indent=1))
    for name, value in found["summary"].items():
        print(f"{name} {100 * value['mean']:.2f} ± {100 * value['sd']:.2f} %")
    return 0
