"""Where frames come from. `parse_source` reads what a person wrote, `open_source` makes the source of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from engines.base import UsageError
from streamer.sources.address import SourceAddress, parse_source, unique_names
from streamer.sources.base import Source, SourceError, SourceLostError
from streamer.sources.images import ImagesSource

__all__ = [
    "Source",
    "SourceAddress",
    "SourceError",
    "SourceLostError",
    "open_source",
    "parse_source",
    "unique_names",
]


def open_source(address: SourceAddress, *, now_ns: Callable[[], int] = time.monotonic_ns) -> Source:
    """The source of an address, constructed and not yet opened.

    SourceError for a path that does not exist, UsageError for a kind that this version does not have.
    """
    if address.kind == "path":
        return ImagesSource(address.name, address.target, now_ns)
    raise UsageError(f"--source {address.kind}:: got a kind of source that comes with a later version")
