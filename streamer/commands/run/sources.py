"""The sources of a run, opened, and what the journal and the recording call them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.base import UsageError, near
from streamer.commands.output import remark
from streamer.config import Config
from streamer.records import Mode
from streamer.sources import Source, SourceAddress, open_source, parse_source, unique_names
from streamer.sources.address import split_name, split_options
from streamer.stage.static_mask import BoxPx

_BOX = re.compile(r"\d+(\.\d+)?(,\d+(\.\d+)?){3}")


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
        source = open_source(address, mode=config.mode, say=remark)
        for line in getattr(source, "remarks", ()):
            remark(line)
        yield OpenedSource(source, config.mode or source.default_mode, _whole(address))


def ignored_boxes(given: Sequence[str], sources: Sequence[str]) -> dict[str, list[BoxPx]]:
    """The boxes of each source from values `[NAME=]X1,Y1,X2,Y2`; those without a name are of all.

    UsageError for a name that no source has and for what is no box.
    """
    boxes: dict[str, list[BoxPx]] = {source: [] for source in sources}
    for value in given:
        name, text = split_name(value, "--ignore-box")
        if name is not None and name not in boxes:
            raise UsageError(
                f"--ignore-box {value!r}: got the source {name!r}, which this run has not"
                f"{near(name, list(sources)) or ';'} expected one of: {', '.join(sources)}"
            )
        if not _BOX.fullmatch(text):
            raise UsageError(f"--ignore-box {value!r}: got no box, expected X1,Y1,X2,Y2 in pixels, such as 0,0,320,32")
        x1, y1, x2, y2 = (float(number) for number in text.split(","))
        if x1 >= x2 or y1 >= y2:
            raise UsageError(f"--ignore-box {value!r}: got an empty box, expected X1 below X2 and Y1 below Y2")
        for source in sources if name is None else (name,):
            boxes[source].append((x1, y1, x2, y2))
    return boxes


def _whole(address: SourceAddress) -> str:
    shown = address.shown
    if address.kind == "path":
        shown = _real(shown)
    elif address.kind == "wsi":
        path, _ = split_options(shown)
        shown = _real(path) + shown[len(path) :]
    return f"{address.kind}:{shown}"


def _real(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))
