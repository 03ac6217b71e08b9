"""`leukostream mosaic`: the visited area of a slide as one picture, with the counted cells marked."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engines.base import LeukostreamError, UsageError
from engines.geometry import Image
from streamer.commands.options import Parser, positive, whole
from streamer.commands.output import reporting, say, writing
from streamer.commands.progress import track
from streamer.journal import JournalError, StoredSession, opened
from streamer.mosaic import deep_zoom
from streamer.mosaic.compose import Composed, compose, pictures_of, plural
from streamer.mosaic.pictures import Pictures
from streamer.mosaic.places import PlacedFrame
from streamer.mosaic.scale import scale_of
from streamer.mosaic.visited import Visited, look_over
from streamer.recording.format import FILE_HEADER_BYTES, version_of

DEEP_ZOOM = ".dzi"
FORMATS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", DEEP_ZOOM)

LEAST_SIDE = 400
MOST_SIDE = 6000
"""Of a picture that is looked at whole, unless --max-side says otherwise."""
MOST_SIDE_DEEP_ZOOM = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    recording: str | None
    """Of the same run; None: the one that the run itself kept, or its source."""
    out: str
    max_side: int | None
    """None: MOST_SIDE, or MOST_SIDE_DEEP_ZOOM."""
    source: str | None
    island: int | None
    """None: all, side by side."""
    marks: bool


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")
    parser.add_argument("recording", metavar="RECORDING", nargs="?", help="of the same run (default: the run's own)")
    output = parser.add_argument_group("output", "the picture")
    output.add_argument(
        "-o", dest="out", metavar="FILE", required=True, help="a .png, .jpg or .tif; .dzi: in tiles, to zoom into"
    )
    output.add_argument(
        "--max-side",
        type=positive,
        metavar="PX",
        help=f"of the picture (default: {MOST_SIDE}; of a .dzi {MOST_SIDE_DEEP_ZOOM})",
    )
    output.add_argument("--marks", action=argparse.BooleanOptionalAction, default=True, help="mark the counted cells")
    part = parser.add_argument_group("part", "what of the journal it shows")
    part.add_argument("--source", metavar="NAME", help="which session, where the journal has several")
    part.add_argument("--island", type=whole, metavar="N", help="only this one; else all, side by side")


def main(options: Options) -> int:
    """Write the picture to `options.out`, its longer side `max_side` pixels at most.

    UsageError for an `out` of another format and an unknown source or island, JournalError and RecordingError for the
    files, LeukostreamError where frames can't be had or the picture can't be written.
    """
    journal, out = options.journal, options.out
    suffix = Path(out).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"-o {out}: got {Path(out).suffix or 'no suffix'}, expected one of {', '.join(FORMATS)}")
    if suffix == DEEP_ZOOM and (tiles := deep_zoom.folder_of(Path(out))).exists():
        raise UsageError(f"-o {out}: got the folder {tiles}, which is there already; remove it, or give another name")
    max_side = options.max_side or (MOST_SIDE_DEEP_ZOOM if suffix == DEEP_ZOOM else MOST_SIDE)
    if max_side < LEAST_SIDE:
        raise UsageError(f"--max-side: got {max_side}, expected at least {LEAST_SIDE}")
    _refuse_recording(journal)
    with opened(journal) as reader, contextlib.ExitStack() as stack:
        session = _session(reader.sessions, options.source, journal)
        visited = look_over(session)
        chosen = _islands(visited, options.island, session.source)
        pictures = pictures_of(session, options.recording)
        stack.callback(pictures.close)
        measure = scale_of(session, visited.counted.count.evidence(final=session.ended).rbc_px)
        made = compose(
            visited, chosen, WithBar(pictures), max_side, session.name, with_marks=options.marks, measure=measure
        )
    _write(made, out)
    frames = sum(len(visited.islands[number]) for number in chosen)
    cells = sum(len(visited.cells.get(number, ())) for number in chosen)
    missing = f"; {plural(visited.lost, 'frame')} without a place, not in it" if visited.lost else ""
    say(
        f"{out}: {made.width} x {made.height} px, 1:{1 / made.scale:.3g}, {plural(len(chosen), 'island')},"
        f" {plural(frames, 'frame')}, {plural(cells, 'cell')}{missing}"
    )
    return 0


class WithBar:
    """Pictures of frames, and a bar while they are read."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def of(self, frames: Sequence[PlacedFrame]) -> Iterator[tuple[PlacedFrame, Image]]:
        return track(self._pictures.of(frames), "frames", len(frames))

    def close(self) -> None:
        self._pictures.close()


def _refuse_recording(path: str) -> None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if version_of(file.read(FILE_HEADER_BYTES)) is not None:
            raise JournalError(
                f"mosaic {path}: got a recording, expected a journal, which knows where the frames lie; make one with:"
                f" leukostream run --source replay:{path} --journal slide.db, then leukostream mosaic slide.db -o …"
            )


def _session(sessions: Sequence[StoredSession], source: str | None, where: str) -> StoredSession:
    by_source = {session.source: session for session in sessions}
    if source is None and len(by_source) == 1:
        return sessions[-1]
    if source is None or source not in by_source:
        got = "several sources" if source is None else f"source {source!r}"
        raise UsageError(f"mosaic {where}: got {got}, expected --source with one of: {', '.join(by_source)}")
    return by_source[source]


def _islands(visited: Visited, island: int | None, source: str) -> list[int]:
    if not visited.islands:
        raise LeukostreamError(f"mosaic: got no frame of {source!r} that has a place on the slide, expected some")
    if island is not None and island not in visited.islands:
        known = ", ".join(map(str, sorted(visited.islands)[:20]))
        raise UsageError(f"--island: got {island}, expected one of {source!r}: {known}")
    return list(visited.islands) if island is None else [island]


def _write(made: Composed, out: str) -> None:
    if Path(out).suffix.lower() == DEEP_ZOOM:
        with reporting("-o", out):
            deep_zoom.write(Path(out), made.width, made.height, (made.canvas, made.legend))
        return
    done, encoded = cv2.imencode(Path(out).suffix.lower(), np.concatenate([made.canvas, made.legend]))
    if not done:
        raise LeukostreamError(f"-o {out}: got a picture that can't be encoded, expected one; try .png")
    with writing(out) as file:
        file.write(encoded.tobytes())
