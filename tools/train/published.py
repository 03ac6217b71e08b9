"""Train a published classifier of the five types by the protocol of its publication, scaled by options.

    python -m tools.train published --architecture resnet50 --out runs/resnet50
    python -m tools.train published --architecture ml-cnn --out runs/ml-cnn --repetitions 1 --split parts --augment
    python -m tools.train published --architecture vgg19 --out runs/vgg19 --input-px 96 --epochs 20 --resume
    python -m tools.train published --architecture resnet50 --out runs/larger --start runs/resnet50 --input-px 64
    python -m tools.train published --architecture ml-cnn --out runs/ml-cnn --start engines/zoo/ml-cnn.onnx

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
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures.published import CLASSES, WHOLE, Part, assemble, parts_of
from tools.commands import command_parser
from tools.data import HOLDOUT, TRAIN, VALIDATION, data_root
from tools.data.crops import load_stored
from tools.data.protocols import PROTOCOLS, TEST, Protocol
from tools.data.typed_cells import Cells
from tools.graphs.shipped_weights import GRAPH, begin_with_graph, card_beside, weights_of
from tools.metrics import classification as measures
from tools.train import loop

BEGINNING_BATCHES = 16
"""Training batches from which the normalisations of a network that begins with a graph take their statistics."""


@torch.no_grad()
def predicted(network: nn.Module, cells: Cells, chosen: np.ndarray, input_px: int, device: torch.device) -> np.ndarray:
    """What a network gives for cells, float32 (n, outputs)."""
    network.eval()
    found = [np.zeros((0, 0), np.float32)]
    for start in range(0, len(chosen), 64):
        x = cells.crops(chosen[start : start + 64], input_px).to(device)
        found.append(network(x).float().cpu().numpy())
    return np.concatenate(found[1:])


class PartTrainer:
    """Trains one network of a system in `out`; `run` trains what is missing and gives the best network."""

    def __init__(
        self,
        part: Part,
        cells: Cells,
        parts: Sequence[str],
        protocol: Protocol,
        out: Path,
        *,
        seed: int,
        augment: bool = False,
        frozen_epochs: int = 0,
        one_cycle: bool = False,
        bfloat16: bool = False,
        start: Path | None = None,
        resume: bool = False,
        device: str = "cpu",
    ) -> None:
        self.part, self.cells, self.protocol, self.out = part, cells, protocol, out
        self.seed, self.augment, self.frozen_epochs = seed, augment, frozen_epochs
        self.one_cycle = one_cycle
        self.start = start
        self.device = torch.device(device)
        self.bfloat16 = bfloat16 or self.device.type == "cuda"
        self.labels = np.array([part.labels.get(name, -1) for name in cells.classes])
        inside = np.array(parts)
        self.train_cells = np.flatnonzero((inside == TRAIN) & (self.labels >= 0))
        self.held_cells = np.flatnonzero((inside == VALIDATION) & (self.labels >= 0))
        if not len(self.train_cells):
            raise ValueError(f"{part.name}: got no training cell of {', '.join(part.labels)}, expected some")
        loop.seed_everything(seed, 2**31)
        network = part.make(protocol.input_px)
        self.epoch, self.best, self.best_epoch = 0, -1.0, 0
        resumes = resume and (out / "last.pt").exists()
        if start is not None and not resumes:
            self._begin(network, start)
        self.network = loop.channels_last(network.to(self.device))
        self.optimizer: torch.optim.Optimizer
        if protocol.optimizer == "sgdm":
            self.optimizer = torch.optim.SGD(self.network.parameters(), lr=protocol.rate, momentum=0.9)
        else:
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=protocol.rate)
        if resumes:
            self._resume()

    def _begin(self, network: nn.Module, start: Path) -> None:
        """Give `network`, on the CPU, the weights of a checkpoint or of this part's tensors in a graph."""
        if start.suffix == GRAPH:
            rng = loop.seed_everything(self.seed, 2**31)
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
        taken = loop.begin_with(network, loop.load_checkpoint(start)["network"])
        print(f"{self.part.name}: {taken[0]} of {taken[1]} tensors from {start}", flush=True)

    def _pictures(self, chosen: np.ndarray, rng: np.random.Generator) -> Tensor:
        """float32 (n, 3, input_px, input_px) in 0..1 of the cells numbered `chosen`, as the run trains with them."""
        px = self.protocol.input_px
        return self.cells.augmented(chosen, px, rng) if self.augment else self.cells.crops(chosen, px)

    def _plan(self) -> dict[str, Any]:
        protocol = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.protocol).items()}
        plan = {**protocol, "seed": self.seed, "augment": self.augment, "part": self.part.name}
        return {**plan, "one_cycle": self.one_cycle, "start": None if self.start is None else str(self.start)}

    def _resume(self) -> None:
        state = loop.load_checkpoint(self.out / "last.pt")
        changed = {k: (v, state["plan"].get(k)) for k, v in self._plan().items() if state["plan"].get(k) != v}
        if not self.one_cycle:
            changed.pop("epochs", None)  # a longer run may go on
        if changed:
            raise ValueError(
                f"options: got other ones than {self.out / 'last.pt'} was made with: {changed} (given, expected); "
                "give the same, or train anew in another folder"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]

    @property
    def over(self) -> bool:
        """All epochs trained, or stopped early."""
        patience = self.protocol.patience
        early = patience is not None and self.epoch - self.best_epoch >= patience and len(self.held_cells) > 0
        return self.epoch >= self.protocol.epochs or early

    def run(self) -> nn.Module:
        """Train to the end; the network of the best validation accuracy, or of the last epoch without validation."""
        while not self.over:
            self._epoch()
        self.network.load_state_dict(loop.load_checkpoint(self.out / "best.pt")["network"])
        network: nn.Module = self.network.eval()
        return network

    def _epoch(self) -> None:
        rng = loop.seed_everything(self.seed, self.epoch)
        order = rng.permutation(self.train_cells)
        started, total = time.monotonic(), 0.0
        batch = self.protocol.batch
        frozen = self.network.body_parameters() if self.epoch < self.frozen_epochs else []  # type: ignore[operator]
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        for parameter in frozen:
            parameter.requires_grad_(False)
        self.network.train()
        starts = range(0, len(order) - len(order) % batch or len(order), batch)
        for step, start in enumerate(starts, self.epoch * len(starts)):
            if self.one_cycle:
                factor = loop.one_cycle(step, self.protocol.epochs * len(starts), len(starts) // 2)
                self.optimizer.param_groups[0]["lr"] = self.protocol.rate * factor
            total += self._step(order[start : start + batch], rng)
        self.epoch += 1
        accuracy = self._accuracy()
        is_best = accuracy is None or accuracy > self.best
        if is_best:
            self.best, self.best_epoch = accuracy or 0.0, self.epoch
        state = {
            "plan": self._plan(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
        }
        loop.save_checkpoint(self.out / "last.pt", state)
        if is_best:
            loop.save_checkpoint(self.out / "best.pt", {k: v for k, v in state.items() if k != "optimizer"})
        line = {
            "epoch": self.epoch,
            "loss": round(total / max(1, len(order) // batch), 5),
            "validation_accuracy": accuracy,
            "seconds": round(time.monotonic() - started, 1),
        }
        loop.append_result(self.out / "log.jsonl", line)
        print(f"{self.part.name}: {line}", flush=True)

    def _step(self, chosen: np.ndarray, rng: np.random.Generator) -> float:
        x = self._pictures(chosen, rng)
        labels = torch.from_numpy(self.labels[chosen]).to(self.device)
        x = x.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(x)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        return loop.descend(loss, self.network, self.optimizer)

    def _accuracy(self) -> float | None:
        if not len(self.held_cells):
            return None
        logits = predicted(self.network, self.cells, self.held_cells, self.protocol.input_px, self.device)
        return float((logits.argmax(1) == self.labels[self.held_cells]).mean())


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
    out = {}
    for key in ("accuracy", "recall", "precision", "f1"):
        values = np.array([result[key] for result in results])
        out[key] = {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0}
    return out


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser("tools.train published", __doc__)
    parser.add_argument("--architecture", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true")
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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


def protocol_of(options: argparse.Namespace) -> Protocol:
    """The publication's protocol with what was given in its place."""
    given = {k: getattr(options, k) for k in ("input_px", "rate", "batch", "epochs", "patience", "repetitions")}
    return replace(PROTOCOLS[options.architecture], **{k: v for k, v in given.items() if v is not None})


def cells_of_run(document: Mapping[str, Any], folder: Path) -> tuple[Cells, list[str]]:
    """The cells that a run was made with, given its results.json and the folder of the stored cells, and the part of
    each."""
    settings = document["settings"]
    cells = Cells(load_stored(data_root(), folder), settings["sets"].split(","), settings["margin"])
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


def train(options: argparse.Namespace, cells: Cells) -> dict[str, Any]:
    """All repetitions; what results.json holds."""
    protocol = protocol_of(options)
    device = torch.device(options.device)
    results = []
    for repetition in range(protocol.repetitions if options.split == "published" else 1):
        parts = cells.split(protocol, options.seed + repetition) if options.split == "published" else cells.parts
        folder = options.out / f"repetition-{repetition}"
        networks = [
            PartTrainer(
                part,
                cells,
                parts,
                protocol,
                folder / part.name,
                seed=options.seed + repetition,
                augment=options.augment,
                frozen_epochs=options.frozen_epochs,
                one_cycle=options.one_cycle,
                bfloat16=options.bfloat16,
                resume=options.resume,
                device=options.device,
                start=None if options.start is None else start_of(options.start, part),
            ).run()
            for part in parts_of(options.architecture)
        ]
        system = assemble(options.architecture, networks).to(device)
        tested = TEST if options.split == "published" else VALIDATION
        chosen = np.flatnonzero(np.array(parts) == tested)
        truth = np.array([CLASSES.index(cells.classes[i]) for i in chosen])
        found = figures(predicted(system, cells, chosen, protocol.input_px, device), truth)
        results.append({"repetition": repetition, "measured_on": tested, **found})
        print(f"repetition {repetition}: accuracy {found['accuracy']:.4f}", flush=True)
    return {"repetitions": results, "summary": summary(results)}


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    cells = Cells(load_stored(data_root(), options.cells), options.sets.split(","), options.margin, options.strength)
    if options.limit:
        chosen = np.linspace(0, len(cells.classes) - 1, options.limit).astype(int)
        cells.indices = cells.indices[chosen]
        cells.classes, cells.keys, cells.parts = (
            [values[i] for i in chosen] for values in (cells.classes, cells.keys, cells.parts)
        )
    began_with = {} if options.start is None else made_by(options.start)
    found = train(options, cells)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    protocol = asdict(protocol_of(options))
    document = {
        "settings": settings,
        "protocol": protocol,
        "classes": CLASSES,
        "unseen": HOLDOUT,
        **found,
        **began_with,
    }
    (options.out / "results.json").write_text(json.dumps(document, indent=1))
    for name, value in found["summary"].items():
        print(f"{name} {100 * value['mean']:.2f} ± {100 * value['sd']:.2f} %")
    return 0
