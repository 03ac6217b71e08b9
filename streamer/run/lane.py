"""One source on its way through a run, and what is measured of it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np

from streamer.protocol.messages import EndState
from streamer.protocol.requests import SourceState
from streamer.records import Frame, Mode, Skip, SourceProgress, SourceStatus
from streamer.run.gate import PAUSED, Gate
from streamer.run.measuring import Measuring, MeasuringGate
from streamer.run.placing import PlacedFrame, Placer
from streamer.run.ring import Ring
from streamer.run.session import SlideSession
from streamer.sources.base import Source
from streamer.sources.reconnection import STOPPED, ReaderStatus, SourceReader

LATENCIES_KEPT = 300
"""Latency and rate are those of the last so many frames."""

QUEUE: Mapping[Mode, int] = {"live": 2, "analysis": 4}
AHEAD = 8
"""Frames of an analysis that may wait for the models once they are placed: as many as are placed while one is detected
in, and some more."""

RATE_WINDOW_NS = 5_000_000_000

ENOUGH = "enough cells"
"""The reason under which frames are counted that came after the last one that was wanted."""

MEANT = (PAUSED, STOPPED, ENOUGH)
"""Reasons of frames that somebody chose not to have: no losses of the slide."""

TRUNCATED = "truncated"
"""The reason of a skip that stands for all the frames which are missing at the end of a file."""


class Lane:
    """One source on its way: reader, ring, session and what is measured of it."""

    def __init__(
        self,
        source: Source,
        mode: Mode,
        session: SlideSession,
        queue: int | None,
        on_skip: Callable[[Skip], None],
        taken: Callable[[Frame], None],
        wait_s: float,
        measuring: Measuring,
        stale_after_ms: float,
        now_ns: Callable[[], int],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.name = source.name
        self.endless = source.default_mode == "live"
        self.mode = mode
        self.session = session
        live = mode == "live"
        self.ring: Ring[Frame] = Ring(queue or QUEUE[mode], "drop_oldest" if live else "block")
        self.placed: Ring[PlacedFrame] = Ring(1 if live else queue or AHEAD, "block")
        self.gate = Gate(self.ring, taken)
        self.placer = Placer(
            self.ring,
            self.placed,
            measuring,
            session,
            stale_after_ms=stale_after_ms if live else None,
            measures_late=live,
            now_ns=now_ns,
            is_paused=lambda: self.gate.paused,
            is_over=lambda: self.reader.at_end or self.reader.failure is not None,
            on_failure=on_failure,
        )
        self.stop = threading.Event()
        self.stop_at: int | None = None
        goes_on = session.count.frames > 0
        sink = self.gate if live else MeasuringGate(self.gate, measuring)
        self.reader = SourceReader(source, sink, self.stop, on_skip=on_skip, wait_s=wait_s, goes_on=goes_on)
        self.thread = threading.Thread(target=self.reader.run, name=f"reader {self.name}", daemon=True)
        self.placing = threading.Thread(target=self.placer.run, name=f"placer {self.name}", daemon=True)
        self.counted = 0
        """Placed frames that were counted, or passed over."""
        self.published = 0
        self.ignored: Counter[str] = Counter()
        self.recent: deque[tuple[int, float]] = deque(maxlen=LATENCIES_KEPT)
        """(published_ns, milliseconds from grab to publish) of the last frames."""

    @property
    def enough(self) -> str | None:
        """Why no more frames of it are wanted; None while they are."""
        if self.stop_at is not None and (total := self.session.count.total) >= self.stop_at:
            return f"{total} white cells were counted, and {self.stop_at} asked for"
        return "the limits are as narrow as asked for" if self.session.count.is_precise() else None

    def ending(self, failure: Exception | None, stopped: str) -> tuple[EndState, str]:
        """How its session ends and why: `failure` is that of the run, `stopped` why no source is read any more."""
        failure = failure or self.reader.failure
        if failure is not None:
            return "failed", str(failure) or type(failure).__name__
        if (enough := self.enough) is not None:
            return "finished", enough
        return ("finished", "end of the source") if self.reader.at_end else ("stopped", stopped)

    def state(self) -> SourceState:
        session = self.session
        return SourceState(
            session=session.factory.session,
            paused=self.gate.paused,
            stop_at=self.stop_at,
            white_cells=session.count.total,
            slide=session.slide.or_none(),
        )

    def health(self) -> SourceStatus:
        status = self.reader.status
        window = [at for at, _ in self.recent if self.recent[-1][0] - at <= RATE_WINDOW_NS]
        span_ns = window[-1] - window[0] if len(window) > 1 else 0
        latency = None
        if self.recent:
            values = np.percentile([ms for _, ms in self.recent], (50, 95, 99)).tolist()
            latency = dict(zip(("p50", "p95", "p99"), values, strict=True))
        dropped, area = self._dropped(status), self.session.area
        return SourceStatus(
            state=status.state,
            mode=self.mode,
            fps=(len(window) - 1) * 1e9 / span_ns if span_ns else None,
            captured=status.captured,
            published=self.published,
            dropped=dict(dropped),
            skipped=dict(status.skipped),
            queue=len(self.ring),
            reopened=status.reopened,
            latency_ms=latency,
            detail=status.fault,
            hidden_px=self.session.hidden_px,
            behind_s=status.behind_s,
            positions=self.session.positions,
            settings=dict(status.settings),
            audit=None if area is None else area.audit,
            area=None if area is None else area.status,
        )

    def progress(self, *, cut_short: bool | None = None) -> SourceProgress:
        """How far the source was read in this run; `cut_short` as at the end of it: None while it goes on."""
        status = self.reader.status
        lost = self._dropped(status)
        return SourceProgress(
            length=status.length,
            lost={reason: count for reason, count in sorted(lost.items()) if count and reason not in MEANT},
            skipped=dict(sorted(status.skipped.items())),
            cut_short=cut_short,
        )

    def is_cut_short(self, state: EndState) -> bool:
        """Whether the source had more to give than was asked for, at an end of this state; a camera has no end."""
        cut = state == "failed" or (state == "stopped" and not self.endless)
        return cut or TRUNCATED in self.reader.status.skipped

    def _dropped(self, status: ReaderStatus) -> Counter[str]:
        return (
            Counter(self.ring.dropped)
            + Counter(status.dropped)
            + Counter(self.placer.dropped)
            + self.ignored
            + Counter(self.gate.dropped)
        )
