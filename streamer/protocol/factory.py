"""Messages from records: numbered, dated and rounded as the protocol says."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, TypeVar, get_type_hints

import msgspec
import numpy as np

from engines.base import Classifications, Detections, UsageError
from streamer.protocol.messages import (
    CellMessage,
    Detection,
    DifferentialMessage,
    EndMessage,
    EndState,
    Evidence,
    FrameMessage,
    HealthMessage,
    PictureMessage,
)
from streamer.records import (
    Attributes,
    Cell,
    CellId,
    Differential,
    Frame,
    FrameQuality,
    Health,
    InferenceStatus,
    MergedIsland,
    Observation,
    SlideInfo,
    SourceStatus,
    StagePosition,
    usable_point,
    usable_scale,
)

Record = TypeVar("Record", bound=msgspec.Struct)


SOURCE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """The classifications of some of the boxes of one frame."""

    rows: Sequence[int]
    """Index of each look into the frame's detections."""
    classifications: Classifications
    classes: Sequence[str]
    """The class of each look, "unclassified" below the threshold; as long as `rows`."""


def rounded_probabilities(names: Iterable[str], probabilities: Iterable[float]) -> dict[str, float]:
    """Probabilities to 4 decimals that keep their sum and their order.

    Largest remainders: eight classes rounded one by one would sum to 0.9996 or 1.0004.
    """
    parts = [10_000.0 * float(p) for p in probabilities]
    floors = [int(part) for part in parts]
    missing = round(sum(parts)) - sum(floors)
    if missing > 0:
        for i in sorted(range(len(parts)), key=lambda i: floors[i] - parts[i])[:missing]:
            floors[i] += 1
    return {name: floor / 10_000 for name, floor in zip(names, floors, strict=True)}


def _detections(
    detections: Detections,
    observations: Sequence[Observation],
    looks: Looks | None,
    cells: Mapping[CellId, Cell],
    carried: Collection[int],
) -> list[Detection]:
    if len(observations) != len(detections):
        raise ValueError(f"got {len(observations)} observations for {len(detections)} detections, expected one each")
    # .tolist() once per array: a conversion per number would cost several times as much at 350 boxes.
    boxes = np.round(detections.boxes_px.astype(np.float64), 1)
    scores = np.round(detections.scores.astype(np.float64), 4)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("detections: got a box or score that is not finite, which JSON has no number for")
    look_of: dict[int, tuple[str, dict[str, float]]] = {}
    if looks is not None:
        names, rows = looks.classifications.class_names, looks.classifications.probabilities.tolist()
        for row, name, probabilities in zip(looks.rows, looks.classes, rows, strict=True):
            look_of[int(row)] = (name, rounded_probabilities(names, probabilities))
    label_names, kinds = detections.label_names, detections.kinds
    marks = [True if row in carried else msgspec.UNSET for row in range(len(detections))]
    columns = zip(boxes.tolist(), scores.tolist(), detections.labels.tolist(), observations, marks, strict=True)
    messages = [
        Detection(
            box_px=tuple(box),
            label=label_names[label],
            kind=kinds[label],
            score=score,
            counted=counted,
            cell_id=cell_id,
            is_new=is_new,
            carried=mark,
        )
        for box, score, label, (cell_id, is_new, counted), mark in columns
    ]
    for i in detections.white_rows.tolist():
        look_class, look_probabilities = look_of.get(i, (None, None))
        cell_id = observations[i].cell_id
        cell = None if cell_id is None else cells.get(cell_id)
        messages[i] = msgspec.structs.replace(
            messages[i],
            look_class=look_class,
            look_probabilities=look_probabilities,
            class_=None if cell is None else cell.class_name,
            class_probabilities=None if cell is None else _cell_probabilities(cell),
        )
    return messages


def _cell_probabilities(cell: Cell) -> dict[str, float]:
    return rounded_probabilities(cell.class_probabilities, cell.class_probabilities.values())


@cache
def _digits_of(kind: type[msgspec.Struct]) -> tuple[tuple[str, int], ...]:
    """(field, decimals) of those fields of a record that are rounded."""
    hints = get_type_hints(kind, include_extras=True)
    metas = [(name, meta) for name, hint in hints.items() for meta in getattr(hint, "__metadata__", ())]
    return tuple((name, meta.extra["digits"]) for name, meta in metas if isinstance(meta, msgspec.Meta) and meta.extra)


