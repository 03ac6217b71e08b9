"""Make a checkpoint small enough to be kept: a quarter of its size, to resume from.

python -m tools.train pack runs/lite0/last.pt runs/lite0.pt
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.commands import command_parser
from tools.train.loop import pack


def main(arguments: Sequence[str]) -> int:
    """Command line."""
    parser = command_parser("tools.train pack", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    pack(args.checkpoint, args.out)
    return 0
