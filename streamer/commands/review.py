"""`leukostream review`: look at, correct and sign a slide, on a page of this machine."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from engines.base import UsageError
from streamer.commands.options import Parser, add_key_options, add_linger_option
from streamer.commands.output import remark
from streamer.commands.page_server import add_server_options, page_packages, page_server
from streamer.records import REVIEWER


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    target: str
    """A journal, or the endpoint of a run."""
    recording: str | None
    """Of the same run; None: the one that the run itself kept, or its source."""
    bind: str
    publish: str | None
    linger: float
    reviewer: str | None
    tls_cert: str | None
    tls_key: str | None
    insecure: bool | None
    keys: str | None
    server_key: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "target",
        metavar="JOURNAL|ENDPOINT",
        help="what run --journal wrote, or where a run publishes that takes commands (tcp://…)",
    )
    parser.add_argument("recording", metavar="RECORDING", nargs="?", help="of the same run (default: the run's own)")
    parser.add_argument("--reviewer", metavar="INITIALS", help="who reviews; the page asks where it is not given")
    parser.add_argument("--publish", metavar="ENDPOINT", help="of a journal: publish each change, as a run does")
    add_linger_option(parser, 5.0)
    add_server_options(parser, "serve and publish beyond this machine unencrypted")
    add_key_options(parser)


def main(options: Options) -> int:
    """Serve until Ctrl-C. UsageError for options, LeukostreamError where something can't be had."""
    if options.reviewer is not None and not re.fullmatch(REVIEWER, options.reviewer):
        raise UsageError(
            f"--reviewer: got {options.reviewer!r}, expected initials: up to 16 letters, digits, '.', '-' and '_', the"
            " first a letter"
        )
    is_live = "://" in options.target
    if is_live and (options.publish or options.recording):
        what = "--publish" if options.publish else "a recording"
        raise UsageError(
            f"review {options.target}: got {what}, expected it with a journal only: a run publishes itself"
        )
    with page_packages("review"):
        from streamer.review.server.app import build_app
        from streamer.review.server.frames import FieldSource, JournalFields, NoFields
    from streamer.review.desk import Desk

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(page_server(options, "review"))
        fields: FieldSource
        desk: Desk
        if is_live:
            from streamer.review.live_desk import LiveDesk

            fields = NoFields()
            desk = LiveDesk(options.target, keys=options.keys, server_key=options.server_key)
        else:
            from streamer.review.journal_desk import JournalDesk

            fields = JournalFields(options.target, options.recording)  # first: the desk holds the journal alone
            stack.callback(fields.close)
            desk = JournalDesk(
                options.target,
                publish=options.publish,
                insecure=bool(options.insecure),
                keys=options.keys,
                linger_s=options.linger,
                on_fault=remark,
            )
        stack.callback(desk.close)
        app = build_app(desk, fields, reviewer=options.reviewer, **server.guarding)
        server.serve(app, "open that address in a browser; Ctrl-C ends the review")
    return 0
