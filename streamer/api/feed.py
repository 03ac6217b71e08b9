"""A run that a program iterates over: frames with their detections and cells."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from engines.base import LeukostreamError, UsageError
from engines.geometry import Image
from streamer.api.slide import SlideResult
from streamer.commands.output import remark
from streamer.commands.run.build import Assembled, assembled
from streamer.config import Config, load_config
from streamer.interop.coco import CocoDataset
from streamer.interop.formats import needed
from streamer.interop.sessions import unnamed_frame
from streamer.protocol.messages import (
    AnyMessage,
    CellMessage,
    Detection,
    DifferentialMessage,
    EndMessage,
    FrameMessage,
    HealthMessage,
)
from streamer.records import Frame
from streamer.run.lane import QUEUE
from streamer.run.ring import Ring
from streamer.sources.base import Source

if TYPE_CHECKING:
    import supervision

Path = str | os.PathLike[str]

FOR_PEOPLE = ("dashboard", "picture", "map")
"""Options of `run` that have no meaning here."""

POLL_S = 0.5
"""How long a program waits for a frame before Ctrl-C is looked for: some systems interrupt no wait."""


@dataclass(frozen=True, slots=True, eq=False)
class CountedFrame:
    """One frame, and what was made of it."""

    image: Image
    """uint8 (H,W,3), blue, green, red. Not to be written into."""
    message: FrameMessage
    """All that is published of it (docs/protocol.md)."""
    cells: tuple[CellMessage, ...]
    """The cells that it brought or changed; one that turned out to be another has `counted` False."""
    differential: DifferentialMessage | None
    """As it stood after this frame; None before the first white cell."""
    label_names: tuple[str, ...]
    """Of the detector, in its order."""

    @property
    def source(self) -> str:
        return self.message.source

    @property
    def frame_id(self) -> int:
        """From 0, in what the source gave; one that was dropped leaves a gap."""
        return self.message.frame_id

    @property
    def file(self) -> str | None:
        """Base name; None for cameras, films and other sources without files."""
        return self.message.file

    @property
    def detections(self) -> list[Detection]:
        """Best score first; white cells have `class_`, of all that was seen of the cell so far."""
        return self.message.detections

    def to_supervision(self) -> supervision.Detections:
        """The boxes, with `class_id` into `label_names`; `data` has `class_name` (of the detector), `cell_id` (-1:
        none) and `cell_class` ("": none). UsageError without the package supervision."""
        with needed("to_supervision", "supervision"):
            import supervision
        found = self.detections
        return supervision.Detections(
            xyxy=np.array([one.box_px for one in found], np.float32).reshape(-1, 4),
            confidence=np.array([one.score for one in found], np.float32),
            class_id=np.array([self.label_names.index(one.label) for one in found], int),
            data={
                "class_name": np.array([one.label for one in found], str),
                "cell_id": np.array([-1 if one.cell_id is None else one.cell_id for one in found], int),
                "cell_class": np.array([one.class_ or "" for one in found], str),
            },
        )


class _Counted:
    """One slide so far."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.differential: DifferentialMessage | None = None
        self.cells: dict[int, CellMessage] = {}
        self.pictures: dict[int, bytes] = {}
        self.end: EndMessage | None = None

    def keep(self, cell: CellMessage, picture: bytes | None) -> None:
        if not cell.counted:
            self.cells.pop(cell.cell_id, None)
            self.pictures.pop(cell.cell_id, None)
            return
        self.cells[cell.cell_id] = cell
        if picture is not None:
            self.pictures.setdefault(cell.cell_id, picture)


class _Inbox:
    """The viewer of a run: puts each frame together with its messages, for another thread to take."""

    def __init__(self, note: str | None, _: Mapping[str, Source]) -> None:
        self.ring: Ring[CountedFrame] = Ring(1, "block")
        self.label_names: dict[str, tuple[str, ...]] = {}
        self._note = note
        self._shown: dict[str, Frame] = {}
        self._open: dict[str, tuple[Frame, FrameMessage, list[CellMessage]]] = {}
        self._slides: dict[str, _Counted] = {}
        self._lock = threading.Lock()
        """Of `_slides`, which another thread reads."""

    def show(self, frame: Frame) -> None:
        self._hand_over(frame.source)
        self._shown[frame.source] = frame

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        if isinstance(message, FrameMessage):
            self._open[message.source] = self._shown.pop(message.source), message, []
        elif isinstance(message, CellMessage) and message.source in self._open:
            self._open[message.source][2].append(message)
        elif isinstance(message, HealthMessage | EndMessage):
            self._hand_over(message.source)
        with self._lock:
            slide = self._slides.get(message.source)
            if slide is None or slide.session != message.session:
                slide = self._slides[message.source] = _Counted(message.session)
            if isinstance(message, CellMessage):
                slide.keep(message, payload)
            elif isinstance(message, DifferentialMessage):
                slide.differential = message
            elif isinstance(message, EndMessage):
                slide.end = message

    def close(self) -> None:
        self.ring.close()

    def slides(self) -> dict[str, SlideResult]:
        """Of the sources that were counted already; any thread."""
        with self._lock:
            return {
                source: SlideResult(source, one.differential, dict(one.cells), dict(one.pictures), one.end, self._note)
                for source, one in self._slides.items()
                if one.differential is not None
            }

    def _hand_over(self, source: str) -> None:
        """The frame whose messages are all here; waits for room where no frame may be lost."""
        if source in self._open:
            frame, message, cells = self._open.pop(source)
            slide = self._slides.get(source)
            differential = None if slide is None else slide.differential
            self.ring.put(CountedFrame(frame.image, message, tuple(cells), differential, self.label_names[source]))


