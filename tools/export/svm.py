"""Make NAME.onnx and its card of a run of tools.train svm: network, selection, kernels and probabilities as one graph.

    python -m tools.export svm runs/darknet53-svm --name darknet53-svm
    python -m tools.export svm runs/darknet53-svm-blast --name darknet53-svm-blast --out runs/zoo

Without --out both go to engines/zoo/published. The network's weights are stored in half precision, as the machines saw
them; the machines in single. The threshold is that of the run: few errors among what it lets through.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from engines.backends.tensorrt.operators import check_operators
from engines.models.loading import load_classifier
from engines.zoo.figures import MeasuredOn
from tools.architectures.support_vectors import Constants
from tools.commands import command_parser
from tools.data import PARTS, VALIDATION
from tools.data.blasts import BLAST_CLASSES
from tools.evaluate.published import card_tables
from tools.export.cards import PUBLISHED, card_values, crop_input, write_figures, write_files
from tools.export.published import WHOLE_MARGIN, training_commands
from tools.graphs.support_vectors import add_support_vectors
from tools.train.svm import KERNELS, arguments

LARGEST_DIFFERENCE = 1e-3
"""Between the graph's probabilities and scikit-learn's on the measured cells. A steep polynomial kernel adds and
subtracts numbers that float32 holds too coarsely."""
_OPTIONS = ("kept", "folds", "search_cells", "risk", "seed")


def machines_command(settings: dict[str, Any], name: str) -> str:
    """The command that fitted the machines, with the options that were given."""
    usual = vars(arguments(["--network", "", "--out", ""]))
    given = [f"--{k.replace('_', '-')} {settings[k]}" for k in usual if k in _OPTIONS and settings[k] != usual[k]]
    command = f"python -m tools.train svm --network {settings['network']} --out runs/{name}"
    looks = [f"--margins {' '.join(map(str, settings['margins']))}"] if len(settings["margins"]) > 1 else []
    return " ".join([command, f"--classes {settings['classes']}", *given, *looks])


def values_of(name: str, document: dict[str, Any], kernel: str, file: bytes) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    run, settings, found = document["network"], document["settings"], document["kernels"][kernel]
    protocol, is_blast = run["protocol"], settings["classes"] == "blast"
    sets = run["settings"]["sets"].split(",")
    network, margins = settings["network"], [margin or WHOLE_MARGIN for margin in settings["margins"]]
    fit = machines_command(settings, name)
    others = {
        f"{other}_accuracy": round(values["accuracy"], 4)
        for other, values in document["kernels"].items()
        if other != kernel
    }
    kept = {
        key: round(found[key], 6) if isinstance(found[key], float) else found[key]
        for key in ("function", "degree", "scale", "box", "support_vectors", "temperature", "graph_differs_by")
    }
    return card_values(
        name,
        "classifier",
        "darknet53-svm",
        f"{'Blast or not' if is_blast else 'The five types'} by support vector machines on the features of "
        f"DarkNet-53, {protocol['publication'].split(' of ')[-1]}",
        file,
        build=[
            *training_commands(run, network),
            fit,
            f"python -m tools.export svm runs/{name} --name {name} --kernel {kernel}",
        ],
        input=crop_input(protocol["input_px"], margins),
        classes=[{"name": label, "kind": "white"} for label in document["names"]],
        thresholds={"operating": found.get("cross_validated", found)["threshold"]},
        training={
            "data": [*sets, "all_idb2"] if is_blast else sets,
            **{f"network_{k}": v for k, v in protocol.items() if k not in ("patience", "shares", "repetitions")},
            "network_split": run["settings"]["split"],
            "network_one_cycle": bool(run["settings"].get("one_cycle")),
            "network_augmented": run["settings"]["augment"],
            "features_kept": settings["kept"],
            "kernel": kernel,
            **kept,
            **others,
        },
    )


def own_figures(document: dict[str, Any], kernel: str, fit: str) -> dict[MeasuredOn, dict[str, Any]]:
    """What training measured by cross-validation, for the card; none where it did not."""
    found = document["kernels"][kernel].get("cross_validated")
    if not found:
        return {}
    values = {key: value for key, value in found.items() if key not in ("confusion", "threshold")}
    return {MeasuredOn("all_idb2", "", "cross-validation"): {"command": fit, **values}}


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.export svm", __doc__)
    parser.add_argument("run", type=Path, help="folder that tools.train svm wrote")
    parser.add_argument("--name", required=True)
    parser.add_argument("--kernel", choices=KERNELS, default="optimised")
    parser.add_argument("--out", type=Path, default=PUBLISHED, help="folder of the file and its card")
    parser.add_argument("--parts", nargs="*", choices=PARTS[1:], default=[VALIDATION], help="figures of the card")
    parser.add_argument("--limit", type=int, help="cells a set at most in the figures")
    options = parser.parse_args(argv)
    document = json.loads((options.run / "results.json").read_text())
    difference = document["kernels"][options.kernel]["graph_differs_by"]
    if difference > LARGEST_DIFFERENCE:
        raise SystemExit(
            f"{options.kernel} kernel: got probabilities {difference:.1e} from scikit-learn's, expected at most "
            f"{LARGEST_DIFFERENCE:.0e}: too steep for float32; export another --kernel"
        )
    names = tuple(document["names"])
    graph = add_support_vectors(
        onnx.load(options.run / "features.onnx"), Constants.load(options.run / f"{options.kernel}.npz")
    )
    check_operators(graph)
    file = graph.SerializeToString()
    values = values_of(options.name, document, options.kernel, file)
    figures = own_figures(document, options.kernel, values["build"][-2])
    path, card = write_files(values, file, options.out)
    write_figures(card, values, figures)
    two_parts = set(names) <= set(BLAST_CLASSES)  # ALL-IDB2 is too small for a third one
    parts = [part for part in options.parts if part == VALIDATION or not two_parts]
    figures |= card_tables(load_classifier(str(path)), options.name, parts, options.limit)
    write_figures(card, values, figures)
    print(f"{path}: {len(file) / 1e6:.1f} MB, threshold {values['thresholds']['operating']}; {card}")
    return 0
