"""What is said to people while messages are waited for."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

PATIENCE_NS = 5_000_000_000
"""After so long without a message it is said what may be wrong."""

MAY_BE_WRONG = (
    "Is a leukostream running with --publish {endpoint}, and are host and port right?",
    "Does it run in a container or behind a firewall that lets this port, and the next one, through?",
    "Does it encrypt? Then this command needs --keys DIR and --server-key FILE.",
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages of a streamer elsewhere that have not come yet."""

    endpoint: str
    since_ns: int
    """Local monotonic time."""


def waiting_lines(waits_for: Waiting, now_ns: int | None, width: int = 1000) -> list[str]:
    """What is waited for, and after a while what may be wrong, on lines of at most `width` characters."""
    lines = [f"waiting for messages from {waits_for.endpoint}"]
    if now_ns is not None and now_ns - waits_for.since_ns > PATIENCE_NS:
        lines.append("nothing came so far:")
        for text in MAY_BE_WRONG:
            lines += textwrap.wrap(text.format(endpoint=waits_for.endpoint), max(20, width))
    return lines
