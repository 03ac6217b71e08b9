"""Reading all that is whole in a recording: one walk over the record headers, then records on demand."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from streamer.recording.format import (
    FILE_HEADER_BYTES,
    FORMAT_VERSION,
    RECORD_HEADER_BYTES,
    EndHead,
    FrameEncoding,
    FrameHead,
    Kind,
    RecordHeader,
    RecordingError,
    RunHead,
    unpacked,
    version_of,
)

Head = TypeVar("Head", RunHead, EndHead)


NO_END_MARK = "no end mark"


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a recording ends."""

    at_byte: int
    """Everything before it is whole."""
    file_bytes: int
    fault: str | None
    """What is there instead of more, in words; None for a proper end."""

    def described(self, path: str | Path) -> str:
        """Where it ends and why, in a line for people."""
        if self.fault == NO_END_MARK:
            return f"recording {path}: got its end at byte {self.at_byte} without an end mark: the run was killed"
        return (
            f"recording {path}: got {self.fault} at byte {self.at_byte} of {self.file_bytes}, expected more;"
            " it was cut off or damaged there, and all before it is whole"
        )


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    frame_id: int
    captured_utc_ns: int
    """Time of the grab, in nanoseconds since 1970."""
    encoding: FrameEncoding
    head: FrameHead
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    source: str
    published_utc_ns: int
    header: bytes
    """JSON, as it was published."""
    payload: bytes | None


@dataclass(slots=True, eq=False)
class RecordedTrack:
    """One source of a recording."""

    name: str
    address: str
    live: bool
    frames: dict[int, tuple[int, int]] = field(default_factory=dict)
    """frame_id -> (byte, UTC offset in ns). A frame that a resumed run recorded again replaces the first."""
    lossy: int = 0
    """Frames stored as JPEG."""
    lost: int = 0
    """Frames that could not be stored, as far as an end record counts them."""

    def frame_ids(self) -> list[int]:
        return sorted(self.frames)


class Recording:
    """An open recording. Used by one thread."""

    def __init__(self, path: str | Path) -> None:
        """RecordingError for a file that can't be read, is no recording, or has another version."""
        self.path = Path(path)
        try:
            self._file = self.path.open("rb")
            self._bytes = self._file.seek(0, io.SEEK_END)
            self._file.seek(0)
            start = self._file.read(FILE_HEADER_BYTES)
        except OSError as error:
            raise RecordingError(
                f"recording {path}: got '{error.strerror}', expected a file that can be read"
            ) from error
        self.tracks: dict[str, RecordedTrack] = {}
        self._messages: list[tuple[int, str, int]] = []
        try:
            version = version_of(start)
            if version is None:
                got = "an empty file" if not start else "no recording"
                raise RecordingError(f"recording {path}: got {got}, expected what run --record wrote; check the path")
            if version != FORMAT_VERSION:
                raise RecordingError(
                    f"recording {path}: got format {version}, expected {FORMAT_VERSION}; use the version of leukostream"
                    " that wrote it"
                )
            self.ending = self._walk()
        except BaseException:
            self.close()
            raise

    @property
    def message_count(self) -> int:
        return len(self._messages)

    def track(self, name: str | None) -> RecordedTrack:
        """The source of that name, or the only one with None. RecordingError if there is none."""
        names = ", ".join(self.tracks) or "none"
        if name is None and len(self.tracks) == 1:
            return next(iter(self.tracks.values()))
        if name is None:
            raise RecordingError(
                f"recording {self.path}: got {len(self.tracks)} sources ({names}), expected one"
                if self.tracks
                else f"recording {self.path}: got no source, expected one; it is damaged or cut off at its beginning:"
                " copy it again"
            )
        if name not in self.tracks:
            raise RecordingError(f"recording {self.path}: got source {name!r}, expected one of: {names}")
        return self.tracks[name]

    def frame(self, track: RecordedTrack, frame_id: int) -> RecordedFrame | None:
        """None for a damaged frame. KeyError for one that the recording lacks."""
        at, utc_offset_ns = track.frames[frame_id]
        record = self._read(at)
        if record is None:
            return None
        header, head, data = record
        try:
            read = msgspec.json.decode(head, type=FrameHead)
        except msgspec.MsgspecError:
            return None
        return RecordedFrame(frame_id, header.time_ns + utc_offset_ns, header.encoding, read, data)

    def messages(self, source: str | None = None) -> Iterator[RecordedMessage]:
        """The messages of one source or of all, in order of publication, without damaged ones."""
        for at, name, utc_offset_ns in self._messages:
            if source in (None, name):
                record = self._read(at)
                if record is not None:
                    header, head, data = record
                    yield RecordedMessage(name, header.time_ns + utc_offset_ns, head, data or None)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _walk(self) -> Ending:
        at = FILE_HEADER_BYTES
        names: tuple[str, ...] = ()
        utc_offset_ns = 0
        ended = False
        while at < self._bytes:
            header = self._header(at)
            if header is None or at + header.record_bytes > self._bytes:
                cut = header is not None or self._bytes - at < RECORD_HEADER_BYTES
                return Ending(at, self._bytes, "the middle of a record" if cut else "a damaged record")
            ended = False
            if header.kind is Kind.FRAME and header.source < len(names):
                track = self.tracks[names[header.source]]
                track.frames[header.number] = at, utc_offset_ns
                track.lossy += header.encoding is FrameEncoding.JPEG
            elif header.kind is Kind.MESSAGE and header.source < len(names):
                self._messages.append((at, names[header.source], utc_offset_ns))
            elif header.kind is Kind.RUN:
                run = self._decoded(at, RunHead)
                if run is None:
                    return Ending(at, self._bytes, "a damaged record")
                names, utc_offset_ns = tuple(source.name for source in run.sources), run.utc_offset_ns
                for source in run.sources:
                    track = RecordedTrack(source.name, source.address, source.mode == "live")
                    self.tracks.setdefault(source.name, track)
            elif header.kind is Kind.END:
                end = self._decoded(at, EndHead)
                ended = end is not None
                for name, lost in end.frames_lost.items() if end is not None else ():
                    self.tracks[name].lost += sum(lost.values())
            at += header.record_bytes
        return Ending(at, self._bytes, None if ended else NO_END_MARK)

    def _header(self, at: int) -> RecordHeader | None:
        self._file.seek(at)
        return unpacked(self._file.read(RECORD_HEADER_BYTES))

    def _read(self, at: int) -> tuple[RecordHeader, bytes, bytes] | None:
        """(header, head, data) of a record; None if it is damaged."""
        header = self._header(at)
        if header is None:
            return None
        head = self._file.read(header.head_bytes)
        data = self._file.read(header.body_bytes - header.head_bytes)
        return (header, head, data) if zlib.crc32(data, zlib.crc32(head)) == header.body_crc else None

    def _decoded(self, at: int, type_: type[Head]) -> Head | None:
        record = self._read(at)
        try:
            return None if record is None else msgspec.json.decode(record[1], type=type_)
        except msgspec.MsgspecError:
            return None
