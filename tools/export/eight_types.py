"""Make the files that ship from a checkpoint of tools.train eight-types: NAME.onnx and its card NAME.toml.

    python -m tools.export eight-types runs/classifier/last.pt --name mobilenetv3-small --out engines/zoo
    python -m tools.export eight-types engines/zoo/mobilenetv3-small.onnx --parts validation holdout

The second line fits anew what is fitted to weights that ship. Temperatures and thresholds are fitted on the validation
cells, novelty on training cells; the figures of the card are measured here with the exported graph in ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from engines.graphs.storage import narrowed
from engines.models.classifier import Classifier
from tools.architectures.mobilenetv3 import PLACES, MobileNetV3Small
from tools.commands import command_parser
from tools.data import CELL_CLASSES, PARTS, SUBCLASSES, VALIDATION, data_root
from tools.data.crops import SUBCLASS_NAMES, StoredCells, load_stored
from tools.evaluate import eight_types as evaluate_classifier
from tools.evaluate.eight_types import Model
from tools.export import novelty
from tools.export.cards import ZOO, card_values, crop_input, write_figures, write_files
from tools.export.crops import CLASS_OFFSETS, MIDDLE_SHARE, OUTPUTS, class_tables, classifier_of, graph_of, offsets
from tools.export.figures import figure_tables, left_out_table
from tools.export.fitting import KNOWN, REFUSED, Fitted, choose_threshold, fit, for_calibration, tempered
from tools.graphs.shipped_weights import card_beside
from tools.train import loop
from tools.train.classifier import ATTRIBUTE_SIZES
from tools.train.eight_types import SET_SHARES, Plan, load_network
from tools.train.options import train_command

CROP_MARGINS = (1.3, 1.3)
"""Of the two looks at a cell, the second mirrored: two views of it cost twice the time and make a third fewer errors
on pbc (validation). Training varies the margin around 1.3; of 28 pairs from 1.0 to 1.8 this one gives the right classes
the highest probability (mean over the sets of validation)."""
SUMMARY = "Eight classes and five subclasses of cells, from the detector's crops or single-cell pictures,"
NOTES = (
    "the types of the cells of txl_pbc and bcd were said by eye, tools/data/types_by_eye.csv",
    "who wants no GPL-3.0 data behind a model takes wbc_masks out of SET_SHARES in tools/train/eight_types.py",
    "sets came one after the other: first pbc, chula_wbc and bccd, then wbc_masks/jtsc, then wbc_masks/cellavision, "
    "txl_pbc and bcd; a table of figures named left_out is of the weights before the set came",
    "erythroblasts, platelets and immature granulocytes were learnt from one laboratory; elsewhere they are found less",
)


class Probabilities(nn.Module):
    """What the exported graph says, of a network's logits: softmax over classes, within each parent and within each
    attribute; and the novelty. What the network or the fit has not is left out."""

    def __init__(self, network: MobileNetV3Small, fitted: Fitted) -> None:
        super().__init__()
        self.network, self.fitted = network, fitted
        self.register_buffer("offsets", offsets(CELL_CLASSES))
        parents = [SUBCLASSES[s] for s in SUBCLASS_NAMES]
        self.sizes = [parents.count(p) for p in dict.fromkeys(parents)]
        warmth = np.repeat(fitted.attribute_temperatures, ATTRIBUTE_SIZES).astype(np.float32)
        self.register_buffer("warmth", torch.from_numpy(warmth))
        self.novelty = None if fitted.novelty is None else novelty.Novelty(*fitted.novelty)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` gives."""
        given = (True, True, self.network.attributes is not None, self.novelty is not None)
        return tuple(name for name, is_given in zip(OUTPUTS, given, strict=True) if is_given)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """float32 (N, 3, H, W) in 0..1 -> float32 (N, 8), (N, 5), and if given (N, 31) and (N,)."""
        hidden, means = self.network.describe_at(x, PLACES if self.novelty is not None else ())
        classes, subclasses = self.network.classes(hidden), self.network.subclasses(hidden)
        families = torch.split(subclasses / self.fitted.subclass_temperature, self.sizes, dim=1)
        found = [
            torch.softmax((classes + self.offsets) / self.fitted.temperature, 1),
            torch.cat([torch.softmax(f, 1) for f in families], 1),
        ]
        if self.network.attributes is not None:
            values = torch.split(self.network.attributes(hidden) / self.warmth, ATTRIBUTE_SIZES, dim=1)
            found.append(torch.cat([torch.softmax(v, 1) for v in values], 1))
        if self.novelty is not None:
            found.append(self.novelty(torch.cat(means, 1)))
        return tuple(found)


