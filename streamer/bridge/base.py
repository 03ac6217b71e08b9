"""What every target of a bridge is: who calls what, when, and what failure means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engines.base import LeukostreamError
from streamer.bridge.events import Event, Kind

Remark = Callable[[str], None]
"""Takes one line for people."""


class UnavailableError(LeukostreamError):
    """Not now: the same call is made again, after a pause."""


class RejectedError(LeukostreamError):
    """This event never: it is counted as lost, and the next one is delivered."""


class Target(Protocol):
    """Where a bridge delivers. One task calls all methods, one after the other.

    Every other LeukostreamError than those two ends the bridge: a person has to do something.
    """

    kinds: frozenset[Kind]
    """Events of other kinds are not for it."""

    async def open(self) -> None:
        """Connect. Called again after UnavailableError until it succeeds, before anything is delivered."""

    async def deliver(self, event: Event) -> None:
        """Return once the receiver has acknowledged the event, or it is stored on disk; called again for the same one
        after UnavailableError, so that a receiver may see it twice. It may be cancelled."""

    async def finish(self, timeout_s: float) -> None:
        """Everything was delivered: see to what the target itself still has to do, so long at most."""

    async def close(self) -> None:
        """Disconnect. Also called where `open` never succeeded."""

    def lost(self) -> dict[str, int]:
        """Events that were taken and never arrived, by reason."""
