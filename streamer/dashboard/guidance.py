"""What helps people who sit before the screen: the keys, and what may be wrong where nothing comes."""

from __future__ import annotations

from streamer.dashboard.canvas import Line, Span, fit, framed
from streamer.dashboard.keyboard import HELP
from streamer.dashboard.palette import ACCENT, CAUTION, FAINT, PLAIN, STRONG, ink
from streamer.dashboard.state import DashboardState
from streamer.network.silence import waiting_lines


def has_guidance(state: DashboardState) -> bool:
    """Whether the guidance takes the place of what was seen."""
    return state.help or (state.waits_for is not None and state.updated_ns is None)


def guidance_panel(state: DashboardState, width: int, height: int, now_ns: int | None) -> list[Line]:
    """The keys where they were asked for, else what is waited for."""
    if state.help:
        rows: list[list[Span]] = [[(f" {key:>9}  ", ink(ACCENT, bold=True)), (text, PLAIN)] for key, text in HELP]
        lines = [fit(row, width - 2) for row in rows]
        return framed(lines, width, height, title=[("keys", STRONG)], foot=[("? or Esc: back", FAINT)])
    told = [] if state.waits_for is None else waiting_lines(state.waits_for, now_ns, width - 4)
    styles = [PLAIN, *[ink(CAUTION)] * len(told)]
    lines = [fit([(f" {line}", style)], width - 2) for line, style in zip(told, styles, strict=False)]
    return framed(lines, width, height, title=[("nothing has come yet", STRONG)])
