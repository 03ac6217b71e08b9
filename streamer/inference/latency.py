"""How long a server takes, and so how long to wait for it. No clock."""

from __future__ import annotations

from collections import deque

import numpy as np

FLOOR_MS, CEILING_MS = 100.0, 800.0
"""Of a timeout. Below the floor the pauses of any system (20 to 50 ms here) would look like faults; the ceiling leaves
time for another server before a question is given up (`GIVE_UP_MS`), and for the CPU at last, within two seconds."""

UNMEASURED_MS = 500.0
KEPT = 300


class Latency:
    """Smoothed latency and its deviation, as TCP has them (RFC 6298): the timeout is one plus four of the other."""

    __slots__ = ("_deviation_ms", "_doubled", "recent_ms", "smoothed_ms")

    def __init__(self) -> None:
        self.smoothed_ms: float | None = None
        self._deviation_ms = 0.0
        self._doubled = 0
        self.recent_ms: deque[float] = deque(maxlen=KEPT)

    def add(self, ms: float) -> None:
        """An answer, late ones too: they say how slow the server is."""
        if self.smoothed_ms is None:
            self.smoothed_ms, self._deviation_ms = ms, ms / 2
        else:
            self._deviation_ms += (abs(ms - self.smoothed_ms) - self._deviation_ms) / 4
            self.smoothed_ms += (ms - self.smoothed_ms) / 8
        self._doubled = 0
        self.recent_ms.append(ms)

    def timed_out(self) -> None:
        """No answer in time: the next wait is longer, so that a server under load isn't asked everything twice."""
        self._doubled = min(self._doubled + 1, 4)

    @property
    def timeout_ms(self) -> float:
        expected = UNMEASURED_MS if self.smoothed_ms is None else self.smoothed_ms + 4 * self._deviation_ms
        return min(max(expected, FLOOR_MS) * (1 << self._doubled), CEILING_MS)

    def forget(self) -> None:
        """What was measured is no longer true: the server is another one now."""
        self.smoothed_ms, self._deviation_ms, self._doubled = None, 0.0, 0


def percentiles_ms(values: deque[float] | list[float]) -> dict[str, float] | None:
    """p50 and p99; None of none."""
    if not values:
        return None
    return dict(zip(("p50", "p99"), np.percentile(list(values), (50, 99)).tolist(), strict=True))
