"""A share of the machine, and what is said of the slide that was left out for it."""

from __future__ import annotations

from streamer.looking.budget import Budget, LeftOut
from streamer.looking.coverage import Coverage
from streamer.looking.decision import Decider
from streamer.looking.plan import Candidate
from streamer.records import StagePosition
from streamer.stage.placement import Correction, Placement

SIZE = (640, 480)


def frame(x_px: float, anchor: int = 0) -> Candidate:
    return Candidate(Placement(StagePosition(0, x_px, 0.0, 1.0), anchor), SIZE, True, 1.0)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_a_budget_is_what_was_saved_and_what_comes_in() -> None:
    clock = Clock()
    budget = Budget(0.5, clock)
    assert budget.allows()
    budget.spend(600)
    assert not budget.allows()
    clock.now_ns = 150_000_000
    assert not budget.allows()
    clock.now_ns = 250_000_000
    assert budget.allows()
    clock.now_ns = 3600 * 10**9
    assert budget.allows()
    budget.spend(501)
    assert not budget.allows(), "no more than a second's worth is saved up"


def test_what_is_left_out_is_owed_when_the_stage_comes_back() -> None:
    clock = Clock()
    decider = Decider(budget=Budget(1.0, clock))
    assert decider.is_worth_a_look(frame(0), None)
    assert decider.budget is not None
    decider.budget.spend(5000)
    assert not decider.is_settled(frame(600))
    assert not decider.is_worth_a_look(frame(600), None)
    assert decider.left_out.frames == 1
    assert 0.9 < decider.left_out.fields <= 1.0
    clock.now_ns = 10 * 10**9
    assert not decider.is_settled(frame(600))
    assert decider.is_worth_a_look(frame(600), None)
    assert (decider.left_out.frames, decider.left_out.fields) == (1, 0.0)


def test_the_same_place_left_out_twice_is_one_field() -> None:
    left_out, nothing = LeftOut(), Coverage()
    for place in (0, 5, 0):
        left_out.add(frame(place), nothing)
    assert left_out.frames == 3
    assert 0.99 < left_out.fields < 1.1
    left_out.correct([Correction(0, 0, 9.0, 9.0)])
    left_out.measure(nothing)
    assert left_out.fields == 0
