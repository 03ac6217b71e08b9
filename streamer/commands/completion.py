"""`leukostream completion`: what makes a shell complete commands, options and file names."""

from __future__ import annotations

from dataclasses import dataclass

import shtab

from streamer.commands.options import Parser

INSTALL = {
    "bash": 'eval "$(leukostream completion bash)", in ~/.bashrc',
    "zsh": "leukostream completion zsh > a folder of $fpath/_leukostream",
    "fish": "leukostream completion fish > ~/.config/fish/completions/leukostream.fish",
}
"""How each shell takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    shell: str


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "shell", choices=tuple(INSTALL), help="; ".join(f"{name}: {how}" for name, how in INSTALL.items())
    )


def main(options: Options) -> int:
    from streamer.commands.table import whole_parser  # here, as the table imports this module

    print(shtab.complete(whole_parser(), options.shell))
    return 0
