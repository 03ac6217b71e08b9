"""The slide's name in the title line, and absolute counts beside the percentages, on the screen and in plain lines."""

from __future__ import annotations

import msgspec
import pytest

from streamer.counting.absolute import described
from streamer.dashboard import DashboardState, format_differential, render
from streamer.protocol.messages import DifferentialMessage
from streamer.records import Differential, SlideInfo
from tests.streamer.counting.test_absolute import TWO_HUNDRED
from tests.streamer.dashboard.dashboard_cases import HEAD, busy_state, end, health, status
from tests.streamer.dashboard.test_render import SIZES, assert_fits, text_of

SLIDE = SlideInfo(name="B-17", accession="H26-4", operator="AK", wbc=5.0)


def told(found: Differential = TWO_HUNDRED, slide: SlideInfo = SLIDE) -> DifferentialMessage:
    return DifferentialMessage(**{**HEAD, **msgspec.structs.asdict(described(found, slide))})


def title(state: DashboardState) -> str:
    return text_of(render(state, 160, 45)).splitlines()[0]


def test_the_name_stands_in_the_title_from_the_first_health_on() -> None:
    state = DashboardState()
    state.update(health({"slide": status()}))
    assert "B-17" not in title(state)
    state.update(health({"slide": status()}, slide=SLIDE))
    assert "1:02:05 · B-17 · H26-4 · onnxruntime cpu" in title(state)
    state.update(health({"slide": status()}))  # an older streamer's, or of nobody who said anything
    assert "B-17" in title(state)
    state.update(end("finished", "new slide", session="s2", slide=SlideInfo(name="B-18")))
    assert "B-18" in title(state)
    assert "B-17" not in title(state)


def test_a_long_name_leaves_room_for_the_rest() -> None:
    state = DashboardState()
    state.update(health({"slide": status()}, slide=SlideInfo(name="x" * 80, accession="\u8a9e" * 80)))
    assert "x" * 23 + "…" in title(state)
    for width, height in SIZES:
        assert_fits(render(state, width, height), width, height)


@pytest.mark.parametrize("size", SIZES)
def test_absolute_counts_fit_every_screen(size: tuple[int, int]) -> None:
    state = busy_state()
    state.update(told())
    screen = render(state, *size)
    assert_fits(screen, *size)
    lines = text_of(screen).splitlines()
    (heading,) = [line for line in lines if "10⁹/L" in line]
    assert "rel. %" in heading
    (row,) = [line for line in lines if "neutrophil" in line and "60.0" in line]
    assert "3.00" in row


def test_the_plain_table_has_both_with_limits() -> None:
    lines = format_differential(told()).splitlines()
    assert "slide: name B-17, accession H26-4, operator AK" in lines
    assert "  class           n  relative %  95 % limits  10^9/L  95 % limits" in lines
    assert "  neutrophil    120        60.0    52.9–66.8    3.00    2.64–3.35" in lines
    assert "white-cell count from elsewhere, 5 x 10^9/L, not corrected for nucleated red cells" in lines


def test_without_words_and_counts_it_is_what_it_was() -> None:
    lines = format_differential(told(slide=SlideInfo())).splitlines()
    assert not any(line.startswith("slide:") or "10^9/L" in line for line in lines)
