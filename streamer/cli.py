"""The command line: a table of commands. Only the module of the command that was called is imported.

Exit status: 0 done, 1 the work failed, 2 bad usage; both with one line on standard error.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from engines.base import LeukostreamError, UsageError
from streamer import RESEARCH_USE, __version__
from streamer.commands.options import Parser
from streamer.commands.output import remark

COMMANDS = {
    "run": "analyse sources",
    "demo": "count the simulated slide",
    "watch": "the dashboard of a streamer elsewhere",
    "subscribe": "print messages as JSON Lines",
    "control": "pause, new slide, reclassify … a run elsewhere",
    "classify": "name the cell of each picture",
    "adapt": "a classifier for one laboratory, from its own cells",
    "explain": "Grad-CAM overlays of pictures",
    "recount": "count a journal again",
    "export": "cells, boxes and pictures of a journal",
    "send": "results to a laboratory system, HL7 over MLLP",
    "bridge": "pass results on to MQTT, a webhook, NATS or Kafka",
    "compare": "two counts of the same slides, and whether they agree",
    "sign": "freeze a reviewed slide of a journal",
    "worklist": "the slides of many journals in one list",
    "qc": "a reference slide counted again, and focus, light and colour over time",
    "mosaic": "the visited area as one picture, cells marked",
    "report": "a page of a journal to read and print: verdict, cells, quality",
    "review": "look at, correct and sign a slide, on a page of this machine",
    "play": "publish the messages of a recording again",
    "models": "the models and their measured figures",
    "compile": "build a TensorRT engine",
    "serve": "run the models for microscopes elsewhere",
    "keys": "CURVE keys for encrypted publishing",
    "cameras": "what is attached, and how to open it",
    "doctor": "what is installed and works here",
}
"""Each is the module of that name in streamer.commands."""


class Command(Protocol):
    """What the module of a command has."""

    Options: type[Any]
    """Its options as they were given, by the names that `add_options` gives them."""

    def add_options(self, parser: Parser) -> None: ...

    def main(self, options: Any) -> int:
        """Do it; the exit status. LeukostreamError where it can't be done."""


def parse(words: Sequence[str]) -> tuple[Command, Any]:
    """The command that was called, and its Options. UsageError for what can't be meant; --help ends the program."""
    parser = Parser(
        prog="leukostream",
        description=f"Live white-cell differential of a stained blood smear. {RESEARCH_USE}",
        epilog="leukostream COMMAND --help shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"leukostream {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser, title="commands")
    called = next((word for word in words if word in COMMANDS), None)
    module = None if called is None else cast(Command, import_module(f"streamer.commands.{called}"))
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if module is not None and name == called:
            module.add_options(command)
    options = vars(parser.parse_args(words))
    assert module is not None, "argparse takes no words without a command"
    return module, module.Options(**options)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        command, options = parse(sys.argv[1:] if arguments is None else arguments)
        status = command.main(options)
        sys.stdout.flush()
        return status
    except LeukostreamError as error:
        remark(str(error))
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has closed it (`| head`)
        _drop_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        remark("got a full disk, expected room for the output; free some, or write elsewhere")
        return 1


def _drop_output() -> None:
    """Keep the interpreter from failing once more, at exit, to write what standard output still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
