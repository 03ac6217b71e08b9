"""What comes from the other side is checked before it is read; a server answers each in one line."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.inference import wire
from streamer.inference.wire import (
    EngineKey,
    InferRequest,
    InvalidMessageError,
    OtherVersionError,
    RefusedReply,
    StatusReply,
    StatusRequest,
    Tensor,
    decode_reply,
    decode_request,
    encode,
    pack,
    unpack,
)
from tests.streamer.inference.served import ENGINE, OTHER, SHA, ScriptedShelf, Served, images


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["uint8", "float32", "int64", "bool"]), st.lists(st.integers(0, 4), max_size=4))
def test_tensors_come_back_as_they_were(dtype: str, shape: list[int]) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)
    tensors, parts = pack({"x": array})
    back = unpack(tensors, parts)["x"]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@pytest.mark.parametrize(
    ("tensors", "parts", "said"),
    [
        ([Tensor("x", "uint8", (2, 3))], [b"12345"], r"'x': got 5 bytes, expected 6 for uint8 \(2, 3\)"),
        ([Tensor("x", "float32", (1,))], [], "got 0 parts, expected 1"),
        ([Tensor("x", "object", (1,))], [b"12345678"], "got 'object', expected uint8"),
        ([Tensor("x", "uint8", (1,)), Tensor("x", "uint8", (1,))], [b"1", b"2"], "twice"),
        ([Tensor("x", "uint8", (2**31, 2**31, 2**31))], [b"1"], "got 1 bytes, expected"),
    ],
)
def test_tensors_that_are_not_what_the_header_says(tensors: list[Tensor], parts: list[bytes], said: str) -> None:
    with pytest.raises(InvalidMessageError, match=said):
        unpack(tensors, parts)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_any_bytes_are_no_request_or_a_whole_one(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with suppress(InvalidMessageError):
            assert isinstance(decode(data), msgspec.Struct)


def test_another_version_is_told_from_nonsense() -> None:
    newer = msgspec.msgpack.encode({"version": "2.0", "request": "status", "later": 1})
    with pytest.raises(OtherVersionError, match=r"got version 2\.0, expected 1\.x; run the same release"):
        decode_request(newer)
    minor = msgspec.msgpack.encode({"version": "1.9", "request": "status", "later": 1})
    assert isinstance(decode_request(minor), StatusRequest)
    with pytest.raises(InvalidMessageError, match="got a header of 65537 bytes"):
        decode_request(b"\x00" * (wire.HEADER_MAX_BYTES + 1))


class Raw:
    """A socket that says what it likes to a server."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self._socket.connect(endpoint)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(0)
        self._context.term()

    def ask(self, *parts: bytes) -> wire.AnyReply:
        self._socket.send_multipart(list(parts))
        return decode_reply(self._socket.recv_multipart()[0])


def infer(**changes: object) -> list[bytes]:
    tensors, parts = pack(images(1))
    fields = {"session": "s", "number": 4, "attempt": 1, "engine": EngineKey.of(ENGINE), "tensors": tensors}
    return [encode(InferRequest(**{**fields, "within_ms": 60_000.0, **changes})), *parts]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "code", "said"),
    [
        ([b"hello"], "malformed", "expected one of docs/inference.md"),
        ([b""], "malformed", "expected one of"),
        ([b"x"] * 40, "malformed", "got 40 parts"),
        ([msgspec.msgpack.encode({"version": "9.0"})], "version", "got version 9.0, expected 1.x"),
        (infer()[:1], "malformed", "got 0 parts, expected 1"),
        ([infer()[0], b"short"], "malformed", "got 5 bytes, expected 12"),
        (infer(engine=EngineKey.of(OTHER)), "unknown model", "not served here"),
        ([*infer(tensors=(Tensor("images", "uint8", (0, 2, 2, 3)),))[:1], b""], "malformed", "got tensors of [0] rows"),
        (
            infer(tensors=(Tensor("images", "uint8", (1, 12)),)),
            "engine failed",
            "input 'images': got uint8 (1, 12), expected uint8 (N,2,2,3)",
        ),
        (infer(tensors=(Tensor("pictures", "uint8", (1, 2, 2, 3)),)), "engine failed", "got ['pictures']"),
    ],
)
def test_a_server_says_what_is_wrong_and_goes_on(parts: list[bytes], code: str, said: str) -> None:
    with Served() as served, Raw(served.endpoint) as raw:
        reply = raw.ask(*parts)
        assert isinstance(reply, RefusedReply)
        assert reply.code == code
        assert said in reply.reason
        assert raw.ask(*infer()).number == 4  # type: ignore[union-attr]
        status = raw.ask(encode(StatusRequest()))
        assert isinstance(status, StatusReply)
        assert (status.answered, status.faults, status.models[0].sha256) == (1, {code: 1}, SHA)


def test_what_nobody_waits_for_any_more_is_not_run() -> None:
    shelf = ScriptedShelf()
    with Served(shelf) as served, Raw(served.endpoint) as raw:
        reply = raw.ask(*infer(within_ms=0.0))
        assert isinstance(reply, RefusedReply)
        assert (reply.code, reply.session, reply.number, reply.attempt) == ("stale", "s", 4, 1)
    assert shelf.engines[ENGINE].calls == []


def test_too_many_requests_are_refused_and_not_kept() -> None:
    with Served(requests_max=1, workers=0) as served, Raw(served.endpoint) as raw:
        raw._socket.send_multipart(infer())
        reply = raw.ask(*infer())
        assert isinstance(reply, RefusedReply)
        assert reply.code == "busy"
        served.server._drain_s = 0.0
