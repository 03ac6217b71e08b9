"""How long microscopes stopped counting: the times between frames that a journal has as published."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stop:
    """Between two frames of one microscope."""

    began_ns: int
    """When the earlier one was published, by this machine's monotonic clock."""
    seconds: float
    restarted_s: float | None
    """From the last kill of its process in between to the next frame; None: it was not killed."""


def published_ns(journal: Path, source: str) -> list[int]:
    """When each frame of a source was published, in order, over all processes of one machine since it was started."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT header FROM messages JOIN sessions ON sessions.number = messages.session"
            " WHERE sessions.source = ? AND messages.type = 'frame' ORDER BY session_seq",
            (source,),
        )
        return [json.loads(header)["published_ns"] for (header,) in rows]


def stops(frames_ns: Sequence[int], kills_ns: Sequence[int] = ()) -> list[Stop]:
    """All times between frames. `kills_ns`, in order: when the process was killed."""
    found = []
    for began_ns, ended_ns in pairwise(frames_ns):
        last = bisect_right(kills_ns, ended_ns) - 1
        is_restart = last >= 0 and kills_ns[last] >= began_ns
        restarted_s = (ended_ns - kills_ns[last]) / 1e9 if is_restart else None
        found.append(Stop(began_ns, (ended_ns - began_ns) / 1e9, restarted_s))
    return found


def longest_during(frames_ns: Sequence[int], began_ns: int, ended_ns: int) -> float:
    """Seconds of the longest time between two frames of which a part lies within a period; 0.0: there is none."""
    first = max(bisect_right(frames_ns, began_ns) - 1, 0)
    last = bisect_left(frames_ns, ended_ns) + 1
    return max(((b - a) / 1e9 for a, b in pairwise(frames_ns[first:last])), default=0.0)
