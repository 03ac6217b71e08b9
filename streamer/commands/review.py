"""`leukostream review`: look at, correct and sign a slide, on a page of this machine."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from engines.base import LeukostreamError, UsageError
from streamer.commands.options import Parser, add_key_options, add_linger_option, flag
from streamer.commands.output import remark, say
from streamer.records import REVIEWER

PACKAGES = ("fastapi", "uvicorn")


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
    server = parser.add_argument_group("server", "where the page is served; its address is the first line of output")
    server.add_argument("--bind", metavar="HOST:PORT", default="127.0.0.1:0", help="port 0: any free one")
    server.add_argument("--tls-cert", metavar="FILE", help="a certificate, PEM; its page is https")
    server.add_argument("--tls-key", metavar="FILE", help="the certificate's key")
    flag(server, "--insecure", "serve and publish beyond this machine unencrypted")
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
    try:
        from streamer.review.server import serving
        from streamer.review.server.app import build_app
        from streamer.review.server.frames import FieldSource, JournalFields, NoFields
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in (*PACKAGES, "starlette", "pydantic"):
            raise
        raise LeukostreamError(
            f"review: got no package {error.name}, expected it for the page: pip install 'leukostream[review]'"
        ) from error
    from streamer.review.desk import Desk

    address = serving.address_of(options.bind)
    if (options.tls_cert is None) != (options.tls_key is None):
        given, other = ("--tls-cert", "--tls-key") if options.tls_cert else ("--tls-key", "--tls-cert")
        raise UsageError(f"{given}: got no {other}, expected both")
    certificate = None
    if options.tls_cert is not None and options.tls_key is not None:
        certificate = serving.Certificate(options.tls_cert, options.tls_key)
        serving.check_certificate(certificate)
    serving.check_reach(address, certificate, bool(options.insecure))
    with contextlib.ExitStack() as stack:
        bound = serving.listening(address)
        stack.callback(bound.close)
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
        token, scheme = serving.new_token(), "http" if certificate is None else "https"
        app = build_app(
            desk,
            fields,
            token=token,
            names=address.names(),
            any_address=address.is_everywhere,
            scheme=scheme,
            reviewer=options.reviewer,
        )
        url = serving.page_url(address, bound.getsockname()[1], token, scheme)

        def started() -> None:
            say(url)
            remark("open that address in a browser; Ctrl-C ends the review")

        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            serving.serve(app, bound, certificate, started)
    return 0
