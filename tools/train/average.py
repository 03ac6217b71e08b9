"""Average the weights of two checkpoints of tools.train detector, the second trained on from the first.

    python -m tools.train average runs/first/last.pt runs/second/last.pt --share 0.7 --out runs/averaged.pt

Networks that lie on one path of training can be averaged weight by weight (Wortsman 2022, arXiv:2203.05482). The result
is the second checkpoint with other averaged weights: it can be measured, exported and gone on from with --start-from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tools.commands import command_parser
from tools.train.loop import load_checkpoint, save_checkpoint


def averaged(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share) of the first weights and `share` of the second; counters and anchors must be, and stay, the second's.

    ValueError where the networks differ or were fitted to other anchors.
    """
    if first.keys() != second.keys() or any(first[key].shape != second[key].shape for key in second):
        raise ValueError("checkpoints: got two different networks, expected one that was trained on from the other")
    if not first["anchors_px"].equal(second["anchors_px"]):
        raise ValueError("checkpoints: got different anchors, expected one that was trained on from the other")
    return {
        key: first[key].float().lerp(value.float(), share) if value.is_floating_point() else value
        for key, value in second.items()
    }


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.train average", __doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    first, second = load_checkpoint(options.first), load_checkpoint(options.second)
    weights = averaged(first["average"]["network"], second["average"]["network"], options.share)
    save_checkpoint(options.out, {**second, "average": {**second["average"], "network": weights}})
    return 0
