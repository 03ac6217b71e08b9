"""The messages as a few plain lines worth reading in a log, for output that is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.cells import cell_len

from streamer.dashboard.canvas import clean
from streamer.dashboard.display import Inbox
from streamer.dashboard.state import DashboardState, SourceView
from streamer.dashboard.words import (
    LEAST_AGREEMENT,
    METHODS,
    NOT_A_DEVICE,
    SAMPLING_ONLY,
    absolute_limits,
    agreement,
    behind_in_words,
    beside,
    class_rows,
    errors_line,
    flags,
    not_seen,
    number,
    positions_in_words,
    size_corrected,
    slide_rows,
    tally,
    verdict_lines,
    with_smudge_cells,
)
from streamer.network.silence import Waiting, waiting_lines
from streamer.protocol import messages
from streamer.records import AbsoluteShare, Frame


def format_differential(message: messages.DifferentialMessage, note: str | None = None) -> str:
    """The differential as a plain table of several lines; `note` says what the classifier gets wrong, from its card."""
    absolute = {} if message.wbc is None else message.wbc.classes
    rows = [("class", "n", "relative %", "95 % limits", *(("10^9/L", "95 % limits") if absolute else ()))]
    for name, share in class_rows(message):
        low_high = "–" if share.low is None else f"{number(share.low, 1)}–{number(share.high, 1)}"
        row = [clean(name), number(share.count), number(share.percent, 1), low_high]
        if absolute:
            one = absolute.get(name, AbsoluteShare(None, None, None))
            row += [number(one.value, 2), absolute_limits(one)]
        rows.append(tuple(row))
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    frames = f"{number(message.frames)} frame{'' if message.frames == 1 else 's'}"
    if message.frames_accepted != message.frames:
        frames += f", {number(message.frames_accepted)} of them accepted"
    lines = [clean(line) for line in verdict_lines(message)]
    lines += [
        f"{'differential' if message.final else 'differential so far'} of {clean(message.source)}: "
        f"{number(message.total)} white cells in {frames}"
    ]
    if known := slide_rows(message.slide):
        lines.append(f"slide: {', '.join(f'{clean(label).lower()} {clean(value)}' for label, value in known)}")
    for name, *values in rows:
        name += " " * (widths[0] - cell_len(name))
        lines.append("  ".join([f"  {name}", *map(str.rjust, values, widths[1:])]))
    per_100 = (
        "" if message.nrbc_per_100_wbc is None else f" ({number(message.nrbc_per_100_wbc, 1)} per 100 white cells)"
    )
    lines.append(
        f"nucleated red cells {number(message.nrbc)}{per_100}; "
        f"seen: {number(message.rbc_seen)} red cells, {number(message.platelets_seen)} platelets"
    )
    if message.wbc is not None:
        lines.append(clean(message.wbc.note))
    said = beside(message), with_smudge_cells(message), size_corrected(message), flags(message), not_seen(message)
    lines += [clean(text) for text in said if text]
    if message.not_assessed:
        lines.append(f"not assessed: {', '.join(map(clean, message.not_assessed))}")
    method = f" ({METHODS.get(message.limits_method, clean(message.limits_method))})" if message.limits_method else ""
    told = errors_line(message, note)
    errors = f": {clean(told)}" if told else ""
    lines.append(f"{SAMPLING_ONLY}{method}; what the classifier gets wrong comes on top{errors}")
    return "\n".join(lines)


def shows_anything(message: messages.DifferentialMessage) -> bool:
    """Whether any frame was analysed: a table of zeros would look like a result."""
    return message.frames > 0


class PlainReporter:
    """A Display that prints lines: one at the start, one per source every `every_s`, faults as they come, and the
    differential at the end."""

    def __init__(
        self,
        out: TextIO,
        *,
        every_s: float = 5.0,
        note: str | None = None,
        lengths: Callable[[], Mapping[str, int]] = dict,
        waits_for: str | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`lengths`: frames that each source holds, as far as known by now. `waits_for`: the endpoint of a streamer
        elsewhere, that messages come from."""
        waiting = None if waits_for is None else Waiting(waits_for, clock())
        self.state = DashboardState(picture=False, note=note, waits_for=waiting)
        self._lengths = lengths
        self._out = out
        self._every_ns = int(every_s * 1e9)
        self._clock = clock
        self._inbox = Inbox()
        self._due_ns: int | None = None
        self._introduced = False
        self._reported_disagreement = False
        self._reported_waiting = 0
        self._reported_losses: dict[tuple[str, str, str], int] = {}
        self._reported_states: dict[str, tuple[str, str | None]] = {}
        self._reported_hidden: set[str] = set()
        self._reported_positions: dict[str, tuple[str, str | None]] = {}
        self._reported_progress: dict[str, str] = {}

    @property
    def quit_requested(self) -> bool:
        """Never: there are no keys."""
        return False

    def publish(self, message: messages.AnyMessage, payload: bytes | None = None) -> None:
        """Hand over a message. Any thread; never waits."""
        self._inbox.publish(message)

    def show(self, frame: Frame) -> None:
        """Pictures are not printed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def run(self, running: Callable[[], bool]) -> None:
        """Report until `running()` is false."""
        while running():
            time.sleep(min(0.2, self.tick(self._clock())))

    def tick(self, now_ns: int) -> float:
        """Print what is new. Returns the seconds until the next call."""
        self._inbox.take_into(self.state, now_ns)
        self._report_waiting(now_ns)
        self._introduce()
        self._report_disagreement()
        for view in self.state.sources.values():
            self._report_faults(view)
            self._report_hidden(view)
            self._report_positions(view)
        if self._due_ns is None:
            self._due_ns = now_ns + self._every_ns
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + self._every_ns
            for view in self.state.sources.values():
                self._report_progress(view)
        return min(0.5, (self._due_ns - now_ns) / 1e9)

    def stay(self) -> None:
        """What was printed stays."""

    def leave(self) -> None:
        """Nothing keeps it."""

    def close(self) -> None:
        """No more messages will come. `__exit__` prints the last ones, in the main thread."""

    def _finish(self) -> None:
        self._inbox.take_into(self.state, self._clock())
        self._introduce()
        self._report_disagreement()
        for view in self.state.sources.values():
            self._report_faults(view)
            self._report_hidden(view)
            self._report_positions(view)
            if view.differential is not None and shows_anything(view.differential):
                self._print(*format_differential(view.differential, self.state.note).split("\n"))
            if view.end is not None and view.end.state != "finished" and not self._was_reported(view, view.end):
                self._print(f"{view.name}: {view.end.state}: {view.end.reason}")

    def _report_waiting(self, now_ns: int) -> None:
        """What is waited for, and once what may be wrong."""
        if self.state.updated_ns is None and self.state.waits_for is not None:
            lines = waiting_lines(self.state.waits_for, now_ns)
            self._print(*(f"leukostream: {line}" for line in lines[self._reported_waiting :]))
            self._reported_waiting = len(lines)

    def _introduce(self) -> None:
        health = self.state.health
        if self._introduced or health is None:
            return
        self._introduced = True
        models = " + ".join(name for name in (health.detector, health.classifier) if name)
        backend = f" on {health.backend}" if health.backend else ""
        self._print(f"leukostream: {models}{backend}; {NOT_A_DEVICE}")

    def _report_disagreement(self) -> None:
        """Report once that the GPU's results no longer agree with the CPU's."""
        agreed = agreement(self.state.health) if self.state.health is not None else None
        if agreed is None or agreed >= LEAST_AGREEMENT or self._reported_disagreement:
            return
        self._reported_disagreement = True
        self._print(
            f"leukostream: the GPU agrees with the CPU on {100 * agreed:.1f} % only, expected "
            f"{100 * LEAST_AGREEMENT:.0f} % or more; run with --backend onnxruntime, or compile the models again"
        )

    def _report_faults(self, view: SourceView) -> None:
        status = view.status
        if status is None:
            return
        before = self._reported_states.get(view.name)
        # A source that keeps reopening is reported when it is lost and when it is back.
        waited_for = status.detail if status.state == "starting" else None
        if (status.state, waited_for) != before:
            self._reported_states[view.name] = (status.state, waited_for)
            told = status.state in ("starting", "reopening", "failed")
            detail = f": {status.detail}" if status.detail and told else ""
            self._print(f"{view.name}: {status.state} ({status.mode}){detail}")
        for what, counts in (("skipped", status.skipped), ("dropped", status.dropped)):
            for reason, count in counts.items():
                if count and (view.name, what, reason) not in self._reported_losses:
                    self._reported_losses[view.name, what, reason] = count
                    told = what == "skipped" and status.state != "failed"  # else it was reported with the state
                    detail = f", {status.detail}" if status.detail and told else ""
                    self._print(f"{view.name}: {what} {number(count)}, {reason}{detail}")

    def _was_reported(self, view: SourceView, end: messages.EndMessage) -> bool:
        """Whether it failed for what was printed when it did."""
        status = view.status
        return status is not None and (status.state, status.detail) == ("failed", end.reason)

    def _report_hidden(self, view: SourceView) -> None:
        """Once, when parts of the frames turned out to show no slide."""
        boxes = view.status.hidden_px if view.status is not None else ()
        if not boxes or view.name in self._reported_hidden:
            return
        self._reported_hidden.add(view.name)
        shown = " and ".join(",".join(map(str, box)) for box in boxes[:3])
        more = f" and {len(boxes) - 3} more" if len(boxes) > 3 else ""
        self._print(f"{view.name}: what stays in place while the slide moves is left out: {shown}{more} (x1,y1,x2,y2)")

    def _report_positions(self, view: SourceView) -> None:
        """When it is known how the camera sees the stage, and when its positions are ignored."""
        status = view.status
        if status is None or status.positions is None or (words := positions_in_words(status)) is None:
            return
        now = status.positions.state, status.positions.note
        if self._reported_positions.get(view.name) != now:
            self._reported_positions[view.name] = now
            self._print(f"{view.name}: {words}")

    def _report_progress(self, view: SourceView) -> None:
        status, message = view.status, view.differential
        parts: list[str] = []
        if status is not None:
            length = self._lengths().get(view.name)
            of = "" if length is None else f" of {number(length)}"
            parts.append(f"{number(status.published)}{of} frames")
            if status.fps is not None:
                parts.append(f"{number(status.fps, 1)} fps")
            if (behind := behind_in_words(status)) is not None:
                parts.append(behind)
        if message is not None:
            counts = ", ".join(f"{name} {number(share.count)}" for name, share in class_rows(message) if share.count)
            parts.append(f"{number(message.total)} white cells" + (f": {counts}" if counts else ""))
        if status is not None:
            lost = [
                f"{what} {tally(counts)}"
                for what, counts in (("dropped", status.dropped), ("skipped", status.skipped))
                if sum(counts.values())
            ]
            parts += lost
        line = ", ".join(parts)
        if parts and self._reported_progress.get(view.name) != line:
            self._reported_progress[view.name] = line
            self._print(f"{view.name}: {line}")

    def _print(self, *lines: str) -> None:
        self._out.write("".join(clean(line) + "\n" for line in lines))
        self._out.flush()
