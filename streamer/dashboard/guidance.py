"""What helps people who sit before the screen: the keys, and what may be wrong where nothing comes."""

from __future__ import annotations

import textwrap

from streamer.dashboard.canvas import Line, Span, fit, framed
from streamer.dashboard.keyboard import HELP
from streamer.dashboard.palette import ACCENT, CAUTION, FAINT, PLAIN, STRONG, ink
from streamer.dashboard.state import DashboardState, Waiting

PATIENCE_NS = 5_000_000_000
"""After so long without a message it is said what may be wrong."""

MAY_BE_WRONG = (
    "Is a leukostream running with --publish {endpoint}, and are host and port right?",
    "Does it run in a container or behind a firewall that lets this port, and the next one, through?",
    "Does it encrypt? Then this command needs --keys DIR and --server-key FILE.",
)


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


def waiting_lines(waits_for: Waiting, now_ns: int | None, width: int = 1000) -> list[str]:
    """What is waited for, and after a while what may be wrong, on lines of at most `width` characters."""
    lines = [f"waiting for messages from {waits_for.endpoint}"]
    if now_ns is not None and now_ns - waits_for.since_ns > PATIENCE_NS:
        lines.append("nothing came so far:")
        for text in MAY_BE_WRONG:
            lines += textwrap.wrap(text.format(endpoint=waits_for.endpoint), max(20, width))
    return lines
