"""Bars for work that takes a while: on standard error, and only where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """`items` as they are, and a bar named `what` that moves on when the next one is asked for. `total`: how many there
    are; None: nobody knows."""
    with steps(what, total) as step:
        for item in items:
            yield item
            step()


@contextlib.contextmanager
def steps(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A bar named `what`, and what moves it on by one; `total`: how many there are; None: nobody knows."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)
