"""`leukostream watch`: the dashboard of a streamer elsewhere, with its keys where commands are allowed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from streamer.commands.display import open_display
from streamer.commands.options import Parser, add_dashboard_options, add_key_options
from streamer.commands.remote_commands import RemoteCommands
from streamer.config import load_config
from streamer.dashboard import Dashboard
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import AnyMessage, DifferentialMessage, Envelope, HealthMessage

END_WAIT_S = 2.0
"""How long the `end` is waited for after the final differential: older streamers send none."""


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
    """Show until all sources of the streamer have ended or the user leaves."""
    shown = {"dashboard": options.dashboard, "picture": options.picture, "map": options.map}
    config = load_config(None, {name: value for name, value in shown.items() if value is not None})
    display = open_display(config, sys.stdout, None, waits_for=options.endpoint)
    with Subscriber(options.endpoint, keys=options.keys, server_key=options.server_key) as subscriber, display:
        final: dict[str, bool] = {}
        final_since: float | None = None
        commands = RemoteCommands(subscriber)
        if isinstance(display, Dashboard):
            display.obey(commands)
        while not (display.quit_requested or subscriber.is_over or _since(final_since) > END_WAIT_S):
            received = subscriber.receive(display.tick(time.monotonic_ns()))
            while received is not None:
                message = received.message
                if not isinstance(message, Envelope):
                    display.publish(message, received.payload)
                    final[message.source] = _is_final(message, final.get(message.source, False))
                received = subscriber.receive(0)
            commands.serve()
            all_final = bool(final) and all(final.values())
            final_since = (final_since or time.monotonic()) if all_final else None
        display.stay()
    return 0


def _is_final(message: AnyMessage, before: bool) -> bool:
    """Whether a source may have ended with a final differential; after the `end` that mostly follows, that says so."""
    if isinstance(message, DifferentialMessage):
        return message.final
    return before and isinstance(message, HealthMessage)


def _since(moment: float | None) -> float:
    return 0.0 if moment is None else time.monotonic() - moment
