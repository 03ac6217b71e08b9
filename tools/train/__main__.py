"""`python -m tools.train NAME`: train a model; `pack` makes a checkpoint small enough to be kept."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.train import classifier
from tools.train.loop import pack


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status: 1 for a run that was stopped before its last step or could not begin."""
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    of_classifier = names.add_parser(
        "classifier",
        help="the classifier of white cells",
        description=classifier.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    classifier.add_options(of_classifier)
    of_pack = names.add_parser("pack", help="a checkpoint in a quarter of its size, to resume from")
    of_pack.add_argument("checkpoint", type=Path)
    of_pack.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    try:
        if args.name == "pack":
            pack(args.checkpoint, args.out)
            return 0
        return classifier.run(args)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"python -m tools.train {args.name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
