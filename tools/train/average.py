"""Average the weights of two runs of tools.train classifier, or of two of tools.train detector.

    python -m tools.train average runs/first/last.pt runs/second/last.pt --share 0.7 --out runs/averaged.pt
    python -m tools.train average engines/zoo/efficientnet-lite0.onnx runs/second/last.pt --out runs/mean/last.pt

Networks that lie on one path of training, or that began with the same weights, can be averaged weight by weight
(Wortsman 2022, arXiv:2203.05482). The result is the second checkpoint with other averaged weights: it can be measured
and exported. A detector can be gone on from with --start-from.

Of a classifier every batch normalisation is folded into the convolution before it first, as export does: folded weights
are what a graph holds, so that the first may be one that ships, its card beside it. What comes out has no statistics of
pictures, so that no run can go on from it; it says what it is the mean of, and its card will.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tools.commands import command_parser
from tools.graphs.conversion import fuse_normalisation
from tools.graphs.shipped_weights import GRAPH, card_beside, put_folded, weights_of
from tools.train.classifier import Recipe, build_network, load_network
from tools.train.loop import MEAN_OF, load_checkpoint, save_checkpoint
from tools.train.options import mean_command, train_command

NETWORK = "network."
"""What the names of a classifier's own tensors begin with in the graph that is exported of it."""
TAUGHT = ("leave_out", "without", "own")
"""Settings that say which laboratories taught a run."""


@dataclass(frozen=True)
class Run:
    """One of the runs whose weights are averaged."""

    weights: Mapping[str, Tensor]
    """float32, every normalisation folded."""
    settings: Mapping[str, Any]
    command: str
    sha256: str = ""
    """Of the graph that the weights were read of; empty where they are a checkpoint's."""


def averaged(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share) of the first weights and `share` of the second; counters and anchors must be, and stay, the second's.

    ValueError where the networks differ or were fitted to other anchors.
    """
    if first.keys() != second.keys() or any(first[key].shape != second[key].shape for key in second):
        raise ValueError("weights: got two different networks, expected two runs of the same one")
    if "anchors_px" in second and not first["anchors_px"].equal(second["anchors_px"]):
        raise ValueError("checkpoints: got different anchors, expected one that was trained on from the other")
    return {
        key: first[key].float().lerp(value.float(), share) if value.is_floating_point() else value
        for key, value in second.items()
    }


def command_of(recipe: Recipe, mean_of: Mapping[str, Any] | None) -> str:
    """The command of a run of a classifier; of a mean, by what its checkpoint says of it, those of both runs and its
    own, one after the other."""
    if mean_of is None:
        return train_command("classifier", recipe)
    return mean_command(mean_of["first"], mean_of["second"], mean_of["share"])


def run_of(path: Path) -> Run:
    """The run that left a checkpoint of tools.train classifier, a packed one too, or that a graph was exported of.

    FileNotFoundError where there is no such file or no card beside a graph, ValueError where it is of something else.
    """
    if path.suffix == GRAPH:
        weights, card, data = weights_of(path, NETWORK), card_beside(path), path.read_bytes()
        card.check_file(data, str(path))
        return Run(weights, card.training, str(card.training.get("command", "")), hashlib.sha256(data).hexdigest())
    state = load_checkpoint(path)
    settings = state.get("settings", {})
    if not settings or set(settings) - {field.name for field in dataclasses.fields(Recipe)}:
        raise ValueError(f"{path}: got no run of tools.train classifier or tools.train detector, expected one of these")
    network, recipe, _ = load_network(path)
    return Run(fuse_normalisation(network).state_dict(), settings, command_of(recipe, state.get(MEAN_OF)))


def mean_checkpoint(first: Path, second: Path, share: float) -> dict[str, Any]:
    """The checkpoint of `second`, a run of tools.train classifier, with (1 - share) of the weights of `first` and
    `share` of its own, and with what it is the mean of.

    Errors as of `run_of`; ValueError where the networks differ or other laboratories taught them.
    """
    one, other = run_of(first), run_of(second)
    for key in TAUGHT:
        got = [run.settings.get(key, "") for run in (one, other)]
        if got[0] != got[1]:
            raise ValueError(
                f"{key}: got {got[0]!r} of the first run and {got[1]!r} of the second, expected two runs that the "
                "same laboratories taught, since figures of a mean hold for both"
            )
    state = load_checkpoint(second)
    network = build_network(Recipe(**state["settings"]), pretrained=False)
    put_folded(network, averaged(one.weights, other.weights, share))
    weights = network.state_dict()
    return {
        **state,
        "network": weights,
        "optimizer": None,
        "average": {**state["average"], "network": weights},
        MEAN_OF: {"first": one.command, "second": other.command, "share": share, "first_sha256": one.sha256},
    }


def main(argv: Sequence[str]) -> int:
    """Command line."""
    parser = command_parser("tools.train average", __doc__)
    parser.add_argument("first", type=Path, help="a checkpoint; of a classifier also a graph, its card beside it")
    parser.add_argument("second", type=Path, help="a checkpoint")
    parser.add_argument("--share", type=float, default=0.5, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    second = load_checkpoint(options.second)
    if "description" not in second:  # detectors have one
        save_checkpoint(options.out, mean_checkpoint(options.first, options.second, options.share))
        return 0
    if options.first.suffix == GRAPH:
        raise ValueError(
            f"{options.first}: got a graph, expected a checkpoint of tools.train detector as the second is"
        )
    first = load_checkpoint(options.first)
    weights = averaged(first["average"]["network"], second["average"]["network"], options.share)
    save_checkpoint(options.out, {**second, "average": {**second["average"], "network": weights}})
    return 0
