"""Islands that the stage alone puts beside others, where no pictures overlap.

A StageMap's own islands are of pictures that were registered to one another, and stay so: they are searched, compared
and merged as without a stage. This says only at which place of which other island one is published.
"""

from __future__ import annotations

from collections.abc import Mapping

Offset = tuple[int, float, float]
"""An island, and what is added to places for theirs in it."""


class Joins:
    """Of each island that is published as part of another one: which, and where its zero lies there."""

    def __init__(self) -> None:
        self._offsets: dict[int, Offset] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def offsets(self) -> Mapping[int, Offset]:
        """By joined island; the other one is never joined itself."""
        return self._offsets

    def restore(self, offsets: Mapping[int, Offset]) -> None:
        self._offsets = dict(offsets)

    def published(self, island: int, x_px: float, y_px: float) -> Offset:
        """The island under which a place is published, and the place there."""
        into, dx, dy = self._offsets.get(island, (island, 0.0, 0.0))
        return into, x_px + dx, y_px + dy

    def root(self, island: int) -> int:
        """The island under which one is published."""
        return self._offsets[island][0] if island in self._offsets else island

    def together(self, root: int) -> list[int]:
        """All that are published under `root`, itself first."""
        return [root, *(island for island, (into, *_) in self._offsets.items() if into == root)]

    def put(self, island: int, into: int, dx_px: float, dy_px: float) -> list[int]:
        """Publish `island`, and what is published under it, under `into`, an island of its own. Returns those that this
        moves."""
        moved = self.together(island)
        for one in moved:
            _, x, y = self.published(one, 0.0, 0.0)
            self._offsets[one] = into, x + dx_px, y + dy_px
        return moved

    def part(self, island: int) -> None:
        """Publish a joined island by itself again."""
        del self._offsets[island]

    def merge(self, gone: int, into: int, x_px: float, y_px: float) -> list[int]:
        """The pictures say that the zero of `gone` lies at (x_px, y_px) in `into`. Returns the islands that are
        published elsewhere now, `gone` apart."""
        if gone in self._offsets:
            del self._offsets[gone]
            return []
        moved = [one for one in self.together(gone) if one != gone]
        if into in moved:
            del self._offsets[into]
        root, dx, dy = self.published(into, x_px, y_px)
        for one in moved:
            if one != into:
                _, x, y = self._offsets[one]
                self._offsets[one] = root, x + dx, y + dy
        return moved
