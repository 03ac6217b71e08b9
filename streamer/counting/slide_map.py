"""The slide map: detections of placed frames become cells, each counted once.

A cell is known by its place (recognition.py). It is counted from the first frame that shows it whole; what was only
ever seen cut by an edge is counted apart, and published as partial at the end. When the stage map is corrected its
cells move along, and cells that turn out to lie on the same spot become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.zoo.slide_flags import SlideFlag
from streamer.counting.carried import NO_CELLS, CarriedCells, Compared, carried_cells, compared
from streamer.counting.cell_classes import classify, seen_whole
from streamer.counting.cell_description import CellDescription
from streamer.counting.cell_names import CellNames
from streamer.counting.cell_table import AS_DETECTED, KINDS, CellTable
from streamer.counting.doubt import cells_in_doubt
from streamer.counting.fusion import Fusion, FusionConfig, Names
from streamer.counting.matching import (
    Cuts,
    Field,
    Ints,
    MatchConfig,
    SlideBoxes,
    best_of_each,
)
from streamer.counting.mending import Mending
from streamer.counting.presence import missed_before, missing
from streamer.counting.recognition import Recognition
from streamer.counting.sight import SightConfig, sight_of
from streamer.counting.suspects import Suspects
from streamer.counting.tallies import SlideCounts, Tallies
from streamer.counting.visits import Visits
from streamer.looking.plan import NO_DOUBT, CellsInDoubt
from streamer.records import (
    UNCLASSIFIED,
    AddedCell,
    Cell,
    CellLooks,
    Classifications,
    Detections,
    Observation,
    Reclassification,
)
from streamer.stage.hidden import HiddenParts
from streamer.stage.placement import Correction, Placement


@dataclass(frozen=True, slots=True)
class SlideConfig:
    min_score: float = 0.0
    """Detections below it are not counted: the detector card's operating threshold."""
    cut_weight: float = 0.3
    """What a look at a cut cell counts once the cell was seen whole; before, it counts like any other."""
    cut_evidence: float = 0.1
    """The same for what kind of cell it is: the rim of a white cell looks like a red one."""
    box_memory: int = 8
    """A cell's box is the mean of about so many looks."""
    double_check_px: float = 5.0
    """A correction that moves cells further than this has them compared with their new neighbours."""
    bucket_px: float = 256.0
    """Side of the grid's squares; cells larger than two of them would not be found again."""
    attributes_of: tuple[str, ...] = ()
    """Classes whose cells the classifier learnt to describe; the attributes of others are not published."""
    slide_flags: tuple[SlideFlag, ...] = ()
    """Classes of which single cells flag no slide."""
    sight: SightConfig = field(default_factory=SightConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)


