"""Bars for work that takes a while: on standard error, and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """`items` as they are, and a bar named `what` that moves on when the next one is asked for. `total`: how many there
    are; None: as many as `items` says, if it does."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield from bars.track(items, total=total)
