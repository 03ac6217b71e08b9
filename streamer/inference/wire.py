"""What a microscope and an inference server say to each other: multipart [header, tensor…], the header in MessagePack.

One request, one reply. A tensor is its raw bytes, row by row, little-endian; the header has its name, dtype and shape.
Nothing that comes from the other side is trusted: sizes are checked before anything is read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from engines.base import Array, EngineId, LeukostreamError, TensorSpec, printable

WIRE_VERSION = "1.0"
_MAJOR = "1"

HEADER_MAX_BYTES = 64 * 1024
MESSAGE_MAX_BYTES = 64 * 1024 * 1024
"""Of one part: 32 inputs of 800 x 800 pixels."""

TENSORS_MAX = 16
_DTYPES = ("uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool")

Version = Annotated[str, Meta(max_length=16)]
Name = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=2000)]
Number = Annotated[int, Meta(ge=0, le=2**62)]
Side = Annotated[int, Meta(ge=1, le=2**20)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

Parts = Sequence[Any]
"""Of a multipart: bytes, or what has their buffer."""


class InvalidMessageError(LeukostreamError):
    """What came is no message of this protocol, or its tensors are not what its header says."""


class OtherVersionError(InvalidMessageError):
    """A message of another major version: none of it is read."""


class EngineKey(msgspec.Struct, frozen=True):
    """`EngineId` as it is sent."""

    sha256: Sha256
    height: Side | None = None
    width: Side | None = None
    maps: bool = False

    @classmethod
    def of(cls, id_: EngineId) -> EngineKey:
        return cls(id_.sha256, id_.height, id_.width, id_.maps)

    @property
    def id(self) -> EngineId:
        return EngineId(self.sha256, self.height, self.width, self.maps)


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a message: its part is as long as this says."""

    name: Name
    dtype: Name
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=8)]


class Spec(msgspec.Struct, frozen=True):
    """`TensorSpec` as it is sent."""

    name: Name
    dtype: Name
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)] | None, ...], Meta(max_length=8)]

    @classmethod
    def of(cls, spec: TensorSpec) -> Spec:
        return cls(spec.name, spec.dtype.name, spec.shape)


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="request"):
    version: Version = WIRE_VERSION


class StatusRequest(Request, frozen=True, kw_only=True, tag="status"):
    """What models the server has, and how it does. Asked once a second, it is the heartbeat too."""


class PrepareRequest(Request, frozen=True, kw_only=True, tag="prepare"):
    """Load an engine, so that no frame waits for that."""

    engine: EngineKey


