"""Frames that imagezmq senders send (https://github.com/jeffbass/imagezmq): arrays or JPEGs, REQ/REP or PUB/SUB.

A message is two parts: a JSON object, `{"msg": TEXT, "dtype": "uint8", "shape": [H, W, 3]}` before an array's bytes in
OpenCV's BGR order, `{"msg": TEXT}` before a JPEG. imagezmq_text.py reads what a text may say of its frame. imagezmq has
no keys, and no end but what a text says: anyone may send.

A sender that waits for the reply is answered, in analysis mode, when its frame is in the journal, or counted where
there is none. What it got no answer for it has to send again. In live mode the answer says that the frame came.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Annotated, Literal

import msgspec
import numpy as np
import zmq
from msgspec import Meta

from engines.base import UsageError
from streamer.network.endpoints import check_endpoint, is_ipv6
from streamer.records import EncodedImage, Frame, Mode, Skip
from streamer.sources.base import SourceError, SourceLostError
from streamer.sources.imagefile import ImageLimits, Picture, Unreadable, read_image_bytes
from streamer.sources.imagezmq_text import SenderText, read_text

SILENCE_S = 5.0
"""A sender that is silent for this long counts as gone."""

_HEADER_MAX_BYTES = 16 * 1024
_PART_MAX_BYTES = 128 * 1024 * 1024
"""More ends the connection: an array of 40 megapixels."""

_WAITING_MAX = 4
"""Frames that may wait here; a PUB sender's further ones are lost, which its numbers show, a REQ sender waits."""

_ANSWER_AT_CLOSE_S = 10.0
_ANSWER_FLUSH_MS = 1000
"""How long `close` waits for what becomes of the last frame, and for the answer to be sent."""

_NUMBER_AT_END = re.compile(r"(.*)#([0-9]{1,18})")

_SLICE_MS = 250
_REPLY = b"OK"

Pattern = Literal["req", "pub"]


