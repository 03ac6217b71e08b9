"""Films and streams, decoded by PyAV: the extra `av`, whose wheel brings an FFmpeg of its own."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamer.records import DeferredImage
from streamer.sources.decoder import Grabbed, Pixels, Timeouts

_WITHOUT_CLOCK = ("mpjpeg", "mjpeg", "h264", "hevc", "image2pipe")
"""Formats whose frames have no time: FFmpeg numbers them as if there were 25 a second."""

_STREAM_OPTIONS = {"rtsp_transport": "tcp", "analyzeduration": "100000", "fpsprobesize": "0"}
"""FFmpeg reads for 5 s, unless told otherwise, to learn what a stream is and how many frames it has a second: all that
is old when it is decoded. Not "nobuffer": it throws away what was read to find the format, the key frame with it."""

_JOINING_PACKETS = 300
"""Whoever joins a live stream gets what can't be decoded until the next key frame: some seconds, at most."""


class AvDecoder:
    """Keeps what it grabbed, which is converted by whoever wants its pixels."""

    keeps_frames = True
    sees_sizes = True
    about = f"PyAV {av.__version__}"

    def __init__(self, container: av.container.InputContainer, *, is_stream: bool) -> None:
        """`is_stream`: it comes over a network. ValueError where there is no video in it."""
        if not container.streams.video:
            raise ValueError("no video")
        self._container = container
        self._stream = stream = container.streams.video[0]
        context = stream.codec_context
        self.codec = {"libdav1d": "AV1", "av1": "AV1"}.get(context.name, context.name)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        self.fps = fps if 0 < fps < 1000 else None
        self.announced = stream.frames or self._estimate()
        is_live = is_stream and self.announced is None
        self._joining = _JOINING_PACKETS if is_live else 0
        context.thread_type = "SLICE" if is_live else "AUTO"  # threads by frame would hold back a frame each
        context.options = {"err_detect": "explode"}  # so that what is damaged is an error, not a guess at its pixels
        begun = container.metadata.get("creation_time") or stream.metadata.get("creation_time")
        self.begun_utc_ns = None if is_live else _utc_ns(begun)
        self._has_clock = container.format.name not in _WITHOUT_CLOCK
        self._start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        self._grabbing = self._grabs()

    def grab(self) -> Grabbed | None:
        return next(self._grabbing, None)

    def close(self) -> None:
        self._grabbing = iter(())
        self._container.close()

    def _grabs(self) -> Iterator[Grabbed]:
        try:
            for packet in self._container.demux(self._stream):
                yield from self._decoded(packet)
        except FFmpegError:  # nothing came for the time allowed, the connection is gone, or the file is cut off
            return

    def _decoded(self, packet: Packet[VideoStream]) -> Iterator[Grabbed]:
        try:
            frames = None if packet.is_corrupt else packet.decode()
        except InvalidDataError:
            frames = None
        if frames is None:
            self._joining -= self._joining > 0
            if not self._joining:
                yield _DAMAGED
            return
        for frame in frames:
            self._joining = 0
            yield _DAMAGED if frame.is_corrupt else self._grabbed(frame)

    def _grabbed(self, frame: VideoFrame) -> Grabbed:
        seconds = frame.time
        position_s = None if seconds is None or not self._has_clock else seconds - self._start_s

        def take() -> Pixels:
            return DeferredImage(frame.height, frame.width, lambda: _bgr(frame))

        return Grabbed(position_s, take)

    def _estimate(self) -> int | None:
        duration = self._container.duration
        return round(duration / av.time_base * self.fps) if duration and self.fps else None


def open_av(address: str, timeouts: Timeouts | None = None) -> AvDecoder | None:
    """As OpenDecoder says."""
    try:
        if timeouts is None:
            container = av.open(address)
        else:
            container = av.open(address, options=dict(_STREAM_OPTIONS), timeout=(timeouts.open_s, timeouts.read_s))
    except (FFmpegError, OSError):
        return None
    try:
        return AvDecoder(container, is_stream=timeouts is not None)
    except ValueError:
        container.close()
        return None


_DAMAGED = Grabbed(None, lambda: None, damaged=True)


def _bgr(frame: VideoFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def _utc_ns(text: str | None) -> int | None:
    """ISO 8601, as FFmpeg writes the tag; None where there is none, or 1970, which stands for not known."""
    try:
        moment = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    seconds = moment.timestamp()
    return round(seconds * 1e6) * 1000 if seconds > 0 else None
