"""`python -m tools.evaluate MODEL`: what a model reaches; MODEL is a name of the zoo or a file with its card beside it.

python -m tools.evaluate mobilenetv3-small --part validation --json figures.json
python -m tools.evaluate runs/short/mobilenet.onnx --left-out krd
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from engines.base import LeukostreamError
from engines.models.loading import load_classifier
from tools.datasets import PARTS, VALIDATION
from tools.evaluate import classifier


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--part", choices=PARTS, default=VALIDATION)
    parser.add_argument("--left-out", nargs="+", default=[], metavar="LABORATORY", help="those that did not train it")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args(arguments)
    try:
        found = classifier.evaluate(load_classifier(args.model, backend="onnxruntime"), args.part, args.left_out)
    except (LeukostreamError, ValueError, OSError) as error:
        print(f"python -m tools.evaluate: {error}", file=sys.stderr)
        return 1
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"model": args.model, "part": args.part, "figures": found}, indent=1) + "\n")
    print(classifier.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
