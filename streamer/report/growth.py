"""How a count grew: the differentials of a session, as they were published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from streamer.dashboard.words import class_rows
from streamer.protocol.messages import DifferentialMessage
from streamer.records import ClassShare

POINTS = 120
"""Of the differentials as many are kept at most, evenly over the cells."""


@dataclass(frozen=True, slots=True)
class GrowthPoint:
    cells: int
    minutes: float | None
    """Since the first; None where the journal does not say when."""
    shares: dict[str, ClassShare]
    """By class, `unclassified` among them."""


@dataclass(frozen=True, slots=True)
class Growth:
    running: Sequence[GrowthPoint]
    """While the slide was counted, each with other cells than the one before."""
    final: GrowthPoint | None
    """None: it has not ended."""


def growth_of(messages: Iterable[DifferentialMessage]) -> Growth:
    """Of a session's differentials in their order; those without cells are left out."""
    running: list[DifferentialMessage] = []
    final: DifferentialMessage | None = None
    start: datetime | None = None
    for message in messages:
        start = start or _time(message.published_utc)
        final = message if message.final else None
        if message.final or not message.total:
            continue
        if running and running[-1].total == message.total:
            running.pop()  # the newest for as many cells
        running.append(message)
        if len(running) > 4 * POINTS:
            running = _thinned(running)
    return Growth(
        [_point(one, start) for one in _thinned(running)],
        None if final is None or not final.total else _point(final, start),
    )


def _thinned(messages: Sequence[DifferentialMessage]) -> list[DifferentialMessage]:
    """At most so many, the last among them, evenly over the cells."""
    if len(messages) <= POINTS:
        return list(messages)
    step = messages[-1].total / POINTS
    kept: list[DifferentialMessage] = []
    due = 0.0
    for message in messages:
        if message.total >= due or message is messages[-1]:
            kept.append(message)
            due = max(due + step, message.total)
    return kept


def _point(message: DifferentialMessage, start: datetime | None) -> GrowthPoint:
    time = _time(message.published_utc)
    known = start is not None and time is not None and (start.tzinfo is None) == (time.tzinfo is None)
    minutes = max(0.0, (time - start).total_seconds() / 60) if known and start and time else None
    return GrowthPoint(message.total, minutes, dict(class_rows(message)))


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
