"""The sources of a run, opened, and what the journal and the recording call them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.commands.output import remark
from streamer.config import Config
from streamer.records import Mode
from streamer.sources import Source, SourceAddress, open_source, parse_source, unique_names


@dataclass(frozen=True, slots=True, eq=False)
class OpenedSource:
    source: Source
    mode: Mode
    address: str
    """The same for the same source, from whatever folder it is named."""

    @property
    def name(self) -> str:
        return self.source.name


def open_sources(config: Config) -> Iterator[OpenedSource]:
    for address in unique_names([parse_source(text) for text in config.source]):
        source = open_source(address, mode=config.mode)
        for line in getattr(source, "remarks", ()):
            remark(line)
        yield OpenedSource(source, config.mode or source.default_mode, _whole(address))


def _whole(address: SourceAddress) -> str:
    shown = os.path.realpath(os.path.expanduser(address.shown)) if address.kind == "path" else address.shown
    return f"{address.kind}:{shown}"
