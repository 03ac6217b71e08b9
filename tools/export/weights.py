"""Store the weights of a model file anew, as float16 or int8 a channel, and say in its card what that costs.

    python -m tools.export weights engines/zoo/yolov5n-blood.toml
    python -m tools.export weights engines/zoo/published/resnet50.toml --weights int8 --most .002
    python -m tools.export weights engines/zoo/published/vgg19.toml --weights int8 --int8-from 600000 --most .002

The arithmetic stays float32. File and card are replaced only where no set's figure of the validation part falls by
more than --most: accuracy of a classifier, mAP@0.5 of a detector (AP@0.5 of white cells where its classes are groups),
mean IoU of a segmenter. Of a classifier one cell a set is passed over, the least that a set can show. The figures of
the card stay; `[storage]` has both sides of the comparison. What a file keeps in float32 beside weights of half
precision (support vectors) stays so. --int8-from keeps smaller layers, a network's first ones, as float16: they weigh
little, and what is rounded in them goes through all others.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from engines.graphs.storage import WEIGHTS, Weights, narrowed, stored_names
from engines.models.loading import load_classifier, load_segmenter
from engines.zoo.card import Card, DetectorInput, parse_card
from engines.zoo.toml import toml
from tools.commands import command_parser
from tools.data import VALIDATION, data_root, sets
from tools.data.fields import CLASS_NAMES
from tools.evaluate import detector, groups, leukocyte_detector, published, segmenter
from tools.evaluate.__main__ import task_of
from tools.metrics.detection import summary, tally

DETECTOR_SETS = ("txl_pbc", "pbc")
"""Those of the blood detector's whose pictures are labelled completely."""
MEASURES = {
    "detector": "map50",
    "leukocyte-detector": "map50",
    "groups": "ap50",
    "segmenter": "mean_iou",
}
"""By task; of any other the accuracy."""


@dataclass(frozen=True)
class Comparison:
    """One figure of the file as it was and as it is stored now, by set."""

    measure: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    steps: Mapping[str, float]
    """By set, what the figure changes by one cell; of figures that count no cells nothing."""

    @property
    def cost(self) -> float:
        """The largest fall of any set beyond one step, to four digits; below 0 where none fell."""
        return round(max(self.before[name] - self.after[name] - self.steps.get(name, 0.0) for name in self.before), 4)

    def table(self, weights: Weights, was: str, int8_from: int) -> dict[str, Any]:
        """[storage] of the card; `was` is the SHA-256 of the file that the card's figures were measured with."""
        return {
            "weights": weights,
            **({"int8_from": int8_from} if int8_from else {}),
            "was": was,
            "compared": f"{self.measure} of validation, the file before and this one",
            "sets": list(self.before),
            "before": list(self.before.values()),
            "stored": [self.after[name] for name in self.before],
        }


def figures_of(model: Path, limit: int | None) -> tuple[str, dict[str, float], dict[str, float]]:
    """The name of the figure that a model is judged by, its value and its steps (`Comparison.steps`) by set; at most
    `limit` pictures or cells a set."""
    card = parse_card(model.with_suffix(".toml").read_text("utf-8"), model.name, stem=model.stem)
    task = task_of(str(model))
    measure = MEASURES.get(task, "accuracy")
    found = {name: entry for name, entry in _measured(task, model, card, limit).items() if measure in entry}
    values = {name: round(float(entry[measure]), 4) for name, entry in found.items() if entry[measure] is not None}
    steps = {name: 1 / found[name]["cells"] for name in values} if measure == "accuracy" else {}
    return measure, values, steps


def _measured(task: str, model: Path, card: Card, limit: int | None) -> Mapping[str, Mapping[str, Any]]:
    if task == "detector":
        assert isinstance(card.input, DetectorInput)
        predict = detector.make_predictor(str(model), card.input.long_side_px, 1)
        found = {}
        for name in DETECTOR_SETS:
            fields = sets.fields_of(name, VALIDATION)[:limit]
            tallies, _ = tally(fields, predict, len(CLASS_NAMES))
            found[name] = summary(tallies, CLASS_NAMES, fields[0].complete, card.thresholds.operating)
        return found
    if task == "leukocyte-detector":
        one = leukocyte_detector.load(str(model), None, 1)
        return {"pbc": leukocyte_detector.evaluate(one, VALIDATION, limit=limit)}
    if task == "groups":
        return groups.evaluate(str(model), VALIDATION, limit=limit)
    if task == "segmenter":
        seed = int(card.training["seed"])
        return segmenter.evaluate(load_segmenter(str(model)), data_root(), VALIDATION, seed, sets=["wbc_masks"])
    return published.evaluate(load_classifier(str(model)), VALIDATION, limit=limit)


def store(card: Path, weights: Weights, limit: int | None, most: float, int8_from: int = 0) -> Comparison:
    """Replace a card and the file beside it. ValueError, and nothing replaced, where a figure falls by more than
    `most`."""
    values = tomllib.loads(card.read_text("utf-8"))
    file = card.with_name(str(values.get("file", f"{card.stem}.onnx")))
    given = onnx.load(file)
    data = narrowed(given, weights, stored_names(given) or None, int8_from=int8_from).SerializeToString()
    was = values.get("storage", {}).get("was", hashlib.sha256(file.read_bytes()).hexdigest())
    values["sha256"] = hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / file.name
        made.write_bytes(data)
        made.with_suffix(".toml").write_text(toml(values))
        measure, before, steps = figures_of(file, limit)
        compared = Comparison(measure, before, figures_of(made, limit)[1], steps)
        if compared.cost > most:
            raise ValueError(
                f"{file}: got {compared.cost:.4f} less {measure} as {weights}, expected at most {most}; keep the file"
            )
        ordered = {key: values[key] for key in values if key not in ("storage", "figures")}
        figures = {"figures": values["figures"]} if "figures" in values else {}
        made.with_suffix(".toml").write_text(
            toml({**ordered, "storage": compared.table(weights, was, int8_from), **figures})
        )
        shutil.copy(made, file)
        shutil.copy(made.with_suffix(".toml"), card)
    return compared


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.export weights", __doc__)
    parser.add_argument("card", type=Path, metavar="CARD.toml", help="its ONNX file beside it")
    parser.add_argument("--weights", choices=WEIGHTS, default="float16")
    parser.add_argument("--most", type=float, default=0.001, help="that a figure may fall (default .001)")
    parser.add_argument("--int8-from", type=int, default=0, help="least weights of a layer stored as int8 (default 0)")
    parser.add_argument("--limit", type=int, help="pictures or cells a set at most")
    options = parser.parse_args(arguments)
    compared = store(options.card, options.weights, options.limit, options.most, options.int8_from)
    shown = ", ".join(f"{name} {compared.before[name]:.4f} -> {compared.after[name]:.4f}" for name in compared.before)
    print(f"{options.card}: {compared.measure}: {shown}")
    return 0
