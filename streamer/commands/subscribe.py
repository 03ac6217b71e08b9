"""`leukostream subscribe`: the messages of a streamer, as JSON Lines on standard output."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from streamer.commands.options import Parser, add_key_options, positive
from streamer.network.subscriber import Subscriber


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    endpoint: str
    topic: str
    """Messages whose topic begins so; "": all."""
    count: int | None
    """End after so many; None: when the user does."""
    keys: str | None
    server_key: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where it publishes, for example tcp://127.0.0.1:5555")
    group = parser.add_argument_group("messages", "which ones, and how many")
    group.add_argument("--topic", default="", metavar="PREFIX", help="for example differential; all if left out")
    group.add_argument("--count", type=positive, metavar="N", help="end after N messages")
    add_key_options(parser)


def main(options: Options) -> int:
    with Subscriber(options.endpoint, [options.topic], keys=options.keys, server_key=options.server_key) as subscriber:
        for number, received in enumerate(subscriber, start=1):
            sys.stdout.buffer.write(received.raw_header + b"\n")
            sys.stdout.flush()
            if number == options.count:
                break
    return 0
