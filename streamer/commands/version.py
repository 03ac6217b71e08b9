"""`leukostream --version`: the version, and those of what runs the models."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

from streamer import __version__
from streamer.commands.output import say

BACKENDS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13-bindings",),
}
"""What --backend may name -> the packages that bring it."""


def version_lines() -> list[str]:
    """Nothing is imported for them: packages say their versions themselves."""
    return [
        f"leukostream {__version__}",
        f"python {platform.python_version()}",
        *(f"{name} {_installed(packages) or 'not installed'}" for name, packages in BACKENDS.items()),
    ]


def _installed(packages: Sequence[str]) -> str | None:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


class ShowVersion(argparse.Action):
    """Prints it and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show it, and those of the backends")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for line in version_lines():
            say(line)
        parser.exit()
