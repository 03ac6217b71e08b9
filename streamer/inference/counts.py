"""What an inference server has done, for `status` and for Prometheus. Any thread."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

LATENCIES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """All counts since the start."""

    requests: dict[str, int]
    """Answered, by hash of the model."""
    faults: dict[str, int]
    """Not answered, by reason."""
    runs: int
    rows: int
    """Images that ran."""
    batch_sizes: dict[int, int]
    """Runs, by how many requests they took."""
    waited_ms: tuple[float, ...]
    """Of the last requests, from arrival to run."""
    ran_ms: tuple[float, ...]
    """Of the last runs."""


@dataclass(slots=True)
class ServerCounts:
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _requests: Counter[str] = field(default_factory=Counter)
    _faults: Counter[str] = field(default_factory=Counter)
    _runs: int = 0
    _rows: int = 0
    _batch_sizes: Counter[int] = field(default_factory=Counter)
    _waited_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    _ran_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def ran(self, sha256: str, rows: int, waited_ms: list[float], ran_ms: float) -> None:
        """A run that answered as many requests as `waited_ms` has values."""
        with self._lock:
            self._requests[sha256] += len(waited_ms)
            self._runs += 1
            self._rows += rows
            self._batch_sizes[len(waited_ms)] += 1
            self._waited_ms.extend(waited_ms)
            self._ran_ms.append(ran_ms)

    def fault(self, reason: str) -> None:
        with self._lock:
            self._faults[reason] += 1

    def figures(self) -> ServerFigures:
        with self._lock:
            return ServerFigures(
                dict(self._requests),
                dict(self._faults),
                self._runs,
                self._rows,
                dict(self._batch_sizes),
                tuple(self._waited_ms),
                tuple(self._ran_ms),
            )
