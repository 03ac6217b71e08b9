"""The table of commands, and the parser of the command line that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from streamer import RESEARCH_USE
from streamer.commands.options import Parser
from streamer.commands.version import ShowVersion

COMMANDS = {
    "run": "count a camera, a film or a folder of pictures",
    "demo": "count the simulated slide",
    "watch": "the dashboard of a streamer elsewhere",
    "subscribe": "print messages as JSON Lines",
    "control": "pause, new slide, reclassify … a run elsewhere",
    "classify": "name the cell of each picture",
    "adapt": "a classifier for one laboratory, from its own cells",
    "explain": "where on each cell the evidence for its class lies",
    "reanalyse": "recordings, journals and slides again, side by side",
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
    "compile": "prepare a model for an NVIDIA GPU, as a TensorRT engine",
    "fleet": "inference servers on a Ray cluster, and how they and the microscopes do",
    "serve": "run the models for microscopes elsewhere",
    "keys": "CURVE keys for encrypted publishing",
    "cameras": "what is attached, and how to open it",
    "doctor": "what is installed and works here",
    "completion": "commands and options completed by bash, zsh or fish",
}
"""Each is the module of that name in streamer.commands."""


class Command(Protocol):
    """What the module of a command has."""

    Options: type[Any]
    """Its options as they were given, by the names that `add_options` gives them."""

    def add_options(self, parser: Parser) -> None: ...

    def main(self, options: Any) -> int:
        """Do it; the exit status. LeukostreamError where it can't be done."""


def module_of(name: str) -> Command:
    return cast(Command, import_module(f"streamer.commands.{name}"))


def whole_parser() -> Parser:
    """With the options of every command, for shells that complete them."""
    return parser_of({name: module_of(name) for name in COMMANDS})


def parser_of(modules: Mapping[str, Command]) -> Parser:
    """All commands; those of `modules` with their options."""
    parser = Parser(
        prog="leukostream",
        description=f"Live white-cell differential of a stained blood smear. {RESEARCH_USE}",
        epilog="leukostream COMMAND --help shows the options of a command.",
    )
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser, title="commands")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name in modules:
            modules[name].add_options(command)
    return parser
