"""Make NAME.onnx and its card of a run of tools.train published: the whole system as one graph.

    python -m tools.export published runs/ml-cnn --name ml-cnn --margins 1.2 1.4
    python -m tools.export published runs/resnet50 --name resnet50 --out engines/zoo/published

--margins says how a cell is looked at: once, by default as it was trained, or twice, the second time mirrored.
Temperatures are fitted on such looks at the validation cells of the run's split, one a network; the threshold is the
lowest at which at most --risk of the classified validation cells are wrong. Weights are stored in half precision.
Networks too large to ship belong to engines/zoo/published: in a clone, not in the wheel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.graphs.graph import add_uint8_input
from engines.graphs.storage import narrowed, widened
from engines.models.classifier import Classifier
from engines.zoo.card import parse_card
from engines.zoo.toml import toml
from tools.architectures.mlcnn import GROUPS, group_name
from tools.architectures.published import CLASSES, Part, assemble, before_temperature, parts_of
from tools.commands import command_parser
from tools.data import PARTS, VALIDATION
from tools.data.crops import add_margins
from tools.data.typed_cells import Cells, as_input
from tools.evaluate.published import card_tables
from tools.export.cards import PUBLISHED, ZOO, card_values, crop_input, write_figures, write_files
from tools.graphs.conversion import to_onnx
from tools.metrics import classification as measures
from tools.train import loop
from tools.train.published import cells_of_run

SUMMARIES = {"ml-cnn": f"Five types in two levels: {' or '.join(GROUPS)} first, then the type within the group"}
WHOLE_MARGIN = 2.6
"""Side of a crop over its box that shows about what a whole picture of pbc does, for networks trained on those."""


def load_networks(run: Path, architecture: str, input_px: int, repetition: int = 0) -> list[nn.Module]:
    """The best network of every part of a run, in the order of `parts_of`."""
    networks = []
    for part in parts_of(architecture):
        network = part.make(input_px)
        state = loop.load_checkpoint(run / f"repetition-{repetition}" / part.name / "best.pt")
        network.load_state_dict(state["network"])
        networks.append(network.eval())
    return networks


def fitted_temperature(
    part: Part, network: nn.Module, cells: Cells, parts: list[str], input_px: int, margins: Sequence[float]
) -> float:
    """The temperature of one network on the looks at its validation cells; 1 without any. Looks are pooled
    log-linearly, so that their logits are averaged."""
    labels = np.array([part.labels.get(name, -1) for name in cells.classes])
    chosen = np.flatnonzero((np.array(parts) == VALIDATION) & (labels >= 0))
    if not len(chosen):
        return 1.0
    return measures.fit_temperature(pooled_logits(network, cells, chosen, input_px, margins), labels[chosen])


@torch.no_grad()
def pooled_logits(
    network: nn.Module, cells: Cells, chosen: np.ndarray, input_px: int, margins: Sequence[float]
) -> np.ndarray:
    """float32 (n, outputs) of the cells numbered `chosen`: the mean over the looks."""
    found = []
    for start in range(0, len(chosen), 64):
        looks = cells.looks(chosen[start : start + 64], input_px, margins)
        found.append(np.mean([network(as_input(looks[:, k])).numpy() for k in range(len(margins))], axis=0))
    return np.concatenate(found)


def build_graph(
    architecture: str, networks: list[nn.Module], temperatures: list[float], input_px: int, choose: bool
) -> onnx.ModelProto:
    """uint8 (N, px, px, 3) BGR `images` in, `class_probabilities` (N, 5) out; weights in half precision."""
    system = assemble(architecture, networks, temperatures, choose=choose)
    graph = to_onnx(system, torch.rand(2, 3, input_px, input_px), ("class_probabilities",), {0: "N"})
    return narrowed(add_uint8_input(graph, scale=1 / 255, channels="bgr"))


def training_commands(document: Mapping[str, Any], out: str) -> list[str]:
    """The commands that make the weights of a run, given its results.json, in their order: those of the run, or of the
    graph, that it began with come first."""
    settings, protocol = document["settings"], document["protocol"]
    first: list[str] = list(document.get("start_build", ()))
    if settings.get("start") and "start_build" not in document:
        began = json.loads((Path(settings["start"]) / "results.json").read_text())
        first = training_commands(began, settings["start"])
    given = {k: v for k, v in settings.items() if k in protocol and v is not None}
    words = [f"--{k.replace('_', '-')} {v}" for k, v in given.items()]
    words += [f"--{flag.replace('_', '-')}" for flag in ("augment", "one_cycle", "bfloat16") if settings.get(flag)]
    words += [f"--strength {settings['strength']}"] if settings.get("strength", 1.0) != 1.0 else []
    words += [f"--start {settings['start']}"] if settings.get("start") else []
    words += [f"--split {settings['split']}", f"--sets {settings['sets']}"]
    own = f"python -m tools.train published --architecture {settings['architecture']} --out {out} {' '.join(words)}"
    return [*first, own]


def values_of(
    name: str,
    document: Mapping[str, Any],
    file: bytes,
    threshold: float,
    temperatures: list[float],
    margins: Sequence[float],
    export: str,
) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    settings, protocol = document["settings"], document["protocol"]
    architecture = settings["architecture"]
    sets = settings["sets"].split(",")
    return card_values(
        name,
        "classifier",
        architecture,
        SUMMARIES.get(architecture, f"The five types by {architecture}, {protocol['publication']}"),
        file,
        build=[*training_commands(document, f"runs/{name}"), export],
        input=crop_input(protocol["input_px"], margins),
        classes=[
            {"name": label, "kind": "white", "group": group_name(label) if architecture == "ml-cnn" else None}
            for label in CLASSES
        ],
        thresholds={"operating": threshold},
        training={
            "data": sets,
            "publication": protocol["publication"],
            **{k: v for k, v in protocol.items() if k not in ("publication", "patience", "shares")},
            "augmented": settings["augment"],
            "split": settings["split"],
            "temperatures": [round(t, 4) for t in temperatures],
        },
    )


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.export published", __doc__)
    parser.add_argument("run", type=Path, help="folder that tools.train published wrote")
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, default=ZOO, help="folder of the file and its card")
    parser.add_argument("--risk", type=float, default=0.05, help="share of errors among classified cells")
    parser.add_argument("--weigh", action="store_true", help="ml-cnn: both groups' networks, weighed by the gate")
    add_margins(parser)
    parser.add_argument("--parts", nargs="*", choices=PARTS[1:], default=[VALIDATION], help="figures of the card")
    parser.add_argument("--limit", type=int, help="cells a set at most in the figures")
    options = parser.parse_args(argv)
    document = json.loads((options.run / "results.json").read_text())
    settings, protocol = document["settings"], document["protocol"]
    cells, parts = cells_of_run(document, Path(settings["cells"]))
    architecture, input_px = settings["architecture"], protocol["input_px"]
    margins = options.margins or [settings["margin"]]
    networks = load_networks(options.run, architecture, input_px)
    temperatures = [
        fitted_temperature(part, network, cells, parts, input_px, margins)
        for part, network in zip(parts_of(architecture), networks, strict=True)
    ]
    graph = build_graph(architecture, networks, temperatures, input_px, not options.weigh)
    file = graph.SerializeToString()
    export = f"python -m tools.export published runs/{options.name} --name {options.name} --risk {options.risk}"
    export += " --weigh" if options.weigh else ""
    export += f" --out {PUBLISHED.relative_to(ZOO.parents[1])}" if options.out.resolve() == PUBLISHED else ""
    export += f" --margins {' '.join(map(str, options.margins))}" if options.margins else ""
    looks_of_stream = [margin or WHOLE_MARGIN for margin in margins]
    values = values_of(options.name, document, file, 0.5, temperatures, looks_of_stream, export)
    _, path = write_files(values, file, options.out)
    engine = OnnxRuntimeEngine(widened(graph), device="cpu", threads=Threads(1))
    chosen = np.flatnonzero(np.array(parts) == VALIDATION)
    if len(chosen):
        said = Classifier(parse_card(toml(values), str(path), stem=options.name), engine)
        looks = cells.looks(chosen, input_px, margins)
        truth = np.array([CLASSES.index(cells.classes[i]) for i in chosen])
        reached = measures.threshold_for_risk(said.classify_batch(looks).probabilities, truth, options.risk)
        values["thresholds"] = {"operating": round(reached[0], 2) if reached else 0.9}
    threshold = values["thresholds"]["operating"]
    path.write_text(toml(values))
    calibrated = Classifier(parse_card(path.read_text(), str(path), stem=options.name), engine)
    untempered = partial(before_temperature, architecture, temperatures=temperatures, choose=not options.weigh)
    figures = card_tables(calibrated, options.name, options.parts, options.limit, untempered)
    write_figures(path, values, figures)
    print(f"{path}: {len(file) / 1e6:.1f} MB, threshold {threshold}, temperatures {values['training']['temperatures']}")
    return 0
