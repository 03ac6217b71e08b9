"""Islands side by side, where the stage puts them and their pictures do not overlap.

Where the stage is sure, they may touch; else only islands are joined that are clear of one another by more than it may
be off, since cells at one place are taken for one cell. What the pictures contradict is not joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from streamer.stage.joins import Offset
from streamer.stage.keyframes import StageMap
from streamer.stage.positions import StagePositions
from streamer.stage.preparation import PreparedFrame

CERTAIN_FIELDS = 0.02
"""A stage that puts an island so surely, in widths of the frame, may put it where it touches others: cells are
recognised that lie so far off."""

LEAST_JUDGED_OVERLAP = 0.12
"""Share of the field; pictures that overlap by less may fail to match."""

LEAST_SEEN = 0.008
"""Contrast of a part of a picture that would have matched: what fields with cells have, see StageConfig.min_contrast.
"""

SMALL = 4
"""Keyframes of an island that is compared with its neighbours alone."""


class IslandArranger:
    """Publishes the islands of a map under one another, by what a stage says."""

    def __init__(self, stage_map: StageMap, positions: StagePositions) -> None:
        self._map = stage_map
        self._positions = positions

    def arrange(self, islands: Sequence[int]) -> None:
        """Publish those of `islands`, all that show the slide, side by side which the stage puts there; nothing is
        compared here."""
        self._positions.arranged = tuple(islands)
        if not self._positions.used:
            return
        roots = [island for island in islands if self._map.joins.root(island) == island]
        for place, island in enumerate(roots[1:], start=1):
            offset = self._offset(island, roots[:place])
            if offset is not None:
                self._map.join(island, *offset)

    def check(self, number: int) -> None:
        """Publish an island by itself again if this new keyframe of it has come where another one may lie that the
        stage put there."""
        joins = self._map.joins
        keyframe = self._map[number]
        root = joins.root(keyframe.island)
        together = joins.together(root)
        if len(together) < 2 or self._positions.error_px() <= CERTAIN_FIELDS * keyframe.frame.width:
            return
        others = [island for island in together if island != keyframe.island]
        touched = self._touched([number], others, self._positions.error_px())
        for island in touched if keyframe.island == root else touched and [keyframe.island]:
            self._map.part(island)

    def overlapping(self, number: int) -> list[int]:
        """Keyframes of other islands that should see part of what a keyframe shows, by the stage; the most of it
        first."""
        point = self._positions.point(number)
        if point is None or not self._positions.used:
            return []
        own, frame = self._map[number].island, self._map[number].frame
        near = []
        for other in self._positions.nearest(point, 16):
            x, y, _ = self._positions.away(other, point)
            overlap = max(0.0, frame.width - abs(x)) * max(0.0, frame.height - abs(y))
            if overlap > 0 and self._map[other].island != own:
                near.append((-overlap, other))
        return [other for _, other in sorted(near)]

    def _offset(self, island: int, earlier: Sequence[int]) -> Offset | None:
        """Where the stage puts an island among earlier ones that are not joined; None where it can't say."""
        own = [n for one in self._map.joins.together(island) for n in self._map.members(one)]
        read = [(number, point) for number in own if (point := self._positions.point(number)) is not None]
        if not read:
            return None
        middle = sum(point for _, point in read) / len(read)
        allowed = set(earlier)
        there = [
            number
            for number in self._positions.nearest(middle, len(read) + 32)
            if self._map.joins.root(self._map[number].island) in allowed
        ]
        if not there:
            return None
        into = self._map.joins.root(self._map[there[0]].island)
        there = [number for number in there if self._map.joins.root(self._map[number].island) == into]
        zero = self._zero(read)
        other = self._zero([(n, p) for n in there if (p := self._positions.point(n)) is not None])
        offset = other - zero
        distance = min(self._positions.away(number, middle)[2] for number in there)
        error, width = self._positions.error_px(distance), self._map[own[0]].frame.width
        if error > CERTAIN_FIELDS * width:
            if self._touched(own, self._map.joins.together(into), error, offset):
                return None
            return into, offset.real, offset.imag
        # A small island's neighbours on the slide are those of its readings; of a group there may be thousands.
        near = {self._map[number].island for number in there}
        if self._is_contradicted(own, near if len(own) <= SMALL else self._map.joins.together(into), offset):
            return None
        return into, offset.real, offset.imag

    def _zero(self, read: Sequence[tuple[int, complex]]) -> complex:
        """Where the zero of the stage lies on the published island of these keyframes: the median of what they say."""
        said = self._positions.to_px(np.array([point for _, point in read]))
        away = np.array([self._published(number) for number, _ in read]) - said
        return complex(float(np.median(away.real)), float(np.median(away.imag)))

    def _published(self, number: int) -> complex:
        keyframe = self._map[number]
        _, x, y = self._map.joins.published(keyframe.island, keyframe.x_px, keyframe.y_px)
        return complex(x, y)

    def _touched(self, numbers: Sequence[int], islands: Sequence[int], within_px: float, by: complex = 0j) -> list[int]:
        """Those of `islands` with a keyframe that one of `numbers`, moved, overlaps or may within an error."""
        width, height = self._map[numbers[0]].frame.width, self._map[numbers[0]].frame.height
        own = np.array([self._published(number) for number in numbers]) + by
        touched = []
        for island in islands:
            other = np.array([self._published(number) for number in self._map.members(island)])
            away = own[:, None] - other
            if ((np.abs(away.real) < width + within_px) & (np.abs(away.imag) < height + within_px)).any():
                touched.append(island)
        return touched

    def _is_contradicted(self, numbers: Sequence[int], islands: Iterable[int], by: complex) -> bool:
        """Whether islands would overlap by so much, and with so much to see there, that their pictures had matched."""
        for number in numbers:
            keyframe = self._map[number]
            place = self._published(number) + by
            for island in islands:
                _, x, y = self._map.joins.published(island, 0.0, 0.0)
                for overlap, other in self._map.around(island, keyframe.frame, place.real - x, place.imag - y)[:2]:
                    if overlap < LEAST_JUDGED_OVERLAP:
                        continue
                    there = self._published(other)
                    dx, dy = place.real - there.real, place.imag - there.imag
                    if _shows_something(keyframe.frame, -dx, -dy) and _shows_something(self._map[other].frame, dx, dy):
                        return True
        return False


def _shows_something(frame: PreparedFrame, x_px: float, y_px: float) -> bool:
    """Whether the part of a picture that another one, (x_px, y_px) from it, shows too has any contrast."""
    if frame.fine.size == 0:
        return False
    height, width = frame.fine.shape
    x, y = round(x_px / frame.factor), round(y_px / frame.factor)
    part = frame.fine[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)].astype(np.float32)
    return part.size > 0 and float(np.sqrt((part * part).mean())) / 32 * frame.contrast >= LEAST_SEEN
