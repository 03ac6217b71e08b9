"""`leukostream subscribe`: the messages of a streamer, as JSON Lines on standard output; what it waits for goes to
standard error."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from streamer.commands.options import Parser, add_key_options, positive
from streamer.commands.output import remark
from streamer.network.silence import Waiting, waiting_lines
from streamer.network.subscriber import Subscriber
from streamer.protocol.lines import json_line

_SLICE_S = 0.5
"""How long to wait at most before looking whether all have ended: an end is noticed whatever was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    endpoint: str
    topic: str
    """Messages whose topic begins so; "": all."""
    count: int | None
    """End after so many; None: when the user does."""
    until_end: bool
    """End when every source heard of has ended."""
    keys: str | None
    server_key: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where it publishes, for example tcp://127.0.0.1:5555")
    group = parser.add_argument_group("messages", "which ones, and how many")
    group.add_argument("--topic", default="", metavar="PREFIX", help="for example differential; all if left out")
    group.add_argument("--count", type=positive, metavar="N", help="end after N messages")
    group.add_argument("--until-end", action="store_true", help="end when every source has ended")
    add_key_options(parser)


def main(options: Options) -> int:
    with Subscriber(options.endpoint, [options.topic], keys=options.keys, server_key=options.server_key) as subscriber:
        taken = 0
        waiting: Waiting | None = Waiting(options.endpoint, time.monotonic_ns())
        told = 0
        while taken != options.count:
            is_over = options.until_end and subscriber.is_over
            received = subscriber.receive(0 if is_over else _SLICE_S)
            if received is None and waiting is not None:
                lines = waiting_lines(waiting, time.monotonic_ns())
                for line in lines[told:]:
                    remark(line)
                told = len(lines)
            if received is not None:
                waiting = None
                sys.stdout.buffer.write(json_line(received.raw_header))
                sys.stdout.flush()
                taken += 1
            elif is_over:
                break
    return 0
