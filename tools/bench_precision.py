"""What fp16 and int8 cost a detector, on labelled pictures: mean average precision of each precision in one table.

    python -m tools.bench_precision yolov5n-blood --json runs/precision.json
    python -m tools.bench_precision FILE.onnx --sets txl_pbc,chula_wbc --long-side 512 --limit 100

The graphs are those that `leukostream compile` builds. int8 is calibrated on training pictures of the first set, and
leaves the operators out that `compile` would. Every rounding of fp16 is made, in float32, on the CPU: the figures hold
for any backend that obeys the graph. Wanted: fp16 within .002 and int8 within .01 of fp32.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from onnx import ModelProto
from rich.console import Console
from rich.table import Table

from engines.conversion import convert
from engines.precision import emulated, to_fp16
from engines.quantization import calibrate, to_int8
from engines.registry import Model, compact, find
from engines.tensorrt.compiler import sized
from tools.detection import sets
from tools.detection.fields import CLASS_NAMES, Field
from tools.detection.measure import summary, tally
from tools.detection.predict import OnnxPredictor, letterboxed

CALIBRATION_FRAMES = 48


def graphs(model: Model, calibration: list[Field], long_side_px: int) -> dict[str, ModelProto]:
    """The detector in each precision, its sizes open, runnable on any CPU."""
    proto = compact(model)
    pictures = [item.load() for item in calibration]
    height, width = pictures[0].shape[:2]
    small = sized(model.card, proto, (width, height))
    left = convert(model.card, small, "int8", pictures, accept_parity_loss=True, say=print).left
    ranges = calibrate(proto, (letterboxed(picture, long_side_px)[0] for picture in pictures))
    return {
        "fp32": proto,
        "fp16": emulated(to_fp16(proto)[0]),
        "int8": emulated(to_int8(proto, ranges, leave=set(left))[0]),
    }


def measure(
    by_precision: dict[str, ModelProto], name: str, fields: list[Field], long_side_px: int
) -> list[dict[str, Any]]:
    """A row for each precision: mAP at 0.5 and over 0.5 to 0.95, and what it lost against fp32."""
    rows: list[dict[str, Any]] = []
    for precision, proto in by_precision.items():
        tallies, _ = tally(fields, OnnxPredictor(proto, long_side_px, threads=2), len(CLASS_NAMES))
        figures = summary(tallies, CLASS_NAMES, fields[0].complete, 0.35)
        row = {"set": name, "precision": precision, "map50": figures["map50"], "map50_95": figures["map50_95"]}
        if rows and None not in (row["map50"], rows[0]["map50"]):
            row["lost"] = round(rows[0]["map50"] - row["map50"], 4)
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="NAME|FILE")
    parser.add_argument("--sets", default="txl_pbc", help="names, comma-separated")
    parser.add_argument("--part", choices=("validation", "holdout"), default="validation")
    parser.add_argument("--long-side", type=int, help="longer side of the input in px; default: the card's")
    parser.add_argument("--limit", type=int, default=sys.maxsize, help="pictures a set at most")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    model = find(options.model, "detector")
    long_side_px = options.long_side or getattr(model.card.input, "long_side_px", 640)
    names = options.sets.split(",")
    calibration = sets.fields_of(names[0], "train")
    step = max(1, len(calibration) // CALIBRATION_FRAMES)
    by_precision = graphs(model, calibration[::step][:CALIBRATION_FRAMES], long_side_px)
    rows = []
    for name in names:
        rows += measure(by_precision, name, sets.fields_of(name, options.part)[: options.limit], long_side_px)
    table = Table("set", "precision", "mAP@.5", "mAP@[.5:.95]", "lost at .5", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row.get(key, "")) for key in ("set", "precision", "map50", "map50_95", "lost")))
    Console().print(table)
    if options.json is not None:
        command = "python -m tools.bench_precision " + " ".join(argv if argv is not None else sys.argv[1:])
        options.json.write_text(json.dumps({"command": command, "results": rows}, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
