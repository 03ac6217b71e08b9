"""One slide under one source: frames in their order become cells, counts and messages.

A step function: no thread, socket or sleep; the message factory dates what it makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from engines.geometry import Image
from streamer.analysis.analyser import Analysed
from streamer.analysis.label import LabelReader
from streamer.analysis.measured import MeasuredFrame
from streamer.config import FIVE_PART_RANGES, VerdictConfig
from streamer.counting.absolute import described
from streamer.counting.decision import ClassDecision
from streamer.counting.known import Known
from streamer.counting.morphometry import ShapeMeter
from streamer.counting.slide_count import CountUpdate, SeenFrame, SlideCount
from streamer.counting.slide_map import SlideUpdate
from streamer.journal import Emission, GivenCommand, SessionJournal, StoredSession, replay
from streamer.looking.decision import Decider
from streamer.protocol.factory import Looks, MessageFactory
from streamer.protocol.messages import AnyMessage, DifferentialMessage, EndState, Evidence, FrameMessage
from streamer.records import (
    CellLooks,
    Classifications,
    Frame,
    Health,
    MeasuredLook,
    Observation,
    PositionsStatus,
    Reclassification,
    SlideInfo,
    SourceProgress,
    usable_point,
    usable_scale,
)
from streamer.run.area import SlideArea
from streamer.run.slide_stage import OwnStage, Placed, SlideStage
from streamer.stage.ahead import CountedStage
from streamer.stage.placement import Placement
from streamer.stage.static_mask import BoxesPx

PICTURE_MARGIN = 1.2
"""Side of a cell's picture, in longer sides of its box."""

PICTURE_QUALITY = 90

CHECKPOINT_EVERY_FRAMES = 1000
"""How often the journal keeps what was counted as it stands: to go on, the frames since then are counted again."""


