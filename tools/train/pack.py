"""Make a checkpoint small enough to be kept: a quarter of its size, to resume from.

python -m tools.train pack runs/lite0/last.pt runs/lite0.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tools.train.loop import pack


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    pack(args.checkpoint, args.out)
    return 0
