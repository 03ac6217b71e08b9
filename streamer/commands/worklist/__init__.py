"""`leukostream worklist`: the slides of many journals in one list. What a list is, is in streamer/worklist."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from streamer.commands.options import Group, Parser, positive
from streamer.commands.page_server import add_server_options
from streamer.interop.formats import needed
from streamer.worklist.entries import STATES, SlideState

VERDICTS = ("ready for review", "incomplete", "do not use")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of the command that was given; what the others alone have keeps its default."""

    command: Literal["add", "list", "serve"]
    to: str
    journals: tuple[str, ...] | list[str] = ()
    """Empty: those that the list knows of this machine."""
    state: SlideState | None = None
    verdict: str | None = None
    flag: str | None = None
    since: str | None = None
    text: str | None = None
    limit: int | None = None
    jsonl: bool = False
    bind: str = ""
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool | None = None


def add_options(parser: Parser) -> None:
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", dest="command", parser_class=Parser, title="commands"
    )
    about = "put journals in, or look at them again"
    add = commands.add_parser("add", help=about, description=f"{about[0].upper()}{about[1:]}.")
    add.add_argument(
        "journals",
        metavar="JOURNAL|DIR",
        nargs="*",
        help="what run --journal wrote, or a folder of such (default: those of this machine that the list knows)",
    )
    _add_to(add)
    about = "print what is in the list, the newest slide first"
    print_ = commands.add_parser("list", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_to(print_)
    which = print_.add_argument_group("filters", "what is printed")
    which.add_argument("--state", choices=STATES, help=", ".join(STATES))
    which.add_argument("--verdict", choices=VERDICTS, help="of the result")
    which.add_argument("--flag", metavar="CODE|CLASS|any", help="slides with such a flag, for example blast")
    which.add_argument("--since", metavar="DATE|Nd", help="begun then or later: 2026-11-30, 2026-11-30T08:00, or 7d")
    which.add_argument("--text", metavar="WORDS", help="all stand in names, flags or the path")
    which.add_argument("--limit", metavar="N", type=positive, help="so many at most (default: all)")
    print_.add_argument("--jsonl", action="store_true", help="one JSON object a line, with all that is known")

    about = "a page of the list, of this machine"
    page = commands.add_parser("serve", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_to(page)
    add_server_options(page, "serve beyond this machine unencrypted")


def _add_to(group: Group) -> None:
    group.add_argument(
        "--to",
        metavar="DIR|sqlite:///FILE|postgresql://…",
        required=True,
        help="where the list is; a password is better left to PGPASSWORD or ~/.pgpass",
    )


def main(options: Options) -> int:
    """1 where a journal could not be read."""
    with needed("worklist", "worklist"):
        from streamer.commands.worklist.adding import add
        from streamer.commands.worklist.printing import print_list
        from streamer.commands.worklist.serving import serve
        from streamer.worklist.finding import Filter, since_utc
    if options.command == "add":
        return add(options.to, options.journals)
    if options.command == "serve":
        return serve(options.to, options)
    found = Filter(
        state=options.state,
        verdict=options.verdict,
        flag=options.flag,
        since_utc=None if options.since is None else since_utc(options.since, datetime.now(UTC)),
        words=tuple((options.text or "").split()),
        limit=options.limit,
    )
    return print_list(options.to, found, as_json=options.jsonl)
