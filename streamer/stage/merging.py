"""Joining the islands of a stage map: which of them overlap, as far as there is time to find out.

Keyframes of different islands are compared in pairs: those that wait after every frame a few at a time, all others at
the end. A match beyond doubt joins two islands, a weaker one only where a second says the same; neither does where more
of their keyframes should match than do.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from streamer.stage.config import StageConfig
from streamer.stage.keyframes import Keyframe, StageMap
from streamer.stage.preparation import RegistrationConfig
from streamer.stage.registration import Shift, register, register_near

_NOTHING: Mapping[int, Shift | None] = {}


class IslandMerger:
    """Compares keyframes of different islands of one map, and makes one island of two that overlap."""

    def __init__(self, stage_map: StageMap, config: StageConfig, registration: RegistrationConfig) -> None:
        self._map = stage_map
        self._config = config
        self._registration = registration
        self._pending: deque[tuple[int, int]] = deque()
        self._hunches: deque[tuple[int, int, Shift]] = deque(maxlen=256)
        self._merged: list[tuple[int, int]] = []
        self.given_up = 0
        """Comparisons that were given up because too many waited."""

    @property
    def pending(self) -> tuple[tuple[int, int], ...]:
        """Pairs of keyframes that wait to be compared, the last one next."""
        return tuple(self._pending)

    @property
    def hunches(self) -> tuple[tuple[int, int, Shift], ...]:
        """Matches (keyframe, keyframe of a later island, shift from the first) seen between islands, oldest first:
        one that was not sure enough may be confirmed by another."""
        return tuple(self._hunches)

    def restore(
        self, pending: Iterable[tuple[int, int]], hunches: Iterable[tuple[int, int, Shift]], given_up: int
    ) -> None:
        """Make a new merger go on as the one that these were taken from; its map is restored by itself."""
        self._pending = deque(pending)
        self._hunches.extend(hunches)
        self.given_up = given_up

    def take_merged(self) -> tuple[tuple[int, int], ...]:
        """(gone, into) of the islands merged since this was last asked, in their order."""
        merged, self._merged = self._merged, []
        return tuple(merged)

    def add(self, new: Keyframe, compared: Mapping[int, Shift | None] = _NOTHING) -> None:
        """Have a new keyframe compared with those of other islands, by and by.

        `compared` are keyframes that need not be, because it was already, and the shift from each, None for no match.
        """
        others = [n for island in self._map.islands if island != new.island for n in self._map.members(island)]
        pairs = [(number, new.number) for number in others if number not in compared]
        # There may be time for a few of them only: a sample of the other islands, the same one whenever it is drawn.
        random.Random(new.number).shuffle(pairs)
        self._pending.extend(pairs)
        while len(self._pending) > self._config.max_pending:
            self._pending.popleft()
            self.given_up += 1
        for number, shift in compared.items():
            if shift is not None and self._map[number].island != new.island:  # one may have joined them already
                self._weigh(number, new.number, shift)

    def compare_in_passing(self) -> None:
        """As many comparisons as there is time for at every frame."""
        self._compare(self._config.comparisons_per_frame if self._are_few() else 1)

    def compare_rest(self) -> None:
        """All comparisons that wait, and of those that were given up as many as there is time for at the end."""
        self._compare(len(self._pending))
        if self.given_up and self._are_few():
            self._pending.extend(self._given_up_pairs())
            self._compare(len(self._pending))

    def _are_few(self) -> bool:
        return len(self._map.islands) <= self._config.few_islands

    def _given_up_pairs(self) -> list[tuple[int, int]]:
        """Keyframes of the smaller islands and of the others: while frames came there was time for few of all pairs."""
        largest, *smaller = sorted(self._map.islands, key=lambda island: len(self._map.members(island)), reverse=True)
        drawn = random.Random(len(self._map))
        pairs = []
        most = max(1, self._config.max_at_end // max(1, sum(len(self._map.members(island)) for island in smaller)))
        for place, island in enumerate(smaller):
            others = [number for other in (largest, *smaller[:place]) for number in self._map.members(other)]
            for number in self._map.members(island):
                pairs += [(other, number) for other in drawn.sample(others, min(most, len(others)))]
        # Of one place after the other in the larger island: a picture that is not in memory is prepared once.
        return sorted(pairs[: self._config.max_at_end])

    def _compare(self, limit: int) -> None:
        done = 0
        while self._pending and done < limit:
            a, b = self._pending.pop()
            if self._map[a].island == self._map[b].island:
                continue
            done += 1
            shift = register(self._map.frame(a), self._map.frame(b), self._registration)
            if shift is not None and not self._config.is_distorted(shift):
                self._weigh(a, b, shift)

    def _weigh(self, a: int, b: int, shift: Shift) -> None:
        """Keyframes of two islands seem to match: merge when that is beyond doubt, or when two matches say the same."""
        if self._map[a].island > self._map[b].island:
            a, b, shift = b, a, shift.reversed()
        first, second = self._map[a], self._map[b]
        x, y = first.x_px + shift.x_px - second.x_px, first.y_px + shift.y_px - second.y_px
        confirmed = self._config.is_beyond_doubt(shift) or self._is_said_again(first.island, second.island, x, y)
        self._hunches.append((a, b, shift))
        bridges = self._bridges(first, second, x, y) if confirmed else None
        if bridges is None:
            return
        gone, into = second.island, first.island
        self._map.merge(gone, into, x, y)
        for one_end, other_end, seen in [(a, b, shift), *bridges]:
            self._map.link(one_end, other_end, seen)
        self._map.settle(into)
        self._merged.append((gone, into))

    def _is_said_again(self, into: int, gone: int, x_px: float, y_px: float) -> bool:
        """Whether an earlier match, too, put the origin of island `gone` at about (x_px, y_px) in island `into`."""
        for a, b, shift in self._hunches:
            one, two = self._map[a], self._map[b]
            if one.island > two.island:
                one, two, shift = two, one, shift.reversed()
            if (one.island, two.island) == (into, gone):
                off = one.x_px + shift.x_px - two.x_px - x_px, one.y_px + shift.y_px - two.y_px - y_px
                if float(np.hypot(*off)) <= self._config.same_px:
                    return True
        return False

    def _bridges(
        self, first: Keyframe, second: Keyframe, x_px: float, y_px: float
    ) -> list[tuple[int, int, Shift]] | None:
        """Other matches between the island of `first` and that of `second`, were this at (x_px, y_px) in the other;
        None where more places should match and do not than do."""
        links: list[tuple[int, int, Shift]] = []
        refuted = 0
        for number in sorted(self._map.members(second.island), key=lambda n: abs(n - second.number))[:32]:
            moved = self._map[number]
            x, y = moved.x_px + x_px, moved.y_px + y_px
            for overlap, other in self._map.around(first.island, moved.frame, x, y)[:3]:
                if overlap < self._config.link_overlap or (other, number) == (first.number, second.number):
                    continue
                there = self._map[other]
                guess_px = x - there.x_px, y - there.y_px
                within_px = self._config.max_surprise * moved.frame.width
                seen = register_near(self._map.frame(other), moved.frame, guess_px, within_px, self._registration)
                if seen is not None:
                    links.append((other, number, seen))
                elif overlap > 0.2:
                    refuted += 1
        return links if refuted <= len(links) else None
