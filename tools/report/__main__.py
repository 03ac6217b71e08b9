"""`python -m tools.report NAME`: what is written from figures and from the program itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.commands import dispatch

NAMES = {
    "results": "docs/results.md, .json and a picture, from the cards",
    "schemas": "docs/schema/*.json, the JSON Schemas of the messages",
    "dashboard-picture": "docs/dashboard.svg, from a run in a terminal of its own",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    return dispatch("report", NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