def rounded(record: Record) -> Record:
    """A record as it is published: the same with fewer decimals."""
    changes: dict[str, object] = {}
    for name, digits in _digits_of(type(record)):
        value = getattr(record, name)
        if isinstance(value, Mapping):
            changes[name] = {key: round(float(number), digits) for key, number in value.items()}
        elif value is not None:
            changes[name] = round(float(value), digits)
    return msgspec.structs.replace(record, **changes)


def attribute_messages(attributes: Attributes | None) -> Attributes | None:
    """Confidences to 4 decimals."""
    return None if attributes is None else {name: rounded(value) for name, value in attributes.items()}


def _status(status: SourceStatus) -> SourceStatus:
    if status.detail is not None:
        status = msgspec.structs.replace(status, detail=_text(status.detail))
    if status.positions is not None:
        status = msgspec.structs.replace(status, positions=rounded(status.positions))
    if status.area is not None:
        status = msgspec.structs.replace(status, area=rounded(status.area))
    if status.audit is not None:
        status = msgspec.structs.replace(status, audit=rounded(status.audit))
    return rounded(status)


def _inference(status: InferenceStatus | None) -> InferenceStatus | None:
    if status is None:
        return None
    servers = {
        endpoint: rounded(msgspec.structs.replace(one, detail=None if one.detail is None else _text(one.detail)))
        for endpoint, one in status.servers.items()
    }
    return rounded(msgspec.structs.replace(status, servers=servers))


def _milliseconds(times_ms: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(ms), 3) for name, ms in times_ms.items()}


def _text(name: str) -> str:
    """`name` without the lone surrogates by which Python keeps file names that are no UTF-8."""
    return _LONE_SURROGATES.sub("\N{REPLACEMENT CHARACTER}", name)


