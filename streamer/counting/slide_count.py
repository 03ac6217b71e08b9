"""The count of one slide: frames in their order become cells and a differential.

A pure function of what the frames show: no clock, thread, file or message. A run counts a frame when it has analysed
it, and a journal's frames give the same count again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streamer.config import FIVE_PART_RANGES, VerdictConfig
from streamer.counting.carried import CarriedCells, Compared
from streamer.counting.cell_names import NamedCell
from streamer.counting.decision import ClassDecision
from streamer.counting.differential import (
    CLOPPER_PEARSON,
    CONFIDENCE_SEQUENCE,
    NOT_LEUKOCYTES,
    Tally,
    differential,
    share,
    widest,
)
from streamer.counting.evidence import EvidenceBook, EvidenceState
from streamer.counting.fusion import FusionConfig
from streamer.counting.known import Known
from streamer.counting.matching import Field
from streamer.counting.morphometry import ShapeBook
from streamer.counting.size_correction import AcceptedArea, Place
from streamer.counting.slide_map import SlideConfig, SlideMap, SlideNovelty, SlideState, SlideUpdate
from streamer.counting.tallies import LISTED
from streamer.counting.verdict import SlideEvidence, judge, with_smudge_cells
from streamer.looking.plan import CellsInDoubt
from streamer.records import (
    UNCLASSIFIED,
    AddedCell,
    Cell,
    CellId,
    CellLooks,
    Classifications,
    Detections,
    Differential,
    FieldColours,
    MeasuredLook,
    MergedIsland,
    Reclassification,
    Review,
    SourceProgress,
    StagePoint,
)
from streamer.stage.placement import Correction, IslandBook, Placement

DIFFERENTIAL_EVERY_FRAMES = 15
"""How often the differential is published while only red cells, platelets and frames are added to it."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenFrame:
    """One frame as it is counted, and what people want to know of it."""

    frame_id: int
    width: int
    height: int
    placement: Placement
    detections: Detections
    looks: Classifications | None
    """One row a white detection, in their order; None where the run has no classifier."""
    accepted: bool
    reasons: tuple[str, ...]
    """Why it was not accepted."""
    focus: float | None
    file: str | None
    captured_utc: str
    shapes: Sequence[MeasuredLook] = ()
    """What was measured of its cells, once it was counted."""
    colours: FieldColours | None = None
    """None: of a journal of before they were measured."""
    progress: SourceProgress | None = None
    """How far its source was read when it was counted; None: as at the frame before, or nobody notes it."""
    stage_um: StagePoint | None = None
    """Where its source says that it was taken; no part of the count. None: it does not say."""
    um_per_px: float | None = None
    """Likewise, micrometres a pixel."""
    looked: bool = True
    """Whether the detector saw it; where not, that it has no detections says nothing."""
    cell_looks: CellLooks | None = None
    """At known cells of a frame that the detector did not see; None: at none."""


PublishedCounts = tuple[()] | tuple[int, int, tuple[tuple[str, int], ...]]
"""(white, nucleated red, white cells by class, and how many the flags list) as the differential was published last;
empty before the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """All that the frames up to one have come to. What the stage tracker remembers is kept with every frame."""

    frame_id: int
    """The last of these frames."""
    frames: int
    accepted: int
    published: PublishedCounts
    published_at_frame: int
    """How many frames there were when that was published."""
    islands: Mapping[int, int]
    """What the island book knows."""
    slide: SlideState
    shapes: tuple[MeasuredLook, ...] = ()
    """What the shape book knows."""
    evidence: EvidenceState | None = None
    """What the evidence book knows; None: of a journal of before there was one."""
    area: Mapping[int, tuple[float, float, Sequence[Place]]] = field(default_factory=dict)
    """What the accepted area knows."""
    review: Review = field(default_factory=Review)


@dataclass(frozen=True, slots=True)
class CountUpdate:
    """What a frame, a person's reclassification or the end of the slide changed."""

    slide: SlideUpdate
    merged_islands: tuple[MergedIsland, ...] = ()
    reshaped: tuple[CellId, ...] = ()
    """Cells that have the shape of another look now, which a cell had that was joined to them."""
    differential_due: bool = False
    """Whether the differential is to be published."""


