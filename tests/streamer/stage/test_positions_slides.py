"""Films of the simulated slide whose stage knows where it is, errs or lies: from frames to cells, each counted once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from streamer.records import StagePoint
from streamer.sources.simulated import SlideParameters, VirtualSlide
from tools.evaluate.unique_cells import run, true_boxes

pytestmark = pytest.mark.lengthy

MOVED_OVER = "sim:seed=5,cells=14,pattern=mixed,jumps=3,returns=1,dwell=1,travel=2,width=400,height=300,red=28"
APART = "sim:seed=6,cells=24,pattern=jump,dwell=1,overlap=-0.3,width=400,height=300,red=28"
LONG = "sim:seed=3,cells=24,pattern=mixed,jumps=2,returns=2,dwell=1,travel=3"


class Lying:
    """In the place of the stage's readings."""

    def __init__(self, true: Any, lie: Callable[[int, StagePoint], StagePoint], states_exact: bool) -> None:
        self._true, self._lie = true, lie
        self.um_per_px = true.um_per_px if states_exact else None
        self.error_um = 0.0 if states_exact else None

    def point(self, frame_id: int) -> StagePoint:
        return self._lie(frame_id, self._true.point(frame_id))


@functools.cache
def film(spec: str) -> dict[str, Any]:
    slide = VirtualSlide(SlideParameters.parse(spec))
    return run(slide, true_boxes(slide, 1.0), 0.0)


def cells(result: dict[str, Any]) -> tuple[int, int, int, int, list[Any]]:
    """(expected, counted, only seen cut, red, errors)"""
    return tuple(result[name] for name in ("expected", "counted", "partial", "red", "errors"))  # type: ignore[return-value]


STAGES = ["positions=exact", "positions=20", "positions=exact,turn=90,mirror=1", "positions=exact,backlash=5"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_film_has_the_same_cells_with_positions_and_without(stage: str) -> None:
    none, given = film(MOVED_OVER), film(f"{MOVED_OVER},{stage}")
    assert cells(none) == cells(given) == (14, 14, 0, 593, [])
    assert (none["islands"], given["islands"]) == (1, 1)
    assert given["positions"]["state"] == ("learning" if stage == "positions=20" else "used")
    assert given["positions"]["disagreed"] == 0
    assert given["place_error_px"]["p95"] < 1


def test_positions_that_err_by_20_um_are_used_once_they_spread_enough() -> None:
    given = film(f"{LONG},positions=20")
    assert cells(given)[:3] == (24, 24, 0)
    assert given["errors"] == []
    said = given["positions"]
    assert (said["state"], said["disagreed"], said["mirrored"]) == ("used", 0, False)
    assert said["um_per_px"] == pytest.approx(7.5 / 44, rel=0.05)
    assert said["error_um"] == pytest.approx(20 / 3**0.5, rel=0.2)  # as of an even distribution


def test_fields_that_overlap_none_are_one_island_with_positions_alone() -> None:
    none, given = film(APART), film(f"{APART},positions=exact")
    assert cells(none) == cells(given)
    assert none["errors"] == []
    assert (none["frames"], none["islands"], given["islands"]) == (9, 9, 1)
    assert given["place_error_px"]["max"] < 1e-6


LIES = {
    "stuck": lambda n, at: StagePoint(100.0, 100.0),
    "no numbers": lambda n, at: StagePoint(float("nan"), at.y),
    "millimetres": lambda n, at: StagePoint(at.x / 1000, at.y / 1000),
    "anything": lambda n, at: StagePoint(7919.0 * n % 3001, 6007.0 * n % 2003),
    "goes the other way": lambda n, at: StagePoint(-at.x, -at.y),
    "jumps half way": lambda n, at: at if n < 20 else StagePoint(at.x + 700, at.y - 400),
    "stuck half way": lambda n, at: at if n < 20 else StagePoint(80.0, 90.0),
}


@pytest.mark.parametrize("states_exact", [False, True], ids=["", "said to be exact"])
@pytest.mark.parametrize("lie", LIES)
def test_a_stage_that_lies_costs_no_cell(lie: str, states_exact: bool) -> None:
    slide = VirtualSlide(SlideParameters.parse(f"{MOVED_OVER},positions=exact"))
    slide.readings = Lying(slide.readings, LIES[lie], states_exact)  # type: ignore[assignment]
    result = run(slide, true_boxes(slide, 1.0), 0.0)
    assert cells(result) == cells(film(MOVED_OVER))
    assert result["islands"] == 1


@pytest.mark.parametrize("lie", ["stuck", "millimetres", "anything", "goes the other way"])
def test_a_stage_that_lies_about_fields_apart_costs_no_cell(lie: str) -> None:
    """No picture can tell where they are; what they show is counted all the same."""
    slide = VirtualSlide(SlideParameters.parse(f"{APART},positions=exact"))
    slide.readings = Lying(slide.readings, LIES[lie], states_exact=True)  # type: ignore[assignment]
    assert cells(run(slide, true_boxes(slide, 1.0), 0.0))[:4] == cells(film(APART))[:4] == (14, 14, 4, 503)
