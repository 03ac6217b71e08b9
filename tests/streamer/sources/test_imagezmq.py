"""Frames from senders that speak as imagezmq's do, over real sockets."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import UsageError
from streamer.records import Frame, Skip, StagePoint, usable_point, usable_scale
from streamer.sources import SourceError, SourceLostError, open_source, parse_source
from streamer.sources.imagefile import ImageLimits, Picture, Unreadable
from streamer.sources.imagezmq import ImagezmqSource, Place, read_message
from streamer.sources.imagezmq_text import NAMES, read_text

PATIENCE_MS = 20_000
IMAGE = np.arange(64 * 48 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)


def array_parts(image: np.ndarray, msg: str = "scope") -> list[bytes]:
    head = {"msg": msg, "dtype": str(image.dtype), "shape": image.shape}
    return [json.dumps(head).encode(), image.tobytes()]


def jpeg_parts(image: np.ndarray) -> list[bytes]:
    return [b'{"msg":"scope"}', cv2.imencode(".jpg", image)[1].tobytes()]


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def source(target: str, silence_s: float = PATIENCE_MS / 1000) -> ImagezmqSource:
    clock = itertools.count(1000)
    return ImagezmqSource("scope", target, lambda: next(clock), silence_s=silence_s)


def test_a_sender_that_waits_for_replies_gives_arrays_and_jpegs(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    hub = source("tcp://127.0.0.1:*")
    hub.open()
    sender = context.socket(zmq.REQ)
    sender.connect(hub.endpoint)
    replies = []

    def send() -> None:
        for parts in (array_parts(IMAGE), [b"{}", b"no image"], array_parts(IMAGE[:, :, 0].copy()), jpeg_parts(IMAGE)):
            sender.send_multipart(parts)
            replies.append(sender.recv())

    sending = threading.Thread(target=send)
    sending.start()
    items = [hub.read() for _ in range(4)]
    sending.join()
    assert replies == [b"OK"] * 4
    frames = [item for item in items if isinstance(item, Frame)]
    assert [(frame.frame_id, frame.captured_ns, frame.source) for frame in frames] == [
        (0, 1000, "scope"),
        (1, 1002, "scope"),
        (2, 1003, "scope"),
    ]
    assert np.array_equal(frames[0].image, IMAGE)
    assert np.array_equal(frames[1].image, np.repeat(IMAGE[:, :, :1], 3, axis=2))
    assert frames[2].image.shape == IMAGE.shape
    assert [item.reason for item in items if isinstance(item, Skip)] == ["not an image"]
    hub.close()
    hub.close()


@pytest.fixture
def kept_hub(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[tuple[ImagezmqSource, zmq.Socket[bytes]]]:
    """A source that answers for what is kept, and a sender that is connected to it."""
    hub = ImagezmqSource("scope", "tcp://127.0.0.1:*", lambda: 1000, loses_nothing=True)
    hub.open()
    sender = context.socket(zmq.REQ)
    sender.connect(hub.endpoint)
    yield hub, sender
    hub.close()


def test_a_frame_is_answered_when_it_is_kept(kept_hub: tuple[ImagezmqSource, zmq.Socket[bytes]]) -> None:
    hub, sender = kept_hub
    items: list[Frame | Skip | None] = []
    for number in range(2):
        sender.send_multipart(array_parts(IMAGE))
        frame = hub.read()
        assert isinstance(frame, Frame)
        assert frame.frame_id == number
        reading = threading.Thread(target=lambda: items.append(hub.read()))  # answers, and waits for what comes next
        reading.start()
        assert not sender.poll(50)
        frame.settle(True)
        assert sender.recv() == b"OK"
        sender.send_multipart([b"{}", b"no image"])  # nothing is to be kept of it
        assert sender.recv() == b"OK"
        reading.join()
    assert [isinstance(item, Skip) for item in items] == [True, True]


def test_the_last_frame_is_answered_after_a_stop_too(kept_hub: tuple[ImagezmqSource, zmq.Socket[bytes]]) -> None:
    hub, sender = kept_hub
    sender.send_multipart(array_parts(IMAGE))
    frame = hub.read()
    assert isinstance(frame, Frame)
    closing = threading.Thread(target=hub.close)
    closing.start()
    frame.settle(True)
    closing.join()
    assert sender.recv() == b"OK"


@pytest.mark.parametrize("close", [True, False])
def test_a_frame_that_is_not_kept_gets_no_answer(
    kept_hub: tuple[ImagezmqSource, zmq.Socket[bytes]], close: bool
) -> None:
    hub, sender = kept_hub
    sender.send_multipart(array_parts(IMAGE))
    frame = hub.read()
    assert isinstance(frame, Frame)
    frame.settle(False)
    if not close:
        with pytest.raises(SourceLostError, match="frame 0 that could not be kept"):
            hub.read()
    hub.close()
    assert not sender.poll(50)


def test_what_the_sender_counted_and_did_not_come_is_a_loss(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    hub = source("tcp://127.0.0.1:*,pattern=req")
    hub.open()
    sender = context.socket(zmq.REQ)
    sender.connect(hub.endpoint)
    names: list[object] = [4, 5, 9, 9, 3, "scope #7", "scope #9", "other #20", "scope", "scope #30", 10.5, True]

    def send() -> None:
        for name in names:
            sender.send_multipart([json.dumps({"msg": name}).encode(), jpeg_parts(IMAGE)[1]])
            sender.recv()

    sending = threading.Thread(target=send)
    sending.start()
    items = [hub.read() for _ in range(len(names) + 2)]
    sending.join()
    hub.close()
    lost = [(place, item.what, item.count) for place, item in enumerate(items) if isinstance(item, Skip)]
    assert lost == [(2, "numbers 6 to 8", 3), (7, "number 8", 1)]
    assert [item.frame_id for item in items if isinstance(item, Frame)] == list(range(len(names)))


def test_a_sender_that_publishes(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    sender = context.socket(zmq.XPUB)  # a PUB that tells who has subscribed
    port = sender.bind_to_random_port("tcp://127.0.0.1")
    for target in (f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port},pattern=pub"):
        receiver = source(target)
        receiver.open()
        assert sender.poll(PATIENCE_MS)
        assert sender.recv() == b"\x01"
        sender.send_multipart(array_parts(IMAGE))
        frame = receiver.read()
        assert isinstance(frame, Frame)
        assert np.array_equal(frame.image, IMAGE)
        receiver.close()
        assert sender.recv() == b"\x00"


def test_a_silent_sender_counts_as_lost_until_it_sends_again(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    hub = source("tcp://127.0.0.1:*", silence_s=0.01)
    hub.open()
    endpoint = hub.endpoint
    with pytest.raises(SourceLostError, match="that connects there"):
        hub.read()
    hub.close()
    sender = context.socket(zmq.REQ)
    sender.connect(endpoint)
    sender.send_multipart(array_parts(IMAGE))
    hub.open()
    assert isinstance(hub.read(), Frame)
    assert sender.poll(PATIENCE_MS)
    with pytest.raises(SourceLostError):
        hub.read()
    hub.close()
    hub.close()  # this time for good
    assert hub.endpoint == ""


def test_an_address_that_can_not_be_had(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    other = context.socket(zmq.REP)
    port = other.bind_to_random_port("tcp://127.0.0.1")
    for target in (f"tcp://127.0.0.1:{port},pattern=req", f"tcp://*:{port}"):
        with pytest.raises(SourceError, match="expected an address of this machine that is free"):
            source(target).open()


@pytest.mark.parametrize("target", ["", "5555", "http://h:1", "tcp://h:5555,pattern=push", "tcp://h:5555,x", "tcp://h"])
def test_an_address_that_is_none(target: str) -> None:
    with pytest.raises(UsageError):
        open_source(parse_source(f"imagezmq:{target}"))


def test_the_pattern_of_an_address() -> None:
    assert Place.parse("tcp://*:5555") == Place("tcp://*:5555", None)
    assert Place.parse("tcp://h:5555,pattern=pub") == Place("tcp://h:5555", "pub")
    opened = open_source(parse_source("scope=imagezmq:tcp://h:5555"))
    assert (opened.name, opened.default_mode) == ("scope", "live")


LIMITS = ImageLimits(max_megapixels=0.1)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"{}"], "not an image"),
        ([b"{}", b"", b""], "not an image"),
        ([b"[]", b""], "not an image"),
        ([b"\xff", b""], "not an image"),
        ([b"[" * 15_000, b""], "not an image"),
        ([b"{" + b" " * 20_000 + b"}", b""], "not an image"),
        ([b'{"dtype":"uint8","shape":[-1,4]}', b""], "not an image"),
        ([b'{"dtype":"uint8","shape":[99999,99999,3]}', b""], "too large"),
        ([b'{"dtype":"uint8","shape":[8,64,3]}', b"0" * 1536], "too small"),
        ([b'{"dtype":"uint8","shape":[64,64,3]}', b"0" * 100], "truncated"),
        ([b'{"dtype":"float64","shape":[64,64,3]}', b"0" * 98304], "unsupported"),
        ([b'{"dtype":"object","shape":[64,64,3]}', b"0" * 98304], "unsupported"),
        ([b'{"dtype":"uint8","shape":[64]}', b"0" * 64], "unsupported"),
        ([b'{"dtype":"uint8","shape":[64,64,2]}', b"0" * 8192], "unsupported"),
        ([jpeg_parts(IMAGE)[0], jpeg_parts(IMAGE)[1][:300]], "truncated"),
        (jpeg_parts(np.zeros((400, 400, 3), np.uint8)), "too large"),
    ],
)
def test_what_is_no_frame_is_skipped_with_its_reason(parts: list[bytes], reason: str) -> None:
    found = read_message(parts, LIMITS)
    assert isinstance(found, Unreadable)
    assert found.reason == reason
    assert "expected" in found.detail


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_is_a_picture_or_skipped(data: st.DataObject) -> None:
    parts = data.draw(st.sampled_from([array_parts(IMAGE), jpeg_parts(IMAGE)]))
    mutated = [bytearray(part) for part in parts]
    for _ in range(data.draw(st.integers(1, 8))):
        part = mutated[data.draw(st.integers(0, 1))]
        if part:
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
            del part[data.draw(st.sampled_from([len(part), len(part) // 2])) :]
    found = read_message([bytes(part) for part in mutated], LIMITS)
    if isinstance(found, Picture):
        assert (found.pixels.dtype, found.pixels.ndim, found.pixels.shape[2]) == (np.uint8, 3, 3)
    else:
        assert found.reason


def test_a_text_may_say_where_the_stage_is(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    lines: list[str] = []
    hub = ImagezmqSource("scope", "tcp://127.0.0.1:*", lambda: 0, silence_s=PATIENCE_MS / 1000, say=lines.append)
    hub.open()
    sender = context.socket(zmq.REQ)
    sender.connect(hub.endpoint)
    texts = [
        {"x_um": 1200.5, "y_um": -3, "z_um": 7, "um_per_px": 0.17, "number": 0},
        {"x_um": "1200", "y_um": -3, "um_per_px": 0, "number": 1},
        {"x_um": float("nan"), "y_um": -3, "um_per_px": True, "number": 2},
        {"x_um": 5, "number": 5, "error_um": 0.5},
        {"x_um": 5, "y_um": 6, "error_um": 0.5, "number": 6, "end": "yes"},
        {"shutter": 5},
        {"x_um": 7, "y_um": 8, "number": 7, "end": True},
    ]

    def send() -> None:
        for text in (*map(json.dumps, texts[:-1]), "{no JSON", json.dumps(texts[-1])):
            sender.send_multipart(array_parts(IMAGE, text))
            sender.recv()

    sending = threading.Thread(target=send)
    sending.start()
    items = [hub.read() for _ in range(10)]
    sending.join()
    hub.close()
    said = [(item.stage_um, item.stage_error_um, item.um_per_px) if isinstance(item, Frame) else item for item in items]
    assert said == [
        (StagePoint(1200.5, -3, 7), None, 0.17),
        (None, None, None),
        (None, None, None),
        Skip("scope", "numbers 3 to 4", "lost on the way", "sent by its count, and never came", 2),
        (None, 0.5, None),
        (StagePoint(5, 6), 0.5, None),
        (None, None, None),
        (None, None, None),
        (StagePoint(7, 8), None, None),
        None,
    ]
    left = "; such frames are taken without it"
    assert lines == [
        f"source scope: x_um: got '1200', expected a number of -1e+07 to 1e+07{left}",
        f"source scope: um_per_px: got 0, expected a number of 0.005 to 50{left}",
        f"source scope: y_um: got none, expected both x_um and y_um{left}",
        f"source scope: end: got 'yes', expected true or false{left}",
    ]


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_no_value_of_a_text_raises(value: object) -> None:
    text = read_text(json.dumps(dict.fromkeys(NAMES, value)))
    assert text.stage_um is None or usable_point(text.stage_um) == text.stage_um
    assert text.um_per_px is None or usable_scale(text.um_per_px) == text.um_per_px
