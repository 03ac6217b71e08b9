"""`leukostream mosaic`: the visited area of a slide as one picture, with the counted cells marked."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from engines.base import LeukostreamError, UsageError
from engines.geometry import Image
from streamer.commands.options import Parser, positive, whole
from streamer.commands.output import say, writing
from streamer.commands.progress import track
from streamer.journal import JournalError, StoredSession, opened
from streamer.mosaic.compose import compose, pictures_of, plural
from streamer.mosaic.pictures import Pictures
from streamer.mosaic.places import PlacedFrame
from streamer.mosaic.visited import Visited, look_over
from streamer.recording.format import FILE_HEADER_BYTES, version_of

FORMATS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

LEAST_SIDE = 400


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
    """Write the picture to `options.out`, its longer side `max_side` pixels at most.

    UsageError for an `out` of another format and an unknown source or island, JournalError and RecordingError for the
    files, LeukostreamError where frames can't be had or the picture can't be written.
    """
    journal, out, max_side = options.journal, options.out, options.max_side
    if Path(out).suffix.lower() not in FORMATS:
        raise UsageError(f"-o {out}: got {Path(out).suffix or 'no suffix'}, expected one of {', '.join(FORMATS)}")
    if max_side < LEAST_SIDE:
        raise UsageError(f"--max-side: got {max_side}, expected at least {LEAST_SIDE}")
    _refuse_recording(journal)
    with opened(journal) as reader, contextlib.ExitStack() as stack:
        session = _session(reader.sessions, options.source, journal)
        visited = look_over(session)
        chosen = _islands(visited, options.island, session.source)
        pictures = pictures_of(session, options.recording)
        stack.callback(pictures.close)
        picture, scale = compose(visited, chosen, WithBar(pictures), max_side, session.source, with_marks=options.marks)
    _write(picture, out)
    frames = sum(len(visited.islands[number]) for number in chosen)
    cells = sum(len(visited.cells.get(number, ())) for number in chosen)
    missing = f"; {plural(visited.lost, 'frame')} without a place, not in it" if visited.lost else ""
    say(
        f"{out}: {picture.shape[1]} x {picture.shape[0]} px, 1:{1 / scale:.3g}, {plural(len(chosen), 'island')},"
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


def _write(picture: Image, out: str) -> None:
    done, encoded = cv2.imencode(Path(out).suffix.lower(), picture)
    if not done:
        raise LeukostreamError(f"-o {out}: got a picture that can't be encoded, expected one; try .png")
    with writing(out) as file:
        file.write(encoded.tobytes())
