"""`python -m tools.data NAME`: fetch the public data sets, and count what they hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.commands import dispatch

NAMES = {
    "get": "fetch the public data sets and lay them out as they are read",
    "count": "how many pictures and cells of each set and class lie in each part",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    return dispatch("data", NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
