"""Whoever keeps the newest message of each cell has the cells that are counted, whatever they turned out to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.analysis.analyser import Analysed
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, DifferentialMessage
from streamer.records import Detections, Frame, FrameQuality, StagePosition
from streamer.run.session import SlideSession
from streamer.run.slide_stage import OwnStage, Placed
from streamer.stage.placement import Correction, Placement
from streamer.stage.tracker import StageTracker

WIDTH, HEIGHT = 200, 200
KINDS = ("white", "red", "nucleated red")
WHITE, RED, NUCLEATED = range(3)


class ScriptedStage(OwnStage):
    """Gives the placements that a test says."""

    def __init__(self):
        super().__init__()
        self.next = Placement(None, None, "end")

    def place(self, measured):
        return Placed(self.next, StageTracker().take_changes(), 0.0)

    def finish(self, counted=None):
        return self.next.corrections


class Told:
    """A session, and what its messages told."""

    def __init__(self):
        factory = MessageFactory("slide", session="s", run_id="r")
        self.stage = ScriptedStage()
        self.session = SlideSession(factory, None, operating_score=0.3, stage=self.stage)
        self.newest: dict[int, CellMessage] = {}
        self.pictures: dict[int, bytes | None] = {}
        self.total = 0
        self.frames = 0

    def show(self, placement, *cells):
        """Cells of (x, y, kind, score), 40 px across."""
        self.stage.next = placement
        boxes = np.array([(x - 20, y - 20, x + 20, y + 20) for x, y, *_ in cells], np.float32).reshape(-1, 4)
        kinds = np.array([kind for *_, kind, _ in cells], np.intp)
        analysed = Analysed(
            frame=Frame("slide", self.frames, 0, np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
            detections=Detections(boxes, np.float32([cell[3] for cell in cells]), kinds, KINDS, KINDS, False),
            classifications=None,
            prepared=None,
            quality=FrameQuality(1.0, True),
            timings_ms={},
        )
        self.frames += 1
        return self._take(self.session.update(analysed))

    def finish(self, *corrections):
        self.stage.next = Placement(None, None, "end", corrections)
        return self._take(self.session.finish("finished", "end of the source"))

    def _take(self, emissions):
        cells = []
        for message, picture in emissions:
            if isinstance(message, CellMessage):
                self.pictures[message.cell_id] = picture
                self.newest[message.cell_id] = message
                cells.append(message)
            elif isinstance(message, DifferentialMessage):
                self.total = message.total + message.nrbc
        return cells

    def check(self):
        counted = {number for number, message in self.newest.items() if message.counted}
        assert counted == {cell.cell_id for cell in self.session.count.cells()}
        assert len(counted) == self.total


@pytest.fixture
def told():
    return Told()


def placed(x=0.0, y=0.0, island=0, corrections=()):
    return Placement(StagePosition(island, x, y, 1.0), island, None, tuple(corrections))


def test_cells_of_an_island_that_is_part_of_another_are_taken_back_as_those(told):
    told.show(placed(), (50, 50, WHITE, 0.9), (150, 60, WHITE, 0.9))
    told.show(placed(island=1), (40, 45, WHITE, 0.9), (140, 55, WHITE, 0.9), (60, 150, WHITE, 0.9))
    assert told.total == 5
    back = told.show(Placement(None, None, "blurred", (Correction(1, 0, 10.0, 5.0),)))
    assert [(one.cell_id, one.counted, one.joined_to, one.island, one.looks) for one in back] == [
        (2, False, 0, 0, 2),
        (3, False, 1, 0, 2),
    ]
    told.check()
    assert told.total == 3


def test_a_cell_that_is_no_white_one_is_taken_back_and_told_of_again_when_it_is_one_after_all(told):
    told.show(placed(), (50, 50, WHITE, 0.5))
    [back] = told.show(placed(), (50, 50, RED, 0.8))
    assert (back.cell_id, back.counted, back.joined_to) == (0, False, None)
    told.check()
    [again] = told.show(placed(), (50, 50, WHITE, 0.9))
    assert (again.cell_id, again.counted) == (0, True)
    told.check()


def test_what_a_flag_names_is_told_at_an_edge_with_its_picture_and_other_cut_cells_at_the_end(told):
    [red] = told.show(placed(), (5, 100, NUCLEATED, 0.9), (195, 100, WHITE, 0.9))
    assert (red.cell_id, red.partial, red.counted) == (0, True, False)
    assert told.pictures[0][:2] == b"\xff\xd8"
    told.check()
    [white] = told.finish()
    assert (white.cell_id, white.partial, white.counted) == (1, True, False)
    assert told.total == 0
    told.check()


def test_what_the_end_takes_back_is_told(told):
    told.show(placed(), (50, 50, WHITE, 0.9))
    told.show(placed(island=1), (40, 45, WHITE, 0.9))
    [back] = told.finish(Correction(1, 0, 10.0, 5.0))
    assert (back.cell_id, back.counted, back.joined_to) == (1, False, 0)
    told.check()


cells = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2), st.sampled_from([0.2, 0.4, 0.9]))
frames = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.lists(cells, max_size=5))


@settings(deadline=None, max_examples=60)
@given(st.lists(frames, max_size=12), st.integers(0, 12))
def test_what_was_told_is_what_is_counted_after_every_frame(shown, merge_at):
    """Three islands that see one grid of places, and become one at some time; cells of any kind come and go."""
    told = Told()
    seen = set()
    for number, (island, x, y, found) in enumerate(shown):
        merged = number >= merge_at
        corrections = [Correction(one, 0, 0.0, 0.0) for one in sorted(seen) if one] if number == merge_at else []
        seen.add(island)
        placement = Placement(
            StagePosition(0 if merged else island, 50.0 * x, 50.0 * y, 1.0), island, None, tuple(corrections)
        )
        told.show(placement, *((50 * i - 50 * x + 5, 50 * j - 50 * y + 5, *rest) for i, j, *rest in found))
        told.check()
    told.finish()
    told.check()
