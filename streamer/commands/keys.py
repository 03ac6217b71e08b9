"""`leukostream keys new`: a key folder for encrypted publishing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamer.commands.options import Parser
from streamer.commands.output import say
from streamer.network.auth import new_pair
from streamer.network.keys import write_key_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    folder: str


def add_options(parser: Parser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser, title="commands")
    new = commands.add_parser("new", help="make a key folder", description="Make a key folder.")
    new.add_argument("folder", metavar="DIR", help="must not exist yet, or be empty")


def main(options: Options) -> int:
    folder = Path(options.folder)
    write_key_folder(folder, new_pair())
    say(f"made {folder}: give away leukostream.key only; put the public keys of others into authorised/")
    return 0
