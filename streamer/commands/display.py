"""How a command shows a run to people: the dashboard on a terminal, else plain lines."""

from __future__ import annotations

from typing import TextIO

from engines.base import UsageError
from streamer.config import Config
from streamer.dashboard import Dashboard, Display, PlainReporter, is_usable


def draws_dashboard(config: Config, stream: TextIO) -> bool:
    return config.dashboard is not False and is_usable(stream)


def open_display(config: Config, stream: TextIO, note: str | None) -> Display:
    """UsageError where the dashboard was asked for and `stream` is no terminal. `note` stands beside the counts."""
    if config.dashboard and not is_usable(stream):
        raise UsageError(
            "--dashboard: got an output that is no terminal, expected one; leave the option out for plain lines"
        )
    if draws_dashboard(config, stream):
        return Dashboard(stream, picture=config.picture, map_=config.map, note=note, ranges=config.reference_ranges)
    return PlainReporter(stream, note=note)
