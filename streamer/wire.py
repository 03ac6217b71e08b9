"""The messages of protocol 1.0 as structs, and their JSON form.

Field names and meanings are those of the protocol; times ending in `_ns` are monotonic nanoseconds of the
publishing machine. None (null) means "not measured"; a field that is absent does not apply to that detection.
"""

from __future__ import annotations

import msgspec

PROTOCOL_VERSION = "1.0"


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every message carries."""

    version: str = PROTOCOL_VERSION
    session: str
    """One slide; a resumed session keeps it."""
    run_id: str
    """New with every process."""
    source: str
    seq: int
    """Gapless per topic, from 0."""
    session_seq: int
    """Gapless per session, from 0."""
    published_ns: int
    published_utc: str
    """ISO 8601 with microseconds and Z."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    island: int
    x_px: float
    y_px: float
    quality: float


class Detection(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    box_px: tuple[float, float, float, float]
    label: str
    kind: str
    score: float
    counted: bool
    cell_id: int | None = None
    is_new: bool = False
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
    stage: Stage | None
    focus: float | None
    accepted: bool
    reasons: list[str]
    truncated: bool
    detections: list[Detection]
    timings_ms: dict[str, float]


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


class ClassShare(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    percent: float | None
    low: float | None
    high: float | None


class DifferentialMessage(Message, frozen=True, kw_only=True, tag="differential"):
    total: int
    classes: dict[str, ClassShare]
    limits_method: str
    unclassified: int
    nrbc: int
    nrbc_per_100_wbc: float | None
    flags: list[str]
    not_assessed: list[str]
    rbc_seen: int
    platelets_seen: int
    frames: int
    frames_accepted: int
    final: bool


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    state: str
    mode: str
    fps: float | None
    captured: int
    published: int
    dropped: dict[str, int]
    skipped: dict[str, int]
    queue: int
    reopened: int
    latency_ms: dict[str, float] | None
    detail: str | None


class HealthMessage(Message, frozen=True, kw_only=True, tag="health"):
    backend: str
    detector: str
    classifier: str | None
    uptime_s: float
    sources: dict[str, SourceStatus]


AnyMessage = FrameMessage | CellMessage | DifferentialMessage | HealthMessage