def new_id() -> str:
    """An id for a session or a run that no other has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def _iso(utc_ns: int) -> str:
    second, microsecond = divmod(utc_ns // 1000, 1_000_000)
    return f"{_iso_second(second)}.{microsecond:06}Z"


@lru_cache(maxsize=16)
def _iso_second(utc_s: int) -> str:
    return (datetime(1970, 1, 1) + timedelta(seconds=utc_s)).isoformat()


class MessageFactory:
    """Makes the messages of one session (one source, one slide) of one run, numbered and dated.

    Every message made takes the next `seq` of its topic and `session_seq` of its session: publish it, or
    subscribers count it as lost. Not thread-safe: the one publishing thread owns it.

    One offset between the monotonic clock and UTC, taken here at the start, dates everything, so that the
    difference of two `_utc` is that of their `_ns`, whatever is done to the machine's clock meanwhile.
    """

    def __init__(
        self,
        source: str,
        *,
        session: str,
        run_id: str,
        next_session_seq: int = 0,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        utc_ns: Callable[[], int] = time.time_ns,
        utc_offset_ns: int | None = None,
    ) -> None:
        """`next_session_seq`: for a resumed session, one more than the last number that it used. `utc_offset_ns`: UTC
        minus monotonic time, for who must date things alike; None: that of now."""
        if not SOURCE_NAME.fullmatch(source):
            raise UsageError(f"source name: got {source!r}, expected letters, digits, '_' and '-', with a letter first")
        self.source = source
        self.session = session
        self.run_id = run_id
        self.slide = SlideInfo()
        """What people say of the slide; may be known only once frames come."""
        self._monotonic_ns = monotonic_ns
        self._utc_offset_ns = utc_ns() - monotonic_ns() if utc_offset_ns is None else utc_offset_ns
        self._next_seq: Counter[str] = Counter()
        self._next_session_seq = next_session_seq

    @property
    def next_session_seq(self) -> int:
        return self._next_session_seq

    def utc(self, monotonic_ns: int) -> str:
        """A monotonic time of this machine as ISO 8601 with microseconds and Z."""
        return _iso(monotonic_ns + self._utc_offset_ns)

    def captured_utc(self, frame: Frame) -> str:
        """When a frame was grabbed; of a recording's, when it was recorded."""
        return self.utc(frame.captured_ns) if frame.captured_utc_ns is None else _iso(frame.captured_utc_ns)

    def frame(
        self,
        frame: Frame,
        detections: Detections,
        *,
        stage: StagePosition | None,
        quality: FrameQuality,
        observations: Sequence[Observation],
        looks: Looks | None = None,
        cells: Mapping[CellId, Cell] | None = None,
        merged_islands: Sequence[MergedIsland] = (),
        timings_ms: Mapping[str, float] | None = None,
        looked_share: float = 1.0,
        carried: Collection[int] = (),
    ) -> FrameMessage:
        """`observations`: one a detection, in order. `looks`: this frame's crops; None where no classifier ran.
        `cells`: those that the observations name, as they stand after this frame. `looked_share`: of the frame's
        pixels that models saw. `carried`: rows of the detections that are known from earlier frames and were not looked
        at.
        """
        bodies = _detections(detections, observations, looks, {} if cells is None else cells, carried)
        return FrameMessage(
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
            captured_utc=self.captured_utc(frame),
            width=frame.width,
            height=frame.height,
            file=None if frame.file is None else _text(frame.file),
            stage=None if stage is None else rounded(stage),
            stage_um=None if (point := usable_point(frame.stage_um)) is None else rounded(point),
            um_per_px=usable_scale(frame.um_per_px),
            merged_islands=[rounded(one) for one in merged_islands],
            focus=quality.focus,
            accepted=quality.accepted,
            reasons=list(quality.reasons),
            truncated=detections.truncated,
            detections=bodies,
            timings_ms=_milliseconds(timings_ms or {}),
            looked_share=round(float(looked_share), 4),
            **self._stamp("frame"),
        )

    def cell(
        self,
        cell: Cell,
        evidence: Evidence | None = None,
        *,
        counted: bool = True,
        joined_to: CellId | None = None,
    ) -> CellMessage:
        """`counted`: False takes back a cell that was published, as another one (`joined_to`) or as no white cell;
        True leaves it to the cell."""
        return CellMessage(
            cell_id=cell.cell_id,
            island=cell.island,
            x_px=round(float(cell.x_px), 1),
            y_px=round(float(cell.y_px), 1),
            class_=cell.class_name,
            subclass=cell.subclass,
            top_class=cell.top_class,
            class_probabilities=_cell_probabilities(cell),
            looks=cell.looks,
            partial=cell.partial,
            first_frame_id=cell.first_frame_id,
            last_frame_id=cell.last_frame_id,
            reclassified=cell.reclassified,
            unclassified_reason=cell.unclassified_reason,
            attributes=attribute_messages(cell.attributes),
            counted=counted and cell.counted,
            joined_to=joined_to,
            shape=None if cell.shape is None else rounded(cell.shape),
            evidence=evidence,
            **self._stamp("cell"),
        )

    def differential(self, differential: Differential) -> DifferentialMessage:
        """Percentages and limits as they are, unrounded."""
        return DifferentialMessage(**msgspec.structs.asdict(differential), **self._stamp("differential"))

    def health(self, health: Health) -> HealthMessage:
        models = msgspec.structs.replace(health.models, inference=_inference(health.models.inference))
        return HealthMessage(
            **msgspec.structs.asdict(models),
            uptime_s=round(float(health.uptime_s), 3),
            sources={name: _status(status) for name, status in health.sources.items()},
            last_seq=self._last_seq("health"),
            stream=health.stream,
            recording=health.recording,
            jsonl_lost=health.jsonl_lost,
            slide=self.slide.or_none(),
            **self._stamp("health"),
        )

    def picture(self, frame: Frame, width: int, height: int) -> PictureMessage:
        """Of a frame that was encoded at `width` x `height` pixels."""
        return PictureMessage(
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
            width=width,
            height=height,
            scale=round(width / frame.width, 6),
            **self._stamp("picture"),
        )

    def end(self, state: EndState, reason: str) -> EndMessage:
        """The last message of the session."""
        return EndMessage(
            state=state,
            reason=_text(reason),
            last_seq=self._last_seq("end"),
            slide=self.slide.or_none(),
            **self._stamp("end"),
        )

    def go_on_from(self, earlier: MessageFactory) -> None:
        """Take over the numbering of the topics from the session before this one on the same source."""
        self._next_seq = earlier._next_seq.copy()

    def _last_seq(self, but: str) -> dict[str, int]:
        return {type_: number - 1 for type_, number in self._next_seq.items() if type_ != but}

    def _stamp(self, type_: str) -> dict[str, Any]:
        """The common fields. Called last, so that a message that can't be built takes no number."""
        published_ns = self._monotonic_ns()
        stamp = {
            "session": self.session,
            "run_id": self.run_id,
            "source": self.source,
            "seq": self._next_seq[type_],
            "session_seq": self._next_session_seq,
            "published_ns": published_ns,
            "published_utc": self.utc(published_ns),
        }
        self._next_seq[type_] += 1
        self._next_session_seq += 1
        return stamp
