"""A camera on 127.0.0.1: a film whose frames bear their number, sent live as MPEG-TS over TCP. Needs PyAV."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.stream import Stream

BITS = 12
"""Of the number that a frame bears."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    data: bytes
    is_key: bool


@dataclass(frozen=True, slots=True)
class NumberedFilm:
    """Encoded frames, each of which bears its place in the film."""

    width: int
    height: int
    fps: int
    frames: tuple[EncodedFrame, ...]
    codec: str

    @classmethod
    def encode(
        cls,
        width: int,
        height: int,
        *,
        frames: int,
        first: int = 0,
        fps: int = 30,
        keys_every: int = 15,
        codec: str = "libx264",
    ) -> NumberedFilm:
        """Frames numbered from `first`, up to 4095; noise among them, as much as a camera's."""
        context = av.CodecContext.create(codec, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate, context.gop_size = Fraction(1, fps), Fraction(fps), keys_every
        context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "28"}
        noise = np.random.default_rng(1).integers(100, 124, (height, width), np.uint8)
        grey = np.full((height // 2, width), 128, np.uint8)  # both planes of colour
        packets: list[Packet[av.VideoStream]] = []
        for number in range(frames):
            marked = numbered(np.roll(noise, 8 * number, 1), first + number)
            picture = av.VideoFrame.from_ndarray(np.concatenate([marked, grey]), format="yuv420p")
            picture.pts = number
            packets += context.encode(picture)
        packets += context.encode(None)
        return cls(width, height, fps, tuple(EncodedFrame(bytes(p), p.is_keyframe) for p in packets), codec)


def numbered(picture: Pixels, number: int) -> Pixels:
    """The picture, grey or BGR, with a strip of `BITS` black and white blocks in the upper quarter."""
    marked = picture.copy()
    height, width = picture.shape[0] // 4, picture.shape[1] // BITS
    for bit in range(BITS):
        marked[:height, bit * width : (bit + 1) * width] = 235 if number >> bit & 1 else 20
    return marked


def number_of(picture: Pixels) -> int:
    """The number that a frame bears."""
    height, width = picture.shape[0] // 4, picture.shape[1] // BITS
    rows = slice(height // 4, max(height // 4 + 1, height * 3 // 4))
    blocks = (picture[rows, bit * width + width // 4 : bit * width + width * 3 // 4] for bit in range(BITS))
    return sum(int(block.mean() > 128) << bit for bit, block in enumerate(blocks))


class LiveSender:
    """Sends a film over and over, each frame when it is due, to whoever connects; begins with a key frame, or without.

    What a reader does not take is kept for it, as a server over TCP does. While `frozen` is set all of it is kept back;
    then what was kept is sent. Every `damage_every`-th frame has some of its bytes changed.
    """

    def __init__(self, films: Sequence[NumberedFilm], *, damage_every: int = 0, begins_with_key: bool = True) -> None:
        """Several films of one rate and codec follow one another: a camera that changes its resolution."""
        self.frames = [frame for film in films for frame in film.frames]
        self.fps = films[0].fps
        self._film = films[0]
        self._damage_every = damage_every
        self._begins_with_key = begins_with_key
        self._server = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self.frozen = threading.Event()
        self._began_s = time.monotonic()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self._server.getsockname()[1]}"

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # or `accept` would go on
        self._server.close()

    def age_s(self, number: int, now_s: float) -> float:
        """How long ago the frame of this number was captured: the last of all that bore it."""
        return (now_s - self._began_s - number / self.fps) % (len(self.frames) / self.fps)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            chunks = _Chunks()
            threading.Thread(target=self._send, args=(connection, chunks), daemon=True).start()
            threading.Thread(target=self._produce, args=(chunks,), daemon=True).start()

    def _produce(self, chunks: _Chunks) -> None:
        number = int((time.monotonic() - self._began_s) * self.fps)
        while self.frames[number % len(self.frames)].is_key != self._begins_with_key:
            number += 1
        first = number
        options = {"flush_packets": "1", "omit_video_pes_length": "0"}
        with av.open(chunks, "w", format="mpegts", options=options) as out:
            stream = out.add_stream(self._film.codec, rate=self.fps)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = self._film.width, self._film.height, "yuv420p"
            while not chunks.unwanted.wait(max(0.0, self._began_s + number / self.fps - time.monotonic())):
                if self._stopped.is_set():
                    return
                out.mux(self._packet(stream, number, first))
                number += 1

    def _packet(self, stream: av.VideoStream, number: int, first: int) -> Packet[Stream]:
        frame = self.frames[number % len(self.frames)]
        data = frame.data
        if self._damage_every and number % self._damage_every == self._damage_every - 1:
            middle = len(data) // 2
            data = data[:middle] + bytes(byte ^ 0x5A for byte in data[middle : middle + 64]) + data[middle + 64 :]
        packet: Packet[Stream] = Packet(data)
        packet.stream = stream
        packet.time_base = Fraction(1, self.fps)
        packet.pts = packet.dts = number - first
        packet.is_keyframe = frame.is_key
        return packet

    def _send(self, connection: socket.socket, chunks: _Chunks) -> None:
        with connection:
            while not self._stopped.is_set():
                chunk = chunks.waiting.get()
                while self.frozen.is_set() and not self._stopped.wait(0.01):
                    pass
                try:
                    connection.sendall(chunk)
                except OSError:
                    chunks.unwanted.set()
                    return


class _Chunks:
    """A file for the muxer: what one reader is to be sent."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.unwanted = threading.Event()

    def write(self, data: bytes) -> int:
        self.waiting.put(bytes(data))
        return len(data)