class _Head(msgspec.Struct):
    msg: object = None
    dtype: str | None = None
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=2**31)]], Meta(max_length=3)] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where senders are. `pattern` "req": they connect to us; "pub": we connect to one; None: the first that can be."""

    endpoint: str
    pattern: Pattern | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """`tcp://HOST:PORT[,pattern=req|pub]`; UsageError for what is none."""
        endpoint, comma, option = text.partition(",")
        pattern = option.removeprefix("pattern=") if comma else None
        if comma and (not option.startswith("pattern=") or pattern not in ("req", "pub")):
            raise UsageError(
                f"--source imagezmq:{text}: got {option!r}, expected pattern=req (senders that wait for a reply, as "
                "imagezmq's do by default) or pattern=pub (REQ_REP=False)"
            )
        check_endpoint(endpoint, "--source imagezmq", side="connect" if pattern == "pub" else "bind")
        return cls(endpoint, "req" if pattern == "req" else "pub" if pattern == "pub" else None)


class ImagezmqSource:
    """Live frames of one imagezmq sender.

    An address of this machine that is free is bound, as imagezmq's hub does, for senders that connect and wait for a
    reply. Any other one is connected to, as that of a PUB sender. A sender that is silent counts as lost until it
    sends again; its address stays bound meanwhile.
    """

    default_mode: Mode = "live"

    def __init__(
        self,
        name: str,
        target: str,
        now_ns: Callable[[], int],
        *,
        silence_s: float = SILENCE_S,
        loses_nothing: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`loses_nothing`: answer a sender that waits when its frame is settled (Frame.settle), and not as soon as it
        came. `say` gets a line, once, where a sender's text says what can't be used. UsageError for a malformed
        address."""
        self._place = Place.parse(target)
        self.name = name
        self._now_ns = now_ns
        self._silence_ms = round(1000 * silence_s)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._replies = False
        self._silent = self._kept = False
        self._loses_nothing = loses_nothing
        self._fate: SimpleQueue[bool] | None = None
        """Of the frame that is still to be answered; None: none is."""
        self._number: tuple[str, int] | None = None
        self._held: Frame | Skip | None = None
        """What came with the loss that was reported before it."""
        self._frame_id = 0
        self._say = say
        self._told: set[str] = set()
        self._ended = False
        """Whether the sender has said that no frame follows."""

    @property
    def endpoint(self) -> str:
        """Where the socket is, wildcards resolved; once it is open."""
        return "" if self._socket is None else self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def open(self) -> None:
        """After a silence, waits for the next frame. SourceError for an address that can't be had."""
        if self._socket is None:
            self._connect()
        elif self._silent:
            while not self._socket.poll(_SLICE_MS):
                pass
        self._silent = self._kept = False

    def read(self) -> Frame | Skip | None:
        if self._socket is None:
            raise SourceLostError(f"source {self.name}: got a read before it was open, expected it open")
        if self._held is not None:
            item, self._held = self._held, None
            return item
        if self._ended:
            return None
        if self._fate is not None and not self._answer(None):
            raise SourceLostError(
                f"source {self.name}: got frame {self._frame_id - 1} that could not be kept, expected all kept: its "
                "sender gets no answer"
            )
        if not self._socket.poll(self._silence_ms):
            self._silent = True
            raise SourceLostError(
                f"source {self.name}: got no frame at {self.endpoint} for {self._silence_ms / 1000:g} s, expected an "
                f"imagezmq sender {'that connects there' if self._replies else 'that publishes there'}"
            )
        parts = self._socket.recv_multipart()
        captured_ns = self._now_ns()
        msg = sender_message(parts[0])
        text = read_text(msg)
        item = self._item(parts, captured_ns, text)
        lost = self._lost_before(sender_number(msg, text))
        if lost is None:
            return item
        self._held = item
        return lost

    def close(self) -> None:
        """After a silence, the first time keeps the address: a sender that waits for a reply would wait for ever."""
        if self._silent and not self._kept:
            self._kept = True
            return
        self._silent = self._kept = False
        if self._socket is not None and self._context is not None:
            answered = self._fate is not None and self._held is None and self._answer(_ANSWER_AT_CLOSE_S)
            self._socket.close(_ANSWER_FLUSH_MS if answered else 0)
            self._context.term()
        self._socket = self._context = self._fate = self._held = None

    def _item(self, parts: Sequence[bytes], captured_ns: int, text: SenderText) -> Frame | Skip:
        """What came, answered unless that is for later."""
        self._ended = text.end
        for name, line in text.faults:
            if name not in self._told:
                self._told.add(name)
                self._say(f"source {self.name}: {line}; such frames are taken without it")
        picture = read_message(parts, ImageLimits())
        is_frame = not isinstance(picture, Unreadable)
        if self._replies:
            assert self._socket is not None
            if is_frame and self._loses_nothing:
                self._fate = SimpleQueue()
            else:  # also to what is no image: the sender waits
                self._socket.send(_REPLY)
        if isinstance(picture, Unreadable):
            return Skip(self.name, f"after frame {self._frame_id - 1}", picture.reason, picture.detail)
        encoded = EncodedImage(picture.data, picture.bits) if picture.data else None
        frame = Frame(
            self.name,
            self._frame_id,
            captured_ns,
            picture.pixels,
            encoded=encoded,
            stage_um=text.stage_um,
            stage_error_um=text.stage_error_um,
            um_per_px=text.um_per_px,
        )
        self._frame_id += 1
        return frame if self._fate is None else replace(frame, settle=self._fate.put)

    def _answer(self, timeout_s: float | None) -> bool:
        """Wait for what becomes of the last frame and answer its sender; False, without an answer, where it is lost."""
        assert self._fate is not None
        assert self._socket is not None
        fate, self._fate = self._fate, None
        try:
            kept = fate.get(timeout=timeout_s)
        except Empty:
            return False
        if kept:
            self._socket.send(_REPLY)
        return kept

    def _lost_before(self, number: tuple[str, int] | None) -> Skip | None:
        """The frames that the sender numbered and that never came."""
        before, self._number = self._number, number
        if before is None or number is None or before[0] != number[0] or number[1] <= before[1] + 1:
            return None
        first, last = before[1] + 1, number[1] - 1
        what = f"number {first}" if first == last else f"numbers {first} to {last}"
        return Skip(self.name, what, "lost on the way", "sent by its count, and never came", last - first + 1)

    def _connect(self) -> None:
        place = self._place
        self._context = zmq.Context()
        try:
            if place.pattern != "pub":
                fault = self._bind(self._new_socket(zmq.REP))
                if fault is None:
                    self._replies = True
                    return
                if place.pattern == "req" or "*" in place.endpoint:
                    raise SourceError(
                        f"source {self.name}: got '{zmq.strerror(fault)}' for {place.endpoint}, expected an address "
                        "of this machine that is free, where senders connect; with ,pattern=pub it is that of a sender"
                    )
            self._replies = False
            socket = self._new_socket(zmq.SUB)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(place.endpoint)
        except BaseException:
            self.close()
            raise

    def _new_socket(self, kind: int) -> zmq.Socket[bytes]:
        assert self._context is not None
        if self._socket is not None:
            self._socket.close(0)
        socket = self._socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _WAITING_MAX)
        socket.setsockopt(zmq.MAXMSGSIZE, _PART_MAX_BYTES)
        socket.setsockopt(zmq.IPV6, is_ipv6(self._place.endpoint))
        return socket

    def _bind(self, socket: zmq.Socket[bytes]) -> int | None:
        """The number of the fault; None where it is bound."""
        try:
            socket.bind(self._place.endpoint)
        except zmq.ZMQError as error:
            return error.errno or errno.EINVAL
        return None


