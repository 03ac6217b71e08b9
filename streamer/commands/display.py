"""How a command shows a run to people: the dashboard on a terminal, else plain lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TextIO

from engines.base import UsageError
from streamer.config import Config
from streamer.dashboard import Dashboard, Display, PlainReporter, is_usable


def draws_dashboard(config: Config, stream: TextIO) -> bool:
    return config.dashboard is not False and is_usable(stream)


def open_display(
    config: Config,
    stream: TextIO,
    note: str | None,
    *,
    lengths: Callable[[], Mapping[str, int]] = dict,
    waits_for: str | None = None,
) -> Display:
    """UsageError where the dashboard was asked for and `stream` is no terminal. `note` stands beside the counts;
    `lengths` gives the frames that each source holds; `waits_for` is the endpoint of a streamer elsewhere."""
    if config.dashboard and not is_usable(stream):
        raise UsageError(
            "--dashboard: got an output that is no terminal, expected one; leave the option out for plain lines"
        )
    if draws_dashboard(config, stream):
        return Dashboard(
            stream,
            picture=config.picture,
            map_=config.map,
            note=note,
            ranges=config.reference_ranges,
            lengths=lengths,
            waits_for=waits_for,
        )
    return PlainReporter(stream, note=note, lengths=lengths, waits_for=waits_for)
