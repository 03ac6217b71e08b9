"""The visited area of a slide as one picture, with the counted cells marked.

places: where every frame lies, at the end of all corrections, and which frames are needed. pictures: where the frames'
pixels come from. light: the lamp, estimated from the frames and taken out. stitching: frames to one canvas an island.
layout: islands side by side. marks: cells, legend. compose: puts them together and writes the file.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from streamer.commands.options import Parser, positive, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    recording: str | None
    """Of the same run; None: the one that the run itself kept, or its source."""
    out: str
    max_side: int
    source: str | None
    island: int | None
    """None: all, side by side."""
    marks: bool


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")
    parser.add_argument("recording", metavar="RECORDING", nargs="?", help="of the same run (default: the run's own)")
    output = parser.add_argument_group("output", "the picture")
    output.add_argument("-o", dest="out", metavar="FILE", required=True, help="a .png, .jpg or .tif")
    output.add_argument("--max-side", type=positive, default=6000, metavar="PX", help="of the picture")
    output.add_argument("--marks", action=argparse.BooleanOptionalAction, default=True, help="mark the counted cells")
    part = parser.add_argument_group("part", "what of the journal it shows")
    part.add_argument("--source", metavar="NAME", help="which session, where the journal has several")
    part.add_argument("--island", type=whole, metavar="N", help="only this one; else all, side by side")


def main(options: Options) -> int:
    from streamer.commands.mosaic.compose import mosaic  # the other modules of this package need no options

    return mosaic(options)
