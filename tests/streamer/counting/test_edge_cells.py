"""Cells that an edge cuts: counted apart, named by their looks, flagged wherever they lie, whole once seen whole."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streamer.counting.decision import ClassDecision
from streamer.counting.slide_count import SeenFrame, SlideCount
from streamer.journal.rows import packed_checkpoint, unpacked_checkpoint
from streamer.records import Classifications, Detections, Reclassification, StagePosition
from streamer.stage.placement import Correction, Placement

WIDTH, HEIGHT = 640, 480
CLASSES = ("blast", "lymphocyte", "neutrophil", "smudge cell", "artefact")
DECISION = ClassDecision(CLASSES, 0.7)
KINDS = ("white", "red", "nucleated red")
WHITE, RED, NUCLEATED = KINDS


class Film:
    """Shows boxes, (x1, y1, x2, y2, class or None), to a count; None: a box without a look worth a name."""

    def __init__(self, **how):
        self.count = SlideCount(DECISION, operating_score=0.3, **how)
        self.frames = 0

    def show(self, *boxes, island=0, x=0.0, y=0.0, kind=WHITE, corrections=()):
        found = Detections(
            boxes_px=np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4),
            scores=np.full(len(boxes), 0.9, np.float32),
            labels=np.full(len(boxes), KINDS.index(kind)),
            label_names=KINDS,
            kinds=KINDS,
            truncated=False,
        )
        rows = [[0.92 if name == box[4] else 0.02 if box[4] else 0.2 for name in CLASSES] for box in boxes]
        none = np.zeros((len(found.white_rows), 0), np.float32)
        probabilities = np.float32(rows).reshape(-1, len(CLASSES)) if kind == WHITE else np.zeros((0, 5), np.float32)
        seen = SeenFrame(
            frame_id=self.frames,
            width=WIDTH,
            height=HEIGHT,
            placement=Placement(StagePosition(island, x, y, 1.0), island, None, tuple(corrections)),
            detections=found,
            looks=Classifications(probabilities, CLASSES, none, (), ()),
            accepted=True,
            reasons=(),
            focus=None,
            file=None,
            captured_utc="",
        )
        self.frames += 1
        return self.count.add_frame(seen)

    def result(self, *, final=False):
        return self.count.differential(final=final)


def test_cells_only_ever_seen_cut_are_in_no_percentage_and_no_total():
    film = Film()
    film.show((0, 100, 60, 180, "lymphocyte"), (200, 200, 280, 280, "neutrophil"), (560, 300, 640, 380, "lymphocyte"))
    film.show((300, 0, 390, 50, None), island=1)
    film.count.finish(())
    result = film.result(final=True)
    assert (result.total, result.edge, result.unclassified) == (1, 3, 0)
    assert (result.classes["neutrophil"].percent, result.classes["lymphocyte"].count) == (100.0, 0)
    assert film.count.total == 1


@pytest.mark.parametrize(
    "box",
    [
        (3.0, 200, 83, 280),
        (557, 200, 637.0, 280),
        (200, 3.0, 280, 83),
        (200, 397, 280, 477.0),
        (3.0, 3.0, 83, 83),
    ],
)
def test_a_whole_cell_is_whole_and_named_by_one_look_however_near_the_edge(box):
    film = Film()
    update = film.show((*box, "lymphocyte"))
    result = film.result()
    assert (result.total, result.edge, result.classes["lymphocyte"].count) == (1, 0, 1)
    [cell] = update.slide.cells
    assert cell.class_probabilities["lymphocyte"] == pytest.approx(0.92, abs=1e-4)
    assert (cell.partial, cell.counted) == (False, True)


def test_a_cell_first_seen_cut_and_later_whole_joins_the_count_then():
    film = Film()
    first = film.show((580, 200, 640, 280, "neutrophil"))
    assert (first.slide.cells, film.result().total, film.result().edge) == ((), 0, 1)
    second = film.show((480, 200, 560, 280, "lymphocyte"), x=100)
    [cell] = second.slide.cells
    assert (cell.partial, cell.looks, cell.class_name) == (False, 2, "lymphocyte")
    assert (film.result().total, film.result().edge) == (1, 0)
    assert cell.class_probabilities["lymphocyte"] > 0.8  # the cut look counts little beside the whole one
    film.count.finish(())
    assert film.result(final=True).edge == 0


def test_one_look_names_a_cut_cell_too_so_that_the_flags_may_see_it():
    film = Film()
    update = film.show((0, 100, 50, 190, "blast"), (200, 200, 280, 280, "neutrophil"))
    blast = next(cell for cell in update.slide.cells if cell.partial)
    assert (blast.class_name, blast.counted) == ("blast", False)
    result = film.result()
    assert [(flag.class_, flag.count, flag.cell_ids) for flag in result.flags if flag.code == "seen"] == [
        ("blast", 0, (blast.cell_id,))
    ]
    assert (result.total, result.edge, result.classes["blast"].count) == (1, 1, 0)
    assert update.differential_due


def test_a_nucleated_red_cell_is_flagged_at_an_edge_and_counted_when_it_is_whole():
    film = Film()
    film.show((0, 100, 50, 160, None), kind=NUCLEATED)
    result = film.result()
    assert (result.nrbc, result.edge) == (0, 0)
    assert [flag.text for flag in result.flags] == ["nucleated red cell seen (1 cut by an edge, in no percentage)"]
    update = film.show((100, 100, 160, 160, None), x=-100, kind=NUCLEATED)
    [cell] = update.slide.cells
    assert (cell.counted, film.result().nrbc) == (True, 1)
    assert [flag.text for flag in film.result().flags] == ["nucleated red cell seen (1 beside 0 white cells)"]


def test_what_a_person_calls_a_flagged_cell_is_what_it_is_and_it_stays_cut():
    film = Film()
    [cell] = film.show((0, 100, 50, 190, "blast")).slide.cells
    assert film.count.fault_of(Reclassification(cell.cell_id, "lymphocyte")) is None
    film.count.reclassify(Reclassification(cell.cell_id, "lymphocyte"))
    assert (film.result().flags, film.result().edge, film.result().total) == ((), 1, 0)


def test_smudge_cells_and_artefacts_are_outside_the_total_and_their_boxes_are_not_counted():
    film = Film()
    update = film.show(
        *((100, 100, 180, 180, "smudge cell"), (200, 200, 280, 280, "lymphocyte"), (300, 300, 380, 380, "artefact")),
        (0, 300, 40, 380, "smudge cell"),
    )
    assert [seen.counted for seen in update.slide.observations] == [False, True, False, False]
    result = film.result()
    assert (result.total, result.smudge, result.smudge_per_100_wbc, result.artefacts) == (1, 1, 100.0, 1)
    assert result.edge == 0  # a cut smudge cell is no white cell
    assert {cell.class_name: cell.counted for cell in update.slide.cells} == {
        "smudge cell": False,
        "lymphocyte": True,
        "artefact": False,
    }
    assert [cell.class_name for cell in film.count.cells()] == ["lymphocyte"]


def test_percentages_are_corrected_by_the_fields_in_which_the_cells_were_seen():
    film = Film()
    film.show((100, 100, 180, 180, "lymphocyte"), (300, 100, 430, 230, "neutrophil"))
    film.show((100, 100, 230, 230, "neutrophil"), island=1)
    result = film.result()
    small, large = 1 / (560 * 400), 1 / (510 * 350)
    expected = 100 * small / (small + 2 * large)
    assert result.classes["lymphocyte"].percent_size_corrected == pytest.approx(expected)
    assert result.size_bias.keys() == {"lymphocyte", "neutrophil"}
    assert result.size_bias["lymphocyte"] == pytest.approx(expected - 100 / 3)


def test_a_count_goes_on_from_its_state_with_the_same_differential():
    film, again = Film(), Film()
    for number in range(4):
        film.show((100, 100, 180, 180, "lymphocyte"), (0, 300, 70, 380, "blast"), island=number % 3, x=200.0 * number)
    kept = unpacked_checkpoint(packed_checkpoint(film.count.state()))
    assert kept is not None
    again.count.restore(kept)
    again.frames = film.frames
    for one in (film, again):
        one.show((300, 200, 400, 300, "neutrophil"), island=1, x=450.0, corrections=[Correction(2, 0, 5.0, 900.0)])
        one.count.finish(())
    assert msgspec.to_builtins(again.result(final=True)) == msgspec.to_builtins(film.result(final=True))
    assert film.result(final=True).edge
