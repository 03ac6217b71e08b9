"""What the commands that train have in common: their options, and the command that made a run."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import cv2
import torch

from tools.commands import command_parser

SettingsT = TypeVar("SettingsT")


def run_parser(name: str, description: str | None, *, threads: int = 1) -> argparse.ArgumentParser:
    """The parser of `python -m tools.train NAME`, with the options of every run; `threads` are those that it takes by
    default."""
    parser = command_parser(f"tools.train {name}", description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=threads, help=f"CPU threads (default {threads})")
    return parser


def set_threads(threads: int, seed: int = 0) -> None:
    """Let torch and OpenCV use so many threads each, and seed torch."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(seed)


def add_settings(parser: argparse.ArgumentParser, *defaults: Any) -> None:
    """An option for every field of a dataclass of settings, None where it is not given; further `defaults` are those of
    short forms."""
    for field in dataclasses.fields(defaults[0]):
        usual, *short = (repr(getattr(one, field.name)) for one in defaults)
        shown = f"default {usual}" + "".join(f"; with --short {value}" for value in short)
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, help=shown)
        else:
            parser.add_argument(name, type=type(field.default), help=shown)


def chosen_settings(default: SettingsT, options: argparse.Namespace) -> SettingsT:
    """A dataclass of settings with what was given in the place of its defaults."""
    names = [field.name for field in dataclasses.fields(default)]  # type: ignore[arg-type]
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    return dataclasses.replace(default, **given)  # type: ignore[type-var]


def train_command(name: str, settings: Any) -> str:
    """The command that trains by a dataclass of settings."""
    words = [f"python -m tools.train {name} --out runs/classifier"]
    for field in dataclasses.fields(settings):
        value, option = getattr(settings, field.name), field.name.replace("_", "-")
        if value != field.default:
            words.append(
                (f"--{option}" if value else f"--no-{option}")
                if value is True or value is False
                else f"--{option} {value}"
            )
    return " ".join(words)


def mean_command(first: str, second: str, share: float) -> str:
    """The commands of two runs, each with a folder of its own, and the one that averages their weights."""
    runs = [
        re.sub(r"\bruns/(?=(first|second|classifier)\b)", f"runs/{name}/", command)
        for name, command in (("first", first), ("second", second))
    ]
    files = "runs/first/classifier/last.pt runs/second/classifier/last.pt"
    return "; ".join([*runs, f"python -m tools.train average {files} --share {share} --out runs/classifier/last.pt"])


def plain_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a command as a checkpoint or JSON keeps them."""
    return {
        key: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for key, value in vars(options).items()
    }


def parse_shares(text: str, defaults: Mapping[str, float]) -> dict[str, float]:
    """ "a=.5,b=.5" over the defaults; ValueError where a part is not NAME=NUMBER or a name is unknown."""
    shares = dict(defaults)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in shares:
            raise ValueError(f"--shares: got {name!r}, expected one of {', '.join(shares)}")
        try:
            shares[name] = float(value)
        except ValueError:
            raise ValueError(f"--shares {name}: got {value!r}, expected a number") from None
    return shares
