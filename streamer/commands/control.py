"""`leukostream control`: one command to a running leukostream, and its reply as a JSON line."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from engines.base import LeukostreamError, UsageError
from streamer.commands.options import Parser, add_key_options, number, positive, whole
from streamer.network.subscriber import Subscriber
from streamer.protocol.requests import (
    COMMAND_TYPES,
    AnyCommand,
    AnyReply,
    AnyRequest,
    RefusedReply,
    StatusReply,
    StatusRequest,
    encode_reply,
    new_request_id,
)

ATTEMPTS = 3
"""The request is made so often, with the same id, before its reply is given up."""


REQUESTS = {
    "status": "what commands have done so far, and whether you may give any",
    "pause": "analyse no more frames",
    "resume": "go on after a pause",
    "new-slide": "end the session with its final differential and begin another one",
    "stop-at": "end when so many white cells are counted",
    "reclassify": "give a counted cell the class that you say it has",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    endpoint: str
    request: str
    """A key of REQUESTS."""
    source: str | None
    """May be left out where there is one."""
    id_: str | None
    """As it was given before, of a command whose reply was lost: it is carried out once."""
    timeout_s: float
    keys: str | None
    server_key: str | None
    cells: int | None = None
    """Of stop-at; None: no limit."""
    cell_id: int = -1
    class_: str | None = None
    """Of reclassify; None: the cell's looks decide again."""
    subclass: str | None = None

    def fields(self) -> dict[str, Any]:
        """Those of the command's message beside its id, run and source."""
        if self.request == "stop-at":
            return {"cells": self.cells}
        if self.request == "reclassify":
            return {"cell_id": self.cell_id, "class_": self.class_, "subclass": self.subclass}
        return {}


def add_options(parser: Parser) -> None:
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where it publishes, for example tcp://127.0.0.1:5555")
    requests = parser.add_subparsers(
        required=True, metavar="COMMAND", dest="request", parser_class=Parser, title="commands"
    )
    for name, about in REQUESTS.items():
        request = requests.add_parser(name, help=about, description=f"{about.capitalize()}.")
        if name == "stop-at":
            request.add_argument("cells", metavar="N|none", type=_cells, help="none: no limit any more")
        if name == "reclassify":
            request.add_argument("cell_id", type=whole, metavar="CELL", help="the cell_id of its messages")
            request.add_argument("class_", type=_class, metavar="CLASS", help='or "auto": its looks decide again')
            request.add_argument("--subclass", metavar="NAME", help="of that class")
        delivery = request.add_argument_group("delivery", "to which source, and how long to try")
        delivery.add_argument("--source", metavar="NAME", help="where there are several")
        delivery.add_argument("--id", dest="id_", metavar="ID", help="of a command whose reply was lost: done once")
        delivery.add_argument(
            "--timeout", dest="timeout_s", type=number, default=2.0, metavar="S", help="for each of three attempts"
        )
        add_key_options(request)


def main(options: Options) -> int:
    """Give a command ("status" asks only) and print the reply.

    LeukostreamError where nobody answers and where the command is refused, UsageError for an unknown source.
    """
    with Subscriber(
        options.endpoint,
        ["health."],
        keys=options.keys,
        server_key=options.server_key,
        reply_timeout_s=options.timeout_s,
    ) as subscriber:
        reply: AnyReply = _answer(subscriber, StatusRequest(id=new_request_id()))
        if options.request != "status":
            reply = _answer(subscriber, _command(options, reply))
    sys.stdout.buffer.write(encode_reply(reply) + b"\n")
    sys.stdout.flush()
    if isinstance(reply, RefusedReply):
        raise LeukostreamError(
            f"control {options.endpoint}: {options.request} was refused ({reply.code}): {reply.reason}"
        )
    return 0


def _cells(text: str) -> int | None:
    try:
        return None if text == "none" else positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or none") from None


def _class(text: str) -> str | None:
    return None if text == "auto" else text


def _command(options: Options, status: AnyReply) -> AnyCommand:
    request, source = options.request, options.source
    if not isinstance(status, StatusReply):
        raise LeukostreamError(f"control: got {status}, expected the status of a leukostream")
    names = ", ".join(status.sources) or "none"
    if source is None and len(status.sources) != 1:
        raise UsageError(f"control {request}: got no --source, expected one of: {names}")
    if source is not None and status.sources and source not in status.sources:
        raise UsageError(f"control {request}: got --source {source}, expected one of: {names}")
    if status.run_id is None:
        raise LeukostreamError("control: got a leukostream that has published nothing yet; try again in a moment")
    name = source or next(iter(status.sources))
    return COMMAND_TYPES[request.replace("-", "_")](
        id=options.id_ or new_request_id(), run_id=status.run_id, source=name, **options.fields()
    )


def _answer(subscriber: Subscriber, request: AnyRequest) -> AnyReply:
    for _ in range(ATTEMPTS):
        reply = subscriber.ask(request)
        if reply is not None:
            return reply
        subscriber.receive(0)  # RefusedError where our key is not wanted
    raise LeukostreamError(
        f"control {subscriber.endpoint}: got no reply to {request.id}, expected a leukostream that publishes there: "
        "check the address; with the same --id a command that did arrive is not carried out again"
    )