def build_graph(checkpoint: Path, fitted: Fitted) -> tuple[onnx.ModelProto, Plan]:
    """The graph that ships, of `OUTPUTS`, and the plan of its network."""
    network, plan, _ = load_network(checkpoint)
    whole = Probabilities(network, fitted)
    return graph_of(whole, whole.outputs, plan.input_px), plan


def values_of(
    name: str, plan: Plan, data: bytes, threshold: float, training: Mapping[str, Any], *, novel: bool
) -> dict[str, Any]:
    """The card as nested mappings, without figures; `novel`: the graph says how novel a crop is."""
    return card_values(
        name,
        "classifier",
        "mobilenetv3-small",
        SUMMARY + (" and eleven attributes" if plan.attribute_weight else ""),
        data,
        input=crop_input(plan.input_px, CROP_MARGINS, middle_share=MIDDLE_SHARE),
        **class_tables(CELL_CLASSES, SUBCLASSES, attributes=bool(plan.attribute_weight)),
        thresholds={"operating": threshold, "novelty": novelty.AT_THRESHOLD if novel else None},
        training=dict(training),
    )


def untempered_classifier(checkpoint: Path, gaussians: novelty.Gaussians | None = None) -> Classifier:
    """The classifier of a checkpoint, ready to run, with temperatures of 1 and no threshold; with `gaussians` it gives
    their distances as novelty, uncalibrated."""
    fitted = Fitted() if gaussians is None else Fitted(novelty=(gaussians, novelty.Calibration(0.0, 1.0)))
    graph, plan = build_graph(checkpoint, fitted)
    return classifier_of(graph, values_of(checkpoint.stem, plan, b"", 0.0, {}, novel=gaussians is not None))


def model_of(source: str) -> Model:
    """A name, an ONNX file with its card, or a checkpoint (.pt), to be measured."""
    return Model(source, untempered_classifier(Path(source)) if source.endswith(".pt") else None)


def export(
    checkpoint: Path,
    name: str,
    out: Path,
    risk: float,
    parts: Sequence[str],
    earlier: Sequence[Path] = (),
    *,
    stored: StoredCells,
    left_out: tuple[str, str] | None = None,
    after: Path | None = None,
) -> Path:
    """Write OUT/NAME.onnx and OUT/NAME.toml with figures of `parts`; the path of the card. `earlier` are checkpoints
    that the runs before began from, first ones first, for the card to name; `after` is the card of the graph that the
    first of all began from; `stored` has the training cells; `left_out` an earlier model's file and a set that did not
    train it, to be measured with it."""
    before = () if after is None else runs_of(after)
    gaussians = novelty.fit_network(checkpoint, stored, CROP_MARGINS)
    model = Model(str(checkpoint), untempered_classifier(checkpoint, gaussians))
    untempered = evaluate_classifier.evaluate(model, VALIDATION, sets=KNOWN)
    fitted = fit(untempered, gaussians)
    threshold = choose_threshold(tempered(for_calibration(untempered), fitted.temperature), risk)
    graph, plan = build_graph(checkpoint, fitted)
    _, _, state = load_network(checkpoint)
    since = enumerate(earlier, len(before) + 1)
    runs = state.get("runs") or {
        "command": train_command("eight-types", plan) + start_of(len(before) + len(earlier) + 1, len(before)),
        "earlier_runs": [*before, *(earlier_run(number, path, len(before)) for number, path in since)],
    }
    data = narrowed(graph).SerializeToString()
    options = dataclasses.asdict(plan)
    told = {
        "data": list(SET_SHARES),
        "split": "groups of tools.data: no picture, overlapping field or slide on two sides",
        **{key: value for key, value in options.items() if key not in ("input_px", "margin")},
        "epoch_of_weights": state["epoch"],
        "mean_of_runs": state.get("mean_of", 1),
        "class_offsets": [CLASS_OFFSETS.get(c, 0.0) for c in CELL_CLASSES],
        "temperature": round(fitted.temperature, 4),
        "subclass_temperature": round(fitted.subclass_temperature, 4),
        "attribute_temperatures": [round(t, 4) for t in fitted.attribute_temperatures],
        "threshold_for_errors": risk,
        "novelty_threshold_for_refused": REFUSED,
        **runs,
        "notes": list(NOTES),
    }

    values = values_of(name, plan, data, threshold, told, novel=True)
    model_path, path = write_files(values, data, out)
    figures = figure_tables(Model(str(model_path)), name, parts)
    write_figures(path, values, figures | (left_out_table(model_of(left_out[0]), left_out[1]) if left_out else {}))
    return path


