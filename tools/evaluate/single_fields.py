"""The differential of single fields, none of which lies beside another, against what their labels say.

    python -m tools.evaluate single-fields
    python -m tools.evaluate single-fields --parts holdout --json single_fields.json

The fields of BCCD go through the very session of `leukostream run` as one slide. Its labels give a type a field, of
several where several lie in it, and a box a white cell; a box that touches the edge is a cut cell. Printed are the
counts, how many of the cells named have a type of their field, and every flag with the share that the labels give: a
flag of a range is borne out where that share is outside too, on the same side, one for being seen where it is above 0.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.models.loading import load_classifier, load_detector
from streamer.config import DEFAULT_CLASSIFIER
from streamer.dashboard import format_differential
from streamer.records import UNCLASSIFIED, Cell, Flag
from streamer.run.session import SlideSession
from tools import data as datasets
from tools.commands import command_parser
from tools.data.crops import read_image
from tools.data.readers import Field, data_root, read_fields
from tools.evaluate.whole_run import run_over

TOUCHES_PX = 1.0
"""A label that comes so near to the edge is that of a cut cell."""


@dataclass(frozen=True)
class Labelled:
    """What the labels say of some fields."""

    whole: int
    cut: int
    types: dict[str, float]
    """Of the whole cells; those of fields with several types share them evenly."""


def types_of_fields(root: Path) -> dict[str, list[str]]:
    """By the key of a field of BCCD, the types that it names, in small letters."""
    marks = json.loads((root / "bccd" / "annotations.json").read_text("utf-8"))
    return {
        f"bccd/images/{image['file_name']}": [
            name.strip().lower() for name in image["wbc_types"].split(",") if name.strip()
        ]
        for image in marks["images"]
    }


def labelled(fields: Sequence[Field], types: dict[str, list[str]]) -> Labelled:
    """Counts of the labels."""
    found: dict[str, float] = defaultdict(float)
    whole = cut = 0
    for item in fields:
        own = 0
        for box in item.boxes:
            if box.label == "WBC":
                x1, y1, x2, y2 = box.box_px
                is_cut = min(x1, y1, item.width_px - x2, item.height_px - y2) <= TOUCHES_PX
                own, cut = own + (not is_cut), cut + is_cut
        whole += own
        for name in types[item.key]:
            found[name] += own / len(types[item.key])
    return Labelled(whole, cut, dict(found))


def counted_cells(session: SlideSession, fields: Sequence[Field]) -> list[tuple[Cell, Field]]:
    """The counted cells of a run over the fields, each with its field."""
    return [(cell, fields[cell.first_frame_id]) for cell in session.count.cells()]


def is_borne_out(flag: Flag, share: float) -> bool | None:
    """Whether the labels' share, in percent, says the same; None for a flag that is not of a class."""
    if flag.class_ is None or flag.class_ == UNCLASSIFIED:
        return None
    if flag.range is None:
        return share > 0
    return share < flag.range[0] if flag.direction == "low" else share > flag.range[1]


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate single-fields", __doc__)
    parser.add_argument("--detector", default="yolov5n-blood")
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER)
    parser.add_argument("--parts", default="validation,holdout", help="comma-separated; train for all the others")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(argv)
    parts = datasets.load_splits()
    fields = [item for item in read_fields(sets=("bccd",)) if parts[item.key] in options.parts.split(",")]
    types = types_of_fields(data_root())
    truth = labelled(fields, types)
    session = run_over(
        (read_image(item.path) for item in fields), load_detector(options.detector), load_classifier(options.classifier)
    )
    result, cells = session.count.differential(final=True), counted_cells(session, fields)
    print(format_differential(session.factory.differential(result)))
    named = [(cell, item) for cell, item in cells if cell.class_name != UNCLASSIFIED and types[item.key]]
    right = sum(cell.class_name in types[item.key] for cell, item in named)
    print(f"labels: {truth.whole} white cells whole, {truth.cut} cut; got {result.total} and {result.edge}")
    print(f"of {len(named)} named cells {right} have a type of their field")
    known = sum(truth.types.values())
    shares = {name: 100 * count / known for name, count in truth.types.items()}
    print("types: " + ", ".join(f"{name} {share:.1f} %" for name, share in sorted(shares.items())))
    flags = []
    for flag in result.flags:
        borne_out = is_borne_out(flag, shares.get(flag.class_ or "", 0.0))
        flags.append({"text": flag.text, "borne_out": borne_out})
        words = {True: "borne out", False: "NOT BORNE OUT", None: "not of a class"}[borne_out]
        print(f"flag: {flag.text}: {words} by the types")
    figures: dict[str, Any] = {
        "command": "python -m tools.evaluate single-fields " + " ".join(argv),
        "fields": len(fields),
        "labelled": {"whole": truth.whole, "cut": truth.cut, "percent": shares},
        "total": result.total,
        "edge": result.edge,
        "unclassified": result.unclassified,
        "named": len(named),
        "right": right,
        "flags": flags,
        "size_bias": result.size_bias,
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0
