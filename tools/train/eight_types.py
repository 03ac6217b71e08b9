"""Train MobileNetV3-Small on all sets with typed cells.

    python -m tools.train eight-types --out runs/classifier --epochs 40 [--resume]

Every epoch draws `--samples` cells, balanced over sets and classes, cuts and relights each one anew, and ends with a
checkpoint (`last.pt`), the best one so far by validation (`best.pt`) and a line in `results.jsonl`. A run that was
stopped goes on with --resume and ends with the same weights as one that was not.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from engines.zoo.crops import CropInput
from tools.architectures.mobilenetv3 import MobileNetV3Small
from tools.commands import command_parser
from tools.data import CELL_CLASSES, TRAIN, data_root, read_cells
from tools.data.appearance import Appearances, gather, typed_crops, untyped_crops
from tools.data.augment import Augmentation, Lending, make_batch
from tools.data.crops import SUBCLASS_NAMES, StoredCells, load_stored, set_name
from tools.data.simulated import with_simulated
from tools.graphs import shipped_weights
from tools.metrics.eight_types import SUBCLASS_OF, Looks, measure, score, validation_looks
from tools.train import loop
from tools.train.classifier import ATTRIBUTE_SIZES, attribute_loss

SET_SHARES = {
    "pbc": 0.62,
    "txl_pbc": 0.18,
    "chula_wbc": 0.14,
    "wbc_masks": 0.1,
    "bccd": 0.08,
    "simulated": 0.05,
    "bcd": 0.03,
}
"""Share of an epoch's samples that comes from each set, of those that there are. bccd_crops are the cells of bccd once
more: not drawn; of the two laboratories of wbc_masks each cell is drawn as often."""
NOT_TAUGHT = frozenset(f"wbc_masks/cellavision/{number}.png" for number in ("032", "033", "066"))
"""Pictures whose label is plainly wrong: two erythroblasts that are called lymphocytes, and a round blue cell with
one round nucleus that is called a neutrophil."""
HOME = "pbc"
HOME_ONLY_FOREIGN = 0.6
"""How much as often as others cells are made to look foreign whose class only the home set has. What is foreign was
taken for them otherwise: lymphocytes of wbc_masks for platelets, monocytes for immature granulocytes."""


@dataclass(frozen=True)
class Plan:
    """What a training run is; kept in its checkpoints.

    The first `early_share` of the epochs see crops of `early_px` (1.7 times as many a second), the others `input_px`.
    """

    epochs: int = 40
    samples: int = 11_000
    batch: int = 64
    input_px: int = 128
    early_px: int = 96
    early_share: float = 0.4
    margin: float = 1.3
    rate: float = 2e-3
    weight_decay: float = 0.03
    smoothing: float = 0.05
    subclass_weight: float = 0.4
    attribute_weight: float = 0.0
    style_share: float = 0.5
    average_decay: float = 0.998
    warmup_epochs: float = 1.0
    standardise: bool = True
    by_density: bool = False
    simulated_fields: int = 0
    appearance_share: float = 0.25
    """Of the samples, those that are shown in the colours of another laboratory."""
    shares: str = ""
    """NAME=SHARE,… of sets whose share is not that of `SET_SHARES`."""
    leave_out: str = ""
    """A set, or a laboratory of wbc_masks ("wbc_masks/jtsc"), of which no cell trains, to measure on."""
    seed: int = 0


def build_network(plan: Plan) -> MobileNetV3Small:
    """The untrained network of a plan, its weights laid out channels last (1.7 times faster on a CPU)."""
    network = MobileNetV3Small(
        len(CELL_CLASSES),
        len(SUBCLASS_NAMES),
        standardise=plan.standardise,
        by_density=plan.by_density,
        style_share=plan.style_share,
        attributes=sum(ATTRIBUTE_SIZES) if plan.attribute_weight else 0,
    )
    return loop.channels_last(network)


def left_out_of(plan: Plan) -> tuple[str, ...]:
    """The sets of which no cell trains."""
    return (plan.leave_out,) if plan.leave_out else ()


def sampling_weights(
    datasets: np.ndarray, classes: np.ndarray, slides: np.ndarray, shares: Mapping[str, float] = SET_SHARES
) -> np.ndarray:
    """float64 (n,) that sum to one: sets by their shares; classes of a set and slides of a class by the square root of
    their size, so that neither a rare one vanishes nor its few cells fill the epoch."""
    weights = np.zeros(len(datasets))
    for name, share in shares.items():
        of_set = datasets == name
        present, sizes = np.unique(classes[of_set], return_counts=True)
        roots = np.sqrt(sizes)
        for c, root in zip(present, roots, strict=True):
            mine = of_set & (classes == c)
            found, cells = np.unique(slides[mine], return_counts=True)
            for slide, count in zip(found, cells, strict=True):
                part = share * root / roots.sum() * np.sqrt(count) / np.sqrt(cells).sum()
                weights[mine & (slides == slide)] = part / count
    if weights.sum() == 0:
        raise ValueError(f"training cells: got none of {', '.join(shares)}, expected at least one set")
    return np.asarray(weights / weights.sum())


def cell_loss(class_logits: Tensor, subclass_logits: Tensor, classes: Tensor, subclasses: Tensor, plan: Plan) -> Tensor:
    """Cross-entropy of the class, plus that of the subclass within its parent where it is known (not -1)."""
    loss = nn.functional.cross_entropy(class_logits, classes, label_smoothing=plan.smoothing)
    for children in SUBCLASS_OF:
        if len(children) < 2:
            continue
        mine = torch.isin(subclasses, torch.tensor(children, device=subclasses.device))
        if mine.any():
            among = torch.nn.functional.cross_entropy(
                subclass_logits[mine][:, children],
                subclasses[mine] - children[0],
                label_smoothing=plan.smoothing,
                reduction="sum",
            )
            loss = loss + plan.subclass_weight * among / len(classes)
    return loss


class Trainer:
    """One run in `out`: `run()` trains the epochs that are still missing."""

    def __init__(
        self,
        plan: Plan,
        stored: StoredCells,
        looks: Mapping[str, Looks],
        out: Path,
        *,
        augmentation: Augmentation | None = None,
        appearances: Appearances | None = None,
        start: Path | None = None,
        resume: bool = False,
        device: str = "cpu",
    ) -> None:
        self.plan, self.stored, self.looks, self.out = plan, stored, looks, out
        self.how = augmentation or Augmentation(margin=plan.margin, appearance_share=plan.appearance_share)
        self.device = torch.device(device)
        trains = stored.select(TRAIN)
        self.inside = trains[[stored.cells[i].key not in NOT_TAUGHT for i in trains]]
        self.laboratories = np.array([c.dataset for c in stored.cells])
        self.appearances = appearances
        away = np.unique(stored.classes[self.inside][self.laboratories[self.inside] != HOME])
        self.foreign = np.where(np.isin(stored.classes, away), 1.0, HOME_ONLY_FOREIGN)
        datasets = self.laboratories[self.inside]
        slides = np.array([stored.cells[i].slide or "" for i in self.inside])
        shares = loop.parse_shares(plan.shares, SET_SHARES)
        self.weights = sampling_weights(datasets, stored.classes[self.inside], slides, shares)
        self.training_px = plan.input_px
        loop.seed_everything(plan.seed, -1 % 2**32)
        self.network = build_network(plan).to(self.device)
        if start is not None and start.suffix == shipped_weights.GRAPH:
            self._begin_with_graph(start)
        elif start is not None:
            weights = loop.load_checkpoint(start)["average"]["network"]
            missing, unknown = self.network.load_state_dict(weights, strict=False)
            if unknown or any(not name.startswith("attributes.") for name in missing):
                raise ValueError(
                    f"weights of {start}: got no {missing} but {unknown}, expected those of the same network"
                )
        self.average = loop.MovingAverage(self.network, plan.average_decay)
        groups = loop.parameter_groups(self.network, plan.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate)
        self.epoch, self.best = 0, -1.0
        if resume:
            self._resume()

    def _begin_with_graph(self, path: Path) -> None:
        weights = shipped_weights.weights_of(path, "network.")
        rng = loop.seed_everything(self.plan.seed, -2 % 2**32)
        drawn = rng.choice(self.inside, (8, self.plan.batch), p=self.weights)
        shipped_weights.begin_with_graph(self.network, weights, (self._pictures(indices, rng) for indices in drawn))

    def _resume(self) -> None:
        state = loop.load_checkpoint(self.out / "last.pt")
        if state["plan"] != dataclasses.asdict(self.plan):
            raise ValueError(
                f"plan: got {dataclasses.asdict(self.plan)}, expected that of {self.out / 'last.pt'}: {state['plan']}; "
                "give the same options, or train anew in another folder"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = int(state["epoch"]), float(state["best"])

    def run(self) -> dict[str, dict[str, Any]]:
        """Train up to the plan's last epoch; the measures of the last epoch (empty where none was left)."""
        results: dict[str, dict[str, Any]] = {}
        while self.epoch < self.plan.epochs:
            results = self._epoch()
        return results

    def _epoch(self) -> dict[str, dict[str, Any]]:
        plan = self.plan
        rng = loop.seed_everything(plan.seed, self.epoch)
        self.training_px = plan.early_px if self.epoch < plan.early_share * plan.epochs else plan.input_px
        drawn = rng.choice(self.inside, plan.samples, p=self.weights)
        steps = plan.samples // plan.batch
        started = time.monotonic()
        self.network.train()
        total = 0.0
        for step in loop.progress(range(steps), steps, f"epoch {self.epoch + 1}/{plan.epochs}"):
            done = self.epoch * steps + step
            factor = loop.one_cycle(done, plan.epochs * steps, max(1, int(plan.warmup_epochs * steps)))
            for group in self.optimizer.param_groups:
                group["lr"] = plan.rate * factor
            indices = drawn[step * plan.batch : (step + 1) * plan.batch]
            total += self._step(indices, rng)
        self.epoch += 1
        trained = time.monotonic() - started
        results = measure(self.average.network, self.looks, self.device)
        value = score(results) if results else 0.0
        is_best = value > self.best
        self.best = max(value, self.best)
        self._save(is_best)
        brief = {k: {n: v for n, v in r.items() if n != "confusion"} for k, r in results.items()}
        line = {
            "epoch": self.epoch,
            "loss": total / steps,
            "seconds": round(trained, 1),
            "score": value,
            "results": results,
        }
        loop.append_result(self.out / "results.jsonl", line)
        shown = "  ".join(f"{k} {r['accuracy']:.3f}/{r['balanced']:.3f}" for k, r in brief.items())
        print(f"{self.epoch:3}  loss {total / steps:.4f}  {trained:5.0f} s  {value:.4f}  {shown}", flush=True)
        return results

    def _pictures(self, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The cells at `indices`, cut and relit at random."""
        lending = None
        if self.appearances is not None:
            lending = Lending(self.appearances, self.laboratories[indices].tolist(), self.foreign[indices])
        squares, boxes = self.stored.squares, self.stored.boxes
        return make_batch(squares, boxes, indices, self.training_px, rng, self.how, lending).to(self.device)

    def _step(self, indices: np.ndarray, rng: np.random.Generator) -> float:
        stored = self.stored
        x = self._pictures(indices, rng)
        classes = torch.from_numpy(stored.classes[indices]).to(self.device)
        subclasses = torch.from_numpy(stored.subclasses[indices]).to(self.device)
        # bf16 on a CPU was measured at half the speed of float32 here (depthwise convolutions): only a GPU gets it.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            hidden = self.network.describe(x)
            class_logits, subclass_logits = self.network.classes(hidden), self.network.subclasses(hidden)
        loss = cell_loss(class_logits.float(), subclass_logits.float(), classes, subclasses, self.plan)
        if self.network.attributes is not None:
            attributes = torch.from_numpy(stored.attributes[indices]).to(self.device)
            loss = loss + self.plan.attribute_weight * attribute_loss(self.network.attributes(hidden), attributes)
        reached = loop.descend(loss, self.network, self.optimizer, clip=5.0)
        self.average.update(self.network)
        return reached

    def _save(self, is_best: bool) -> None:
        state = {
            "plan": dataclasses.asdict(self.plan),
            "classes": list(CELL_CLASSES),
            "subclasses": list(SUBCLASS_NAMES),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
        }
        loop.save_checkpoint(self.out / "last.pt", state)
        if is_best:
            loop.save_checkpoint(self.out / "best.pt", state)


def laboratory_appearances(stored: StoredCells) -> Appearances:
    """The looks of all laboratories with cells to train on, typed or not."""
    inside = stored.select(TRAIN)
    names = np.array([stored.cells[i].dataset for i in inside])
    inside, names = inside[np.isin(names, list(SET_SHARES))], names[np.isin(names, list(SET_SHARES))]
    typed = typed_crops([stored.squares[i] for i in inside], stored.boxes[inside], names)
    return gather({**typed, **untyped_crops(data_root())})


def load_network(path: Path) -> tuple[MobileNetV3Small, Plan, dict[str, Any]]:
    """The averaged network of a checkpoint, its plan and the whole checkpoint; of a graph with its card beside it, what
    the card says in place of a checkpoint."""
    if path.suffix == shipped_weights.GRAPH:
        return _network_of_graph(path)
    state = loop.load_checkpoint(path)
    plan = Plan(**state["plan"])
    network = build_network(plan)
    network.load_state_dict(state["average"]["network"])
    return network.eval(), plan, state


def _network_of_graph(path: Path) -> tuple[MobileNetV3Small, Plan, dict[str, Any]]:
    card = shipped_weights.card_beside(path)
    if not isinstance(card.input, CropInput) or "epoch_of_weights" not in card.training:
        raise ValueError(f"{card.name}: got no classifier of tools.train eight-types, expected the card of one")
    known = {field.name for field in dataclasses.fields(Plan)}
    plan = Plan(**{k: v for k, v in card.training.items() if k in known}, input_px=card.input.width_px)
    network = build_network(plan).eval()
    anything = [torch.rand(2, 3, plan.input_px, plan.input_px)]  # nothing but further training rests on it
    shipped_weights.begin_with_graph(network, shipped_weights.weights_of(path, "network."), anything)
    told = card.training
    runs = {"command": told["command"], "earlier_runs": list(told["earlier_runs"])}
    return network, plan, {"epoch": told["epoch_of_weights"], "mean_of": told["mean_of_runs"], "runs": runs}


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.train eight-types", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cells", type=Path, default=Path("runs/cells"), help="folder of the stored cells (1.9 GB)")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    parser.add_argument("--start", type=Path, help="begin with the weights of this checkpoint or shipped .onnx")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    for field in dataclasses.fields(Plan):
        name = f"--{field.name.replace('_', '-')}"
        if field.type == "bool":
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(name, type=type(field.default), default=field.default)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    plan = Plan(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Plan)})
    try:
        loop.parse_shares(plan.shares, SET_SHARES)
    except ValueError as error:
        parser.error(str(error))
    if plan.leave_out and plan.leave_out not in {set_name(cell) for cell in read_cells(data_root())}:
        raise SystemExit(f"--leave-out: got {plan.leave_out!r}, expected a set of typed cells, wbc_masks/jtsc for one")
    stored = load_stored(data_root(), args.cells, left_out_of(plan))
    looks = validation_looks(stored, plan.input_px, plan.margin)
    if plan.simulated_fields:
        stored = with_simulated(stored, plan.simulated_fields, plan.seed)
    Trainer(
        plan,
        stored,
        looks,
        args.out,
        appearances=laboratory_appearances(stored),
        start=args.start,
        resume=args.resume,
        device=args.device,
    ).run()
