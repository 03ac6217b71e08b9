"""One slide under one source: frames in their order become cells, counts and messages.

A step function: no thread, socket or sleep; the message factory dates what it makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from engines.geometry import Image
from streamer.analysis.analyser import Analysed
from streamer.config import FIVE_PART_RANGES
from streamer.counting.decision import Naming
from streamer.counting.differential import (
    CLOPPER_PEARSON,
    CONFIDENCE_SEQUENCE,
    NOT_LEUKOCYTES,
    Tally,
    differential,
    share,
    widest,
)
from streamer.counting.fusion import FusionConfig
from streamer.counting.morphometry import ShapeBook, ShapeMeter
from streamer.counting.slide_map import SlideConfig, SlideMap, SlideUpdate
from streamer.journal import (
    Checkpoint,
    Emission,
    GivenCommand,
    JournalError,
    SeenFrame,
    SessionJournal,
    StoredSession,
    Told,
)
from streamer.protocol.factory import Looks, MessageFactory
from streamer.protocol.messages import Evidence, FrameMessage
from streamer.records import (
    UNCLASSIFIED,
    Cell,
    CellId,
    Differential,
    Frame,
    Health,
    MeasuredLook,
    MergedIsland,
    Reclassification,
)
from streamer.stage.config import StageConfig
from streamer.stage.placement import Correction, IslandBook, Placement
from streamer.stage.tracker import StageTracker

PICTURE_MARGIN = 1.2
"""Side of a cell's picture, in longer sides of its box."""

PICTURE_QUALITY = 90

DIFFERENTIAL_EVERY_FRAMES = 15
"""How often the differential is published while only red cells, platelets and frames are added to it."""

CHECKPOINT_EVERY_FRAMES = 1000
"""How often the journal keeps what was counted as it stands: to go on, the frames since then are counted again."""

STAGE = StageConfig(max_search=12, comparisons_per_frame=4, max_pending=1500, max_links=4)
"""Bounds of what one frame may cost: a folder of unrelated fields fits nowhere, and each would be compared with all."""