def sender_message(header: bytes) -> object:
    """The `msg` of a header; None for one that is none."""
    try:
        return msgspec.json.decode(header[:_HEADER_MAX_BYTES], type=_Head).msg
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def sender_number(msg: object, text: SenderText) -> tuple[str, int] | None:
    """(name, number) that a sender gives a frame: its `msg` is a whole number, or a text that ends with # and one, or
    says its `number`."""
    if text.number is not None:
        return "", text.number
    if isinstance(msg, str) and (found := _NUMBER_AT_END.fullmatch(msg)):
        return found[1], int(found[2])
    return ("", msg) if isinstance(msg, int) and not isinstance(msg, bool) else None


def read_message(parts: Sequence[bytes], limits: ImageLimits) -> Picture | Unreadable:
    """The picture in one message of a sender; never raises for what it holds."""
    if len(parts) != 2 or len(parts[0]) > _HEADER_MAX_BYTES:
        return Unreadable(
            "not an image", f"got {len(parts)} parts, expected a JSON header and an image, as of imagezmq"
        )
    try:
        head = msgspec.json.decode(parts[0], type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Unreadable("not an image", f"got the header {parts[0][:60]!r}, expected the JSON of imagezmq")
    if head.shape is None or head.dtype is None:
        return read_image_bytes(parts[1], limits)
    return _array(parts[1], head.dtype, head.shape, limits)


def _array(data: bytes, dtype: str, shape: Sequence[int], limits: ImageLimits) -> Picture | Unreadable:
    got = f"got an array of {dtype} {tuple(shape)} in {len(data)} bytes"
    channels = shape[2] if len(shape) == 3 else 1
    if dtype != "uint8" or len(shape) < 2 or channels not in (1, 3, 4):
        return Unreadable("unsupported", f"{got}, expected uint8 (H, W), (H, W, 3) or (H, W, 4), as of OpenCV")
    height, width = shape[:2]
    if height * width > limits.max_megapixels * 1e6:
        return Unreadable("too large", f"{got}, expected at most {limits.max_megapixels:g} megapixels")
    if min(height, width) < limits.min_side_px:
        return Unreadable("too small", f"{got}, expected at least {limits.min_side_px} px on each side")
    if len(data) != height * width * channels:
        return Unreadable("truncated", f"{got}, expected {height * width * channels} bytes")
    stored = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    if channels == 1:
        stored = np.repeat(stored, 3, axis=2)
    return Picture(np.ascontiguousarray(stored[..., :3]), 8, b"")
