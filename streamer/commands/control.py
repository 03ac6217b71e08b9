"""`leukostream control`: one command to a running leukostream, and its reply as a JSON line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.base import LeukostreamError, UsageError
from streamer.commands.options import Parser, add_key_options, number, positive, whole
from streamer.commands.output import remark
from streamer.commands.slide_info import (
    ELSEWHERE,
    FIELDS,
    SCANNED,
    add_slide_options,
    add_wbc_options,
    said_of_slide,
    scanned,
    slide_info_of,
)
from streamer.network.subscriber import Subscriber
from streamer.protocol.requests import (
    COMMAND_TYPES,
    REQUEST_MAX_BYTES,
    AnyCommand,
    AnyReply,
    AnyRequest,
    DoneReply,
    RefusedReply,
    StatusReply,
    StatusRequest,
    encode_reply,
    encode_request,
    new_request_id,
)
from streamer.records import SlideInfo

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
    slide: str | None = None
    """What is known of the next slide, of new-slide, as below."""
    accession: str | None = None
    operator: str | None = None
    instrument: str | None = None
    stain: str | None = None
    magnification: str | None = None
    slide_info: str | None = None
    wbc: str | None = None
    wbc_includes_nrbc: bool | None = None

    def fields(self) -> dict[str, Any]:
        """Those of the command's message beside its id, run and source."""
        if self.request == "stop-at":
            return {"cells": self.cells}
        if self.request == "reclassify":
            return {"cell_id": self.cell_id, "class_": self.class_, "subclass": self.subclass}
        if self.request == "new-slide" and (slide := self._next_slide()) is not None:
            return {"slide": slide}
        return {}

    def _next_slide(self) -> SlideInfo | None:
        """None where nothing is known of it."""
        given: Mapping[str, str | None] = {name: getattr(self, name) for name in (*FIELDS, "slide_info")}
        typed = {
            name: scanned(f"--{name}", "the next slide") if text == SCANNED and name in ELSEWHERE else text
            for name, text in given.items()
        }
        said = said_of_slide(typed, self.wbc, bool(self.wbc_includes_nrbc))
        if self.wbc_includes_nrbc and "wbc" not in said:
            raise UsageError("--wbc-includes-nrbc: got no white-cell count, expected --wbc N too")
        return slide_info_of(said, "new-slide") if said else None


def add_options(parser: Parser) -> None:
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where it publishes, for example tcp://127.0.0.1:5555")
    requests = parser.add_subparsers(
        required=True, metavar="COMMAND", dest="request", parser_class=Parser, title="commands"
    )
    for name, about in REQUESTS.items():
        request = requests.add_parser(name, help=about, description=f"{about.capitalize()}.")
        if name == "stop-at":
            request.add_argument("cells", metavar="N|none", type=_cells, help="none: no limit any more")
        if name == "new-slide":
            next_slide = request.add_argument_group(
                "slide", "what is known of the next one; it is stored and published"
            )
            add_slide_options(next_slide)
            add_wbc_options(next_slide)
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
    fields = options.fields()  # first of all, as somebody may have to type them
    with Subscriber(
        options.endpoint,
        ["health."],
        keys=options.keys,
        server_key=options.server_key,
        reply_timeout_s=options.timeout_s,
    ) as subscriber:
        reply: AnyReply = _answer(subscriber, StatusRequest(id=new_request_id()))
        if options.request != "status":
            reply = _answer(subscriber, _command(options, fields, reply))
    sys.stdout.buffer.write(encode_reply(reply) + b"\n")
    sys.stdout.flush()
    if isinstance(reply, RefusedReply):
        raise LeukostreamError(
            f"control {options.endpoint}: {options.request} was refused ({reply.code}): {reply.reason}"
        )
    if isinstance(reply, DoneReply) and "slide" in fields and reply.state.slide is None:
        remark(f"control {options.endpoint}: the new slide has no name: that leukostream is older and knows none")
    return 0


def _cells(text: str) -> int | None:
    try:
        return None if text == "none" else positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or none") from None


def _class(text: str) -> str | None:
    return None if text == "auto" else text


def _command(options: Options, fields: Mapping[str, Any], status: AnyReply) -> AnyCommand:
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
    command = COMMAND_TYPES[request.replace("-", "_")](
        id=options.id_ or new_request_id(), run_id=status.run_id, source=name, **fields
    )
    if (size := len(encode_request(command))) > REQUEST_MAX_BYTES:
        raise UsageError(
            f"control {request}: got {size} bytes, expected at most {REQUEST_MAX_BYTES}: fewer or shorter fields"
        )
    return command


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
