"""The messages of protocol 2.0 as structs, and their JSON form. What they are made of is in streamer/records.py;
streamer/protocol/factory.py rounds it and numbers the messages.

Field names and meanings are those of the protocol (docs/protocol.md). Times ending in `_ns` are monotonic
nanoseconds of the publishing machine. None (null) means "not measured"; a field that is absent does not apply
to that detection.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec
import numpy as np

from engines.base import LeukostreamError
from streamer.records import (
    AttributeValue,
    CellShape,
    Differential,
    InferenceStatus,
    MergedIsland,
    RecordingStatus,
    ShadowStatus,
    SlideInfo,
    SourceStatus,
    StagePoint,
    StagePosition,
    StreamStatus,
)

PROTOCOL_VERSION = "2.0"
READ_MAJORS = ("2", "1")
"""Those whose messages are read: what 1.x had has the same meaning, but for what docs/protocol.md says of 2.0."""
EXPECTED_VERSIONS = " or ".join(f"{major}.x" for major in READ_MAJORS)

Version = Annotated[str, msgspec.Meta(pattern=rf"^({'|'.join(READ_MAJORS)})\.[0-9]+$")]


class WireError(LeukostreamError):
    """What arrived is no message of this protocol."""


class ProtocolVersionError(WireError):
    """A message of another major version: its fields may mean something else, so none of it is read."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", dict=True):
    """What every message carries."""

    version: Version = PROTOCOL_VERSION
    session: str
    """One slide; a resumed session keeps it."""
    run_id: str
    """New with every process."""
    source: str
    seq: int
    """Gapless per topic and run, from 0."""
    session_seq: int
    """Gapless per session, from 0; a resumed session goes on counting."""
    published_ns: int
    published_utc: str
    """ISO 8601 with microseconds and Z."""

    @cached_property
    def encoded(self) -> bytes:
        """See `encode`: made once, for the journal and all sinks."""
        return _ENCODER.encode(self)


