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
    """
    reclassified = stored.reclassifications()
    for given in reclassified.get(after, ()):
        on_update(count.reclassify(given))
    for seen in stored.frames(after=after):
        on_update(count.add_frame(seen))
        on_frame(seen)
        for given in reclassified.get(seen.frame_id, ()):
            on_update(count.reclassify(given))
