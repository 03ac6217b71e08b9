"""Make a checkpoint small enough to be kept: a quarter of its size, to resume from.

python -m tools.train pack runs/lite0/last.pt runs/lite0.pt
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tools.commands import command_parser
from tools.train.loop import load_checkpoint, save_checkpoint


def pack(path: Path, out: Path, *, average: bool = False) -> None:
    """A checkpoint in a quarter of its size, for keeping in a repository: weights and their average in half precision,
    no state of the optimizer. `average`: the average in place of the weights too, in an eighth; at the end of a run,
    whose last steps are small."""
    state = load_checkpoint(path)
    if average and "average" not in state:
        raise ValueError(f"{path}: got a checkpoint without averaged weights, expected some; leave out --average")
    small = {**state, "optimizer": None}
    if "average" in state:
        small["average"] = {**state["average"], "network": _half(state["average"]["network"])}
    small["network"] = small["average"]["network"] if average else _half(state["network"])
    save_checkpoint(out, small)


def _half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Anchors stay exact; running variances may be beyond what half precision can hold: bfloat16 keeps their range."""
    kept = {"running_var": torch.bfloat16, "anchors_px": torch.float32}
    return {
        name: value.to(kept.get(name.split(".")[-1], torch.float16)) if value.dtype == torch.float32 else value
        for name, value in tensors.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Command line."""
    parser = command_parser("tools.train pack", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--average", action="store_true", help="keep the averaged weights alone")
    args = parser.parse_args(arguments)
    pack(args.checkpoint, args.out, average=args.average)
    return 0