class SlideSession:
    """Places the frames of one slide, counts them, and makes the messages of it.

    `place` takes its frames in order, by one thread. `update` takes them in the same order once they were analysed,
    `finish` ends it, both and all the others by another thread. What these return is to be published; the journal has
    it then. Once the journal lacks something, because it can't be written or a fault came in between, all
    but `update` return nothing: a resumed session numbers its messages on from what the journal holds.
    """

    def __init__(
        self,
        factory: MessageFactory,
        decision: ClassDecision | None,
        *,
        operating_score: float,
        min_score: float | None = None,
        reference_ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
        stop_at_precision: float | None = None,
        journal: SessionJournal | None = None,
        shapes: ShapeMeter | None = None,
        ignored_px: BoxesPx = (),
        known: Known | None = None,
        verdict: VerdictConfig | None = None,
        slide: SlideInfo | None = None,
        label: LabelReader | None = None,
        on_remark: Callable[[str], None] = lambda line: None,
        decider: Decider | None = None,
        stage: SlideStage | None = None,
    ) -> None:
        """`decision`: None where no classifier runs; then every white cell is `unclassified`.
        `operating_score`: detections below it are published and never counted. `min_score`: those below it are not
        published, counted or not; None publishes all. `stop_at_precision`: half width of the limits, in percentage
        points, at which the source is to end; then the final limits are valid at every look too. `journal`: what it
        holds already is counted first, and everything is written there before it is published. `shapes` measures the
        counted white cells; None: nobody does. `ignored_px`: boxes of the frames that show no slide. `known`: what the
        classifier knows, where there is no journal to say it. `verdict`: when a differential may be believed.
        `slide`: what people say of it; None: what the journal has. `label` reads the slide's label in the first frame;
        None: nobody does. `on_remark` gets lines for people. `decider` says which frames are looked at; None: all
        are. `stage` says where they lie; None: a tracker of this process."""
        self.factory = factory
        self.area = None if decider is None else SlideArea(decider, factory.source, on_remark)
        """What is looked at; None: every frame is."""
        self._decision = decision
        self._operating_score = operating_score
        self._min_score = min_score
        self._ranges = reference_ranges
        self._precision = stop_at_precision
        self._known, self._verdict = known if journal is None else journal.stored.rules.known, verdict
        self._read: SourceProgress | None = None
        """How far the source was read in this run, slides before this one among it."""
        self._meter = shapes
        self._stage = OwnStage(ignored_px) if stage is None else stage
        self._journal = journal
        self._label, self._on_remark = label, on_remark
        self._describe(slide)
        self._is_kept = True
        """Whether the journal has all that was counted and numbered."""
        self.count, self._counted = self._begun(None if journal is None else journal.stored)
        places = () if journal is None else journal.stored.picture_places()
        self._pictured = {cell_id for cell_id, _ in places}
        """Cells of which a picture was published."""
        self._ahead = 0
        """Frames that were placed and will not be counted."""
        before = self.count.progress
        self._before = (Counter(), Counter()) if before is None else (Counter(before.lost), Counter(before.skipped))
        """What was lost and skipped before this run, less what the run had lost and skipped before this slide."""

    def go_on_from(self, earlier: SlideSession) -> None:
        """Take over from the slide before this one on the same source, at its end."""
        self.factory.go_on_from(earlier.factory)
        if earlier._read is not None:
            lost, skipped = self._before
            lost.subtract(earlier._read.lost)
            skipped.subtract(earlier._read.skipped)

    @property
    def slide(self) -> SlideInfo:
        """What people say of it, or its label."""
        return self.factory.slide

    @property
    def islands(self) -> tuple[int, ...]:
        """Those that there are now; see StageTracker."""
        return self._stage.islands

    @property
    def hidden_px(self) -> tuple[tuple[int, int, int, int], ...]:
        """Boxes around the parts of the frames that are known to show no slide."""
        hidden = self._stage.hidden
        return () if hidden is None else tuple(hidden.boxes_px())

    @property
    def positions(self) -> PositionsStatus | None:
        """What was made of the positions that frames came with; None: none did."""
        return self._stage.positions

    @property
    def ahead(self) -> int:
        """Frames that are expected before the one before them is decided on."""
        return self._stage.ahead

    def expect(self, frame: Frame) -> None:
        """`place` is given this frame next, after those that were expected before it."""
        self._stage.expect(frame)

    def place(self, measured: MeasuredFrame) -> Placed:
        """Place a frame that will be counted, or not: `update` is given this then."""
        return self._stage.place(measured)

    def update(
        self, analysed: Analysed, progress: SourceProgress | None = None, placed: Placed | None = None
    ) -> list[Emission]:
        """The messages of one frame: the frame, the cells that it changed, and the differential when it moved.
        `progress`: how far the source was read in this run; None: nobody notes it. `placed`: None: it is placed now."""
        self._is_kept = False
        if self._label is not None and not self.count.frames:
            self._read_label(self._label, analysed.frame)
        is_ahead, placed = placed is not None, placed or self._stage.place(analysed)
        placement = placed.placement
        seen = self._seen(analysed, placement, self._over_all_runs(progress))
        update = self.count.add_frame(seen)
        measured = self._measured(analysed, update)
        timings_ms = analysed.timings_ms | ({"place": placed.took_ms} if is_ahead else {})
        emissions = [(self._frame(analysed, placement, update, timings_ms), None), *self._taken_back(update.slide)]
        emissions += self._changed_cells(analysed, update, measured)
        emissions += self._differential_due(update)
        if self.area is not None:
            self.area.counted(analysed, placement, self.count)
        if self._journal is not None:
            checkpoint = self.count.state() if self.count.frames % CHECKPOINT_EVERY_FRAMES == 0 else None
            seen = replace(seen, shapes=measured) if measured else seen
            area = None if self.area is None else self.area.state(analysed)
            self._journal.frame(seen, update.slide, placed.changes, emissions, checkpoint, area)
        self._counted.add(placed.changes)
        self._is_kept = True
        return emissions

    def reclassify(self, reclassification: Reclassification, given: GivenCommand) -> list[Emission]:
        """The messages of a cell, without fault, to which a person gives its class: the cell, and the differential."""
        return self.name_cells([reclassification], given)

    def name_cells(self, reclassifications: Sequence[Reclassification], given: GivenCommand) -> list[Emission]:
        """The messages of some cells, without fault, that a person names or confirms by one command: the cells, and the
        differential."""
        self._is_kept = False
        by, at = given.reviewer, given.given_utc
        update = self.count.reclassify(*(replace(one, by=by, at=at) for one in reclassifications))
        emissions = self._taken_back(update.slide)
        emissions += [(self.factory.cell(cell), None) for cell in self.count.changed_cells(update)]
        emissions += self._differential_due(update)
        if self._journal is not None:
            self._journal.command(given, self.count.last_frame_id, update.slide, emissions)
        self._is_kept = True
        return emissions

    def leave_out(self) -> None:
        """A frame that was placed is not counted, nor any after it."""
        self._ahead += 1

    def pass_over(self) -> None:
        """`leave_out`, where frames after it are decided on all the same."""
        self.leave_out()
        self.give_up()

    def give_up(self) -> None:
        """No more frames will be counted, so that nobody need wait for any."""
        if self.area is not None:
            self.area.give_up()

    def finish(self, state: EndState, reason: str, progress: SourceProgress | None = None) -> list[Emission]:
        """The end of the slide: cells only seen cut by an edge are published, the differential is final, and `end` is
        last. `progress` as for `update`."""
        if self._is_silent:
            return []
        self._is_kept = False
        progress = self._over_all_runs(progress)
        corrections = self._stage.finish(self._counted if self._ahead else None)
        update = self.count.finish(corrections, progress)
        emissions = self._taken_back(update.slide)
        emissions += [(self.factory.cell(cell), None) for cell in self.count.changed_cells(update)]
        emissions.append((self._differential(final=True), None))
        emissions.append((self.factory.end(state, reason), None))
        if self._journal is not None:
            self._journal.end(corrections, update.slide, emissions, progress)
        self._is_kept = True
        return emissions

    def health(self, health: Health) -> list[Emission]:
        """The message of it."""
        return [] if self._is_silent else [(self._journaled(self.factory.health(health)), None)]

    def picture(self, frame: Frame, encoded: tuple[bytes, int, int]) -> list[Emission]:
        """The message of a frame's picture: (JPEG, width, height)."""
        return [] if self._is_silent else [(self._journaled(self.factory.picture(frame, *encoded[1:])), encoded[0])]

    def note(self, given: GivenCommand) -> None:
        """Keep a command that changes no count, or was refused."""
        if self._journal is not None and not self._is_silent:
            self._journal.command(given, self.count.last_frame_id, None, ())

    def recalls(self, by: str, request_id: str) -> str | None:
        """The body of a command of this id that the journal has as carried out."""
        return None if self._journal is None else self._journal.stored.carried_out(by, request_id)

    @property
    def _is_silent(self) -> bool:
        return self._journal is not None and (self._journal.broken or not self._is_kept)

    def _begun(self, stored: StoredSession | None) -> tuple[SlideCount, CountedStage]:
        """What the frames of a journal have come to; new ones without any."""
        count = SlideCount(
            self._decision,
            operating_score=self._operating_score,
            reference_ranges=self._ranges,
            stop_at_precision=self._precision,
            known=self._known,
            verdict=self._verdict,
        )
        counted = CountedStage()
        state = None if stored is None else stored.stage.tracker()
        if stored is not None and state is not None:
            with stored.reading("trackers.state"):
                readings = list(stored.stage.readings())
                counted = CountedStage(readings, state)
                self._stage.restore(counted.noting(stored.stage.keyframes()), state, readings)
            checkpoint = stored.checkpoint()
            if checkpoint is not None:
                with stored.reading("checkpoints.state"):
                    count.restore(checkpoint)
            replay(stored, count, after=-1 if checkpoint is None else checkpoint.frame_id)
            if self.area is not None:
                self.area.go_on_from(stored)
        return count, counted

    def _over_all_runs(self, progress: SourceProgress | None) -> SourceProgress | None:
        """Of this slide alone, in all runs of its session."""
        self._read = progress or self._read
        if progress is None:
            return None
        lost, skipped = self._before
        return msgspec.structs.replace(
            progress, lost=dict(lost + Counter(progress.lost)), skipped=dict(skipped + Counter(progress.skipped))
        )

    def _journaled(self, message: AnyMessage) -> AnyMessage:
        """A message that changes nothing, once the journal has it."""
        if self._journal is not None:
            self._journal.other([(message, None)])
        return message

    def _seen(self, analysed: Analysed, placement: Placement, progress: SourceProgress | None) -> SeenFrame:
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
            colours=analysed.colours,
            progress=progress,
            file=frame.file,
            captured_utc=self.factory.captured_utc(frame),
            stage_um=usable_point(frame.stage_um),
            um_per_px=usable_scale(frame.um_per_px),
            looked=analysed.looked,
            cell_looks=analysed.cell_looks,
        )

    def _measured(self, analysed: Analysed, update: CountUpdate) -> list[MeasuredLook]:
        """The looks of a frame, just counted, that are the best at their cells; the count has them."""
        if self._meter is None:
            return []
        observations, shapes = update.slide.observations, self.count.shapes
        cells = self.count.published_cells({o.cell_id for o in observations if o.cell_id is not None})
        focus = analysed.quality.focus
        measured = self._meter.measure(analysed.frame, focus, analysed.detections, observations, cells, shapes)
        shapes.add_all(measured)
        return measured

    def _frame(
        self, analysed: Analysed, placement: Placement, update: CountUpdate, timings_ms: Mapping[str, float]
    ) -> FrameMessage:
        detections, observations = analysed.detections, update.slide.observations
        white, looked = detections.white_rows, analysed.classifications
        is_carried: frozenset[int] = frozenset()
        if not analysed.looked:
            carried = self.count.carried(placement, (analysed.frame.width, analysed.frame.height))
            detections, observations = carried.detections(detections), carried.observations
            white, looked = _shown(observations, self.count, analysed.cell_looks)
            is_carried = frozenset(range(len(observations))) - {*white.tolist()}
        if self._min_score is not None:  # detections come best first, so what is published is the beginning
            count = int(np.count_nonzero(detections.scores >= self._min_score))
            detections, observations = detections[:count], observations[:count]
            looked = None if looked is None else looked[np.flatnonzero(white < count)]
            white = white[white < count]
        looks = None
        if looked is not None and self._decision is not None:
            looks = Looks(white.tolist(), looked, self._decision.class_names_of(looked))
        return self.factory.frame(
            analysed.frame,
            detections,
            stage=placement.position,
            quality=analysed.quality,
            observations=observations,
            looks=looks,
            cells=self.count.published_cells({o.cell_id for o in observations if o.cell_id is not None}),
            merged_islands=update.merged_islands,
            timings_ms=timings_ms,
            looked_share=analysed.looked_share,
            carried=is_carried,
        )

    def _taken_back(self, update: SlideUpdate) -> list[Emission]:
        return [
            (self.factory.cell(replace(self.count.cell(one), cell_id=one), counted=False, joined_to=joined_to), None)
            for one, joined_to in update.removed
        ]

    def _changed_cells(
        self, analysed: Analysed, update: CountUpdate, measured: Sequence[MeasuredLook]
    ) -> list[Emission]:
        """Each with a picture where this frame is the first that shows it, or shows it cut and flagged, and where it
        has none yet: a cell that was first seen cut by an edge is new in one frame and counted in another."""
        cells = self.count.changed_cells(update, measured)
        if not cells:
            return []
        observations, boxes_px = update.slide.observations, analysed.detections.boxes_px
        cut = {cell.cell_id for cell in cells if cell.partial}
        new = {
            seen.cell_id: box
            for box, seen in enumerate(observations)
            if seen.is_new or seen.cell_id in cut or (seen.counted and seen.cell_id not in self._pictured)
        }
        white = analysed.detections.white_rows.tolist()  # a red cell's box may be of the same cell
        looks: dict[int | None, tuple[int, int]] = {}
        for look, box in enumerate(white):
            if observations[box].counted:
                looks.setdefault(observations[box].cell_id, (look, box))
        emissions: list[Emission] = []
        for cell in cells:
            picture = _picture(analysed.frame.image, boxes_px[new[cell.cell_id]]) if cell.cell_id in new else None
            if picture is not None:
                self._pictured.add(cell.cell_id)
            evidence = evidence_of(analysed, looks.get(cell.cell_id), cell.top_class)
            emissions.append((self.factory.cell(cell, evidence), picture))
        return emissions

    def _differential_due(self, update: CountUpdate) -> list[Emission]:
        return [(self._differential(final=False), None)] if update.differential_due else []

    def _differential(self, *, final: bool) -> DifferentialMessage:
        return self.factory.differential(described(self.count.differential(final=final), self.slide))

    def _describe(self, slide: SlideInfo | None) -> None:
        stored = SlideInfo() if self._journal is None else self._journal.stored.slide
        self.factory.slide = stored if slide is None else slide
        if self._journal is not None and self.slide != stored:
            self._journal.describe(self.slide)

    def _read_label(self, read: LabelReader, frame: Frame) -> None:
        """Of the slide, from its first frame; the journal has it before any message says so."""
        slide, line = read(frame.image, self.slide)
        self._on_remark(f"{self.factory.source}: {line}")
        self._describe(slide)