def runs_of(card: Path) -> tuple[str, ...]:
    """The runs that the weights of a card went through, the last one as an earlier one. ValueError where it names no
    command."""
    told = card_beside(card).training
    if "command" not in told:
        raise ValueError(f"{card}: got no training command, expected the card of a model that this project trained")
    runs = tuple(told["earlier_runs"])
    return (*runs, str(told["command"]).replace("runs/classifier", f"runs/{len(runs) + 1}"))


def start_of(number: int, graphs: int) -> str:
    """What run `number` began with; after the first `graphs` runs only the exported graph was left."""
    if number == 1:
        return ""
    return " --start BEFORE.onnx" if number == graphs + 1 else f" --start runs/{number - 1}/last.pt"


def earlier_run(number: int, checkpoint: Path, graphs: int = 0) -> str:
    """The command of one of the runs that weights went through, and where it was left; `graphs` as for `start_of`."""
    _, plan, state = load_network(checkpoint)
    command = train_command("eight-types", plan).replace("runs/classifier", f"runs/{number}")
    averaged = ", then averaged with the run before" if state.get("mean_of", 1) > 1 else ""
    return f"{command}{start_of(number, graphs)} (left after epoch {state['epoch']}{averaged})"


def mean_of(checkpoints: Sequence[Path], out: Path) -> Path:
    """Write the checkpoint whose averaged weights are the mean of those of runs begun from one another (Wortsman et
    al., 2022, "model soups"), with the last one's plan; its path `out`. Raises ValueError where shapes differ."""
    networks = [load_network(path)[0].state_dict() for path in checkpoints]
    _, _, state = load_network(checkpoints[-1])
    mean = state["average"]["network"]
    for name, value in mean.items():
        shapes = [tuple(n[name].shape) if name in n else None for n in networks]
        if set(shapes) != {tuple(value.shape)}:
            raise ValueError(f"weights {name}: got shapes {shapes}, expected the same everywhere; average one family")
        if value.dtype.is_floating_point:
            value.copy_(torch.stack([n[name] for n in networks]).mean(0))
    loop.save_checkpoint(out, {**state, "mean_of": len(checkpoints)})
    return out


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.export eight-types", __doc__)
    parser.add_argument(
        "checkpoint", type=Path, nargs="+", help="or a graph that ships; the mean of the weights of several"
    )
    parser.add_argument("--name", default="mobilenetv3-small")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--risk", type=float, default=0.04, help="share of errors among classified cells (default .04)")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS[1:],
        default=[VALIDATION],
        help="parts whose figures the card gives; `holdout` is for the model that ships",
    )
    parser.add_argument(
        "--earlier", nargs="+", type=Path, default=[], help="checkpoints that runs before began from, in their order"
    )
    parser.add_argument("--after", type=Path, help="card of the graph that the first of these runs began from")
    parser.add_argument(
        "--left-out",
        nargs=2,
        metavar=("FILE", "SET"),
        help="an earlier model that the set did not train: the card says how good that one is there",
    )
    parser.add_argument("--cells", type=Path, default=Path("runs/cells"), help="folder of the stored cells (1.9 GB)")
    args = parser.parse_args(arguments)
    checkpoint: Path = args.checkpoint[-1]
    if len(args.checkpoint) > 1:
        checkpoint = mean_of(args.checkpoint, checkpoint.with_name("mean.pt"))
    stored = load_stored(data_root(), args.cells)
    left_out = None if args.left_out is None else (args.left_out[0], args.left_out[1])
    made = export(
        checkpoint,
        args.name,
        args.out,
        args.risk,
        args.parts,
        args.earlier,
        stored=stored,
        left_out=left_out,
        after=args.after,
    )
    print(made)
