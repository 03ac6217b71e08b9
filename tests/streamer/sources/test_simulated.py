"""The simulated slide: its parameters, its determinism, its source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import UsageError
from streamer.sources.base import Source, SourceError
from streamer.sources.simulated import SimulatedSource, SlideParameterError, SlideParameters, VirtualSlide

SMALL = SlideParameters(seed=3, cells=8, width=240, height=180, red=24, dwell=1, travel=2)


def test_parse_reads_every_key() -> None:
    parameters = SlideParameters.parse(
        "sim:seed=11, cells=50,fps=25,pattern=mixed,width=800,height=600,red=40,density=3,noise=2,blur=0.5,"
        "vignette=0,cast=1.5,dwell=2,travel=6,returns=1,jumps=2,immature=4,erythroblasts=6,"
        "classes=neutrophil:50+band:10+lymphocyte:40"
    )
    assert parameters == SlideParameters(
        seed=11,
        cells=50,
        fps=25,
        pattern="mixed",
        width=800,
        height=600,
        red=40,
        density=3,
        noise=2,
        blur=0.5,
        vignette=0,
        cast=1.5,
        dwell=2,
        travel=6,
        returns=1,
        jumps=2,
        immature=4,
        erythroblasts=6,
        classes=parameters.classes,
    )
    assert dict(parameters.classes) == {"segmented neutrophil": 50, "band neutrophil": 10, "lymphocyte": 40}


def test_a_stage_says_where_it_is() -> None:
    def said(**how: object) -> tuple[complex, float | None, float | None]:
        """Where frame 3 lies from frame 0, the error and the scale that are stated."""
        source = SimulatedSource(replace(SMALL, **{"positions": "exact", **how}))  # type: ignore[arg-type]
        frames = [source.read() for _ in range(4)]
        first, last = frames[0], frames[3]
        assert first is not None
        assert last is not None
        assert first.stage_um is not None
        assert last.stage_um is not None
        way = complex(last.stage_um.x - first.stage_um.x, last.stage_um.y - first.stage_um.y)
        return way, last.stage_error_um, last.um_per_px

    motion = VirtualSlide(SMALL).motion
    true = complex(motion.x_px[3] - motion.x_px[0], motion.y_px[3] - motion.y_px[0]) * 7.5 / 24
    way, error_um, um_per_px = said()
    assert (way, error_um, um_per_px) == (pytest.approx(true), 0, 7.5 / 24)
    assert said(turn=90)[:2] == (pytest.approx(true * -1j), None)
    assert said(mirror=1)[:2] == (pytest.approx(true.conjugate()), None)
    way, error_um, um_per_px = said(positions="20")
    assert (error_um, um_per_px) == (20, None)
    assert 0 < abs(way - true) <= 2 * 20 * 2**0.5


def test_a_stage_with_backlash_says_another_place_when_it_comes_from_the_other_side() -> None:
    slide = VirtualSlide(replace(SMALL, positions="exact", backlash=5, pattern="return", cells=40))
    plain = VirtualSlide(replace(SMALL, positions="exact", pattern="return", cells=40))
    pairs = [(slide.readings.point(n), plain.readings.point(n)) for n in range(len(slide))]
    off = {round(a.x - b.x, 6) for a, b in pairs if a is not None and b is not None}
    assert off == {-2.5, 2.5}


def test_without_positions_a_frame_has_none() -> None:
    frame = SimulatedSource(SMALL).read()
    assert frame is not None
    assert (frame.stage_um, frame.stage_error_um, frame.um_per_px) == (None, None, None)


def test_fields_may_lie_apart() -> None:
    scan = VirtualSlide(replace(SMALL, overlap=-0.5)).scan
    assert (scan.step_x_px, scan.step_y_px) == (360, 270)


@pytest.mark.parametrize("text", ["", "sim:", "sim:,"])
def test_parse_of_nothing_gives_the_defaults(text: str) -> None:
    assert SlideParameters.parse(text) == SlideParameters()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sim:sed=7", ["unknown key 'sed'", "did you mean seed"]),
        ("sim:patern=pan", ["unknown key 'patern'", "did you mean pattern"]),
        ("sim:pattern=rastr", ["got 'rastr'", "raster, pan, jump, return, mixed", "did you mean raster"]),
        ("sim:cells=many", ["cells", "got 'many'", "whole number"]),
        ("sim:cells=1.5", ["cells", "got '1.5'", "whole number"]),
        ("sim:positions=near", ["positions", "got 'near'", "none, exact, or an error"]),
        ("sim:positions=-3", ["positions", "got '-3'"]),
        ("sim:cells=-1", ["cells", "got -1", "expected 0 to 100000"]),
        ("sim:fps=0", ["fps", "got 0", "expected 0.1 to 1000"]),
        ("sim:fps=fast", ["fps", "got 'fast'", "a number"]),
        ("sim:noise=nan", ["noise", "got nan", "expected 0 to 10"]),
        ("sim:blur=inf", ["blur", "got inf"]),
        ("sim:seed", ["seed", "no value", "seed=VALUE"]),
        ("sim:seed=1,seed=2", ["seed", "twice"]),
        ("sim:width=100,height=100", ["100x100", "176 px", "smaller red="]),
        ("sim:classes=lymphcyte:5", ["unknown class 'lymphcyte'", "did you mean lymphocyte"]),
        ("sim:classes=lymphocyte", ["got 'lymphocyte'", "CLASS:WEIGHT"]),
        ("sim:classes=lymphocyte:-2", ["got 'lymphocyte:-2'", "CLASS:WEIGHT"]),
        ("sim:classes=lymphocyte:0", ["classes", "no class with a weight above 0"]),
    ],
)
def test_parse_says_what_is_wrong(text: str, words: list[str]) -> None:
    with pytest.raises(SlideParameterError) as caught:
        SlideParameters.parse(text)
    for word in words:
        assert word in str(caught.value)
    assert isinstance(caught.value, SourceError)
    assert isinstance(caught.value, UsageError)


def test_the_default_differential_is_exact_for_200_cells() -> None:
    looks = SlideParameters(cells=200).white_looks()
    assert {look: looks.count(look) for look in looks} == {
        "segmented neutrophil": 110,
        "band neutrophil": 6,
        "lymphocyte": 64,
        "monocyte": 12,
        "eosinophil": 6,
        "basophil": 2,
    }


@given(
    cells=st.integers(0, 500),
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    immature=st.floats(0, 100),
)
def test_looks_add_up_to_the_cells_asked_for(cells: int, weights: list[float], immature: float) -> None:
    names = ["neutrophil", "band", "lymphocyte", "basophil"]
    classes = "+".join(f"{name}:{weight}" for name, weight in zip(names, weights, strict=False))
    parameters = SlideParameters.parse(f"cells={cells},immature={immature},classes={classes}")
    assert len(parameters.white_looks()) == cells


def test_rare_cells_come_only_when_asked_for() -> None:
    assert not {"erythroblast", "myelocyte"} & set(SlideParameters(cells=1000).white_looks())
    looks = SlideParameters(cells=1000, immature=2, erythroblasts=3).white_looks()
    assert len(looks) == 1030
    assert looks.count("erythroblast") == 30
    assert sum(looks.count(look) for look in ("metamyelocyte", "myelocyte", "promyelocyte")) == 20


def test_a_frame_never_depends_on_the_frames_before_it() -> None:
    one, other = VirtualSlide(SMALL), VirtualSlide(SMALL)
    in_order = [one.render(frame_id) for frame_id in range(len(one))]
    for frame_id in (len(other) - 1, 5, 2, 5, 0):
        np.testing.assert_array_equal(other.render(frame_id), in_order[frame_id])
        assert other.truth(frame_id) == one.truth(frame_id)
    assert list(one.cells()) == list(other.cells())


def test_another_seed_is_another_slide() -> None:
    one, other = VirtualSlide(SMALL), VirtualSlide(SlideParameters(**{**vars(SMALL), "seed": 4}))
    assert np.mean(one.render(0) != other.render(0)) > 0.5
    assert one.white_cells() != other.white_cells()


@pytest.mark.parametrize("frame_id", [-1, 10**6])
def test_frames_outside_the_pass_are_refused(frame_id: int) -> None:
    slide = VirtualSlide(SMALL)
    with pytest.raises(IndexError, match=f"frame {frame_id} of the simulated slide: expected 0 to {len(slide) - 1}"):
        slide.render(frame_id)
    with pytest.raises(IndexError):
        slide.truth(frame_id)


class Clock:
    """A clock that moves only when somebody sleeps or works."""

    def __init__(self, work_ns: int = 0) -> None:
        self.now = 1_000_000_000
        self.work_ns = work_ns
        self.slept: list[float] = []

    def now_ns(self) -> int:
        self.now += self.work_ns
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1e9)


def test_the_source_gives_one_pass_and_ends() -> None:
    clock = Clock(work_ns=10)
    source = SimulatedSource(SMALL, name="lab", now_ns=clock.now_ns, sleep=clock.sleep)
    plain: Source = source
    plain.open()
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    assert plain.read() is None
    plain.close()
    plain.close()
    assert [frame.frame_id for frame in frames] == list(range(len(source.slide)))
    assert {(frame.source, frame.width, frame.height, frame.file) for frame in frames} == {("lab", 240, 180, None)}
    assert all(frame.image.dtype == np.uint8 and frame.image.shape == (180, 240, 3) for frame in frames)
    times = [frame.captured_ns for frame in frames]
    assert times == sorted(set(times))
    assert clock.slept == []
    assert source.default_mode == "analysis"
    plain.open()
    again = source.read()
    assert again is not None
    assert again.frame_id == 0
    np.testing.assert_array_equal(again.image, frames[0].image)


def test_a_live_source_keeps_its_pace() -> None:
    clock = Clock()
    source = SimulatedSource(SMALL, live=True, now_ns=clock.now_ns, sleep=clock.sleep)
    source.open()
    times = [frame.captured_ns for _ in range(10) if (frame := source.read()) is not None]
    assert set(np.diff(times)) == {round(1e9 / 30)}


def test_a_late_reader_gets_no_burst() -> None:
    clock = Clock()
    source = SimulatedSource(SMALL, live=True, now_ns=clock.now_ns, sleep=clock.sleep)
    source.open()
    times = []
    for pause_ns in (0, 0, 500_000_000, 0, 0):
        clock.now += pause_ns
        frame = source.read()
        assert frame is not None
        times.append(frame.captured_ns)
    period = round(1e9 / 30)
    assert list(np.diff(times)) == [period, 500_000_000, period, period]


def test_painting_ahead_changes_no_pixel_and_comes_to_an_end() -> None:
    ahead, plain = VirtualSlide(SMALL), VirtualSlide(SMALL)
    painted = 0
    while ahead.paint_ahead(0, frames=len(ahead)):
        painted += 1
    assert painted > 4
    np.testing.assert_array_equal(ahead.render(7), plain.render(7))


@pytest.mark.parametrize(
    "text",
    [
        "cells=0,width=240,height=180,red=24",
        "cells=1,density=10,width=176,height=176",
        "cells=3,density=10,width=64,height=64,red=8,pattern=mixed,returns=50,jumps=50",
        "cells=2,density=0.5,width=200,height=150,red=16,pattern=return",
        "cells=4,width=200,height=150,red=16,pattern=pan,blur=10,noise=10,vignette=4,cast=4",
    ],
)
def test_extreme_slides_render_and_know_their_cells(text: str) -> None:
    slide = VirtualSlide(SlideParameters.parse(text))
    parameters = slide.parameters
    assert len(slide.white_cells()) == parameters.cells
    seen = set()
    for frame_id in range(len(slide)):
        seen |= {visible.cell.cell_id for visible in slide.truth(frame_id).white()}
    assert len(seen) == parameters.cells
    for frame_id in {0, len(slide) // 2, len(slide) - 1}:
        image = slide.render(frame_id)
        assert image.shape == (parameters.height, parameters.width, 3)
        assert image.std() > 1