class Feed:
    """A run under way. Iterate over it once; it ends with the loop, with `with`, or with `close`, whatever comes first.

    Where all sources are read in the mode `analysis` the run waits for the program, and each frame is seen. In `live`
    mode the count goes on while the program is busy; frames that it was too late for are in `missed`.
    """

    def __init__(self, config: Config) -> None:
        self._inbox: _Inbox
        with contextlib.ExitStack() as stack:
            parts = stack.enter_context(assembled(config, sys.stderr, remark, _Inbox))
            self._inbox = inbox = parts.viewer
            modes = {one.mode for one in parts.sources}
            inbox.ring = (
                Ring(QUEUE["analysis"], "block") if modes == {"analysis"} else Ring(QUEUE["live"], "drop_oldest")
            )
            inbox.label_names = {name: tuple(one.detector.card.class_names) for name, one in parts.models.items()}
            if config.stop_after_s is not None:
                reason = f"after {config.stop_after_s:g} s, as asked for"
                timer = threading.Timer(config.stop_after_s, parts.pipeline.stop, [reason])
                timer.daemon = True
                stack.callback(timer.cancel)
                timer.start()
            parts.pipeline.start()
            if parts.report is not None:
                parts.report.is_due = True
            stack.callback(_finish, parts)
            self._end = weakref.finalize(self, stack.pop_all().close)  # also of a feed that is forgotten

    def __iter__(self) -> Iterator[CountedFrame]:
        """The frames in their order. What failed is raised at the end, a LeukostreamError as of `leukostream run`."""
        with self:
            ring = self._inbox.ring
            while not ring.drained:
                if (frame := ring.get(POLL_S)) is not None:
                    yield frame

    @property
    def missed(self) -> int:
        """Counted frames that the program did not see, in live mode: it was busy with others."""
        return sum(self._inbox.ring.dropped.values())

    @property
    def slides(self) -> dict[str, SlideResult]:
        """What was counted so far, by source."""
        return self._inbox.slides()

    @property
    def slide(self) -> SlideResult:
        """What was counted so far on the only source. LeukostreamError before the first count, UsageError for more."""
        slides = self.slides
        if len(slides) > 1:
            raise UsageError(f"slide: got {len(slides)} sources, expected one; see slides[{next(iter(slides))!r}]")
        if not slides:
            raise LeukostreamError("slide: got no frame yet, expected one; iterate first")
        return next(iter(slides.values()))

    def to_coco(self) -> dict[str, Any]:
        """The frames that are left, to the end, as a COCO data set: boxes by the detector's labels, among the
        `attributes` the cell and its class when all was seen."""
        labels = dict.fromkeys(name for names in self._inbox.label_names.values() for name in names)
        coco, boxes = CocoDataset(list(labels)), list[tuple[str, int | None, dict[str, Any]]]()
        for frame in self:
            if not frame.detections and frame.message.looked_share == 0:
                continue  # nobody looked: an image without boxes would be one without cells
            name = frame.file or unnamed_frame(frame.source, frame.frame_id)
            more = {"source": frame.source, "frame_id": frame.frame_id, "date_captured": frame.message.captured_utc}
            coco.add_frame(name, frame.message.width, frame.message.height, **more)
            for box in frame.detections:
                attributes = {"cell_id": box.cell_id, "class": box.class_ or None, "subclass": None}
                boxes.append((frame.source, box.cell_id, attributes))
                coco.add_box(box.box_px, box.label, box.score, attributes)
        slides = self.slides
        for source, cell_id, attributes in boxes:
            if cell_id is not None and (cell := slides[source].cells.get(cell_id)) is not None:
                attributes |= {"class": cell.class_, "subclass": cell.subclass}
        return coco.content({"slides": [{"source": source} for source in slides]})

    def close(self) -> None:
        """Read no more, finish the count of what was read, and let go of cameras, files and sockets. Harmless twice.
        Raises what failed in the run."""
        if self._end.alive:
            self._end()
            while self._inbox.ring.get(0) is not None:
                pass  # a frame that was on its way when it was closed
            gc.collect()  # parts of a run refer to one another: 24 MB a slide that Python finds too rarely

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _finish(parts: Assembled[_Inbox]) -> None:
    inbox, pipeline = parts.viewer, parts.pipeline
    if not inbox.ring.drained:
        inbox.ring.close()
        pipeline.stop("by the program")
    pipeline.finish()
    if parts.jsonl is not None:
        parts.jsonl.check()


def open(*sources: Path, **options: Any) -> Feed:
    """Begin to count what the sources show. To be iterated over:

        with streamer.open("fields/") as feed:
            for frame in feed:
                print(frame.file, len(frame.detections), [cell.class_ for cell in frame.cells])
        print(feed.slide)

    `sources`: each `[NAME=]SRC` as of `leukostream run --source`, a slide each. `options`: those of `leukostream run`
    by the names of their fields in streamer.config.Config: `detector`, `classifier`, `backend`, `mode`, `journal`,
    `stop_at`, `um_per_px`, … Models are loaded and sources are started at once; lines for people go to standard error.
    UsageError for options, LeukostreamError for what can't be loaded or opened.
    """
    for name in FOR_PEOPLE:
        if name in options:
            raise UsageError(f"{name}: got an option of the dashboard, expected none: a program shows frames itself")
    if not sources:
        raise UsageError('open: got no source, expected one or more, such as "fields/" or "sim:"')
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    paths = tuple(os.fspath(source) for source in sources)
    return Feed(load_config(None, {**given, "source": paths}, "options"))


def count(source: Path, **options: Any) -> SlideResult:
    """The differential of one source, read to its end; of a camera to `stop_at`, `stop_at_precision` or `stop_after_s`.
    Options and errors as of `open`; LeukostreamError too where it gave no frame."""
    with open(source, **options) as feed:
        for _ in feed:
            pass
    return feed.slide