@dataclass(frozen=True, slots=True)
class SlideUpdate:
    """What one frame changed. `observations` has one entry a detection, in their order."""

    observations: tuple[Observation, ...]
    cells: tuple[Cell, ...]
    """White cells and nucleated red ones that were counted for the first time or whose class changed."""
    removed: tuple[tuple[int, int | None], ...]
    """(number, number of the cell that it turned out to be) of cells published before; None for one that is no white
    cell after all."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideState:
    """All that a slide map knows between two frames, as data."""

    cells: Mapping[str, npt.NDArray[Any]]
    """Columns of the cell store."""
    sums: Mapping[str, npt.NDArray[np.float32]]
    """Columns of the fusion."""
    names: Names
    visits: npt.NDArray[np.float64]
    """Rows of the visits."""
    visit_looks: npt.NDArray[np.int32]
    """How many looks each of them had."""
    hidden: HiddenParts | None


class SlideNovelty(NamedTuple):
    unlike_training: int
    """White cells that are unclassified since all looks at them are too novel."""
    mean: float | None
    """Of all white cells, each with its least novel look; None: there are none, or the classifier does not say."""


class SlideMap:
    def __init__(self, config: SlideConfig | None = None) -> None:
        self._config = config = config or SlideConfig()
        self._cells = CellTable(config.bucket_px)
        self._fusion = Fusion(config.fusion)
        self._tallies = Tallies(self._cells, self._fusion, config.slide_flags)
        self._recognition = Recognition(self._cells, config.match)
        self.names = CellNames(self._cells, self._fusion, self._tallies)
        self._description = CellDescription(self._cells, self._fusion, self._tallies, config.attributes_of)
        self._visits = Visits()
        self._mending = Mending(
            *(self._cells, self._fusion, self._tallies, self._recognition, self._visits, config.sight),
            cut_weight=config.cut_weight,
            double_check_px=config.double_check_px,
        )

    @property
    def bytes_used(self) -> int:
        return self._cells.bytes_used + self._fusion.bytes_used

    def counts(self) -> SlideCounts:
        return self._tallies.counts()

    def cells(self) -> Iterator[Cell]:
        """The counted white and nucleated red cells, oldest first."""
        rows = self._cells.published_rows()
        yield from self._description.of(rows[self._tallies.counted(rows)])

    def uncounted_cells(self) -> Iterator[Cell]:
        """The published cells that are not counted: smudge cells, artefacts, and of those only seen cut the ones that
        the flags list, after the end all."""
        rows = self._cells.published_rows()
        yield from self._description.of(rows[~self._tallies.counted(rows)])

    def listed(self) -> dict[str, Ints]:
        """Numbers of the cells, whole or not, by class or subclass, of those whose cells the flags list."""
        return self._tallies.listed()

    def suspects(self) -> dict[str, Suspects]:
        """The cells that may be of it, by the name of each flag of the slide."""
        return self._tallies.suspects()

    def partial(self, cell_ids: Ints) -> npt.NDArray[np.bool_]:
        """Which of these cells were never seen whole."""
        return self._cells.partial[cell_ids]

    def whole_white(self) -> tuple[npt.NDArray[np.int32], SlideBoxes, npt.NDArray[np.int16]]:
        """Of the white cells seen whole (n,) islands, (n, 4) boxes, and (n,) indices into `nameable`, -1 for
        unclassified."""
        cells, rows = self._cells, self._cells.published_rows()
        rows = rows[~cells.partial[rows] & (cells.kind(rows) == 0)]
        return cells.island[rows], cells.boxes[rows], cells.class_index[rows]

    def cell(self, cell_id: int) -> Cell:
        """A cell by its number; one that was joined to another gives that other one."""
        return self._description.of(np.array([self._cells.row_of(cell_id)]))[0]

    def novelty(self) -> SlideNovelty:
        """Of the counted white cells that the classifier looked at."""
        cells, novel_above = self._cells, self._config.fusion.novel_above
        if novel_above is None:
            return SlideNovelty(0, None)
        rows = self._cells.living()
        rows = rows[self._tallies.counted(rows) & (cells.kind(rows) == 0) & (cells.white_row[rows] >= 0)]
        novelty = self._fusion.novelty(cells.white_row[rows])
        by_looks = (cells.class_index[rows] < 0) & (cells.reclassified_order[rows] == 0)
        unlike = int((by_looks & (novelty > np.float32(novel_above))).sum())
        return SlideNovelty(unlike, float(novelty.astype(np.float64).mean()) if len(novelty) else None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the looks; empty before the first."""
        return self._fusion.class_names

    def is_counted(self, cell_id: int) -> bool:
        """Whether a number is that of a counted white or nucleated red cell, or of one that was joined to such."""
        return 0 <= cell_id < self._cells.count and bool(self._cells.published[self._cells.row_of(cell_id)])

    def reclassify(self, *given: Reclassification) -> SlideUpdate:
        """Give counted cells the classes that a person gave them, whatever their looks show, now and later.

        One that is confirmed has the class that it has, and a nucleated red one stays that. ValueError, with nothing
        changed, for a cell that is not counted, and for a class that none of this slide may have.
        """
        known = (UNCLASSIFIED, *self._fusion.nameable)
        for one in given:
            if not self.is_counted(one.cell_id) or one.class_name not in (None, *known):
                raise ValueError(f"got {one}, expected a counted cell and one of the classes {', '.join(known)}")
        cells = self._cells
        rows = np.array([self._cells.row_of(one.cell_id) for one in given], np.intp)
        with self._tallies.change(np.unique(rows)):
            for row, one in zip(rows.tolist(), given, strict=True):
                if cells.white_row[row] < 0:
                    cells.white_row[row] = self._fusion.new_rows(1)[0]
                cells.reclassified_order[row] = 0
                if one.class_name is not None:
                    as_detected = one.confirmed and cells.kind(np.array([row]))[0] != 0
                    self._name(row, one.class_name, one.subclass)
                    if as_detected:
                        cells.reclassified_class[row] = AS_DETECTED
            classify(self._cells, self._fusion, np.unique(rows))
        for row in rows[cells.published[rows]].tolist():
            self._tallies.note(row)
        return self._drain(())

    def _name(self, row: int, class_name: str, subclass: str | None) -> None:
        """Write down what a person said of a cell."""
        cells, fusion = self._cells, self._fusion
        cells.reclassified_order[row] = 1 + cells.reclassified_order[: cells.count].max()
        cells.reclassified_class[row] = (UNCLASSIFIED, *fusion.nameable).index(class_name) - 1
        cells.reclassified_subclass[row] = -1 if subclass is None else fusion.subclass_names.index(subclass)

    @property
    def next_cell_id(self) -> int:
        """Of the next cell that is found or added."""
        return self._cells.count

    def add_cell(self, added: AddedCell) -> SlideUpdate:
        """Count a white cell, seen whole, that no look found, by its place, once the slide has ended: no correction
        moves it. ValueError for a class that none of this slide may have."""
        cells = self._cells
        if added.class_name not in (UNCLASSIFIED, *self._fusion.nameable):
            raise ValueError(f"got {added}, expected a class of this slide")
        box, anchor = np.array([added.box_px], np.float64), 0
        row = int(cells.append(box, np.zeros((1, 4), np.bool_), added.island, anchor, added.frame_id)[0])
        with self._tallies.change(np.array([row])):
            cells.white_row[row] = self._fusion.new_rows(1)[0]
            self._name(row, added.class_name, added.subclass)
            classify(self._cells, self._fusion, np.array([row]))
        return self._drain(())

    def take_back(self, cell_id: int) -> SlideUpdate:
        """Count a cell that a person added no more."""
        with self._tallies.change(np.array([cell_id])):
            self._cells.drop(cell_id)
        return self._drain(())

    def published_cells(self, cell_ids: Iterable[int]) -> dict[int, Cell]:
        """Those of these cells that are counted white or nucleated red ones, as they are now, without their attributes:
        called for every frame, which publishes classes only."""
        rows = np.fromiter(cell_ids, np.intp)
        rows = rows[self._cells.published[rows]]
        return {cell.cell_id: cell for cell in self._description.of(rows, with_attributes=False)}

    def state(self) -> SlideState:
        """What `restore` needs, between two frames; views that are valid until the next one."""
        visits = self._visits
        columns = self._cells.columns(), self._fusion.columns()
        return SlideState(*columns, self._fusion.names, visits.rows, visits.looks, self._mending.hidden)

    def restore(self, state: SlideState) -> None:
        """Make a new slide map go on as the one that `state` was taken from; it keeps the arrays. ValueError for what
        contradicts itself."""
        cells, names = self._cells, state.names
        cells.restore(state.cells)
        self._fusion.restore(state.sums, names)
        self._visits.rows, self._visits.looks, self._mending.hidden = state.visits, state.visit_looks, state.hidden
        told = cells.reclassified_order > 0  # the other rows' are empty
        by_class = told & (cells.reclassified_class != AS_DETECTED)
        for column, known in (
            (cells.white_row, self._fusion.rows),
            (cells.class_index, len(self._fusion.nameable)),
            (cells.subclass_index, len(names.subclasses)),
            (cells.reclassified_class[by_class], len(self._fusion.nameable)),
            (cells.reclassified_subclass[told], len(names.subclasses)),
        ):
            if len(column) and not -1 <= column.min() <= column.max() < known:
                raise ValueError(f"cells: got rows and classes up to {column.max()}, expected -1 to {known - 1}")
        self._tallies.count_anew(self._cells.living())

    def update(
        self,
        placement: Placement,
        detections: Detections,
        frame_size_px: tuple[int, int],
        frame_id: int,
        looks: Classifications | None = None,
        weight: float = 1.0,
        accepted: bool = True,
        looked: bool = True,
        cell_looks: CellLooks | None = None,
    ) -> SlideUpdate:
        """Take in one frame of `frame_size_px` (width, height).

        `looks` has one row for each detection of kind "white", in their order, and counts `weight` (0 to 1, by focus).
        Of a frame without position, not `accepted`, or not `looked` at, nothing is counted. `cell_looks`: at known
        cells of one that was not looked at otherwise.
        """
        self._mending.correct(placement.corrections)
        self._mending.hide(placement.hidden, max(frame_size_px))
        kinds = np.array([KINDS.index(kind) for kind in detections.kinds], np.intp)[detections.labels]
        white = detections.white_rows
        if looks is not None and len(looks) != len(white):
            raise ValueError(f"looks: got {len(looks)} rows, expected one for each of {len(white)} white boxes")
        numbers = np.full(len(detections), -1, np.intp)
        fresh = np.zeros(len(detections), bool)
        position = placement.position
        if position is not None and accepted and looked:
            sight = sight_of(detections, frame_size_px, placement.hidden, self._config.min_score, self._config.sight)
            rows = np.nonzero(sight.shown)[0]
            boxes = sight.boxes_px[rows] + np.array([position.x_px, position.y_px] * 2)
            field = Field.of(placement, frame_size_px, frame_id)
            numbers[rows], fresh[rows] = self._add_boxes(
                boxes, sight.cut[rows], sight.whole[rows], kinds[rows], detections.scores[rows], field
            )
            self._miss(field, numbers)
            self._visits.add(placement, frame_id)
            seen = rows[numbers[rows] >= 0][::-1]  # the best box of a cell last
            self._cells.label[numbers[seen]] = detections.labels[seen]
            if looks is not None:
                rows = np.nonzero(numbers[white] >= 0)[0]
                rows = rows[best_of_each(numbers[white[rows]], detections.scores[white[rows]])]
                shown = numbers[white[rows]]
                cut_weight = np.where(self._cells.partial[shown], 1.0, self._config.cut_weight)
                weights = np.where(sight.whole[white[rows]], weight, weight * cut_weight).astype(np.float32)
                self.add_looks(shown, looks[rows], weights)
            known = numbers[fresh]
            known = known[self._cells.first_frame[known] < frame_id]
            if len(known):  # seen whole at last: what was another cut cell may be a part of it
                self._mending.join_doubles(known)
                numbers[numbers >= 0] = self._cells.rows_of(numbers[numbers >= 0])
        if cell_looks is not None:
            self._look_again(cell_looks, frame_id)
        counted = np.zeros(len(numbers), bool)
        counted[numbers >= 0] = self._tallies.counted(numbers[numbers >= 0])
        numbered = [number if number >= 0 else None for number in numbers.tolist()]
        return self._drain(tuple(map(Observation, numbered, fresh.tolist(), counted.tolist())))

    def carried(self, placement: Placement, size_px: tuple[int, int], *, doubted: bool = False) -> CarriedCells:
        """The known cells where a frame (width, height) lies; none where it has no position. `doubted`: those among
        them that most looks miss."""
        if placement.position is None:
            return NO_CELLS
        return carried_cells(self._cells, self._tallies, Field.of(placement, size_px, 0), doubted=doubted)

    def compare(self, placement: Placement, detections: Detections, size_px: tuple[int, int]) -> Compared:
        """What a look at a frame (width, height) found that is not counted, and what is known there."""
        config = self._config
        sight = sight_of(detections, size_px, placement.hidden, config.min_score, config.sight)
        return compared(detections, sight, self.carried(placement, size_px, doubted=True), size_px)

    def owing(self, placement: Placement, size_px: tuple[int, int]) -> CellsInDoubt:
        """What is in doubt of the cells in a frame (width, height) and around it."""
        if placement.position is None:
            return NO_DOUBT
        return cells_in_doubt(self._cells, self._fusion, self._tallies, Field.of(placement, size_px, 0))

    def add_looks(self, cell_ids: Ints, looks: Classifications, weights: npt.NDArray[np.float32]) -> None:
        """Fuse look i, counting weights[i], into cell cell_ids[i]; `update` does so for those given to it."""
        if len(cell_ids) == 0:  # most frames show no white cell
            return
        cells = self._cells
        touched = np.unique(cell_ids)
        with self._tallies.change(touched):
            rowless = touched[cells.white_row[touched] < 0]
            cells.white_row[rowless] = self._fusion.new_rows(len(rowless))
            self._fusion.add(cells.white_row[cell_ids].astype(np.intp), looks, weights)
            classify(self._cells, self._fusion, touched)

    def _look_again(self, seen: CellLooks, frame_id: int) -> None:
        """Fuse looks at cells that are known, each once, whatever they have turned out to be meanwhile."""
        cells = self._cells
        if len(seen.cell_ids) and not 0 <= seen.cell_ids.min() <= seen.cell_ids.max() < cells.count:
            raise ValueError(f"looks: got some at cell {seen.cell_ids.max()}, expected below {cells.count}")
        numbers = cells.rows_of(seen.cell_ids)
        chosen = np.sort(np.unique(numbers, return_index=True)[1])
        chosen = chosen[cells.alive[numbers[chosen]]]
        cells.looks[numbers[chosen]] += 1
        cells.last_frame[numbers[chosen]] = frame_id
        self.add_looks(numbers[chosen], seen.looks[chosen], np.ones(len(chosen), np.float32))

    def finish(self, corrections: Sequence[Correction] = ()) -> SlideUpdate:
        """The end of the slide, after the stage's last `corrections`: cells that were only seen cut are published too,
        as partial."""
        self._mending.correct(corrections)
        cells = self._cells
        self._mending.join_doubles(cells.living()[cells.partial[cells.living()]])
        partial = cells.living()[cells.partial[cells.living()]]
        with self._tallies.change(partial):
            self._tallies.finished = True
        return self._drain(())

    # What one frame does

    def _add_boxes(
        self,
        boxes: SlideBoxes,
        cut: Cuts,
        whole: npt.NDArray[np.bool_],
        kinds: Ints,
        scores: npt.NDArray[np.float32],
        field: Field,
    ) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Cell number of each box, and whether this box made it a counted cell."""
        if len(boxes) == 0:
            return np.zeros(0, np.intp), np.zeros(0, bool)
        cells = self._cells
        seen = self._recognition.recognise(boxes, cut, kinds, scores, field)
        known, new = seen.known, seen.new
        numbers = np.full(len(boxes), -1, np.intp)
        numbers[known] = seen.cells
        numbers[new] = cells.append(boxes[new], cut[new], field.island, field.anchor, field.frame_id)
        clear = new[~cut[new].any(1) & (kinds[new] <= 1)]
        sight = self._config.sight
        cells.missed[numbers[clear]] = missed_before(self._visits, boxes[clear], field, self._mending.hidden, sight)
        numbers[seen.doubles] = numbers[seen.originals]
        shown = np.nonzero(numbers >= 0)[0]
        touched, where = np.unique(numbers[shown], return_inverse=True)
        before = self._tallies.counted(touched)
        with self._tallies.change(touched):
            tolerance_px = self._config.sight.maybe_cut_share * float(field.size.max())
            beyond = field.beyond(cells.boxes[seen.cells], tolerance_px)
            self._improve(seen.cells, boxes[known], cut[known] | beyond, field.anchor)
            seen_whole(cells, self._fusion, seen.cells[whole[known] & ~beyond.any(1)], self._config.cut_weight)
            cells.partial[numbers[new]] = ~whole[new]
            best = shown[best_of_each(where, scores[shown])]  # a second box on the same cell is no second opinion
            clear = np.where(cut[best].any(1), self._config.cut_evidence, 1.0)
            cells.evidence[touched, kinds[best]] += scores[best] * clear
            cells.score[touched] = scores[best]
            cells.looks[touched] += 1
            cells.last_frame[touched] = field.frame_id
        newly = self._tallies.counted(touched) & ~before & (cells.was_new[touched] == 0)
        cells.was_new[touched[newly]] = 1
        # The first box of a cell speaks for it: a double would make it look like two new cells.
        leads = np.zeros(len(boxes), bool)
        leads[known] = leads[new] = True
        leads[shown] &= newly[where]
        return numbers, leads

    def _miss(self, field: Field, found: Ints) -> None:
        """Note which cells a look should have found; `found`: those that it did."""
        rows = missing(self._cells, field, found, self._mending.hidden, self._config.sight)
        if len(rows):
            with self._tallies.change(rows):
                self._cells.missed[rows] += 1

    def _improve(self, rows: Ints, boxes: SlideBoxes, cut: Cuts, anchor: int) -> None:
        """Let the boxes of known cells learn from one more look; looks clear of the edges replace cut ones."""
        cells = self._cells
        is_cut, was_cut = cut.any(1), cells.cut[rows].any(1)
        mean = ~is_cut & ~was_cut
        share = 1 / np.minimum(cells.whole_looks[rows[mean]] + 1, self._config.box_memory)
        cells.boxes[rows[mean]] += (boxes[mean] - cells.boxes[rows[mean]]) * share[:, None]
        first = ~is_cut & was_cut
        cells.boxes[rows[first]] = boxes[first]
        cells.cut[rows[first]] = False
        cells.anchor[rows[first]] = anchor
        wider = is_cut & was_cut
        both, known = boxes[wider], rows[wider]
        outward = np.array([-1.0, -1.0, 1.0, 1.0])
        # A side that either look saw stays where it was seen; of two cut ones the outer is nearer to the truth.
        seen_now, seen_before = ~cut[wider], ~cells.cut[known]
        outer = np.maximum(both * outward, cells.boxes[known] * outward) * outward
        cells.boxes[known] = np.where(seen_before, cells.boxes[known], np.where(seen_now, both, outer))
        cells.cut[known] = ~(seen_now | seen_before)
        cells.whole_looks[rows[~is_cut]] += 1
        cells.moved(rows)

    # Counting

    def _drain(self, observations: tuple[Observation, ...]) -> SlideUpdate:
        changed, removed = self._tallies.drain()
        joined_to = self._cells.joined_to[removed].tolist()
        return SlideUpdate(
            observations,
            tuple(self._description.of(np.array(changed, np.intp))),
            tuple((row, to if to >= 0 else None) for row, to in zip(removed, joined_to, strict=True)),
        )
