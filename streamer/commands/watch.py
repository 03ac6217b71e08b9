"""`leukostream watch`: the dashboard of a streamer elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from streamer.commands.display import open_display
from streamer.commands.options import Parser, add_dashboard_options, add_key_options
from streamer.config import load_config
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import DifferentialMessage, Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    endpoint: str
    keys: str | None
    server_key: str | None
    dashboard: bool | None
    picture: bool | None
    map: bool | None


def add_options(parser: Parser) -> None:
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where it publishes, for example tcp://127.0.0.1:5555")
    add_dashboard_options(parser)
    add_key_options(parser)


def main(options: Options) -> int:
    """Show until the streamer publishes its final differential or the user leaves."""
    shown = {"dashboard": options.dashboard, "picture": options.picture, "map": options.map}
    config = load_config(None, {name: value for name, value in shown.items() if value is not None})
    display = open_display(config, sys.stdout, None)
    with Subscriber(options.endpoint, keys=options.keys, server_key=options.server_key) as subscriber, display:
        final: dict[str, bool] = {}
        while not display.quit_requested and not (final and all(final.values())):
            received = subscriber.receive(display.tick(time.monotonic_ns()))
            while received is not None:
                message = received.message
                if not isinstance(message, Envelope):
                    display.publish(message, received.payload)
                    known = final.setdefault(message.source, False)
                    final[message.source] = message.final if isinstance(message, DifferentialMessage) else known
                received = subscriber.receive(0)
    return 0
