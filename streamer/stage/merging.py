"""Joining the islands of a stage map that overlap, as far as there is time to find them.

Keyframes of different islands are compared in pairs: a few after every frame, the rest at the end. A match beyond doubt
joins two islands; a weaker one needs a second that agrees. Neither does if more of their keyframes fail to match than
match.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from streamer.stage.config import StageConfig
from streamer.stage.keyframes import Keyframe, StageMap
from streamer.stage.preparation import RegistrationConfig
from streamer.stage.registration import Shift, register, register_near

_NOTHING: Mapping[int, Shift | None] = {}


class IslandMerger:
    """Compares keyframes of different islands of one map, and merges islands that overlap."""

    def __init__(
        self,
        stage_map: StageMap,
        config: StageConfig,
        registration: RegistrationConfig,
        bears_out: Callable[[int, int, Shift], bool] = lambda a, b, shift: False,
    ) -> None:
        """`bears_out`: whether something else says the same as a match of two keyframes, which then needs no other."""
        self._bears_out = bears_out
        self._map = stage_map
        self._config = config
        self._registration = registration
        self._pending: deque[tuple[int, int]] = deque()
        self._hunches: deque[tuple[int, int, Shift]] = deque(maxlen=256)
        self._merged: list[tuple[int, int]] = []
        self.given_up = 0
        """Comparisons given up because too many waited."""

    @property
    def pending(self) -> tuple[tuple[int, int], ...]:
        """Pairs of keyframes waiting to be compared, the next one last."""
        return tuple(self._pending)

    @property
    def hunches(self) -> tuple[tuple[int, int, Shift], ...]:
        """Matches between islands (keyframe, keyframe of a later island, shift from the first), oldest first. Another
        match may confirm one that was too weak by itself."""
        return tuple(self._hunches)

    def restore(
        self, pending: Iterable[tuple[int, int]], hunches: Iterable[tuple[int, int, Shift]], given_up: int
    ) -> None:
        """Continue as the merger that these were taken from. The map is restored separately."""
        self._pending = deque(pending)
        self._hunches.extend(hunches)
        self.given_up = given_up

    def take_merged(self) -> tuple[tuple[int, int], ...]:
        """(gone, into) of the islands merged since the last call, in order."""
        merged, self._merged = self._merged, []
        return tuple(merged)

    def add(self, new: Keyframe, compared: Mapping[int, Shift | None] = _NOTHING) -> None:
        """Queue a new keyframe for comparison with those of other islands.

        `compared`: keyframes that it was already compared with, and the shift from each, None for no match.
        """
        others = [n for island in self._map.islands if island != new.island for n in self._map.members(island)]
        pairs = [(number, new.number) for number in others if number not in compared]
        # There may be time for a few only, so they are shuffled to sample all islands, the same way in every run.
        random.Random(new.number).shuffle(pairs)
        self._pending.extend(pairs)
        while len(self._pending) > self._config.max_pending:
            self._pending.popleft()
            self.given_up += 1
        for number, shift in compared.items():
            if shift is not None and self._map[number].island != new.island:  # an earlier one may have joined them
                self._weigh(number, new.number, shift)

    def compare_with(self, new: int, others: Iterable[int]) -> None:
        """Compare a new keyframe at once with those which something else says that it overlaps."""
        for number in others:
            self._compare_pair(number, new)

    def compare_in_passing(self) -> None:
        """Make the comparisons that there is time for after a frame."""
        self._compare(self._config.comparisons_per_frame if self._are_few() else 1)

    def compare_rest(self) -> None:
        """Make all comparisons that wait, and as many of those given up as there is time for at the end."""
        self._compare(len(self._pending))
        if self.given_up and self._are_few():
            self._pending.extend(self._given_up_pairs())
            self._compare(len(self._pending))

    def _are_few(self) -> bool:
        return len(self._map.islands) <= self._config.few_islands

    def _given_up_pairs(self) -> list[tuple[int, int]]:
        """A sample of the pairs between islands, few of which there was time for while frames came."""
        largest, *smaller = sorted(self._map.islands, key=lambda island: len(self._map.members(island)), reverse=True)
        drawn = random.Random(len(self._map))
        pairs = []
        most = max(1, self._config.max_at_end // max(1, sum(len(self._map.members(island)) for island in smaller)))
        for place, island in enumerate(smaller):
            others = [number for other in (largest, *smaller[:place]) for number in self._map.members(other)]
            for number in self._map.members(island):
                pairs += [(other, number) for other in drawn.sample(others, min(most, len(others)))]
        # Sorted by place in the larger island, so that a picture dropped from memory is prepared only once.
        return sorted(pairs[: self._config.max_at_end])

    def _compare(self, limit: int) -> None:
        done = 0
        while self._pending and done < limit:
            a, b = self._pending.pop()
            if self._map[a].island == self._map[b].island:
                continue
            done += 1
            self._compare_pair(a, b)

    def _compare_pair(self, a: int, b: int) -> None:
        if self._map[a].island == self._map[b].island:
            return
        shift = register(self._map.frame(a), self._map.frame(b), self._registration)
        if shift is not None and not self._config.is_distorted(shift):
            self._weigh(a, b, shift)

    def _weigh(self, a: int, b: int, shift: Shift) -> None:
        """Two islands seem to match: merge them if the match is beyond doubt or agrees with an earlier one."""
        if self._map[a].island > self._map[b].island:
            a, b, shift = b, a, shift.reversed()
        first, second = self._map[a], self._map[b]
        x, y = first.x_px + shift.x_px - second.x_px, first.y_px + shift.y_px - second.y_px
        confirmed = (
            self._config.is_beyond_doubt(shift)
            or self._is_confirmed(first.island, second.island, x, y)
            or self._bears_out(a, b, shift)
        )
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

    def _is_confirmed(self, into: int, gone: int, x_px: float, y_px: float) -> bool:
        """Whether an earlier match also put the origin of island `gone` near (x_px, y_px) in island `into`."""
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
        """Other matches between the two islands if that of `second` lay at (x_px, y_px) in that of `first`; None if
        more places fail to match than match."""
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
