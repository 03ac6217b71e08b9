"""Blasts flag a slide, not a cell: how many it takes, what counts, and who is left for a person to see."""

from __future__ import annotations

import numpy as np
import pytest

from engines.base import CardError
from engines.zoo.card import parse_card
from engines.zoo.slide_flags import MeasuredSlides, SlideFlag
from streamer.config import VerdictConfig
from streamer.counting.decision import ClassDecision
from streamer.counting.slide_count import SeenFrame, SlideCount
from streamer.counting.suspects import cells_needed
from streamer.journal.rows import packed_checkpoint, unpacked_checkpoint
from streamer.records import Classifications, Detections, Reclassification, StagePosition
from streamer.stage.placement import Placement

CLASSES = (
    *("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil"),
    *("platelet", "blast", "smudge cell", "artefact"),
)
PARENTS = {
    "metamyelocyte": "immature granulocyte",
    "myelocyte": "immature granulocyte",
    "promyelocyte": "immature granulocyte",
    "variant lymphocyte": "lymphocyte",
    "promonocyte": "blast",
    "giant platelet": "platelet",
}
FLAG = SlideFlag("blast", above=0.6, false_rate=0.001, untested=("lymphoblast",))
BROAD = SlideFlag("blast", above=0.6, false_rate=0.001, equivalents=("promyelocyte",))
SPACING, SIDE = 100, 80


def likeliest(name: str, sure: float = 0.9, second: str = "lymphocyte") -> dict[str, float]:
    """Class probabilities: `sure` of a class, what is left of another."""
    return {name: sure, second if second != name else "neutrophil": 1 - sure}


