"""Counting the frames of a journal again."""

from __future__ import annotations

from collections.abc import Callable

from streamer.counting.slide_count import CountUpdate, SeenFrame, SlideCount
from streamer.journal.reader import StoredSession


def replay(
    stored: StoredSession,
    count: SlideCount,
    *,
    after: int = -1,
    on_update: Callable[[CountUpdate], None] = lambda update: None,
    on_frame: Callable[[SeenFrame], None] = lambda seen: None,
) -> None:
    """Count the frames of a session after frame `after`, and reclassify cells where people did.

    `on_update` gets the changes of each frame and reclassification, `on_frame` each frame once it is counted.
    JournalError for what can't be counted.
    """
    reclassified = stored.reclassifications()

    def reclassify(after_frame: int) -> None:
        for given in reclassified.get(after_frame, ()):
            with stored.reading("commands.body"):
                fault = count.fault_of(given)
                if fault is not None:
                    raise ValueError(fault)
            on_update(count.reclassify(given))

    reclassify(after)
    for seen in stored.frames(after=after):
        with stored.reading(f"frame {seen.frame_id}"):
            update = count.add_frame(seen)
        on_update(update)
        on_frame(seen)
        reclassify(seen.frame_id)
