"""Changes of the slides, to every page that looks: server-sent events.

The desk tells of a change on a thread of its own; it is handed to the server's loop and merged there into what each
reader was not sent yet. So a reader that is slow, or a run that counts fast, holds no more than the newest of each
cell. A change goes out at once, the next ones of a burst together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec

from streamer.review.desk import Change, Desk
from streamer.review.server.presented import Json

PAUSE_S = 0.03
"""After an event, for what follows in a burst."""
KEEP_ALIVE_S = 15.0


class Pending:
    """What one reader was not sent yet, of one slide."""

    def __init__(self) -> None:
        self._change: Change | None = None
        self._any = asyncio.Event()

    def add(self, change: Change) -> None:
        self._change = change if self._change is None else merged(self._change, change)
        self._any.set()

    async def take(self, timeout_s: float) -> Change | None:
        """All of it, as one change; None where nothing came for so long."""
        try:
            await asyncio.wait_for(self._any.wait(), timeout_s)
        except TimeoutError:
            return None
        change, self._change = self._change, None
        self._any.clear()
        return change


def merged(first: Change, second: Change) -> Change:
    """Two changes of one slide as one: what the second says of a cell holds."""
    cells = {cell.cell_id: cell for cell in first.cells} | {cell.cell_id: cell for cell in second.cells}
    back = {cell.cell_id for cell in second.cells}
    removed = {number for number in first.removed if number not in back} | set(second.removed)
    return replace(
        second,
        messages=(*first.messages, *second.messages),
        cells=tuple(cell for number, cell in cells.items() if number not in removed),
        removed=tuple(sorted(removed)),
        differential=second.differential or first.differential,
        history=(*first.history, *second.history),
    )


class EventHub:
    """Who looks at which slide. All but `_tell` runs on the server's loop."""

    def __init__(self) -> None:
        self._readers: list[tuple[str, Pending]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget: Callable[[], None] = lambda: None

    def start(self, desk: Desk) -> None:
        self._loop = asyncio.get_running_loop()
        self._forget = desk.listen(self._tell)

    def stop(self) -> None:
        self._forget()

    def _tell(self, change: Change) -> None:
        """On the desk's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._add, change)

    def _add(self, change: Change) -> None:
        kept = replace(change, messages=())  # pictures among them; pages fetch those that they show
        for session, pending in self._readers:
            if session == change.session:
                pending.add(kept)

    async def events(
        self, session: str, version: Callable[[], int], shown: Callable[[Change], Json]
    ) -> AsyncIterator[bytes]:
        """Server-sent events: `hello` with the version that the slide has, then `change` as they come. `version` is
        called once changes are heard, so that a reader of an older version knows that it missed some."""
        pending = Pending()
        reader = (session, pending)
        self._readers.append(reader)
        try:
            yield event("hello", {"session": session, "version": await asyncio.to_thread(version)})
            while True:
                change = await pending.take(KEEP_ALIVE_S)
                if change is None:
                    yield b": still here\n\n"
                    continue
                yield event("change", shown(change), change.version)
                await asyncio.sleep(PAUSE_S)
        finally:
            self._readers.remove(reader)


def event(name: str, data: Json, number: int | None = None) -> bytes:
    """One server-sent event; JSON has no line breaks of its own."""
    id_ = b"" if number is None else b"id: %d\n" % number
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), id_, msgspec.json.encode(data))
