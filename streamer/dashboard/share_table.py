"""The differential: a row per class with count, percentage, bar and limits, then what else was seen."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from streamer.counting.differential import CONFIDENCE_SEQUENCE
from streamer.dashboard.canvas import Line, Span, blank, clean, crop, fit, framed, span_len, to_height
from streamer.dashboard.palette import BAD, CAUTION, FAINT, GOOD, PLAIN, STRONG, class_colour, ink, letter_mark
from streamer.dashboard.state import DashboardState
from streamer.dashboard.words import (
    SAMPLING_ONLY,
    VERDICT_MARKS,
    beside,
    class_rows,
    errors_line,
    limits,
    not_seen,
    number,
    raised,
    size_corrected,
    unjudged,
    with_smudge_cells,
)
from streamer.protocol import messages
from streamer.records import AbsoluteShare, ClassShare

Ranges = Mapping[str, tuple[float, float]]

RELATIVE = "rel. %"
"""Relative: of the white cells counted, not of a volume of blood."""
ABSOLUTE = "10⁹/L"
NARROWEST_BAR = 8
LEAST_NAME = 10
"""Terminal cells below which names are not cropped to make room for bars."""
SHORT_NAMES = {
    "immature granulocyte": "immature gran.",
    "segmented neutrophil": "segmented n.",
    "band neutrophil": "band n.",
}


def differential_height(state: DashboardState, width: int) -> int:
    """Rows that a panel `width` cells wide needs to show everything, borders included."""
    view = state.current
    message = view.differential if view else None
    if message is None:
        return 12
    top, rest = _top(message, width - 4), _rest(message, state.note, width - 4)
    return 2 + len(top) + 1 + len(class_rows(message)) + 1 + len(rest)


def differential_panel(state: DashboardState, width: int, height: int) -> list[Line]:
    """Verdict and flags, counts, percent, bars with limits, and what else was seen."""
    view = state.current
    title: list[Span] = [("differential", STRONG)]
    if view is not None and len(state.sources) > 1:
        title.append((f" of {view.name}", PLAIN))
    message = view.differential if view else None
    aside: list[Span] = []
    if message is not None:
        aside = [(f"{number(message.total)} white cells", STRONG)]
        if view is not None and view.end is not None:
            aside.append((f", {view.end.state}", ink(GOOD if view.end.state == "finished" else BAD)))
        elif message.final:
            aside.append((", final", ink(GOOD)))
    edge = Segment(" ", PLAIN)
    lines = [[edge, *line, edge] for line in differential_lines(state, width - 4, height - 2)]
    return framed(lines, width, height, title=title, aside=aside)


def differential_lines(state: DashboardState, width: int, height: int) -> list[Line]:
    """Verdict and flags, the table, and what else was seen, as exactly `height` lines of `width` cells.

    Where there is no room, what weighs least goes first: what else was seen, notes, classes without cells, those with
    few. The verdict and all flags stay.
    """
    view = state.current
    message = view.differential if view else None
    if view is None or message is None:
        return to_height([fit([("nothing counted yet", FAINT)], width)], width, height)
    rows = class_rows(message)
    room = height - 1 - len(rows)
    top: list[Line] = []
    for reasons, notes in ((None, True), (3, True), (3, False), (2, False), (1, False)):
        top = _top(message, width, reasons, notes=notes)
        if len(top) <= room:
            break
    rest: list[Line] = []
    for most in (3, 2, 1):
        rest = _rest(message, state.note, width, most)
        if len(top) + len(rest) <= room:
            break
    rest = rest[: max(room - len(top), 0)]
    gap = room > len(top) + len(rest) and bool(rest)
    shown, hidden = _fitting(rows, max(1, height - 1 - len(top)))
    absolute = {} if message.wbc is None else message.wbc.classes
    lines = [*top, *_share_table(shown, state.ranges, width, absolute, view.letters())]
    if hidden:
        cells = sum(share.count for _, share in hidden)
        lines.append(fit([(f"  {len(hidden)} more classes, {number(cells) if cells else 'no'} cells", FAINT)], width))
    if gap:
        lines.append(blank(width))
    return to_height([*lines, *rest], width, height)


Row = tuple[str, ClassShare]


def _fitting(rows: Sequence[Row], room: int) -> tuple[list[Row], list[Row]]:
    """The rows to show and those that have no room: first those without cells, then those with the fewest."""
    if len(rows) <= room:
        return list(rows), []
    by_count = sorted(rows, key=lambda row: -row[1].count)
    kept = {name for name, _ in by_count[: max(1, room - 1)]}
    return [row for row in rows if row[0] in kept], [row for row in rows if row[0] not in kept]


def _share_table(
    rows: Sequence[Row],
    usual: Ranges,
    width: int,
    absolute: Mapping[str, AbsoluteShare],
    letters: Mapping[str, str],
) -> list[Line]:
    counts = [number(share.count) for _, share in rows]
    percents = [number(share.percent, 1) for _, share in rows]
    ranges = [limits(share.low, share.high) for _, share in rows]
    count_width = max(3, *map(len, counts)) + 1
    percent_width = max(len(RELATIVE), *map(len, percents)) + 1
    range_width = max(4, *map(len, ranges)) + 1
    values = [number(absolute[name].value, 2) if name in absolute else "–" for name, _ in rows] if absolute else []
    value_width = max(map(len, (ABSOLUTE, *values))) + 1 if absolute else 0
    room = width - 2 - count_width - percent_width - range_width - value_width
    labels = [clean(name) for name, _ in rows]
    if max(map(cell_len, labels)) + 1 + max(NARROWEST_BAR, room // 2) > room:
        labels = [SHORT_NAMES.get(name, name) for name in labels]
    longest = max(map(cell_len, labels))
    name_width = min(longest, room - NARROWEST_BAR - 1)
    bar_width = room - name_width - 1
    if name_width < LEAST_NAME:
        name_width, bar_width = max(1, min(longest, room)), 0
    top = axis_top([share for _, share in rows])
    axis = f" 0{top:>{bar_width - 1}}" if bar_width else ""
    heading = f"{'':<{name_width + 2}}{'n':>{count_width}}{RELATIVE:>{percent_width}}{axis}{'95 %':>{range_width}}"
    heading += f"{ABSOLUTE:>{value_width}}" if absolute else ""
    lines = [fit([(heading, FAINT)], width)]
    for place, ((name, share), label, count, percent, range_) in enumerate(
        zip(rows, labels, counts, percents, ranges, strict=True)
    ):
        colour = ink(class_colour(name))
        label = crop(label, name_width)
        spans: list[Span] = [
            letter_mark(letters, name),
            (" ", PLAIN),
            (label + " " * (name_width - cell_len(label)), PLAIN),
        ]
        spans.append((f"{count:>{count_width}}{percent:>{percent_width}}", STRONG if share.count else FAINT))
        if bar_width:
            spans += [(" ", PLAIN), *bar(share, usual.get(name), top, bar_width, colour)]
        spans.append((f"{range_:>{range_width}}", FAINT))
        if absolute:
            spans.append((f"{values[place]:>{value_width}}", STRONG if share.count else FAINT))
        lines.append(fit(spans, width))
    return lines


def axis_top(shares: Sequence[ClassShare]) -> int:
    """Percent at the right end of the bars: the smallest of some round numbers above all limits."""
    largest = max(
        (value for share in shares for value in (share.percent, share.high) if value is not None), default=100
    )
    return next((top for top in (25, 50, 75) if largest <= top), 100)


def bar(share: ClassShare, usual: tuple[float, float] | None, top: float, width: int, colour: Style) -> list[Span]:
    """The percentage as a bar of `width` cells for 0 to `top` percent, limits as whiskers, the usual range dotted."""
    cells = [(" ", PLAIN)] * width

    def column(percent: float) -> int:
        return min(width - 1, int(percent / top * width))

    if usual is not None:
        for place in range(column(usual[0]), column(usual[1]) + 1):
            cells[place] = ("░", FAINT)
    if share.percent is not None:
        eighths = round(share.percent / top * width * 8)
        full, rest = min(width, eighths // 8), eighths % 8
        cells[:full] = [("█", colour)] * full
        if rest and full < width:
            cells[full] = (" ▏▎▍▌▋▊▉"[rest], colour)
        if share.low is not None and share.high is not None:
            first, last = column(share.low), column(share.high)
            on_bar = ink("#ffffff", on=colour.color.name if colour.color else None)
            for place in range(first, last + 1):
                sign = "├" if place == first else "┤" if place == last else "─"
                if first == last:
                    sign = "│"
                if place < full:
                    cells[place] = (sign, on_bar)
                elif not (place == full and rest):
                    cells[place] = (sign, colour)
    return _merged(cells)


def _merged(cells: Sequence[Span]) -> list[Span]:
    spans: list[Span] = []
    for sign, style in cells:
        if spans and spans[-1][1] is style:
            spans[-1] = (spans[-1][0] + sign, style)
        else:
            spans.append((sign, style))
    return spans


def _top(
    message: messages.DifferentialMessage, width: int, reasons: int | None = None, *, notes: bool = True
) -> list[Line]:
    """What is read first: the verdict on at most `reasons` lines (None: on as many as it takes), then every flag."""
    lines: list[Line] = []
    verdict = message.verdict
    if verdict is not None:
        colour = {"ready for review": GOOD, "incomplete": CAUTION}.get(verdict.state, BAD)
        mark = VERDICT_MARKS.get(verdict.state, "!")
        why = f": {'; '.join(reason.text for reason in verdict.reasons)}" if verdict.reasons else ""
        lines += _wrapped(f"{mark} {verdict.state}{why}", ink(colour, bold=True), width, reasons)
    if message.flags:
        lines += _wrapped(raised(message, notes=notes), ink(BAD, bold=True), width)
    return lines


def _rest(message: messages.DifferentialMessage, note: str | None, width: int, most: int = 3) -> list[Line]:
    """The lines below the table, the most important first; texts take at most `most` lines each."""
    per_100 = f" = {number(message.nrbc_per_100_wbc, 1)} per 100 white" if message.nrbc_per_100_wbc is not None else ""
    frames = number(message.frames_accepted)
    if message.frames != message.frames_accepted:
        frames += f" of {number(message.frames)}"
    parts = [
        ("NRBC ", f"{number(message.nrbc)}{per_100}"),
        ("red cells ", number(message.rbc_seen)),
        ("platelets ", number(message.platelets_seen)),
        ("frames used ", frames),
    ]
    lines = _packed(parts, width)
    always = ", valid at every look" if message.limits_method == CONFIDENCE_SEQUENCE else ""
    errors = errors_line(message, note)
    texts = [
        unjudged(message),
        f"{SAMPLING_ONLY}{always}{'; ' + errors if errors else ''}",
        f"not assessed: {', '.join(message.not_assessed)}" if message.not_assessed else "",
        "" if message.wbc is None else message.wbc.note,
        beside(message),
        with_smudge_cells(message) or "",
        size_corrected(message) if message.size_bias else "",
        not_seen(message),
    ]
    for text in filter(None, texts):
        lines += _wrapped(text, FAINT, width, most)
    return lines


def _packed(parts: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """Labels and values, as many on a line as it has room for."""
    rows: list[list[Span]] = [[]]
    for label, text in parts:
        spans: list[Span] = [(label, FAINT), (text, PLAIN)]
        joined = [*rows[-1], (" · ", FAINT), *spans] if rows[-1] else spans
        if rows[-1] and span_len(joined) > width:
            rows.append(spans)
        else:
            rows[-1] = joined
    return [fit(spans, width) for spans in rows]


def _wrapped(text: str, style: Style, width: int, most: int | None = None) -> list[Line]:
    """`text` on at most `most` lines, the last one cropped if there is more; None: on as many as it takes."""
    lines = textwrap.wrap(clean(text), max(1, width))
    if most is not None:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])] if len(lines) >= most else []
    return [fit([(line, style)], width) for line in lines]