class SlideSession:
    """Everything that is remembered of one slide. `update` takes its frames in order, `finish` ends it."""

    def __init__(
        self,
        factory: MessageFactory,
        naming: Naming | None,
        *,
        operating_score: float,
        min_score: float | None = None,
        reference_ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
        stop_at_precision: float | None = None,
        journal: SessionJournal | None = None,
        shapes: ShapeMeter | None = None,
    ) -> None:
        """`naming`: None where no classifier runs; then every white cell is `unclassified`.
        `operating_score`: detections below it are published and never counted. `min_score`: those below it are not
        published, counted or not; None publishes all. `stop_at_precision`: half width of the limits, in percentage
        points, at which the source is to end; then the final limits are valid at every look too. What `journal` holds
        already is taken over, and everything is written there before it is given out. `shapes` measures the counted
        white cells; None: nobody does."""
        self.factory = factory
        self._naming = naming
        self._min_score = min_score
        self._ranges = reference_ranges
        self._precision = stop_at_precision
        self._tracker = StageTracker(STAGE)
        self._islands = IslandBook()
        self._merged: tuple[MergedIsland, ...] = ()
        """Islands, by the last frame."""
        fusion = FusionConfig()
        described: tuple[str, ...] = ()
        if naming is not None:
            fusion = FusionConfig(unclassified_below=naming.threshold, novel_above=naming.novel_above)
            described = naming.attributes_of
        self._slide = SlideMap(SlideConfig(min_score=operating_score, attributes_of=described, fusion=fusion))
        self._frames = 0
        self._last_frame_id: int | None = None
        self._accepted = 0
        self._told: Told = ()
        self._told_at_frame = 0
        self._operating_score = operating_score
        self._meter = shapes
        self._shapes = ShapeBook()
        self._reshaped: list[CellId] = []
        """Cells that the last frame's joins gave the shape of another look."""
        self._journal = journal
        if journal is not None:
            self._take_over(journal)

    @property
    def total(self) -> int:
        """Unique white cells counted so far."""
        return sum(n for name, n in self._slide.counts().classes.items() if name not in NOT_LEUKOCYTES)

    @property
    def islands(self) -> tuple[int, ...]:
        """Those that there are now; see StageTracker."""
        return self._tracker.islands

    def is_precise(self) -> bool:
        """Whether the limits of all classes are as narrow as was asked for; cheap enough to ask after every frame."""
        if self._precision is None or self._naming is None:
            return False
        total, classes = self.total, self._slide.counts().classes
        names = (name for name in self._naming.class_names if name not in NOT_LEUKOCYTES)
        half = widest(share(classes.get(name, 0), total, CONFIDENCE_SEQUENCE) for name in names)
        return half is not None and half <= self._precision

    def update(self, analysed: Analysed) -> Iterator[Emission]:
        """The messages of one frame: the frame, the cells that it changed, and the differential when it moved."""
        placement = self._tracker.update(
            analysed.prepared, analysed.frame.frame_id, may_start=analysed.quality.accepted
        )
        seen = self._seen(analysed, placement)
        update = self.take_in(seen)
        measured = self._measured(analysed, update)
        if self._journal is None:
            yield from self._messages(analysed, placement, update, measured)
            return
        seen = replace(seen, shapes=measured) if measured else seen
        emissions = list(self._messages(analysed, placement, update, measured))
        checkpoint = self._checkpoint(seen.frame_id) if self._frames % CHECKPOINT_EVERY_FRAMES == 0 else None
        self._journal.frame(seen, update, self._tracker.take_changes(), emissions, checkpoint)
        yield from emissions

    def take_in(self, seen: SeenFrame) -> SlideUpdate:
        """Count what a frame shows: all that a frame does to the counts, so that a journal's frames give them again."""
        update = self._slide.update(
            seen.placement,
            seen.detections,
            (seen.width, seen.height),
            seen.frame_id,
            seen.looks,
            accepted=seen.accepted,
        )
        self._reshaped = self._shapes.join(update.removed)
        for look in seen.shapes:
            self._shapes.add(look)
        self._merged = self._islands.update(seen.placement)
        self._frames += 1
        self._last_frame_id = seen.frame_id
        self._accepted += seen.accepted and seen.placement.position is not None
        return update

    def take_in_again(self, stored: StoredSession, *, after: int = -1) -> Iterator[SeenFrame | None]:
        """Count what a journal holds after a frame: each frame, and None for each word of a person, once taken in."""
        said = stored.reclassifications()
        for one in said.get(after, ()):
            self._slide.reclassify(one)
            yield None
        for seen in stored.frames(after=after):
            self.take_in(seen)
            yield seen
            for one in said.get(seen.frame_id, ()):
                self._slide.reclassify(one)
                yield None

    def fault_of(self, said: Reclassification) -> str | None:
        """Why a cell can't be reclassified so, in words; None where it can."""
        if self._naming is None:
            return "got a run without classifier, expected one: its cells have no classes"
        if not self._slide.class_names:
            return "got no look at any white cell yet, expected one first"
        if not self._slide.is_counted(said.cell_id):
            return f"got cell {said.cell_id}, expected one that is counted and white"
        classes = (*self._naming.class_names, UNCLASSIFIED)
        if said.class_name is not None and said.class_name not in classes:
            return f"got class {said.class_name!r}, expected one of {', '.join(classes)}"
        own = [
            name
            for name, parent in zip(self._naming.subclass_names, self._naming.subclass_parents, strict=True)
            if parent == said.class_name
        ]
        if said.subclass is not None and said.subclass not in own:
            return f"got subclass {said.subclass!r}, expected {'one of ' + ', '.join(own) if own else 'none'}"
        return None

    def reclassify(self, said: Reclassification, given: GivenCommand) -> Iterator[Emission]:
        """The messages of a cell, without fault, to which a person gives its class: the cell, and the differential."""
        update = self._slide.reclassify(said)
        cells = self._shapes.on(update.cells)
        emissions = [*self._taken_back(update), *((self.factory.cell(cell), None) for cell in cells)]
        if self.due():
            emissions.append((self.factory.differential(self.state(final=False)), None))
        if self._journal is not None:
            self._journal.command(given, self._last_frame_id, update, emissions)
        yield from emissions

    def note(self, given: GivenCommand) -> None:
        """Keep a command that changes no count, or was refused."""
        if self._journal is not None and not self._journal.broken:
            self._journal.command(given, self._last_frame_id, None, ())

    def recalls(self, by: str, request_id: str) -> str | None:
        """The body of a command of this id that the journal has as carried out."""
        return None if self._journal is None else self._journal.stored.carried_out(by, request_id)

    def finish(self) -> Iterator[Emission]:
        """The end of the slide: cells only seen cut by an edge are counted, and the differential is final.

        Where the journal can't be written any more, the differential is that of what it holds: what was published.
        """
        if self._journal is not None and self._journal.broken:
            yield from self._as_journaled(self._journal).finish()
            return
        corrections = self._tracker.finish().corrections
        update, state = self.end(corrections)
        cells = self._shaped_anew(update.cells, ())
        emissions = [*self._taken_back(update), *((self.factory.cell(cell), None) for cell in cells)]
        emissions.append((self.factory.differential(state), None))
        fault = None
        if self._journal is not None:
            try:
                self._journal.end(corrections, update, emissions)
            except JournalError as error:  # every frame is in it, so that this differential can be had again
                fault = error
        yield from emissions
        if fault is not None:
            raise fault

    def end(self, corrections: Sequence[Correction]) -> tuple[SlideUpdate, Differential]:
        """What the end changes, after the stage's last corrections, and the final differential."""
        update = self._slide.finish(corrections)
        self._reshaped = self._shapes.join(update.removed)
        return update, self.state(final=True)

    def health(self, health: Health) -> Emission:
        """The message of it."""
        message = self.factory.health(health)
        if self._journal is not None and not self._journal.broken:
            self._journal.other([(message, None)])
        return message, None

    def picture(self, frame: Frame, encoded: tuple[bytes, int, int]) -> Emission:
        """The message of a frame's picture: (JPEG, width, height)."""
        message = self.factory.picture(frame, *encoded[1:])
        if self._journal is not None and not self._journal.broken:
            self._journal.other([(message, None)])
        return message, encoded[0]

    def cells(self) -> Iterator[Cell]:
        """The counted white and nucleated red cells, oldest first."""
        return self._shapes.on(self._slide.cells())

    def cell(self, cell_id: CellId) -> Cell:
        """A cell by its number; one that turned out to be another one gives that."""
        return next(self._shapes.on([self._slide.cell(cell_id)]))

    def due(self) -> bool:
        """Whether the differential is to be published after this frame; to be asked once a frame."""
        counts = self._slide.counts()
        key = (counts.white, counts.nucleated_red, tuple(counts.classes.items()))
        if key == self._told and self._frames - self._told_at_frame < DIFFERENTIAL_EVERY_FRAMES:
            return False
        self._told, self._told_at_frame = key, self._frames
        return True

    def _take_over(self, journal: SessionJournal) -> None:
        tracker = journal.stored.tracker()
        if tracker is None:
            return
        self._tracker.restore(journal.stored.keyframes(), tracker)
        checkpoint = journal.stored.checkpoint()
        if checkpoint is not None:
            self._slide.restore(checkpoint.slide)
            self._frames, self._accepted = checkpoint.frames, checkpoint.accepted
            self._told, self._told_at_frame = checkpoint.told, checkpoint.told_at_frame
            self._islands = IslandBook(checkpoint.islands)
            for look in checkpoint.shapes:
                self._shapes.add(look)
            self._last_frame_id = checkpoint.frame_id
        for _ in self.take_in_again(journal.stored, after=-1 if checkpoint is None else checkpoint.frame_id):
            self.due()

    def _checkpoint(self, frame_id: int) -> Checkpoint:
        return Checkpoint(
            frame_id=frame_id,
            frames=self._frames,
            accepted=self._accepted,
            told=self._told,
            told_at_frame=self._told_at_frame,
            islands=self._islands.anchors,
            slide=self._slide.state(),
            shapes=self._shapes.looks(),
        )

    def _as_journaled(self, journal: SessionJournal) -> SlideSession:
        """This session as the journal has it, writing to none."""
        session = SlideSession(
            self.factory,
            self._naming,
            operating_score=self._operating_score,
            min_score=self._min_score,
            reference_ranges=self._ranges,
            stop_at_precision=self._precision,
            journal=journal,
        )
        session._journal = None
        return session

    def _seen(self, analysed: Analysed, placement: Placement) -> SeenFrame:
        frame, quality = analysed.frame, analysed.quality
        return SeenFrame(
            frame_id=frame.frame_id,
            width=frame.width,
            height=frame.height,
            placement=placement,
            detections=analysed.detections,
            looks=analysed.classifications,
            accepted=quality.accepted,
            reasons=quality.reasons,
            focus=quality.focus,
            file=frame.file,
            captured_utc=self.factory.captured_utc(frame),
        )

    def _measured(self, analysed: Analysed, update: SlideUpdate) -> list[MeasuredLook]:
        """The looks of a frame, just taken in, that are the best at their cells."""
        if self._meter is None:
            return []
        cells = self._slide.told({o.cell_id for o in update.observations if o.cell_id is not None})
        focus = analysed.quality.focus
        measured = self._meter.measure(
            analysed.frame, focus, analysed.detections, update.observations, cells, self._shapes
        )
        for look in measured:
            self._shapes.add(look)
        return measured

    def _shaped_anew(self, cells: Sequence[Cell], measured: Sequence[MeasuredLook]) -> Iterator[Cell]:
        """The cells that changed, and those that are measured otherwise since the frame before."""
        yield from self._shapes.on(cells)
        others = dict.fromkeys([*self._reshaped, *(look.cell_id for look in measured)])
        changed = {cell.cell_id for cell in cells}
        told = (one for one in others if one not in changed and self._slide.is_counted(one))
        yield from self._shapes.on(self._slide.cell(one) for one in told)

    def _messages(
        self, analysed: Analysed, placement: Placement, update: SlideUpdate, measured: Sequence[MeasuredLook]
    ) -> Iterator[Emission]:
        yield self._frame(analysed, placement, update), None
        yield from self._taken_back(update)
        boxes = {o.cell_id: i for i, o in enumerate(update.observations) if o.is_new}
        looks: dict[CellId | None, int] = {}
        for row, detection in enumerate(
            analysed.detections.white_rows.tolist()
        ):  # a red cell's box may be of the same cell
            if update.observations[detection].counted:
                looks.setdefault(update.observations[detection].cell_id, row)
        for cell in self._shaped_anew(update.cells, measured):
            box = boxes.get(cell.cell_id)
            picture = None if box is None else _picture(analysed.frame.image, analysed.detections.boxes_px[box])
            yield self.factory.cell(cell, evidence_of(analysed, looks.get(cell.cell_id), cell.top_class)), picture
        if self.due():
            yield self.factory.differential(self.state(final=False)), None

    def _taken_back(self, update: SlideUpdate) -> Iterator[Emission]:
        for number, joined_to in update.removed:
            cell = replace(self.cell(number), cell_id=number)
            yield self.factory.cell(cell, counted=False, joined_to=joined_to), None

    def _frame(self, analysed: Analysed, placement: Placement, update: SlideUpdate) -> FrameMessage:
        detections, observations = analysed.detections, update.observations
        white, looked = detections.white_rows, analysed.classifications
        if self._min_score is not None:  # detections come best first, so what is published is the beginning
            count = int(np.count_nonzero(detections.scores >= self._min_score))
            detections, observations, white = detections[:count], observations[:count], white[white < count]
        looks = None
        if looked is not None and self._naming is not None:
            looked = looked[: len(white)]
            looks = Looks(white.tolist(), looked, self._naming.class_names_of(looked))
        seen = {o.cell_id for o in observations if o.cell_id is not None}
        return self.factory.frame(
            analysed.frame,
            detections,
            stage=placement.position,
            quality=analysed.quality,
            observations=observations,
            looks=looks,
            cells=self._slide.told(seen),
            merged_islands=self._merged,
            timings_ms=analysed.timings_ms,
        )

    def state(self, *, final: bool) -> Differential:
        """The differential of what was counted so far."""
        counts = self._slide.counts()
        classes = Counter(counts.classes)
        classes["erythroblast"] += counts.nucleated_red
        tally = Tally(
            classes=classes,
            subclasses=counts.subclasses,
            rbc=counts.red,
            platelets=counts.platelets,
            frames=self._frames,
            frames_accepted=self._accepted,
        )
        names = self._naming.class_names if self._naming else ()
        subclass_names = self._naming.subclass_names if self._naming else ()
        # A count that its own limits ended was not fixed in advance, and neither is one that is still running.
        method = CLOPPER_PEARSON if final and self._precision is None else CONFIDENCE_SEQUENCE
        return differential(
            tally, names, subclass_names=subclass_names, ranges=self._ranges, method=method, final=final
        )


def evidence_of(analysed: Analysed, look: int | None, class_name: str) -> Evidence | None:
    """Where the evidence for a class lies on one of a frame's white cells; None for a cell that it does not show."""
    if analysed.maps is None or analysed.classifications is None or look is None:
        return None
    names = analysed.classifications.class_names
    if class_name not in names:
        return None
    box = analysed.detections.boxes_px[analysed.detections.white_rows[look]].tolist()
    square, values = analysed.maps.of(look, names.index(class_name), box)
    levels: list[list[int]] = np.rint(255 * values).astype(int).tolist()
    return Evidence(class_=class_name, frame_id=analysed.frame.frame_id, square_px=square, map=levels)


def _picture(image: Image, box_px: npt.NDArray[np.float32]) -> bytes | None:
    """JPEG of a cell with a little of what is around it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box_px.tolist()
    half = PICTURE_MARGIN * max(x2 - x1, y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    part = image[top : min(height, round(y + half)), left : min(width, round(x + half))]
    done, encoded = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return encoded.tobytes() if done else None