class Slide:
    """White cells, each given by its class probabilities, side by side on one frame."""

    def __init__(self, flag: SlideFlag | None = FLAG, **how):
        decision = ClassDecision(
            CLASSES,
            0.5,
            tuple(PARENTS),
            tuple(PARENTS.values()),
            slide_flags=() if flag is None else (flag,),
            error_rates={} if flag is None else {flag.name: flag.false_rate},
        )
        self.count = SlideCount(decision, operating_score=0.3, verdict=VerdictConfig(least_cells=1), **how)
        self.frames = 0

    def show(self, *cells: dict[str, float], cut: bool = False, island: int = 0, subclass: str | None = None):
        """`cut`: an edge cuts them; `subclass`: theirs, with .9 and its siblings sharing the rest."""
        columns = 1 if cut else 12
        corners = [
            (0 if cut else 20 + SPACING * (i % columns), 20 + SPACING * (i // columns)) for i in range(len(cells))
        ]
        boxes = [(x, y, x + SIDE, y + SIDE) for x, y in corners]
        found = Detections(
            boxes_px=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.full(len(cells), 0.9, np.float32),
            labels=np.zeros(len(cells), np.int64),
            label_names=("WBC",),
            kinds=("white",),
            truncated=False,
        )
        rows = [[cell.get(name, 0.0) for name in CLASSES] for cell in cells]
        siblings = {"metamyelocyte": 0.05, "myelocyte": 0.05, "promyelocyte": 0.9} if subclass else {}
        own = [siblings.get(name, 0.9 if name == subclass else 0.02) for name in PARENTS]
        looks = Classifications(
            probabilities=np.array(rows, np.float32).reshape(-1, len(CLASSES)),
            class_names=CLASSES,
            subclass_probabilities=np.tile(np.float32(own), (len(cells), 1)),
            subclass_names=tuple(PARENTS),
            subclass_parents=tuple(PARENTS.values()),
        )
        size = 1240, 1240
        placed = Placement(StagePosition(island, 0.0, 0.0, 1.0), island, None, ())
        frame = SeenFrame(self.frames, *size, placed, found, looks, True, (), None, None, "")
        self.frames += 1
        return self.count.add_frame(frame)

    def result(self, *, final: bool = True):
        return self.count.differential(final=final)

    def flag_of(self, name: str = "blast"):
        return next((flag for flag in self.result().flags if flag.class_ == name), None)

    def reason(self):
        found = [one for one in self.result().verdict.reasons if one.text.startswith("blast")]
        return found[0] if found else None


NEUTROPHIL, BLAST, DOUBTED = likeliest("neutrophil"), likeliest("blast", 0.8), likeliest("blast", 0.55)


@pytest.mark.parametrize(
    ("rate", "cells", "needed"),
    [
        (0.0, 1000, 1),
        (0.001, 30, 1),
        (0.001, 51, 1),
        (0.001, 52, 2),
        (0.001, 200, 2),
        (0.001, 1000, 4),
        (0.005, 200, 4),
    ],
)
def test_so_many_cells_errors_alone_give_in_one_slide_of_twenty(rate, cells, needed):
    assert cells_needed(rate, cells) == needed
    drawn = np.random.default_rng(0).binomial(cells, rate, 20_000)
    assert (drawn >= needed).mean() < 0.055


def test_as_many_as_errors_seldom_give_flag_the_slide_and_are_listed():
    slide = Slide()
    slide.show(*[NEUTROPHIL] * 110, BLAST, BLAST)
    flag = slide.flag_of()
    assert flag.text == "blast? 2 of 112 (pictures); 0.1 expected by error"
    assert (flag.code, flag.direction, flag.count, flag.of) == ("seen", "seen", 2, 112)
    assert flag.expected_by_error == pytest.approx(0.112)
    assert [slide.count.cell(number).class_name for number in flag.cell_ids] == ["blast", "blast"]
    assert flag.note == "never tested: lymphoblast"
    assert (slide.reason().text, slide.reason().cell_ids) == ("blast 2: a person has to see each", flag.cell_ids)


def test_a_single_suspect_of_many_flags_no_slide_and_a_person_has_to_see_it():
    slide = Slide()
    slide.show(*[NEUTROPHIL] * 111, BLAST)
    result = slide.result()
    assert (slide.flag_of(), result.classes["blast"].count) == (None, 1)
    reason = slide.reason()
    assert (reason.code, reason.text, reason.value) == (
        "person_needed",
        "blast? 1, too few for a flag: a person has to see each",
        1.0,
    )
    assert [slide.count.cell(number).class_name for number in reason.cell_ids] == ["blast"]
    few = Slide()
    few.show(*[NEUTROPHIL] * 29, BLAST)
    assert few.flag_of().text == "blast? 1 of 30 (pictures); 0.03 expected by error"


def test_cells_of_the_name_below_the_threshold_flag_nothing_however_many():
    slide = Slide()
    slide.show(*[NEUTROPHIL] * 20, *[DOUBTED] * 12)
    assert (slide.result().classes["blast"].count, slide.flag_of()) == (12, None)
    assert len(slide.reason().cell_ids) == 12


def test_a_card_without_the_table_flags_what_is_named():
    slide = Slide(None)
    slide.show(*[NEUTROPHIL] * 111, DOUBTED)
    assert slide.flag_of().text.startswith("blast seen 0.9 % (1 of 112;")
    assert slide.reason().text == "blast 1: a person has to see each"


def test_a_cell_counts_by_its_probability_whatever_it_is_named():
    low = SlideFlag("blast", above=0.35, false_rate=0.001)
    slide = Slide(low)
    slide.show(
        *[NEUTROPHIL] * 20, {"blast": 0.4, "monocyte": 0.6}, {"blast": 0.4, "monocyte": 0.35, "neutrophil": 0.25}
    )
    assert (slide.flag_of().count, slide.result().classes["blast"].count) == (2, 0)
    assert {slide.count.cell(number).class_name for number in slide.flag_of().cell_ids} == {"monocyte", "unclassified"}
    no_cell = Slide(low)
    no_cell.show(*[NEUTROPHIL] * 20, {"blast": 0.4, "smudge cell": 0.6})
    assert (no_cell.flag_of(), no_cell.reason(), no_cell.result().smudge) == (None, None, 1)


def test_promyelocytes_count_where_the_card_says_so_and_flag_for_themselves_as_ever():
    between = {"blast": 0.35, "immature granulocyte": 0.6, "neutrophil": 0.05}
    for flag, count in ((FLAG, 0), (BROAD, 3)):
        slide = Slide(flag)
        slide.show(*[NEUTROPHIL] * 40)
        slide.show(*[between] * 3, island=1, subclass="promyelocyte")
        assert (0 if slide.flag_of() is None else slide.flag_of().count) == count
        assert slide.flag_of("promyelocyte").text == "promyelocyte seen 7 % (3 of 43; limits 1–20)"


def test_the_flag_follows_a_person():
    slide = Slide()
    slide.show(*[NEUTROPHIL] * 111, BLAST)
    [suspect] = slide.reason().cell_ids
    assert slide.count.reclassify(Reclassification(suspect, "blast")).differential_due
    flag = slide.flag_of()
    assert flag.text == "blast seen: 1 of 112 (pictures; 1 so named by a person); 0.1 expected by error"
    slide.count.reclassify(Reclassification(suspect, "lymphocyte"))
    assert (slide.flag_of(), slide.reason()) == (None, None)
    slide.count.reclassify(Reclassification(suspect, None))
    assert (slide.flag_of(), slide.reason().cell_ids) == (None, (suspect,))
    slide.count.reclassify(Reclassification(0, "blast", "promonocyte"))
    assert slide.flag_of().cell_ids == (0, suspect)


def test_suspects_at_an_edge_count_too_and_are_published_at_once():
    slide = Slide(SlideFlag("blast", above=0.35, false_rate=0.001))
    slide.show(*[NEUTROPHIL] * 60)
    update = slide.show({"blast": 0.4, "monocyte": 0.6}, {"blast": 0.8, "monocyte": 0.2}, cut=True, island=1)
    assert [(cell.class_name, cell.partial) for cell in update.slide.cells] == [("monocyte", True), ("blast", True)]
    flag = slide.flag_of()
    assert flag.text == "blast? 0 of 60 (pictures; 2 more cut by an edge); 0.06 expected by error"
    assert (flag.count, len(flag.cell_ids), slide.result().edge) == (0, 2, 2)


def test_what_was_never_tested_is_not_assessed():
    assert Slide().result().not_assessed == ("plasma cell", "lymphoblast")
    assert Slide(None).result().not_assessed == ("plasma cell",)


def test_figures_of_whole_slides_stand_beside_the_flag():
    measured = SlideFlag(
        "blast",
        above=0.6,
        false_rate=0.001,
        untested=("lymphoblast", "megakaryoblast"),
        sensitivity=MeasuredSlides(0.984, 0.71, 1.0, 9),
        specificity=MeasuredSlides(0.97, 0.66, 1.0, 8),
    )
    slide = Slide(measured)
    slide.show(*[BLAST] * 10)
    assert slide.flag_of().note == (
        "slides of 200 cells with 5 % blasts flagged: 98 % (limits 71–100, 9 patients); normal ones not flagged: 97 % "
        "(limits 66–100, 8 laboratories); never tested: lymphoblast, megakaryoblast"
    )


def test_a_slide_goes_on_from_a_checkpoint_with_the_same_flags():
    whole, first, second = Slide(), Slide(), Slide()
    for slide in (whole, first):
        slide.show(*[NEUTROPHIL] * 80, BLAST)
        slide.count.reclassify(Reclassification(0, "blast"))
    second.count.restore(unpacked_checkpoint(packed_checkpoint(first.count.state())))
    second.frames = 1
    for slide in (whole, second):
        slide.show(BLAST, BLAST, island=1)
    assert whole.flag_of().count == 4
    assert second.result() == whole.result()


def test_what_is_no_leukocyte_is_in_no_total_whatever_box_it_had():
    slide = Slide()
    names = ("platelet", "artefact", "smudge cell", "erythroblast", "lymphocyte", "blast")
    slide.show(*[likeliest(name, second="neutrophil") for name in names])
    slide.show(likeliest("platelet", second="neutrophil"), island=1, subclass="giant platelet")
    result = slide.result()
    assert (result.total, result.nrbc, result.smudge, result.artefacts, result.edge) == (2, 1, 1, 1, 0)
    assert (result.smudge_per_100_wbc, set(result.classes)) == (50.0, set(CLASSES) - {*names[:4]})
    assert "variant lymphocyte" in result.not_seen
    assert "blast" not in result.not_seen


CARD = """
task = "classifier"
[input]
height_px = 32
width_px = 32
[[classes]]
name = "blast"
kind = "white"
[[classes]]
name = "immature granulocyte"
kind = "white"
[[subclasses]]
name = "promonocyte"
parent = "blast"
[[subclasses]]
name = "promyelocyte"
parent = "immature granulocyte"
[[slide_flags]]
class = "blast"
above = 0.7
false_rate = 0.002
"""


def test_a_card_says_what_flags_a_slide():
    more = 'equivalents = ["promyelocyte"]\nuntested = ["lymphoblast"]\nsensitivity = [0.9, 0.5, 1]\npatients = 9\n'
    [flag] = parse_card(CARD + more, "card.toml", stem="card").slide_flags
    assert flag == SlideFlag(
        *("blast", 0.7, 0.002, ("promyelocyte",), ("lymphoblast",)), sensitivity=MeasuredSlides(0.9, 0.5, 1.0, 9)
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('equivalents = ["promyelocite"]', "got 'promyelocite', expected classes or subclasses of this card"),
        ('equivalents = ["promonocyte"]', "got 'promonocyte', expected what 'blast' does not hold already"),
        ("sensitivity = [0.9, 0.95, 1]", "expected \\[share, low, high\\]"),
        ("abov = 0.2", "abov"),
        ('[[slide_flags]]\nclass = "blast"\nabove = 0.1\nfalse_rate = 0.1', "expected different ones"),
    ],
)
def test_a_wrong_table_is_refused_in_a_line(more, message):
    with pytest.raises(CardError, match=message):
        parse_card(CARD + more, "card.toml", stem="card")


def test_who_is_owed_another_look_is_known_without_looking_at_each_again():
    slide = Slide()
    sure = likeliest("neutrophil", 0.99)
    slide.show(
        likeliest("blast", 0.95), sure, likeliest("immature granulocyte", 0.95), likeliest("monocyte", 0.7), sure
    )
    slide.show(sure, sure, likeliest("immature granulocyte", 0.95), likeliest("monocyte", 0.99), likeliest("blast"))
    owed = []
    for _ in range(11):
        doubt = slide.count.owing(Placement(StagePosition(0, 0.0, 0.0, 1.0), 0), (1300, 960))
        owed.append(doubt.classes.cell_ids.tolist())
        tallies = slide.count._slide._tallies
        assert (tallies.were_listed(np.arange(5)) == tallies.are_listed(np.arange(5))).all()
        slide.show(*[likeliest("neutrophil", 0.99)] * 5)
    assert owed[0] == [0, 2, 4]  # flagged, flagged, unsure
    assert owed[-1] == []  # each was looked at twelve times
