"""Numbers and phrases as people read them, the same on the screen and in plain lines."""

from __future__ import annotations

import math

from streamer import wire
from streamer.dashboard.palette import in_order
from streamer.differential import share
from streamer.records import UNCLASSIFIED

NOT_A_DEVICE = "research use only - not a medical device"
SAMPLING_ONLY = "limits are of sampling only"


def number(value: float | int | None, decimals: int = 0) -> str:
    """For people: thousands apart, "–" for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{decimals}f}".replace(",", " ")


def limits(low: float | None, high: float | None) -> str:
    """95 % limits in whole percent, rounded outward; "–" where nothing was counted."""
    if low is None or high is None:
        return "–"
    return f"{math.floor(low)}–{math.ceil(high)}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def tally(counts: dict[str, int]) -> str:
    """Reasons with their counts, those that did not happen left out; empty for none."""
    return ", ".join(f"{number(count)} {reason}" for reason, count in counts.items() if count)


def class_rows(message: wire.DifferentialMessage) -> list[tuple[str, wire.ClassShare]]:
    """The classes in the order they are listed; `unclassified` is last, always there, and has limits too."""
    shares = dict(message.classes)
    if UNCLASSIFIED not in shares:
        left = share(message.unclassified, message.total)
        shares[UNCLASSIFIED] = wire.ClassShare(count=left.count, percent=left.percent, low=left.low, high=left.high)
    return [(name, shares[name]) for name in in_order(list(shares))]
