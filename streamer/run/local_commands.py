"""Commands of who sits before the run itself: given on any thread, carried out on the publishing one as all are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from streamer.protocol.requests import AnyCommand, RequestRefused, SourceState

BY = "keyboard"
"""Who asks, as the journal keeps it."""

Answer = Callable[[SourceState | str], None]
"""Gets the state of the source, or why the command was refused; on the publishing thread."""


class Controls(Protocol):
    """What commands act on: a CommandExecutor."""

    def execute(self, command: AnyCommand, *, by: str) -> SourceState: ...


class LocalCommands:
    """A queue from the display to the publishing thread."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop` ends the run. `controls` has to be set before `serve` is called."""
        self.controls: Controls | None = None
        self._stop = stop
        self._waiting: deque[tuple[AnyCommand, Answer]] = deque()

    def give(self, command: AnyCommand, answer: Answer) -> None:
        """Have a command carried out between two frames. Any thread; never waits."""
        self._waiting.append((command, answer))

    def stop(self) -> str | None:
        """End the run; None: that can be."""
        self._stop()
        return None

    def serve(self) -> None:
        """Carry out what was given. The publishing thread."""
        while self._waiting and self.controls is not None:
            command, answer = self._waiting.popleft()
            try:
                answer(self.controls.execute(command, by=BY))
            except RequestRefused as refusal:
                answer(str(refusal))
