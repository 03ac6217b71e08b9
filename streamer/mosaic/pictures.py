"""Where the pixels of a session's frames come from: its recording, or its source, read once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from engines.base import LeukostreamError
from engines.geometry import Image
from streamer.journal import StoredSession
from streamer.mosaic.places import PlacedFrame
from streamer.protocol.messages import WireError, decode
from streamer.recording import Recording, RecordingError
from streamer.records import Frame
from streamer.sources import open_source, parse_source
from streamer.sources.replay import decoded
from streamer.sources.resumed import Seekable


class Pictures(Protocol):
    def of(self, frames: Sequence[PlacedFrame]) -> Iterator[tuple[PlacedFrame, Image]]:
        """Each frame with its picture, in any order; LeukostreamError where one is not that of the journal.

        A frame that is not there any more is left out.
        """

    def close(self) -> None: ...


class RecordedPictures:
    """Frames of a recording."""

    def __init__(self, path: str | Path, session: StoredSession) -> None:
        """RecordingError for what is no recording, or not one of this session."""
        self._recording = Recording(path)
        try:
            self._track = self._recording.track(session.source)
            first = next(self._recording.messages(session.source), None)
            try:
                other = first is not None and decode(first.header).session != session.id
            except WireError as error:
                raise RecordingError(f"recording {path}: {error}") from error
            if other:
                raise RecordingError(
                    f"recording {path}: got another session of {session.source!r} than the journal's, expected the"
                    " recording of the same run"
                )
        except BaseException:
            self.close()
            raise

    def of(self, frames: Sequence[PlacedFrame]) -> Iterator[tuple[PlacedFrame, Image]]:
        for frame in sorted(frames, key=lambda frame: frame.frame_id):
            if frame.frame_id not in self._track.frames:
                continue
            recorded = self._recording.frame(self._track, frame.frame_id)
            image = None if recorded is None else decoded(recorded)
            if image is not None:
                _check(frame, image, None if recorded is None else recorded.head.file, str(self._recording.path))
                yield frame, image

    def close(self) -> None:
        self._recording.close()


class SourcePictures:
    """Frames of a source that can be read again."""

    def __init__(self, session: StoredSession) -> None:
        """LeukostreamError for a camera or a stream, and where the source is gone."""
        kind, _, rest = session.address.partition(":")
        if session.live or kind in ("camera", "stream", "imagezmq"):  # no journal makes this call anyone
            raise LeukostreamError(
                f"mosaic: got no recording of {session.source!r}, which can't be read again, expected one; run with"
                " --record FILE and give that file too"
            )
        self._address = parse_source(rest if kind == "path" else session.address)
        self._name = session.address
        open_source(self._address)  # for its error, now

    def of(self, frames: Sequence[PlacedFrame]) -> Iterator[tuple[PlacedFrame, Image]]:
        wanted = {frame.frame_id: frame for frame in frames}
        source = open_source(self._address)
        try:
            source.open()
            for frame_id in sorted(wanted):
                if isinstance(source, Seekable):
                    source.seek(frame_id)
                item = source.read()
                while item is not None and not (isinstance(item, Frame) and item.frame_id >= frame_id):
                    item = source.read()
                if item is None:
                    return
                if isinstance(item, Frame) and item.frame_id == frame_id:
                    _check(wanted[frame_id], item.image, item.file, self._name)
                    yield wanted[frame_id], item.image
        finally:
            source.close()

    def close(self) -> None:
        """Nothing is held open."""


def _check(frame: PlacedFrame, image: Image, file: str | None, where: str) -> None:
    height, width = image.shape[:2]
    if (width, height, file) != (frame.width, frame.height, frame.file):
        raise LeukostreamError(
            f"mosaic: frame {frame.frame_id} of {where}: got {width} x {height} px{_named(file)}, expected"
            f" {frame.width} x {frame.height} px{_named(frame.file)} as in the journal; give the recording or the"
            " source of the same run"
        )


def _named(file: str | None) -> str:
    return "" if file is None else f" ({file})"