def _shown(
    observations: Sequence[Observation], count: SlideCount, again: CellLooks | None
) -> tuple[npt.NDArray[np.intp], Classifications | None]:
    """Of looks at known cells: the rows of `observations` that show these, and the looks at them."""
    if again is None:
        return np.zeros(0, np.intp), None
    row_of = {seen.cell_id: row for row, seen in enumerate(observations)}
    rows = [row_of.get(count.row_of(one), -1) for one in again.cell_ids.tolist()]
    shown = np.array([look for look, row in enumerate(rows) if row >= 0], np.intp)
    return np.array(rows, np.intp)[shown], again.looks[shown]


def evidence_of(analysed: Analysed, shown: tuple[int, int] | None, class_name: str) -> Evidence | None:
    """Where the evidence for a class lies on one of a frame's white cells: (row of its look, row of its box), None for
    a cell that the frame does not show."""
    if analysed.maps is None or analysed.classifications is None or shown is None:
        return None
    names = analysed.classifications.class_names
    if class_name not in names:
        return None
    look, box = shown
    square, values = analysed.maps.of(look, names.index(class_name), analysed.detections.boxes_px[box].tolist())
    levels: list[list[int]] = np.rint(255 * values).astype(int).tolist()
    return Evidence(class_=class_name, frame_id=analysed.frame.frame_id, square_px=square, map=levels)


def picture_bounds(box_px: Sequence[float], size_px: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the picture of a cell: its box (x1, y1, x2, y2) with a margin, as far as it lies
    within the frame of `size_px` (width, height)."""
    x1, y1, x2, y2 = box_px
    half = PICTURE_MARGIN * max(x2 - x1, y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    width, height = size_px
    return max(0, round(x - half)), max(0, round(y - half)), min(width, round(x + half)), min(height, round(y + half))


def _picture(image: Image, box_px: npt.NDArray[np.float32]) -> bytes | None:
    """JPEG of a cell with a little of what is around it."""
    left, top, right, bottom = picture_bounds(box_px.tolist(), (image.shape[1], image.shape[0]))
    done, encoded = cv2.imencode(".jpg", image[top:bottom, left:right], [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return encoded.tobytes() if done else None
