"""Train MobileNetV3-Small on all sets with typed cells.

    python -m tools.train eight-types --out runs/classifier --epochs 40 [--resume]

Every epoch draws `--samples` cells, balanced over sets and classes, cuts and relights each one anew, and ends with the
best checkpoint so far by validation (`best.pt`) and a line in `results.jsonl`. A run that was stopped goes on from
`last.pt` with --resume and ends with the same weights as one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.zoo.crops import CropInput
from tools.architectures.mobilenetv3 import MobileNetV3Small
from tools.data import CELL_CLASSES, TRAIN, data_root, read_cells
from tools.data.appearance import Appearances, gather, typed_crops, untyped_crops
from tools.data.augment import Augmentation, Lending, make_batch
from tools.data.crops import SUBCLASS_NAMES, StoredCells, load_stored, set_name
from tools.data.simulated import with_simulated
from tools.graphs import shipped_weights
from tools.metrics.eight_types import SUBCLASS_OF, Looks, measure, score, validation_looks
from tools.train.classifier import ATTRIBUTE_SIZES, attribute_loss, subclass_loss
from tools.train.loop import (
    LAST,
    Schedule,
    Task,
    channels_last,
    load_checkpoint,
    parameter_groups,
    seed_everything,
    train,
)
from tools.train.options import add_settings, chosen_settings, parse_shares, run_parser, set_threads

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
DESCRIPTION = {"class_names": list(CELL_CLASSES), "subclass_names": list(SUBCLASS_NAMES)}
"""What the checkpoints say they tell apart."""
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

    @property
    def epoch_steps(self) -> int:
        return self.samples // self.batch


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
    return channels_last(network)


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
            of_class = of_set & (classes == c)
            found, cells = np.unique(slides[of_class], return_counts=True)
            for slide, count in zip(found, cells, strict=True):
                part = share * root / roots.sum() * np.sqrt(count) / np.sqrt(cells).sum()
                weights[of_class & (slides == slide)] = part / count
    if weights.sum() == 0:
        raise ValueError(f"training cells: got none of {', '.join(shares)}, expected at least one set")
    return np.asarray(weights / weights.sum())


def cell_loss(class_logits: Tensor, subclass_logits: Tensor, classes: Tensor, subclasses: Tensor, plan: Plan) -> Tensor:
    """Cross-entropy of the class, plus that of the subclass within its parent where it is known (not -1)."""
    loss = nn.functional.cross_entropy(class_logits, classes, label_smoothing=plan.smoothing)
    within = subclass_loss(subclass_logits, subclasses, plan.smoothing, len(classes), SUBCLASS_OF)
    return loss + plan.subclass_weight * within


@dataclass(eq=False)
class EightTypesTask(Task[MobileNetV3Small]):
    """Cells of the sets with their types, begun from the weights of `start` where it is given."""

    plan: Plan
    stored: StoredCells
    looks: Mapping[str, Looks]
    appearances: Appearances | None = None
    start: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        plan, stored = self.plan, self.stored
        self.augmentation = Augmentation(margin=plan.margin, appearance_share=plan.appearance_share)
        trains = stored.select(TRAIN)
        self.inside = trains[[stored.cells[i].key not in NOT_TAUGHT for i in trains]]
        self.laboratories = np.array([c.dataset for c in stored.cells])
        away = np.unique(stored.classes[self.inside][self.laboratories[self.inside] != HOME])
        self.foreign = np.where(np.isin(stored.classes, away), 1.0, HOME_ONLY_FOREIGN)
        datasets = self.laboratories[self.inside]
        slides = np.array([stored.cells[i].slide or "" for i in self.inside])
        shares = parse_shares(plan.shares, SET_SHARES)
        self.weights = sampling_weights(datasets, stored.classes[self.inside], slides, shares)
        seed_everything(plan.seed, -1 % 2**32)
        self.network = build_network(plan).to(self.device)
        if self.start is not None and self.start.suffix == shipped_weights.GRAPH:
            self._begin_with_graph(self.start)
        elif self.start is not None:
            weights = load_checkpoint(self.start)["average"]["network"]
            missing, unknown = self.network.load_state_dict(weights, strict=False)
            if unknown or any(not name.startswith("attributes.") for name in missing):
                raise ValueError(
                    f"weights of {self.start}: got no {missing} but {unknown}, expected those of the same network"
                )

    def _begin_with_graph(self, path: Path) -> None:
        weights = shipped_weights.weights_of(path, "network.")
        rng = seed_everything(self.plan.seed, -2 % 2**32)
        drawn = rng.choice(self.inside, (8, self.plan.batch), p=self.weights)
        pictures = (self._pictures(indices, self.plan.input_px, rng) for indices in drawn)
        shipped_weights.begin_with_graph(self.network, weights, pictures)

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.plan)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameter_groups(self.network, self.plan.weight_decay), lr=self.plan.rate)

    def measure(self, network: MobileNetV3Small) -> dict[str, Any]:
        return measure(network, self.looks, torch.device(self.device))

    def score(self, results: Mapping[str, Any]) -> float:
        return score(results) if results else 0.0

    def _pictures(self, indices: np.ndarray, px: int, rng: np.random.Generator) -> Tensor:
        """The cells at `indices`, cut and relit at random."""
        lending = None
        if self.appearances is not None:
            lending = Lending(self.appearances, self.laboratories[indices].tolist(), self.foreign[indices])
        squares, boxes = self.stored.squares, self.stored.boxes
        return make_batch(squares, boxes, indices, px, rng, self.augmentation, lending).to(self.device)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        plan, stored = self.plan, self.stored
        is_early = step // plan.epoch_steps < plan.early_share * plan.epochs
        indices = rng.choice(self.inside, plan.batch, p=self.weights)
        x = self._pictures(indices, plan.early_px if is_early else plan.input_px, rng)
        classes = torch.from_numpy(stored.classes[indices]).to(self.device)
        subclasses = torch.from_numpy(stored.subclasses[indices]).to(self.device)
        # bf16 on a CPU was measured at half the speed of float32 here (depthwise convolutions): only a GPU gets it.
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            hidden = self.network.describe(x)
            class_logits, subclass_logits = self.network.classes(hidden), self.network.subclasses(hidden)
        loss = cell_loss(class_logits.float(), subclass_logits.float(), classes, subclasses, plan)
        if self.network.attributes is not None:
            attributes = torch.from_numpy(stored.attributes[indices]).to(self.device)
            loss = loss + plan.attribute_weight * attribute_loss(self.network.attributes(hidden), attributes)
        return loss, {}


def schedule_of(plan: Plan) -> Schedule:
    """Measured after every epoch."""
    return Schedule(
        steps=plan.epochs * plan.epoch_steps,
        measured_every=plan.epoch_steps,
        warmup_steps=max(1, int(plan.warmup_epochs * plan.epoch_steps)),
        average_decay=plan.average_decay,
        seed=plan.seed,
    )


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
    state = load_checkpoint(path)
    plan = Plan(**state["settings"])
    network = build_network(plan)
    network.load_state_dict(state["average"]["network"])
    return network.eval(), plan, {**state, "epoch": state["step"] // plan.epoch_steps}


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
    parser = run_parser("eight-types", __doc__)
    parser.add_argument("--cells", type=Path, default=Path("runs/cells"), help="folder of the stored cells (1.9 GB)")
    parser.add_argument("--start", type=Path, help="begin with the weights of this checkpoint or shipped .onnx")
    add_settings(parser, Plan())
    args = parser.parse_args(arguments)
    set_threads(args.threads)
    plan = chosen_settings(Plan(), args)
    try:
        parse_shares(plan.shares, SET_SHARES)
    except ValueError as error:
        parser.error(str(error))
    if plan.leave_out and plan.leave_out not in {set_name(cell) for cell in read_cells(data_root())}:
        raise SystemExit(f"--leave-out: got {plan.leave_out!r}, expected a set of typed cells, wbc_masks/jtsc for one")
    stored = load_stored(data_root(), args.cells, left_out_of(plan))
    looks = validation_looks(stored, plan.input_px, plan.margin)
    if plan.simulated_fields:
        stored = with_simulated(stored, plan.simulated_fields, plan.seed)
    appearances = laboratory_appearances(stored)
    task = EightTypesTask(plan, stored, looks, appearances, args.start, args.device)
    resume = args.out / LAST if args.resume else None
    train(task, schedule_of(plan), args.out, resume=resume, description=DESCRIPTION)