class SlideCount:
    """Counts one slide. `add_frame` takes its frames in order, `finish` ends it, `state` is all that it knows."""

    def __init__(
        self,
        decision: ClassDecision | None,
        *,
        operating_score: float,
        reference_ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
        stop_at_precision: float | None = None,
        known: Known | None = None,
        verdict: VerdictConfig | None = None,
    ) -> None:
        """Arguments as for SlideSession."""
        self._decision = decision
        self._known = known
        self._verdict = verdict or VerdictConfig()
        self._ranges = reference_ranges
        self._precision = stop_at_precision
        fusion = FusionConfig()
        described: tuple[str, ...] = ()
        if decision is not None:
            fusion = FusionConfig(unclassified_below=decision.threshold, novel_above=decision.novel_above)
            described = decision.attributes_of
        self._slide_flags = () if decision is None else decision.slide_flags
        self._slide = SlideMap(
            SlideConfig(
                min_score=operating_score, attributes_of=described, slide_flags=self._slide_flags, fusion=fusion
            )
        )
        self._islands = IslandBook()
        self._evidence = EvidenceBook(operating_score)
        self._area = AcceptedArea()
        self._frames = 0
        self._accepted = 0
        self._published: PublishedCounts = ()
        self._published_at_frame = 0
        self.review = Review()
        """What people have said of it so far."""
        self.shapes = ShapeBook()
        self.last_frame_id: int | None = None
        """None before the first frame."""

    @property
    def frames(self) -> int:
        return self._frames

    @property
    def progress(self) -> SourceProgress | None:
        """How far its source was read; None: nobody noted it."""
        return self._evidence.state.progress

    @property
    def total(self) -> int:
        """Unique white cells seen whole so far."""
        return sum(n for name, n in self._slide.counts().classes.items() if name not in NOT_LEUKOCYTES)

    def is_precise(self) -> bool:
        """Whether the limits of all classes are as narrow as was asked for; cheap enough to ask after every frame."""
        if self._precision is None or self._decision is None:
            return False
        total, classes = self.total, self._slide.counts().classes
        names = (name for name in self._decision.class_names if name not in NOT_LEUKOCYTES)
        half = widest(share(classes.get(name, 0), total, CONFIDENCE_SEQUENCE) for name in names)
        return half is not None and half <= self._precision

    def add_frame(self, seen: SeenFrame) -> CountUpdate:
        """Count what a frame shows."""
        update = self._slide.update(
            seen.placement,
            seen.detections,
            (seen.width, seen.height),
            seen.frame_id,
            seen.looks,
            accepted=seen.accepted,
            looked=seen.looked,
            cell_looks=seen.cell_looks,
        )
        reshaped = self.shapes.join(update.removed)
        self.shapes.add_all(seen.shapes)
        merged = self._merge_islands(seen.placement)
        self._evidence.add(seen, merged)
        self._frames += 1
        self.last_frame_id = seen.frame_id
        if seen.accepted and seen.placement.position is not None:
            self._accepted += 1
            self._area.add(Field.of(seen.placement, (seen.width, seen.height), seen.frame_id))
        return CountUpdate(update, merged, tuple(reshaped), self._note_if_due())

    def reclassify(self, *given: Reclassification) -> CountUpdate:
        """Give cells, without `fault_of`, the classes that a person gave them."""
        self.review = Review("in review", given[-1].by, given[-1].at)
        return CountUpdate(self._slide.reclassify(*given), differential_due=self._note_if_due())

    def add_cell(self, added: AddedCell) -> CountUpdate:
        """Count a cell that was missed. ValueError as of `class_fault`, and for a place that is not on the slide."""
        fault = self.class_fault(added.class_name, added.subclass)
        if fault is not None or not self._area.knows(added.island):
            raise ValueError(fault or f"got island {added.island}, expected one with an accepted frame")
        return CountUpdate(self._slide.add_cell(added), differential_due=self._note_if_due())

    def take_back(self, cell_id: CellId) -> CountUpdate:
        """Count a cell that a person added no more."""
        return CountUpdate(self._slide.take_back(cell_id), differential_due=self._note_if_due())

    def finish(self, corrections: Sequence[Correction], progress: SourceProgress | None = None) -> CountUpdate:
        """The end of the slide, after the stage's last corrections: cells only seen cut by an edge are published.
        `progress`: how far the source was read in the end; None: nobody notes it."""
        update = self._slide.finish(corrections)
        self._evidence.finish(self._merge_islands(Placement(None, corrections=tuple(corrections))), progress)
        return CountUpdate(update, reshaped=tuple(self.shapes.join(update.removed)), differential_due=True)

    def fault_of(self, given: Reclassification) -> str | None:
        """Why a cell can't be reclassified so, in words; None where it can."""
        if self._decision is None:
            return "got a run without classifier, expected one: its cells have no classes"
        if not self._slide.class_names:
            return "got no look at any white cell yet, expected one first"
        if not self._slide.is_counted(given.cell_id):
            return f"got cell {given.cell_id}, expected one that is counted and white"
        if given.confirmed:
            cell = self.cell(given.cell_id)
            has = cell.subclass or cell.class_name
            if (given.class_name, given.subclass) != (cell.class_name, cell.subclass):
                said = given.subclass or given.class_name
                return f"got cell {given.cell_id} confirmed as {said!r}, expected {has!r}, which it is by now"
        return self.class_fault(given.class_name, given.subclass)

    def class_fault(self, class_name: str | None, subclass: str | None) -> str | None:
        """Why no cell of this slide can be given a class, in words; None where it can."""
        if class_name is not None and class_name not in self.nameable:
            return f"got class {class_name!r}, expected one of {', '.join(self.nameable)}"
        own = self.subclasses.get(class_name or "", ())
        if subclass is not None and subclass not in own:
            return f"got subclass {subclass!r}, expected {'one of ' + ', '.join(own) if own else 'none'}"
        return None

    @property
    def nameable(self) -> tuple[str, ...]:
        """The classes that a person may give a cell, "unclassified" last; empty without looks."""
        return (*self._slide.names.nameable, UNCLASSIFIED) if self._slide.names.nameable else ()

    @property
    def subclasses(self) -> dict[str, tuple[str, ...]]:
        """By class, of those that have any."""
        decision = self._decision
        if decision is None:
            return {}
        return {
            parent: tuple(
                name
                for name, of in zip(decision.subclass_names, decision.subclass_parents, strict=True)
                if of == parent
            )
            for parent in dict.fromkeys(decision.subclass_parents)
        }

    def is_counted(self, cell_id: CellId) -> bool:
        """Whether it is the number of a published cell, or of one that was joined to such."""
        return self._slide.is_counted(cell_id)

    @property
    def next_cell_id(self) -> CellId:
        """Of the next cell that is found or added."""
        return self._slide.next_cell_id

    def white_at(self, island: int, x_px: float, y_px: float) -> CellId | None:
        """The published cell at a point of the slide; None: there is none."""
        return self._slide.names.white_at(island, x_px, y_px)

    def usual_size_px(self) -> tuple[float, float] | None:
        """Width and height of the slide's usual white cell; None: it has none seen whole."""
        return self._slide.names.usual_size_px()

    def reviewed(self) -> tuple[int, int]:
        """Of the white and nucleated red cells seen whole, how many a person named, confirmed or added, and how many
        there are."""
        _, reviewed, whole = self._slide.names.reviewed()
        return reviewed, whole

    def cells(self) -> Iterator[Cell]:
        """The counted white and nucleated red cells, oldest first."""
        return self.shapes.on(self._slide.cells())

    def uncounted_cells(self) -> Iterator[Cell]:
        """Cells that are published and not counted: see SlideMap."""
        return self.shapes.on(self._slide.uncounted_cells())

    def cell(self, cell_id: CellId) -> Cell:
        """A cell by its number; one that turned out to be another one gives that."""
        return next(self.shapes.on([self._slide.cell(cell_id)]))

    def named_cells(self) -> list[NamedCell]:
        """All published cells by number, without what their looks say: fast."""
        return self._slide.names.named_cells()

    def name_of(self, cell_id: CellId) -> tuple[str, str | None]:
        """Class and subclass of a cell, or of the one that it turned out to be."""
        return self._slide.names.name_of(cell_id)

    def said_of(self, cell_id: CellId) -> Reclassification:
        """What gives a cell what people said of it so far: nothing, where nobody did."""
        return self._slide.names.said_of(cell_id)

    def row_of(self, cell_id: CellId) -> CellId:
        """The number of a cell, or of the one that it turned out to be."""
        return self._slide.names.row_of(cell_id)

    def published_cells(self, cell_ids: Iterable[CellId]) -> dict[CellId, Cell]:
        """Those of these cells that are counted white or nucleated red ones, without attributes and shapes."""
        return self._slide.published_cells(cell_ids)

    def carried(self, placement: Placement, size_px: tuple[int, int]) -> CarriedCells:
        """The known cells where a frame (width, height) lies."""
        return self._slide.carried(placement, size_px)

    def compare(self, placement: Placement, detections: Detections, size_px: tuple[int, int]) -> Compared:
        """What a look at a frame (width, height) found that is not counted, and what is known there."""
        return self._slide.compare(placement, detections, size_px)

    def owing(self, placement: Placement, size_px: tuple[int, int]) -> CellsInDoubt:
        """White cells around a frame (width, height) whose class is unsure and that were seldom looked at."""
        return self._slide.owing(placement, size_px)

    def changed_cells(self, update: CountUpdate, measured: Sequence[MeasuredLook] = ()) -> list[Cell]:
        """The cells that an update changed, and those with another shape now, by the update or as just `measured`."""
        cells = update.slide.cells
        changed = {cell.cell_id for cell in cells}
        others = dict.fromkeys([*update.reshaped, *(look.cell_id for look in measured)])
        also = [self._slide.cell(one) for one in others if one not in changed and self._slide.is_counted(one)]
        return list(self.shapes.on([*cells, *also]))

    def differential(self, *, final: bool) -> Differential:
        """Of what was counted so far."""
        found, tally = self._found(final=final)
        verdict = judge(self._evidence_of(found, tally), self._verdict)
        smudge_cells = with_smudge_cells(verdict, found)
        return msgspec.structs.replace(
            found,
            verdict=msgspec.structs.replace(verdict, with_smudge_cells=smudge_cells),
            review=self.review,
            reviewed_cells=self._slide.names.reviewed()[0],
        )

    def evidence(self, *, final: bool) -> SlideEvidence:
        """What the verdict of `differential` rests on."""
        return self._evidence_of(*self._found(final=final))

    def _found(self, *, final: bool) -> tuple[Differential, Tally]:
        """The differential without its verdict, and what it was made of."""
        counts, slide = self._slide.counts(), self._slide
        classes = Counter(counts.classes)
        classes["erythroblast"] += counts.nucleated_red
        listed = slide.listed()
        tally = Tally(
            classes=classes,
            subclasses=counts.subclasses,
            rbc=counts.red + (counts.partial_red if final else 0),
            platelets=counts.platelets + classes["platelet"] + (counts.partial_platelets if final else 0),
            frames=self._frames,
            frames_accepted=self._accepted,
            edge=sum(count for name, count in counts.partial_classes.items() if name not in NOT_LEUKOCYTES),
            edge_seen={name: int(slide.partial(rows).sum()) for name, rows in listed.items()},
            seen_ids={name: tuple(rows.tolist()) for name, rows in listed.items()},
            suspects=slide.suspects(),
            weights=self._weights(),
        )
        decision = self._decision
        # A count that its own limits ended was not fixed in advance, and neither is one that is still running.
        method = CLOPPER_PEARSON if final and self._precision is None else CONFIDENCE_SEQUENCE
        found = differential(
            tally,
            decision.class_names if decision else (),
            subclass_names=decision.subclass_names if decision else (),
            subclass_parents=decision.subclass_parents if decision else (),
            ranges=self._ranges,
            error_rates=decision.error_rates if decision else {},
            slide_flags=self._slide_flags,
            method=method,
            final=final,
        )
        return found, tally

    def novelty(self) -> SlideNovelty:
        """How unlike the training cells the counted white cells are."""
        return self._slide.novelty()

    def _evidence_of(self, found: Differential, tally: Tally) -> SlideEvidence:
        book, novelty = self._evidence, self.novelty()
        flagged = {flag.class_ for flag in found.flags}
        seen = Counter({**tally.classes, **tally.subclasses}) + Counter(tally.edge_seen)
        return SlideEvidence(
            white_cells=found.total,
            unclassified=found.unclassified,
            unlike_training=novelty.unlike_training,
            mean_novelty=novelty.mean,
            seen=seen,
            suspects={name: (*one.cell_ids, *one.below) for name, one in tally.suspects.items()},
            too_few={name for name in tally.suspects if name not in flagged},
            smudge_cells=found.smudge,
            frames=found.frames,
            rejected=book.state.rejected,
            progress=book.state.progress,
            slides=book.slides,
            rbc_px=book.rbc_px,
            plasma=book.plasma,
            red=book.red,
            light_range=book.light_range,
            only_extent_px=book.only_extent_px,
            has_colours=book.state.has_colours,
            known=self._known,
        )

    def _weights(self) -> dict[str, float]:
        """By class, what its cells seen whole stand for."""
        islands, boxes, classes = self._slide.whole_white()
        names = (UNCLASSIFIED, *self._slide.names.nameable)
        sums = np.bincount(classes + 1, self._area.weights(islands, boxes), minlength=len(names))
        return dict(zip(names, sums.tolist(), strict=True))

    def _merge_islands(self, placement: Placement) -> tuple[MergedIsland, ...]:
        merged = self._islands.update(placement)
        for one in merged:
            self._area.merge(one)
        return merged

    def state(self) -> Checkpoint:
        """What `restore` needs, after at least one frame; its arrays are views, valid until the next frame."""
        if self.last_frame_id is None:
            raise ValueError("got the state of a slide without frames, expected one frame at least")
        return Checkpoint(
            frame_id=self.last_frame_id,
            frames=self._frames,
            accepted=self._accepted,
            published=self._published,
            published_at_frame=self._published_at_frame,
            islands=self._islands.anchors,
            slide=self._slide.state(),
            area=self._area.state(),
            shapes=self.shapes.looks(),
            evidence=self._evidence.state,
            review=self.review,
        )

    def restore(self, state: Checkpoint) -> None:
        """Make a new count go on as the one that `state` was taken from; it keeps the arrays. ValueError for what
        contradicts itself, or was counted by another decision."""
        names, own = state.slide.names, self._decision
        if names.classes and (own is None or names.classes != own.class_names):
            raise ValueError(f"names: got {names.classes}, expected the classes of the session")
        self._slide.restore(state.slide)
        self._frames, self._accepted = state.frames, state.accepted
        self._published, self._published_at_frame = state.published, state.published_at_frame
        self._islands = IslandBook(state.islands)
        self._area.restore(state.area)
        self.shapes.add_all(state.shapes)
        self._evidence.state = state.evidence or EvidenceState(has_colours=False)
        self.review = state.review
        self.last_frame_id = state.frame_id

    def _note_if_due(self) -> bool:
        """Whether the differential is to be published; if so, what was counted is noted as published."""
        counts = self._slide.counts()
        named = {name: count for name, count in counts.subclasses.items() if name in LISTED}
        named["listed"] = counts.listed
        for name, one in self._slide.suspects().items():
            named |= {f"{name} suspects": len(one.cell_ids), f"{name} confirmed": one.confirmed}
        published = (counts.white, counts.nucleated_red, (*counts.classes.items(), *named.items()))
        frames_since = self._frames - self._published_at_frame
        if published == self._published and frames_since < DIFFERENTIAL_EVERY_FRAMES:
            return False
        self._published, self._published_at_frame = published, self._frames
        return True
