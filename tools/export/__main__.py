"""`python -m tools.export NAME`: make the files that ship from a checkpoint."""

from __future__ import annotations

import argparse
import sys

from engines.base import LeukostreamError
from tools.export import classifier


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.export", description=__doc__)
    names = parser.add_subparsers(dest="task", required=True, metavar="NAME")
    of_classifier = names.add_parser(
        "classifier",
        help="the classifier of white cells",
        description=classifier.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    classifier.add_options(of_classifier)
    args = parser.parse_args(arguments)
    try:
        return classifier.run(args)
    except (LeukostreamError, ValueError, OSError) as error:
        print(f"python -m tools.export {args.task}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
