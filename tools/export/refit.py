"""Fit anew what a classifier's graph adds to its network: class offsets, temperature, threshold, what flags a slide.

    python -m tools.export refit engines/zoo/efficientnet-lite0.onnx --parts validation holdout

The network and its novelty stay as they are. Offsets are `CLASS_OFFSETS`; the rest is fitted on validation cells as
`tools.export classifier` does, and the card's figures are measured again. Appearances stay in the card; home cells are
to be made anew (`tools.export home`).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from engines.base import ModelFormatError
from engines.graphs.graph import CLASS_PROBABILITIES
from engines.graphs.storage import narrowed, widened
from engines.zoo.figures import figure_tables
from engines.zoo.toml import toml
from tools.commands import command_parser
from tools.data import ABNORMAL_CLASSES, PARTS, VALIDATION
from tools.export.classifier import CLASS_OFFSETS, RISK, figures_of, fit, shown_cells
from tools.export.crops import classifier_of, offsets
from tools.metrics.slide_flags import card_rows


def with_constants(model: onnx.ModelProto, class_offsets: np.ndarray, temperature: float) -> onnx.ModelProto:
    """A copy of a graph that ends in softmax((logits + offsets) / temperature), with other ones; `class_offsets`
    float32 (classes,). ModelFormatError for a graph that ends otherwise."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    made_by = {output: node for node in changed.graph.node for output in node.output}
    ends = [made_by.get(CLASS_PROBABILITIES)]
    for kind in ("Softmax", "Div", "Add"):
        node = ends[-1]
        if node is None or node.op_type != kind:
            got = "nothing" if node is None else node.op_type
            raise ModelFormatError(
                f"{CLASS_PROBABILITIES}: got {got} where {kind} was expected; give a graph of tools.export classifier"
            )
        ends.append(made_by.get(node.input[0]))
    divided, added = ends[1], ends[2]
    assert divided is not None
    assert added is not None
    _set_constant(changed, divided.input[1], np.array(temperature, np.float32))
    _set_constant(changed, added.input[1], class_offsets.astype(np.float32))
    return changed


def _set_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Of an initializer, or of a Constant node. ModelFormatError where `name` is neither, or has another shape."""
    holders = [i for i in model.graph.initializer if i.name == name]
    holders += [n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.output[0] == name]
    if len(holders) != 1 or tuple(holders[0].dims) != value.shape:
        got = [tuple(holder.dims) for holder in holders]
        raise ModelFormatError(f"constant {name!r}: got shapes {got}, expected one of shape {value.shape}")
    stored = holders[0].name
    holders[0].CopyFrom(numpy_helper.from_array(value, stored))


def refit(model: Path, risk: float, parts: Sequence[str]) -> Path:
    """Write MODEL and its card anew, figures of `parts` in it; the path of the card. Errors as of `with_constants`."""
    card = model.with_suffix(".toml")
    values: dict[str, Any] = tomllib.loads(card.read_text("utf-8"))
    graph = widened(onnx.load(model))
    own = offsets(ABNORMAL_CLASSES, CLASS_OFFSETS).numpy()
    values["thresholds"] |= {"operating": 0.0}
    fitted = fit(shown_cells(classifier_of(with_constants(graph, own, 1.0), values), ()), risk)
    data = narrowed(with_constants(graph, own, fitted.temperature)).SerializeToString()
    values |= {"sha256": hashlib.sha256(data).hexdigest(), "slide_flags": card_rows(fitted.slide_flags)}
    values["thresholds"] |= {"operating": fitted.threshold}
    values["training"] |= {
        "class_offsets": [CLASS_OFFSETS.get(c, 0.0) for c in ABNORMAL_CLASSES],
        "temperature": round(fitted.temperature, 4),
    }
    shipped = classifier_of(widened(onnx.load_from_string(data)), values)
    values["figures"] = figure_tables(figures_of(shipped, values["name"], parts, ()))
    model.write_bytes(data)
    card.write_text(toml(values))
    return card


def main(arguments: Sequence[str]) -> int:
    """Command line; prints the path of the card."""
    parser = command_parser("tools.export refit", __doc__)
    parser.add_argument("model", type=Path, help="an ONNX file of tools.export classifier, its card beside it")
    parser.add_argument("--risk", type=float, default=RISK, help=f"as of tools.export classifier (default {RISK})")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS[1:], default=[VALIDATION], help="what the card's figures are of"
    )
    args = parser.parse_args(arguments)
    print(refit(args.model, args.risk, args.parts))
    return 0
