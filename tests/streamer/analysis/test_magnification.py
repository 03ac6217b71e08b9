"""The input size that the frames of a source get, with a scripted detector that knows red cells of some sizes only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from streamer.analysis.analyser import Analyser
from streamer.analysis.magnification import LOOKS, Magnification, MeasuredSource
from streamer.records import Frame, Skip
from tests.cases import ScriptedSource
from tests.engines.models.scale_cases import CARD, looking_at

PICTURE = np.zeros((480, 640, 3), np.uint8)


def frame(number: int, picture: np.ndarray = PICTURE, source: str = "slide") -> Frame:
    return Frame(source, number, number, picture)


def chosen(magnification: Magnification, number: int, picture: np.ndarray = PICTURE) -> int:
    return magnification.detector_for(frame(number, picture)).long_side_px


def test_a_suitable_magnification_costs_one_look_and_says_nothing() -> None:
    said: list[str] = []
    detector = looking_at(30)
    magnification = Magnification(detector, say=said.append)
    for number in range(9):
        magnification.look(frame(number))
    assert magnification.detector_for(frame(8)) is detector
    assert said == []
    assert magnification._views["slide", 640, 480].looks == 1


def test_large_cells_get_a_smaller_input_and_one_line_says_so() -> None:
    said: list[str] = []
    magnification = Magnification(looking_at(80), say=said.append)
    for number in range(3):
        magnification.look(frame(number))
    assert chosen(magnification, 0) == chosen(magnification, 2) == 320
    assert said == [
        "slide: red cells are 80 px wide in frames of 640x480, 80 px in an input of 640 px, where test expects "
        "18 to 60: looking at 320 px instead"
    ]


def test_a_known_diameter_is_not_measured() -> None:
    magnification = Magnification(looking_at(0), rbc_diameter_px=80)
    magnification.look(frame(0))
    assert chosen(magnification, 0) == 320


def test_a_choice_holds_from_its_frame_on() -> None:
    """So that what is found in a frame does not depend on which worker is the faster."""
    magnification = Magnification(looking_at(80))
    magnification.look(frame(5))
    assert chosen(magnification, 4) == 640
    assert chosen(magnification, 5) == 320


def test_the_diameter_is_that_of_the_frames_own_pixels_from_the_first_measured_frame_on() -> None:
    magnification = Magnification(looking_at(80))
    assert magnification.rbc_px_for(frame(5)) is None
    magnification.look(frame(5))
    assert magnification.rbc_px_for(frame(4)) is None
    for number in (5, 6):
        assert magnification.rbc_px_for(frame(number)) == pytest.approx(80, rel=0.03)
    assert magnification.rbc_px_for(frame(6, source="other")) is None
    assert magnification.rbc_px_for(frame(6, np.zeros((240, 320, 3), np.uint8))) is None


def test_the_diameter_is_known_of_a_suitable_magnification_too_and_of_one_that_was_told() -> None:
    measured = Magnification(looking_at(30))
    measured.look(frame(0))
    assert measured.rbc_px_for(frame(0)) == pytest.approx(30, rel=0.03)
    told = Magnification(looking_at(0), rbc_diameter_px=41.5)
    told.look(frame(0))
    assert told.rbc_px_for(frame(0)) == 41.5


def test_frames_without_red_cells_have_no_diameter() -> None:
    magnification = Magnification(looking_at(30, cells=0))
    for number in range(LOOKS + 1):
        magnification.look(frame(number))
        assert magnification.rbc_px_for(frame(number)) is None


def test_sizes_and_sources_have_their_own_choice() -> None:
    magnification = Magnification(looking_at(80))
    magnification.look(frame(0))
    assert chosen(magnification, 1, np.zeros((240, 320, 3), np.uint8)) == 640
    assert magnification.detector_for(frame(1, source="other")).long_side_px == 640


@pytest.mark.parametrize(("adjustable", "expected"), [(True, 300), (False, 640)])
def test_small_pictures_are_not_enlarged(adjustable: bool, expected: int) -> None:
    small = np.zeros((280, 300, 3), np.uint8)
    magnification = Magnification(looking_at(30, cells=0), adjustable=adjustable)
    magnification.look(frame(0, small))
    assert chosen(magnification, 0, small) == expected


def test_small_pictures_of_small_cells_are_enlarged() -> None:
    small = np.zeros((280, 300, 3), np.uint8)
    magnification = Magnification(looking_at(0), rbc_diameter_px=10)
    magnification.look(frame(0, small))
    assert chosen(magnification, 0, small) == 832  # 10 px become 27, half as far again as the least of 18


def test_what_can_not_be_brought_into_the_range_is_told_once() -> None:
    said: list[str] = []
    magnification = Magnification(looking_at(80), adjustable=False, say=said.append)
    magnification.look(frame(0))
    magnification.look(frame(1, np.zeros((480, 600, 3), np.uint8)))
    assert chosen(magnification, 0) == 640
    assert len(said) == 1
    assert "outside the magnifications that test was trained for (18 to 60 px)" in said[0]
    assert said[0].endswith("leave out --long-side-px")


def test_frames_without_red_cells_are_given_up_after_a_few() -> None:
    said: list[str] = []
    magnification = Magnification(looking_at(30, cells=0), say=said.append)
    for number in range(LOOKS + 4):
        magnification.look(frame(number))
    assert magnification._views["slide", 640, 480].looks == LOOKS
    assert chosen(magnification, 8) == 640
    assert said == []


def test_a_card_without_a_range_is_left_alone() -> None:
    detector = looking_at(80)
    detector.card = dataclasses.replace(CARD, input=dataclasses.replace(CARD.input, rbc_diameter_px=None))
    magnification = Magnification(detector, rbc_diameter_px=200)
    magnification.look(frame(0))
    assert magnification.detector_for(frame(0)) is detector


def test_the_reader_shows_each_frame_before_it_hands_it_over() -> None:
    magnification = Magnification(looking_at(80))
    inner = ScriptedSource([PICTURE, "notes.txt", PICTURE])
    source = MeasuredSource(inner, magnification)
    source.open()
    first, skip, second, end = (source.read() for _ in range(4))
    source.close()
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert isinstance(skip, Skip)
    assert end is None
    assert (source.name, source.default_mode, inner.opened, inner.closed) == ("slide", "analysis", 1, 1)
    assert magnification.detector_for(first).long_side_px == 320


@pytest.mark.parametrize("together", [True, False])
def test_the_analyser_finds_the_cells_at_their_own_scale(together: bool) -> None:
    """Of cells of 80 px the network in this test says 60 at most, so the size of the boxes shows the input used."""
    detector = looking_at(80)
    magnification = Magnification(detector)
    other = np.zeros((480, 600, 3), np.uint8)
    frames = [frame(0), frame(1, other), frame(2)]
    magnification.look(frames[0])
    analyser = Analyser(detector, None, detector_for=magnification.detector_for, now_ns=lambda: 0)
    results = analyser.analyse(frames) if together else [analyser.analyse([one])[0] for one in frames]
    widths = [float(np.diff(result.detections.boxes_px[:, [0, 2]]).max()) for result in results]
    assert widths == pytest.approx([80, 60 * 600 / 640, 80], rel=0.02)


def stated(number: int, um_per_px: float) -> Frame:
    return dataclasses.replace(frame(number), um_per_px=um_per_px)


def test_a_scale_that_the_source_states_holds_from_the_first_frame_on_without_red_cells() -> None:
    said: list[str] = []
    magnification = Magnification(looking_at(0), say=said.append)
    for number in range(LOOKS + 2):
        magnification.look(stated(number, 7.5 / 80))
    assert magnification.rbc_px_for(frame(0)) == pytest.approx(80)
    assert chosen(magnification, 0) == chosen(magnification, 6) == 320
    assert len(said) == 1
    assert "red cells are 80 px wide" in said[0]


@pytest.mark.parametrize("blood", [0.72, 1.0, 1.3], ids=["iron deficiency", "usual", "megaloblasts"])
def test_blood_that_explains_the_red_cells_leaves_the_stated_scale(blood: float) -> None:
    said: list[str] = []
    magnification = Magnification(looking_at(40 * blood), say=said.append)
    magnification.look(stated(0, 7.5 / 40))
    assert magnification.rbc_px_for(frame(0)) == pytest.approx(40)
    assert magnification.um_per_px_for(stated(3, 7.5 / 40)) == 7.5 / 40
    assert said == []


@pytest.mark.parametrize(
    ("factor", "wide"), [pytest.param(2.0, "15", id="half the objective"), pytest.param(0.001, None, id="millimetres")]
)
def test_a_scale_that_no_blood_explains_is_said_and_the_red_cells_hold(factor: float, wide: str | None) -> None:
    said: list[str] = []
    magnification = Magnification(looking_at(30), say=said.append)
    for number in range(3):
        magnification.look(stated(number, 7.5 / 30 * factor))
    assert magnification.rbc_px_for(frame(0)) == pytest.approx(30, rel=0.03)
    assert chosen(magnification, 2) == 640
    if wide is None:  # no scale of a microscope: as if none were stated
        assert said == []
    else:
        (line,) = said
        assert line.startswith("slide: got 0.5 µm a pixel from the source, by which red cells are")
        assert "no anaemia explains that" in line
        assert magnification.um_per_px_for(stated(2, 0.5)) is None


def test_a_choice_that_red_cells_put_right_later_leaves_earlier_frames_as_they_were() -> None:
    """Which worker looks first must not matter."""
    seen = looking_at(0)
    magnification = Magnification(seen)
    magnification.look(stated(0, 7.5 / 160))
    before = chosen(magnification, 0)
    view = magnification._views["slide", 640, 480]
    view.usual = looking_at(30)
    magnification.look(stated(1, 7.5 / 160))
    assert magnification.rbc_px_for(frame(1)) == pytest.approx(30, rel=0.03)
    assert (chosen(magnification, 0), chosen(magnification, 1)) == (before, 640)
    assert before != 640


def test_a_diameter_that_somebody_gave_goes_before_the_sources_scale() -> None:
    magnification = Magnification(looking_at(0), rbc_diameter_px=80)
    magnification.look(stated(0, 7.5 / 30))
    assert magnification.rbc_px_for(frame(0)) == 80
