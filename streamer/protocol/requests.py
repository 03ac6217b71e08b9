"""Requests to the service socket and its replies (docs/protocol.md, "The service socket"), and their JSON form."""

from __future__ import annotations

import contextlib
import uuid
from typing import Annotated

import msgspec
from msgspec import Meta

from streamer.protocol.messages import (
    EXPECTED_VERSIONS,
    PROTOCOL_VERSION,
    READ_MAJORS,
    DifferentialMessage,
    EndMessage,
    FlagsOfVersion1,
    HealthMessage,
    ProtocolVersionError,
    Version,
    WireError,
)
from streamer.records import REVIEWER, SlideInfo

REQUEST_VERSION = "1.0"
"""Requests are what they were in 1.0, so that older streamers answer them too."""

REQUEST_MAX_BYTES = 4096

RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
Name = Annotated[str, Meta(max_length=128)]
CellNumber = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Reviewer = Annotated[str, Meta(pattern=f"^{REVIEWER}$")]
SessionSeq = Annotated[int, Meta(ge=-1, le=2**62)]


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="request"):
    """What every request carries."""

    version: Version = REQUEST_VERSION
    id: RequestId
    """Chosen by the asker, new for every request; the reply repeats it."""


class SnapshotRequest(Request, frozen=True, kw_only=True, tag="snapshot"):
    """Where every source stands."""


class ReplayRequest(Request, frozen=True, kw_only=True, tag="replay"):
    """Messages of a session again, in order: those with `after` < session_seq <= `until`."""

    session: Name
    after: SessionSeq
    until: SessionSeq | None = None
    """None: as far as there is."""
    topics: Annotated[list[Name], Meta(min_length=1, max_length=32)]
    """Prefixes; "" is everything."""


class StatusRequest(Request, frozen=True, kw_only=True, tag="status"):
    """What commands have done to the sources so far, and whether the asker may give any."""


class Command(Request, frozen=True, kw_only=True):
    """What every command carries. A command that was given to another run is refused."""

    run_id: Name
    source: Name


class Pause(Command, frozen=True, kw_only=True, tag="pause"):
    """Analyse no more frames: a file waits, the frames of a camera are dropped and counted."""


class Resume(Command, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause."""


class NewSlide(Command, frozen=True, kw_only=True, tag="new_slide"):
    """End the session with its final differential and begin another one."""

    slide: SlideInfo | msgspec.UnsetType = msgspec.UNSET
    """What is known of the next slide; operator, instrument, stain and magnification are those of the one before where
    it says none."""


class StopAt(Command, frozen=True, kw_only=True, tag="stop_at"):
    """End the source when so many white cells are counted."""

    cells: Annotated[int, Meta(ge=1, le=10**9)] | None
    """None: no limit."""


class Reclassify(Command, frozen=True, kw_only=True, tag="reclassify", rename={"class_": "class"}):
    """Give a counted cell the class that a person says it has, whatever the models say of it, now and later."""

    cell_id: CellNumber
    class_: Name | None
    """One of the classifier's, or `unclassified`; None: take back what was said before."""
    subclass: Name | None = None
    """One of the class's, where it has any."""
    reviewer: Reviewer | None = None
    """Initials of who says so; None: whoever the key belongs to."""


class Confirm(Command, frozen=True, kw_only=True, tag="confirm", rename={"class_": "class"}):
    """Say that counted cells are right as they are: they keep their class, whatever the models say of them later.
    Refused where one of them has another class by now."""

    cell_ids: Annotated[list[CellNumber], Meta(min_length=1, max_length=256)]
    class_: Name
    """That all of them have."""
    subclass: Name | None = None
    reviewer: Reviewer | None = None


class Comment(Command, frozen=True, kw_only=True, tag="comment"):
    """Put a remark about a cell, or about the slide, on record. It changes nothing else."""

    text: Annotated[str, Meta(min_length=1, max_length=2000)]
    cell_id: CellNumber | None = None
    """None: about the slide."""
    reviewer: Reviewer | None = None


AnyCommand = Pause | Resume | NewSlide | StopAt | Reclassify | Confirm | Comment
AnyRequest = (
    SnapshotRequest
    | ReplayRequest
    | StatusRequest
    | Pause
    | Resume
    | NewSlide
    | StopAt
    | Reclassify
    | Confirm
    | Comment
)
REQUEST_TYPES: dict[str, type[AnyRequest]] = {
    "snapshot": SnapshotRequest,
    "replay": ReplayRequest,
    "status": StatusRequest,
    "pause": Pause,
    "resume": Resume,
    "new_slide": NewSlide,
    "stop_at": StopAt,
    "reclassify": Reclassify,
    "confirm": Confirm,
    "comment": Comment,
}


COMMAND_TYPES: dict[str, type[AnyCommand]] = {
    name: kind for name, kind in REQUEST_TYPES.items() if issubclass(kind, Command)
}


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="reply"):
    """What every reply carries."""

    version: Version = PROTOCOL_VERSION
    id: str
    """Of the request; "" where that could not be read."""
    run_id: str | None
    """None before the first message was published."""


class SourceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One source as of message `session_seq` of its session."""

    session: str
    session_seq: int
    oldest_session_seq: int
    """The oldest message that a replay can begin with, as far as the window goes."""
    last_seq: dict[str, int]
    """By message type, `seq` of the newest message."""
    differential: DifferentialMessage | None
    """The newest; None before the first."""
    health: HealthMessage | None
    end: EndMessage | None = None
    """None while the session goes on."""


class SnapshotReply(Reply, frozen=True, kw_only=True, tag="snapshot"):
    sources: dict[str, SourceSnapshot]


class ReplayReply(Reply, frozen=True, kw_only=True, tag="replay"):
    """Some of what was asked for: the messages follow as further parts of the multipart."""

    session: str
    through: int
    """All that was asked for up to this session_seq is in this reply or in earlier ones: ask on with `after` = this."""
    last: int
    """session_seq of the newest message of the session: when `through` reaches it, or `until`, all is here."""
    messages: list[int]
    """How many parts (topic, header, payloads) each message has."""


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    session: str
    paused: bool
    stop_at: int | None
    white_cells: int
    """Counted so far."""
    slide: SlideInfo | None = None
    """None: nobody said anything of it."""


class StatusReply(Reply, frozen=True, kw_only=True, tag="status"):
    may_control: bool
    sources: dict[str, SourceState]


class DoneReply(Reply, frozen=True, kw_only=True, tag="done"):
    """A command was carried out."""

    state: SourceState
    """Of its source, right after."""
    repeated: bool
    """True: this id was carried out before, and not again now; the rest of the reply is that of the first time."""


class RefusedReply(Reply, frozen=True, kw_only=True, tag="refused"):
    code: str
    """For programs: see docs/protocol.md."""
    reason: str
    """For people."""


AnyReply = SnapshotReply | ReplayReply | StatusReply | DoneReply | RefusedReply
REPLY_TYPES: dict[str, type[AnyReply]] = {
    "snapshot": SnapshotReply,
    "replay": ReplayReply,
    "status": StatusReply,
    "done": DoneReply,
    "refused": RefusedReply,
}


class RequestRefused(Exception):
    """A request that is not carried out; `code` for programs, the text for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Head(msgspec.Struct):
    version: str
    id: RequestId = ""


class _SourceOfVersion1(msgspec.Struct):
    differential: FlagsOfVersion1 | None


class _SnapshotOfVersion1(msgspec.Struct, tag_field="reply", tag="snapshot"):
    sources: dict[str, _SourceOfVersion1]


_ENCODER = msgspec.json.Encoder()
_REQUEST_DECODER: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_REPLY_DECODER: msgspec.json.Decoder[AnyReply] = msgspec.json.Decoder(AnyReply)
_SNAPSHOT_1_DECODER = msgspec.json.Decoder(_SnapshotOfVersion1)
_HEAD_DECODER = msgspec.json.Decoder(_Head)
_BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def new_request_id() -> str:
    return uuid.uuid4().hex


def kind_of(request: AnyRequest) -> str:
    """ "pause", "replay" …"""
    return str(type(request).__struct_config__.tag)


def encode_request(request: AnyRequest) -> bytes:
    return _ENCODER.encode(request)


def encode_reply(reply: AnyReply) -> bytes:
    return _ENCODER.encode(reply)


def decode_request(header: bytes) -> AnyRequest:
    """RequestRefused for what is no request that this version knows."""
    head = _head(header)
    try:
        request = _REQUEST_DECODER.decode(header)
    except _BAD_JSON as error:
        if head is not None and head.version.split(".")[0] not in READ_MAJORS:
            raise RequestRefused(
                "version", f"got a request of protocol {head.version[:16]!r}, expected {EXPECTED_VERSIONS}"
            ) from None
        raise RequestRefused("malformed", f"got what is no request: {str(error)[:200]}") from None
    if head is None:
        raise RequestRefused("malformed", f"got a request without version, expected {REQUEST_VERSION!r} in it")
    return request


def request_id(header: bytes) -> str:
    """The id in a request that is otherwise not understood; "" where there is none."""
    head = _head(header)
    return "" if head is None else head.id


def decode_reply(header: bytes) -> AnyReply:
    """WireError for what is no reply, ProtocolVersionError for one of another major version."""
    try:
        return _REPLY_DECODER.decode(header)
    except _BAD_JSON as error:
        with contextlib.suppress(*_BAD_JSON):
            return _snapshot_of_version_1(header)
        head = _head(header)
        if head is not None and head.version.split(".")[0] not in READ_MAJORS:
            raise ProtocolVersionError(
                f"got a reply of protocol {head.version}, expected {EXPECTED_VERSIONS}: "
                "use the same major version of leukostream on both sides"
            ) from error
        raise WireError(f"got {header[:60]!r}, expected a reply of a leukostream: {error}") from error


def _snapshot_of_version_1(header: bytes) -> SnapshotReply:
    """MsgspecError for anything else."""
    old, reply = _SNAPSHOT_1_DECODER.decode(header), msgspec.json.decode(header)
    for name, source in old.sources.items():
        if source.differential is not None:
            reply["sources"][name]["differential"]["flags"] = source.differential.of_today()
    return msgspec.convert(reply, SnapshotReply)


def _head(header: bytes) -> _Head | None:
    try:
        return _HEAD_DECODER.decode(header)
    except _BAD_JSON:
        return None
