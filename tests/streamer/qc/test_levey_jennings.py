"""The charts of a history: what the baseline is made of, and what is judged by it."""

from __future__ import annotations

import pytest

from streamer.qc.charts import BOTTOM, LEFT, RIGHT, TOP, drawn
from streamer.qc.levey_jennings import chart_of, histories
from streamer.qc.measures import BRIGHTNESS, FOCUS
from tests.streamer.qc.qc_cases import slide, slides


def roles(chart):
    return [point.role for point in chart.points]


def test_mean_and_deviation_are_those_of_the_baseline():
    chart = chart_of(FOCUS, slides([0.4, 0.5, 0.6, 0.7, 0.55, 0.9]), 4)
    assert chart.mean == pytest.approx(0.55)
    assert chart.sd == pytest.approx((0.05 / 3) ** 0.5)  # of 0.15², 0.05², 0.05², 0.15² over three
    assert roles(chart) == ["baseline"] * 4 + ["judged"] * 2
    assert [point.z for point in chart.points[4:]] == pytest.approx([0.0, 0.35 / (0.05 / 3) ** 0.5])
    assert [point.rules for point in chart.points] == [()] * 5 + [("1-2s",)]


def test_a_slide_not_to_be_used_is_left_out_of_the_baseline_and_judged_after_it():
    bad = "do not use"
    some = [slide(0, 0.5), slide(1, 5.0, verdict=bad), slide(2, 0.6), slide(3, 0.7), slide(4, 5.0, verdict=bad)]
    chart = chart_of(FOCUS, some, 3)
    assert chart.mean == pytest.approx(0.6)
    assert roles(chart) == ["baseline", "left out", "baseline", "baseline", "judged"]
    assert chart.points[1].rules == ()
    assert chart.points[4].rules == ("1-2s", "1-3s")


def test_what_was_not_measured_is_no_point_and_breaks_no_row():
    chart = chart_of(FOCUS, slides([0.4, None, 0.5, 0.6, 0.71, None, 0.71]), 3)
    assert (len(chart.points), chart.not_measured, chart.mean) == (5, 2, pytest.approx(0.5))
    assert chart.points[-1].rules == ("1-2s", "2-2s")


def test_a_baseline_that_hardly_varies_is_taken_to_vary_as_much_as_rounding():
    chart = chart_of(FOCUS, slides([0.5, 0.5, 0.5, 0.5 + 1.9 * FOCUS.least_sd, 0.5 + 3.1 * FOCUS.least_sd]), 3)
    assert chart.sd == FOCUS.least_sd
    assert [point.rules for point in chart.points[3:]] == [(), ("1-2s", "1-3s")]


def test_too_few_slides_are_shown_and_not_judged():
    history = histories(slides([0.4, 0.5, 9.0]), 3 + 1)[0]
    chart = history.charts[0]
    assert (chart.mean, chart.sd, history.judged) == (None, None, 0)
    assert [point.z for point in chart.points] == [None] * 3
    assert history.violations == []
    with pytest.raises(ValueError, match="expected at least 2"):
        chart_of(FOCUS, slides([0.4]), 1)


def test_instruments_are_apart_sessions_are_once_and_time_is_the_order():
    one, other = slides([0.4, 0.5, 0.6]), slides([0.9, 0.8], instrument="camera:1")
    found = histories([*reversed(one), *other, one[1]], 2)
    assert {history.instrument: [slide.name for slide in history.slides] for history in found} == {
        "camera:0": ["slide 0", "slide 1", "slide 2"],
        "camera:1": ["slide 0", "slide 1"],
    }


def test_only_the_newest_slide_is_out_of_control():
    focus = [0.5, 0.52, 0.48, 0.5]
    (history,) = histories(slides([*focus, 0.1, 0.5]), 4)
    assert [point.slide.name for _, point in history.violations] == ["slide 4"]
    assert history.out_of_control == []
    (history,) = histories(slides([*focus, 0.5, 0.1]), 4)
    ((chart, point),) = history.out_of_control
    assert (chart.measure, point.slide.name) == (FOCUS, "slide 5")
    assert {chart.measure for chart in history.charts} > {BRIGHTNESS}


def test_a_warning_alone_is_not_out_of_control():
    (history,) = histories(slides([0.5, 0.52, 0.48, 0.5, 0.55]), 4)
    assert [point.rules for _, point in history.violations] == [("1-2s",)]
    assert history.out_of_control == []


def test_the_drawing_keeps_order_levels_and_edges():
    chart = chart_of(FOCUS, slides([0.4, 0.5, 0.6, 0.5, 0.9, 0.95]), 3)
    shown = drawn(chart)
    assert [mark.shape for mark in shown.marks] == ["baseline"] * 3 + ["judged", "rejected", "rejected"]
    assert [mark.label for mark in shown.marks] == [""] * 5 + ["1-3s 2-2s (+4.5)"]
    assert all(LEFT < mark.x < RIGHT and TOP <= mark.y <= BOTTOM for mark in shown.marks)
    assert [mark.x for mark in shown.marks] == sorted(mark.x for mark in shown.marks)
    levels = {level.label: level.y for level in shown.levels}
    assert levels["+1 SD"] == shown.marks[2].y < levels["mean"] == shown.marks[1].y < levels["-1 SD"]
    assert shown.marks[2].x < shown.baseline_end < shown.marks[3].x
    assert [tick.label for tick in shown.x_ticks] == ["1", "3", "6"]
