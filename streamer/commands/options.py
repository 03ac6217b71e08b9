"""The parser of the command line and the options that several commands share.

What a user mistypes is a UsageError of one line that names the near words. argparse offers no error type that says
which word of which option was wrong, so `Parser` checks options and choices itself before argparse does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from engines.base import UsageError, near
from streamer.config import DEFAULT_CLASSIFIER, Config

Group = argparse._ActionsContainer
"""A parser, or a titled group of its options."""


class _Help(argparse.HelpFormatter):
    """Names the default of every option that has one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment  # its commands stand one step further in

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        if default in (None, False, "", argparse.SUPPRESS) or "(default" in text:
            return text
        return f"{text} (default: {'on' if default is True else default})".lstrip()


class Parser(argparse.ArgumentParser):
    """No abbreviations, defaults in the help, and UsageError for every fault."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "exit_on_error": False, "formatter_class": _Help, **settings})

    def parse_known_args(  # type: ignore[override]  # nobody here passes a namespace of another type
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = list(args or ())
        self._refuse_unknown_options(words)
        try:
            parsed, rest = super().parse_known_args(words, namespace)
        except argparse.ArgumentError as error:
            raise self._fault(f"{error.argument_name or ''}: {_got(error.message)}".removeprefix(": ")) from None
        if rest:
            raise self._fault(f"got {rest[0]!r}, expected nothing more")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        raise self._fault(_got(message))

    def _refuse_unknown_options(self, words: Iterable[str]) -> None:
        """Before argparse looks at the rest: a misspelt option must not read as another one that is missing."""
        known = [name for action in self._actions for name in action.option_strings if action.help != argparse.SUPPRESS]
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return  # values follow, or the words of a subcommand, which has its own parser
            name = word.partition("=")[0]
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                raise self._fault(f"got the option {name!r}, which does not exist{near(name, known, cutoff=0.7)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        got = f"got {value!r}" if action.metavar != "COMMAND" else f"got the command {value!r}"
        what = "".join(f"{name}: " for name in action.option_strings)
        raise self._fault(f"{what}{got}, expected one of {', '.join(known)}{near(str(value), known, cutoff=0.6)}")

    def _fault(self, message: str) -> UsageError:
        hint = "" if message.endswith("?") else f"; see: {self.prog} --help"
        return UsageError(message + hint)


def _got(message: str) -> str:
    """What argparse says, as our errors do."""
    if (missing := re.fullmatch(r"the following arguments are required: (.*)", message)) is not None:
        names = missing.group(1).split(", ")
        return f"got no {' and no '.join(names)}, which {'has' if len(names) == 1 else 'have'} to be given"
    return re.sub(r"^expected (at least )?one argument$", r"got nothing, expected \1one value", message)


def flag(group: Group, name: str, text: str) -> None:
    """An option without a value; None where it is not given, so that a configuration file may say."""
    group.add_argument(name, action="store_true", default=None, help=text)


def switch(group: Group, name: str, text: str) -> None:
    """`--name` and `--no-name`; None where neither is given."""
    group.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=text)


def add_key_options(parser: Parser) -> None:
    """For those who connect to a publisher that may be encrypted."""
    group = parser.add_argument_group("security", "for a publisher that encrypts")
    group.add_argument("--keys", metavar="DIR", help="your own key folder")
    group.add_argument("--server-key", metavar="FILE", help="the publisher's public key")


def add_dashboard_options(parser: Parser) -> None:
    group = parser.add_argument_group("dashboard", "in the terminal; ? there shows its keys")
    switch(group, "--dashboard", "draw it (default: on where the output is a terminal)")
    switch(group, "--picture", "draw the current frame (default: where it is wide enough)")
    switch(group, "--map", "draw the map of the slide in place of the frame (default: off)")


def add_output_options(parser: Parser) -> None:
    """Where a run publishes."""
    group = parser.add_argument_group("publishing", "where the messages go")
    group.add_argument("--publish", metavar="ENDPOINT", help="ZeroMQ address, for example tcp://127.0.0.1:5555")
    add_linger_option(group, None)
    add_metrics_option(group)
    group.add_argument("--jsonl", metavar="FILE|-", help="write the messages, one a line")
    security = parser.add_argument_group("security", "who may read what is published, and who may give commands")
    flag(security, "--insecure", "publish, and ask inference servers, beyond this machine unencrypted")
    security.add_argument("--keys", metavar="DIR", help="encrypt, for those whose keys are in this key folder")
    flag(security, "--control", "take commands without keys")


def add_metrics_option(group: Group) -> None:
    group.add_argument("--metrics", metavar="PORT", help="serve /metrics for Prometheus, /healthz and /readyz")


def add_linger_option(group: Group, default: float | None) -> None:
    group.add_argument(
        "--linger",
        type=seconds,
        default=default,
        metavar="SECONDS",
        help="go on answering subscribers so long at most, until all were sent the end; 0: not at all",
    )


def add_production_option(group: Group) -> None:
    group.add_argument(
        "--production",
        action="store_true",
        help="HL7 for routine use: MSH-11 P, and no note that it is for research; you answer for that",
    )


def add_classifier_option(group: Group) -> None:
    group.add_argument("--classifier", metavar="NAME|FILE", default=DEFAULT_CLASSIFIER, help="names the cells")


def add_site_option(group: Group) -> None:
    group.add_argument("--site", metavar="SITE/", help="names the cells by the profile that leukostream adapt wrote")


def seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds, such as 5 or 0")
    return float(text)


def positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not int(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def size_of(text: str) -> tuple[int, int]:
    """Width and height of frames, given with --size."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--size: got {text!r}, expected WIDTHxHEIGHT of the frames, for example 640x480")
    return int(width), int(height)


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number") from None


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number") from None


def show_defaults(parser: Parser, config: Config) -> None:
    """Put the defaults of the configuration into the help of the options that are its fields."""
    for action in parser._actions:
        default = getattr(config, action.dest, None)
        if default not in (None, False, ()) and "(default" not in (action.help or ""):
            action.help = f"{action.help} (default: {default})"
