"""A stage that knows where it is, in the tracker: what it adds, and that it does no harm where it lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamer.stage.readings import Reading
from tests.streamer.stage.position_cases import APART, BLOCK, DENSE, UM_PER_PX, Place, Said, StagedRun, exact, stage
from tests.streamer.stage.stage_cases import view

HOMED_UM = 2000.0


def silent(number: int, place: Place) -> None:
    return None


def run(say: Said, *parts: list[Place]) -> StagedRun:
    staged = StagedRun(say)
    for part in parts:
        staged.go(part)
    staged.finish()
    return staged


def status(staged: StagedRun) -> tuple[str, int, int]:
    said = staged.tracker.positions
    assert said is not None
    return said.state, said.disagreed, said.joined


def test_without_positions_nothing_is_said_of_them() -> None:
    staged = run(silent, BLOCK, APART)
    assert staged.tracker.positions is None
    assert staged.tracker.take_changes().tracker.positions is None
    assert staged.tracker.islands == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(stage(), id="straight"),
        pytest.param(stage(90), id="a quarter turn"),
        pytest.param(stage(mirrored=True), id="mirrored"),
        pytest.param(stage(-37, mirrored=True), id="turned and mirrored"),
        pytest.param(exact(), id="exact, no fit needed"),
    ],
)
def test_fields_that_overlap_none_are_one_island_by_the_stage(say: Said) -> None:
    staged = run(say, BLOCK, APART)
    assert staged.tracker.islands == (0,)
    assert [island for island, *_ in staged.final()] == [0] * 11
    assert staged.off_px() < 0.5
    assert status(staged) == ("used", 0, 5)


def test_frames_of_such_fields_are_published_on_the_island_at_once() -> None:
    staged = StagedRun(stage())
    staged.go(BLOCK)
    placement = staged.go(APART[:1])
    assert placement.position is not None
    assert placement.position.island == 0
    assert (placement.position.x_px, placement.position.y_px) == pytest.approx((980, 0), abs=1)


def test_islands_of_before_the_fit_join_once_it_is_there() -> None:
    staged = StagedRun(stage(90))
    staged.go(APART[:2])
    assert staged.tracker.islands == (0, 1)
    staged.go(BLOCK)
    assert staged.tracker.islands == (0,)
    assert staged.off_px() < 0.5


def test_an_exact_source_needs_no_pair() -> None:
    assert run(exact(), APART).tracker.islands == (0,)
    assert run(stage(), APART).tracker.islands == (0, 1, 2, 3, 4)


def test_a_stage_that_moved_along_one_line_only_may_be_mirrored() -> None:
    line = [(20 + 60 * step, 400) for step in range(16)]
    staged = run(stage(), line, [(20, 20)])
    assert status(staged) == ("learning", 0, 0)
    assert staged.tracker.islands == (0, 1)


@pytest.mark.parametrize(
    ("error_um", "islands", "off_px"),
    [
        pytest.param(2.0, 2, 15, id="2 um: two fields 20 px apart stay two islands"),
        pytest.param(5.0, 4, 40, id="5 um: what lies 60 px apart stays apart too"),
    ],
)
def test_an_unsure_stage_joins_only_what_it_can_not_confuse(error_um: float, islands: int, off_px: float) -> None:
    staged = run(stage(error_um=error_um, stated_um=error_um), DENSE, APART)
    assert status(staged)[:2] == ("used", 0)
    assert len(staged.tracker.islands) == islands
    assert staged.off_px() < off_px


def test_positions_that_err_by_more_than_half_a_field_change_nothing() -> None:
    given = run(stage(error_um=40), DENSE, APART)
    none = run(silent, DENSE, APART)
    assert given.tracker.islands == none.tracker.islands
    assert [one.position for one in given.placements] == [one.position for one in none.placements]


def lie(of: Callable[[int, Place], complex], **more: float) -> Said:
    def say(number: int, place: Place) -> Reading:
        um = of(number, place)
        return Reading(um.real, um.imag, **more)

    return say


def true_um(place: Place) -> complex:
    return complex(*place) * UM_PER_PX


LIES = [
    pytest.param(lie(lambda n, p: 700 + 80j), "all the time", id="stuck"),
    pytest.param(lie(lambda n, p: 700 + 80j, error_um=0.0, um_per_px=UM_PER_PX), "all the time", id="stuck, exact"),
    pytest.param(lie(lambda n, p: true_um(p) / 1000), "check its unit", id="millimetres"),
    pytest.param(lie(lambda n, p: true_um(p) * 1000), "check its unit", id="nanometres"),
    pytest.param(lie(lambda n, p: true_um(p) * 2, um_per_px=UM_PER_PX), "check the unit of either", id="twice the way"),
    pytest.param(lie(lambda n, p: complex(7919 * n % 3001, 6007 * n % 2003)), "does not follow", id="anything"),
    pytest.param(
        lie(lambda n, p: complex(7919 * n % 3001, 6007 * n % 2003), error_um=0.0, um_per_px=UM_PER_PX),
        "moves otherwise",
        id="anything, exact",
    ),
]


@pytest.mark.parametrize(("say", "note"), LIES)
def test_a_stage_that_lies_is_said_and_ignored(say: Said, note: str) -> None:
    staged = run(say, DENSE, APART, BLOCK)
    said = staged.tracker.positions
    assert said is not None
    assert (said.state, said.joined) == ("ignored", 0)
    assert note in (said.note or "")
    assert staged.tracker.islands == (0, 1, 2, 3, 4, 5)  # as without it
    assert staged.off_px() < 0.5


def test_a_stage_that_was_ignored_is_used_again_once_it_fits() -> None:
    mirrored = lie(lambda n, p: true_um(p).conjugate(), error_um=0.0, um_per_px=UM_PER_PX)
    rows = [[(20 + 125 * column, 20 + 84 * row) for column in range(6)] for row in range(7)]
    staged = run(mirrored, *(row if place % 2 == 0 else row[::-1] for place, row in enumerate(rows)))
    said = staged.tracker.positions
    assert said is not None
    assert (said.state, said.mirrored, said.note) == ("used", True, None)
    assert 3 <= said.disagreed <= 8
    assert said.um_per_px == pytest.approx(UM_PER_PX, rel=0.01)


def test_positions_that_are_no_numbers_are_counted() -> None:
    staged = StagedRun(stage())
    for place in BLOCK:
        staged.tracker.update(staged.tracker.prepare(view(*place)), unusable=True)
    said = staged.tracker.positions
    assert said is not None
    assert (said.state, said.frames, said.unusable) == ("learning", 0, 6)
    assert "no numbers" in (said.note or "")


def test_one_wrong_reading_is_counted_and_forgotten() -> None:
    def say(number: int, place: Place) -> Reading:
        um = true_um(place) + (9000 if number == 10 else 0)
        return Reading(um.real, um.imag)

    staged = run(say, DENSE, APART)
    assert status(staged) == ("used", 1, 5)
    assert staged.tracker.islands == (0,)
    assert staged.off_px() < 1


def test_a_stage_that_is_homed_on_the_way_goes_on_from_its_new_zero() -> None:
    def say(number: int, place: Place) -> Reading:
        um = true_um(place) + (HOMED_UM if number >= 8 else 0)
        return Reading(um.real, um.imag)

    staged = run(say, DENSE, DENSE[::-1], APART)
    state, disagreed, joined = status(staged)
    assert (state, joined) == ("used", 5)
    assert 1 <= disagreed <= 3
    assert staged.tracker.islands == (0,)
    assert staged.off_px() < 1


def test_pictures_put_right_where_a_stage_that_was_homed_has_put_an_island() -> None:
    def say(number: int, place: Place) -> Reading:
        um = true_um(place) + (HOMED_UM if number >= len(DENSE) else 0)
        return Reading(um.real, um.imag)

    staged = StagedRun(say)
    staged.go(DENSE)
    away = staged.go([(1000, 20)])
    assert away.position is not None
    assert (away.position.island, away.position.x_px) == (0, pytest.approx(980 + HOMED_UM / UM_PER_PX, abs=5))
    staged.go([(900, 20), (800, 20), (700, 20), (600, 20), (500, 20)])
    staged.finish()
    assert staged.tracker.islands == (0,)
    assert staged.off_px() < 1


def test_an_island_is_given_back_where_it_comes_near_another_one() -> None:
    staged = StagedRun(stage(error_um=2, stated_um=2))
    staged.go(DENSE)
    staged.go([(20, 760), (160, 760), (300, 760)])
    assert staged.tracker.islands == (0,)
    staged.go([(1010, 760)])
    assert staged.tracker.islands == (0,)
    staged.go([(440, 760), (520, 760)])  # 10 px from the last field: the stage may be off by more
    assert staged.tracker.islands == (0, 1)
    staged.finish()
    assert staged.off_px() < 15