class Detection(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    box_px: tuple[float, float, float, float]
    label: str
    kind: str
    score: float
    counted: bool
    cell_id: int | None = None
    is_new: bool = False
    carried: bool | msgspec.UnsetType = msgspec.UNSET
    """True: nobody looked, the cell is known to lie here, and `score` is that of its last look. Absent: a look."""
    look_class: str | msgspec.UnsetType | None = msgspec.UNSET
    """White cells only: what this crop alone looks like."""
    look_probabilities: dict[str, float] | msgspec.UnsetType | None = msgspec.UNSET
    class_: str | msgspec.UnsetType | None = msgspec.UNSET
    """White cells only: the class of the cell so far, all looks fused."""
    class_probabilities: dict[str, float] | msgspec.UnsetType | None = msgspec.UNSET


class FrameMessage(Message, frozen=True, kw_only=True, tag="frame"):
    frame_id: int
    captured_ns: int
    captured_utc: str
    width: int
    height: int
    file: str | None
    stage: StagePosition | None
    merged_islands: list[MergedIsland] = []
    """Since the frame before; they come first, `stage` is in the islands that are left."""
    focus: float | None
    accepted: bool
    reasons: list[str]
    truncated: bool
    detections: list[Detection]
    timings_ms: dict[str, float]
    stage_um: StagePoint | None = None
    """As the source reports it, also where `stage` is null."""
    um_per_px: float | None = None
    """Of this frame, as the source states it."""
    looked_share: float = 1.0
    """Of its pixels, those that a model saw; below 1 what else lies here is `carried` from earlier looks."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """Where on a cell the evidence for a class lies: Grad-CAM of one look."""

    class_: str
    """Of the classifier's classes, the one that the map is of: the cell's likeliest."""
    frame_id: int
    """The frame that was looked at."""
    square_px: tuple[int, int, int]
    """Left, top and side of what the map covers, in pixels of that frame; parts of it may lie outside."""
    map: list[list[int]]
    """Rows from the top, 0 to 255: the largest is 255, unless there is no evidence at all."""


class CellMessage(Message, frozen=True, kw_only=True, tag="cell", rename={"class_": "class"}):
    cell_id: int
    island: int
    x_px: float
    y_px: float
    class_: str
    subclass: str | None
    top_class: str
    class_probabilities: dict[str, float]
    looks: int
    partial: bool
    first_frame_id: int
    last_frame_id: int
    reclassified: bool = False
    """A person gave it its class, by a command; the probabilities stay those of its looks."""
    unclassified_reason: str | None = None
    """Why `class` is "unclassified": "low confidence" or "unlike the training cells"."""
    attributes: dict[str, AttributeValue] | None = None
    """How the cell looks, by name; null for classifiers and for classes without."""
    counted: bool = True
    """False: it turned out to be another cell that was counted too, or no white cell, and is in no count any more."""
    joined_to: int | None = None
    """The cell that it turned out to be; all but the number is what holds of that one then."""
    shape: CellShape | None = None
    """None: no segmenter ran, or no look at the cell was fit for it."""
    evidence: Evidence | None = None
    """None where it was not asked for, or no look of this frame changed the cell."""


def _stamped(record: type[msgspec.Struct], tag: str) -> type[msgspec.Struct]:
    """The message that has what every message carries and then the fields of a record: structs can't inherit both."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(record):
        if field.default_factory is not msgspec.NODEFAULT:
            fields.append((field.name, field.type, msgspec.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, field.type) if field.required else (field.name, field.type, field.default))
    name = f"{record.__name__}Message"
    return msgspec.defstruct(name, fields, bases=(Message,), module=__name__, frozen=True, kw_only=True, tag=tag)


if TYPE_CHECKING:

    class DifferentialMessage(Message, Differential, frozen=True, kw_only=True, tag="differential"):
        """What `Differential` holds."""
else:
    DifferentialMessage = _stamped(Differential, "differential")


class HealthMessage(Message, frozen=True, kw_only=True, tag="health"):
    backend: str
    detector: str
    classifier: str | None
    uptime_s: float
    sources: dict[str, SourceStatus]
    last_seq: dict[str, int] | None = None
    """By other message type of this source, `seq` of the newest: what tells that the last of a topic was lost."""
    stream: StreamStatus | None = None
    shadow: dict[str, ShadowStatus] | None = None
    """By model, "detector" and "classifier": how far a GPU agrees with the CPU; None where that is not compared."""

    recording: RecordingStatus | None = None
    jsonl_lost: int | None = None
    segmenter: str | None = None
    slide: SlideInfo | None = None
    """What is known of the slide of this source; None: nobody said anything of it."""
    inference: InferenceStatus | None = None
    """Where the models run, when that is on other machines; None: on this one."""


class PictureMessage(Message, frozen=True, kw_only=True, tag="picture"):
    """A frame as JPEG; only made while somebody subscribes to it."""

    frame_id: int
    captured_ns: int
    width: int
    """Of the JPEG, in pixels."""
    height: int
    scale: float
    """Pixels of the JPEG per pixel of the frame."""


EndState = Literal["finished", "failed", "stopped"]
"""finished: the source has ended, or as much was counted as was asked for. stopped: somebody stopped it before that."""

NEW_SLIDE = "new slide"
"""The `reason` of an end after which another session of the same source follows."""


class EndMessage(Message, frozen=True, kw_only=True, tag="end"):
    """The last message of a session, until it is resumed."""

    state: str
    """An EndState. Readers take any text, for those that a later minor version adds."""
    reason: str
    """Why it ended, in words."""
    last_seq: dict[str, int]
    """By other message type of this source, `seq` of the newest: who has these has all."""
    slide: SlideInfo | None = None
    """None: nobody said anything of it."""


AnyMessage = FrameMessage | CellMessage | DifferentialMessage | HealthMessage | PictureMessage | EndMessage
MESSAGE_TYPES: dict[str, type[AnyMessage]] = {
    "frame": FrameMessage,
    "cell": CellMessage,
    "differential": DifferentialMessage,
    "health": HealthMessage,
    "picture": PictureMessage,
    "end": EndMessage,
}


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a message whose type a later minor version added: the fields that all messages carry."""

    type: str
    version: Version
    session: str
    run_id: str
    source: str
    seq: int
    session_seq: int
    published_ns: int
    published_utc: str


class Sink(Protocol):
    """Where messages go: a socket, a file, a display.

    `publish` is called by the one publishing thread, with every message in order. It never raises on account of
    its own trouble (a full disk, a reader that left): that is said once and counted, and the other sinks go on.
    """

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None: ...

    def close(self) -> None: ...


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a message holds a {type(value).__name__}, expected plain numbers, texts and lists")


class _Versioned(msgspec.Struct):
    version: str
    type: str | None = None


class FlagsOfVersion1(msgspec.Struct, tag_field="type", tag="differential"):
    """Of a differential of 1.x what has another form today."""

    version: Annotated[str, msgspec.Meta(pattern=r"^1\.")]
    flags: list[str]

    def of_today(self) -> list[dict[str, str]]:
        return [{"code": "1.x", "text": text} for text in self.flags]


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_DECODER: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_ENVELOPE_DECODER = msgspec.json.Decoder(Envelope)
_VERSION_1_DECODER = msgspec.json.Decoder(FlagsOfVersion1)
_VERSION_DECODER = msgspec.json.Decoder(_Versioned)


def encode(message: AnyMessage) -> bytes:
    """One JSON object in UTF-8, without line breaks."""
    return message.encoded


def decode(header: bytes) -> AnyMessage | Envelope:
    """The message in a JSON header; an Envelope where its type is newer than this program.

    Fields that a later minor version added are ignored, and the flags of 1.x, which were texts, become flags with a
    text. ProtocolVersionError for another major version, WireError for what is no message.
    """
    try:
        return _DECODER.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return _of_version_1(header)
        return _decode_unknown(header, error)


def _of_version_1(header: bytes) -> DifferentialMessage:
    """MsgspecError for what is no differential of 1.x."""
    flags = _VERSION_1_DECODER.decode(header).of_today()
    return msgspec.convert({**msgspec.json.decode(header), "flags": flags}, DifferentialMessage)


def _decode_unknown(header: bytes, error: Exception) -> Envelope:
    try:
        versioned = _VERSION_DECODER.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise WireError(
            f"got {header[:60]!r}, expected a leukostream message in JSON: is this the endpoint of a leukostream?"
        ) from error
    major = versioned.version.split(".")[0]
    if major not in READ_MAJORS:
        raise ProtocolVersionError(
            f"got a message of protocol {versioned.version}, expected {EXPECTED_VERSIONS}: "
            "use the same major version of leukostream on both sides"
        ) from error
    if versioned.type is not None and versioned.type not in MESSAGE_TYPES:
        try:
            return _ENVELOPE_DECODER.decode(header)
        except msgspec.MsgspecError as envelope_error:
            error = envelope_error
    raise WireError(f"message of type {versioned.type!r}: {error}") from error


def type_of(message: AnyMessage | Envelope) -> str:
    """ "frame", "cell", "differential", "health", or what a later minor version calls it."""
    return message.type if isinstance(message, Envelope) else str(type(message).__struct_config__.tag)


def topic_of(message: AnyMessage | Envelope) -> str:
    """TYPE.SOURCE"""
    return f"{type_of(message)}.{message.source}"