class InferRequest(Request, frozen=True, kw_only=True, tag="infer"):
    """Run an engine on the tensors that follow. Asking again gives the same answer and changes nothing."""

    session: Name
    """Of the asker; new with every process."""
    number: Number
    """Of the question in the session; asked again, on whatever server, it keeps it."""
    attempt: Number
    engine: EngineKey
    tensors: Annotated[tuple[Tensor, ...], Meta(min_length=1, max_length=TENSORS_MAX)]
    within_ms: Annotated[float, Meta(ge=0, le=3_600_000)]
    """After so long nobody waits for the answer any more."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="reply"):
    version: Version = WIRE_VERSION
    server: Name
    """New with every process of a server."""


class ServedModel(msgspec.Struct, frozen=True):
    sha256: Sha256
    name: Name
    """For people; nothing is matched by it."""
    task: Name


class StatusReply(Reply, frozen=True, kw_only=True, tag="status"):
    release: Name
    """Of leukostream."""
    models: tuple[ServedModel, ...]
    draining: bool
    """It ends, and takes no further work."""
    uptime_s: float
    waiting: int
    """Requests that wait for an engine."""
    queue_age_ms: float
    """Of the one that waits longest."""
    answered: int
    faults: dict[str, int]
    """What was not answered, by reason."""


class PreparedReply(Reply, frozen=True, kw_only=True, tag="prepared"):
    engine: EngineKey
    backend: Name
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]


class OutputsReply(Reply, frozen=True, kw_only=True, tag="outputs"):
    session: Name
    number: Number
    attempt: Number
    tensors: Annotated[tuple[Tensor, ...], Meta(max_length=TENSORS_MAX)]
    waited_ms: float
    ran_ms: float


class RefusedReply(Reply, frozen=True, kw_only=True, tag="refused"):
    """What was asked for was not done, and why; the asker may ask another server."""

    code: Name
    reason: Text
    session: Name | None = None
    number: Number | None = None
    attempt: Number | None = None
    engine: EngineKey | None = None


AnyRequest = StatusRequest | PrepareRequest | InferRequest
AnyReply = StatusReply | PreparedReply | OutputsReply | RefusedReply


class _Versioned(msgspec.Struct):
    version: Version


_Header = TypeVar("_Header")
_encoder = msgspec.msgpack.Encoder()
_versions = msgspec.msgpack.Decoder(_Versioned)
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_replies: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def encode(header: AnyRequest | AnyReply) -> bytes:
    return _encoder.encode(header)


def decode_request(data: Any) -> AnyRequest:
    """InvalidMessageError for what is none, OtherVersionError for one of another major version."""
    return _decode(data, _requests, "request")


def decode_reply(data: Any) -> AnyReply:
    """Errors as of `decode_request`."""
    return _decode(data, _replies, "reply")


def _decode(data: Any, decoder: msgspec.msgpack.Decoder[_Header], what: str) -> _Header:
    size = memoryview(data).nbytes
    if size > HEADER_MAX_BYTES:
        raise InvalidMessageError(f"{what}: got a header of {size} bytes, expected at most {HEADER_MAX_BYTES}")
    try:
        version = _versions.decode(data).version
        if version.partition(".")[0] != _MAJOR:
            raise OtherVersionError(
                f"{what}: got version {printable(version)}, expected {_MAJOR}.x; "
                "run the same release of leukostream on both sides"
            )
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessageError(f"{what}: got {_first(error)}, expected one of docs/inference.md") from error


def _first(error: Exception) -> str:
    text = printable(str(error)) or type(error).__name__
    return f"{text[0].lower()}{text[1:200]}"


def pack(arrays: Mapping[str, Array]) -> tuple[tuple[Tensor, ...], list[bytes]]:
    """What a header says of tensors, and their parts, copied: the caller's buffers are free again."""
    return tuple(Tensor(name, array.dtype.name, array.shape) for name, array in arrays.items()), [
        _little(array).tobytes() for array in arrays.values()
    ]


def unpack(tensors: Sequence[Tensor], parts: Parts) -> dict[str, Array]:
    """Views of the parts, read only. InvalidMessageError unless they are exactly what the header says."""
    if len(parts) != len(tensors):
        raise InvalidMessageError(f"tensors: got {len(parts)} parts, expected {len(tensors)} as the header says")
    arrays: dict[str, Array] = {}
    for tensor, part in zip(tensors, parts, strict=True):
        if tensor.dtype not in _DTYPES:
            raise InvalidMessageError(
                f"tensor {printable(tensor.name)!r}: got {printable(tensor.dtype)!r}, expected {', '.join(_DTYPES)}"
            )
        dtype = np.dtype(tensor.dtype)
        expected, got = math.prod(tensor.shape) * dtype.itemsize, memoryview(part).nbytes
        if got != expected:
            raise InvalidMessageError(
                f"tensor {printable(tensor.name)!r}: got {got} bytes, expected {expected} for {dtype} {tensor.shape}"
            )
        if tensor.name in arrays:
            raise InvalidMessageError(f"tensor {printable(tensor.name)!r}: got it twice, expected each once")
        arrays[tensor.name] = _native(np.frombuffer(part, dtype).reshape(tensor.shape))
    return arrays


def _little(array: Array) -> Array:
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("<"))


def _native(array: Array) -> Array:
    return array if sys.byteorder == "little" else array.byteswap()
