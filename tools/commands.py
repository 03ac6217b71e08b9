"""`python -m tools.ROOM NAME …`: the first word is a module of the room, which reads the other words."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from engines.base import LeukostreamError


def command_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m COMMAND`, which shows a module's first lines as they are."""
    return argparse.ArgumentParser(
        prog=f"python -m {command}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def dispatch(room: str, names: Mapping[str, str], arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first of `arguments` names; `names`: name -> what it does. The exit status.

    The module of a name is imported on use only, so that `--help` needs none of what trains.
    """
    parser = command_parser(f"tools.{room}", sys.modules[f"tools.{room}"].__doc__)
    parser.epilog = "\n".join(f"  {name:20} {does}" for name, does in names.items())
    parser.add_argument("name", metavar="NAME", choices=list(names), help="one of those below; NAME --help for more")
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = parser.parse_args(words[:1]).name
    return start(f"tools.{room}", name, words[1:])


def start(room: str, name: str, words: Sequence[str]) -> int:
    """Run a command's module; the exit status."""
    try:
        module = importlib.import_module(f"{room}.{name.replace('-', '_')}")
        return int(module.main(list(words)) or 0)
    except (LeukostreamError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"python -m {room} {name}: {error}", file=sys.stderr)
        return 1
