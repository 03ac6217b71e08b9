"""Make NAME.onnx and its card of a run of tools.train segmenter.

    python -m tools.export segmenter runs/deeplabv3-xception --views 4
    python -m tools.export segmenter runs/deeplabv3-xception --name mine --out runs/zoo

The graph takes uint8 crops `images` (N, px, px, 3) BGR and gives `labels` uint8 (N, px, px): background, cytoplasm,
nucleus. Weights are stored in half precision. Without --out both go to engines/zoo/published.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from engines.graphs.graph import add_uint8_input
from engines.graphs.storage import narrowed
from engines.models.loading import load_segmenter
from engines.models.segmenter import CLASSES, LABELS
from engines.zoo.figures import MeasuredOn
from tools.commands import command_parser
from tools.data import VALIDATION, data_root
from tools.data.masks import MASK_SETS, WHOLE_CELLS
from tools.data.protocols import TEST
from tools.evaluate.segmenter import evaluate
from tools.export.cards import PUBLISHED, card_values, crop_input, write_figures, write_files
from tools.graphs.conversion import to_onnx
from tools.train.segmenter import DEFAULT_SETS, build_network, measured_weights

NAME = "deeplabv3-xception"
WHOLE_MARGIN = 1.5
"""For a network that was trained on whole pictures: the cells of wbc_masks fill about so much of theirs."""
FLAGS = ("decoder", "detail", "augment", "average", "balance", "cosine", "bfloat16")
OPTIONS = (
    *("input_px", "margin", "share", "output_stride", "rates", "epochs", "batch", "rate", "momentum", "seed"),
    *("zoom", "gamma", "brightness", "strength", "shift", "bend", "swap", "decay", "overlap"),
)


VIEWS: dict[int, tuple[tuple[int, ...], ...]] = {1: ((),), 2: ((), (3,)), 4: ((), (3,), (2,), (2, 3))}
"""Axes that are mirrored, by how many views of a crop are looked at."""


class Labelled(nn.Module):
    """A network's likeliest class of each pixel, uint8 (N, H, W): of the crop, or of the sum of its mirrored views."""

    def __init__(self, network: nn.Module, views: int = 1) -> None:
        super().__init__()
        self.network = network
        self.mirrored = VIEWS[views]

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.flip(axes) if axes else x for axes in self.mirrored])  # one batch: the graph stays small
        found: Tensor = self.network(seen)
        logits = found.reshape(len(self.mirrored), -1, *found.shape[1:])
        total = logits[0]
        for place, axes in enumerate(self.mirrored[1:], start=1):
            total = total + logits[place].flip(axes)
        return total.argmax(1).to(torch.uint8)


def load_network(run: Path, settings: dict[str, Any]) -> nn.Module:
    """The network of a run that counts, the average where one was kept."""
    network = build_network(settings)
    network.load_state_dict(measured_weights(run))
    return network.eval()


def build_graph(network: nn.Module, input_px: int, views: int = 1) -> onnx.ModelProto:
    """uint8 (N, px, px, 3) BGR `images` in, `labels` uint8 (N, px, px) out; weights in half precision."""
    graph = to_onnx(Labelled(network.eval(), views), torch.rand(2, 3, input_px, input_px), (LABELS,), {0: "N"})
    return narrowed(add_uint8_input(graph, scale=1 / 255, channels="bgr"))


def train_commands(settings: dict[str, Any], out: str) -> list[str]:
    """What makes the run again, in `out`, after the runs that it began from."""
    words = [f"python -m tools.train segmenter --out {out}"]
    if _sets(settings) != DEFAULT_SETS:
        words.append(f"--sets {_sets(settings)}")
    for key in OPTIONS:
        value = settings[key]
        if value is not None:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"--{key.replace('_', '-')} {text}")
    words += [f"--{flag}" for flag in FLAGS if settings[flag]]
    before = settings["start_from"]
    if before is None:
        return [" ".join(words)]
    return [*train_commands(_settings_of(before), before), " ".join([*words, f"--start-from {before}"])]


def data_of(settings: dict[str, Any]) -> list[str]:
    """The sets that taught the weights of a run: its own, and those of the runs that it began from."""
    before = settings["start_from"]
    taught = {*_sets(settings).split(","), *([] if before is None else data_of(_settings_of(before)))}
    return [name for name in MASK_SETS if name in taught]


def _settings_of(run: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((Path(run) / "settings.json").read_text())
    return settings


def _sets(settings: dict[str, Any]) -> str:
    return str(settings.get("sets", DEFAULT_SETS))  # runs from before the option do not have it


def values_of(name: str, settings: dict[str, Any], parameters: int, views: int, file: bytes) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    chosen = {key: settings[key] for key in (*OPTIONS, *FLAGS)}
    data = data_of(settings)
    whole = WHOLE_CELLS in data
    return card_values(
        name,
        "segmenter",
        "deeplabv3-xception",
        "Nucleus and cytoplasm of a white cell by DeepLabv3 on Xception (leukaemia system, 2022), "
        f"{parameters / 1e6:.1f} million parameters",
        file,
        build=[
            *train_commands(settings, f"runs/{NAME}"),
            f"python -m tools.export segmenter runs/{NAME} --views {views}",
        ],
        input=crop_input(settings["input_px"], [settings["margin"] or WHOLE_MARGIN]),
        classes=[{"name": label, "kind": "other"} for label in CLASSES],
        training={
            "data": data,
            "split": "by laboratory and class, at random: 70 % training, 10 % validation, 20 % test; pictures of one "
            "cell in one part"
            + ("; krd by groups of pictures, as for every model, its holdout as test" if whole else ""),
            **{key: value for key, value in chosen.items() if value is not None},
            "starts": max(0, len(train_commands(settings, "")) - 1),
            "parameters": parameters,
            "views": views,
            "notes": [
                "The publication: input 224, all widths, no decoder, 40 epochs, whole pictures; global accuracy .99, "
                "mean accuracy .98, mean IoU .97, weighted IoU .98, F1 1.0, on data of its own",
                *(["Masks of krd are of the whole cell: they teach where it ends, not its nucleus"] if whole else []),
            ],
        },
    )


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.export segmenter", __doc__)
    parser.add_argument("run", type=Path, help="folder that tools.train segmenter wrote")
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--out", type=Path, default=PUBLISHED, help="folder of the file and its card")
    parser.add_argument("--views", type=int, choices=sorted(VIEWS), default=1, help="mirrored, whose sum is labelled")
    options = parser.parse_args(argv)
    settings = json.loads((options.run / "settings.json").read_text())
    network = load_network(options.run, settings)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    file = build_graph(network, settings["input_px"], options.views).SerializeToString()
    values = values_of(options.name, settings, parameters, options.views, file)
    model, card = write_files(values, file, options.out)
    segmenter = load_segmenter(str(card))
    figures = {}
    for part in (VALIDATION, TEST):
        command = f"python -m tools.evaluate {options.name} --part {part}"
        for name, entry in evaluate(segmenter, data_root(), part, settings["seed"]).items():
            dataset = {"all": "wbc_masks", WHOLE_CELLS: WHOLE_CELLS}.get(name, f"wbc_masks/{name}")
            figures[MeasuredOn(dataset, "", part)] = {"command": command, **entry}
    write_figures(card, values, figures)
    print(f"{model}: {len(file) / 1e6:.1f} MB; {card}")
    return 0
