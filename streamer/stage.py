"""Stage tracking: the place of every frame on the slide, from the frames alone.

A frame is first correlated with the keyframe that the last one was seen from; that is the fast path, and it holds at
any shift that leaves a few per cent of the field in common. Where it fails, all other keyframes are tried, the near
ones first: a jump, or a return to where the stage has been. What fits nowhere starts a new island, unless it is
too poor a picture for that (then it is lost); an island that turns out to overlap another one is merged into it.

The camera must not be turned or its magnification changed in a session: frames after such a change are recognised by
their features, said to be so, and given no position.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.placement import Placement
from streamer.records import StagePosition
from streamer.registration import (
    PreparedFrame,
    RegistrationConfig,
    Shift,
    find_similarity,
    prepare,
    refine,
    register,
)
from streamer.stagemap import Keyframe, StageMap


@dataclass(frozen=True, slots=True)
class StageConfig:
    """When a keyframe is made, how far is searched, and what is too poor to start an island."""

    keyframe_overlap: float = 0.6
    """A frame that shares less than this with every keyframe becomes one."""
    keyframe_overlap_islands: float = 0.85
    """The same while there are several islands: any frame may be the one that joins two of them."""
    link_overlap: float = 0.06
    """A new keyframe is measured against those that share more than this with it."""
    max_links: int = 8
    max_search: int = 192
    """Keyframes that one frame that fits nowhere is compared with at once."""
    comparisons_per_frame: int = 24
    """Keyframes of different islands compared in passing, at about 0.3 ms each."""
    max_pending: int = 20_000
    """Comparisons between islands that wait; beyond it the oldest are given up."""
    max_surprise: float = 0.15
    """A link that would move a keyframe by more than this share of the field is not believed."""
    settle_px: float = 0.25
    """A link that is off by less does not make the island settle anew."""
    min_contrast: float = 0.004
    """Of a picture that may start an island; measured fields have 0.008 and more, blank ones with noise 0.002."""
    min_coherence: float = 0.15
    """Of a picture that may start an island; measured fields have 0.55 and more, pure noise 0."""
    max_turn_rad: float = 0.02
    max_growth: float = 0.02


class StageTracker:
    """Positions of one source's frames. `prepare` may run in any thread, the rest in one, in the frames' order."""

    def __init__(self, config: StageConfig | None = None, registration: RegistrationConfig | None = None) -> None:
        self._config = config or StageConfig()
        self._registration = registration or RegistrationConfig()
        self._map = StageMap(announce_px=self._config.settle_px)
        self._reference: int | None = None
        self._last: tuple[PreparedFrame, Placement] | None = None
        self._pending: deque[tuple[int, int]] = deque()
        self._distorted: dict[int, str] = {}
        self.given_up = 0
        """Comparisons between islands that were given up because too many waited."""

    @property
    def islands(self) -> tuple[int, ...]:
        """The islands that there are now, those of a turned or rescaled camera left out."""
        return tuple(island for island in self._map.islands if island not in self._distorted)

    @property
    def keyframes(self) -> int:
        return len(self._map)

    def anchor_position(self, anchor: int) -> StagePosition:
        """Where a keyframe lies by now."""
        keyframe = self._map[anchor]
        return StagePosition(keyframe.island, keyframe.x_px, keyframe.y_px, 1.0)

    def prepare(self, image: npt.NDArray[np.uint8]) -> PreparedFrame:
        """What `update` needs of a uint8 (H, W, 3) BGR image; depends on nothing else, so any thread may do it."""
        return prepare(image, self._registration)

    def update(self, frame: PreparedFrame, frame_id: int, may_start: bool = True) -> Placement:
        """Place the next frame. With `may_start` False (a frame that the quality gate rejects) it can be found on the
        map, and starts no island when it is not."""
        if self._last is not None and np.array_equal(self._last[0].fine, frame.fine):
            before = self._last[1]
            return Placement(before.position, before.anchor, before.reason)
        touched: set[int] = set()
        merged: list[tuple[int, int]] = []
        anchor, shift, reason = self._place(frame, may_start, touched)
        self._compare_islands(self._config.comparisons_per_frame, touched, merged)
        placement = self._placement(anchor, shift, reason, touched, merged)
        self._last = (frame, placement)
        return placement

    def finish(self) -> Placement:
        """Do what comparisons between islands still wait; a Placement without position, for its corrections."""
        touched: set[int] = set()
        merged: list[tuple[int, int]] = []
        self._compare_islands(len(self._pending), touched, merged)
        return self._placement(None, None, "end", touched, merged)

    def _placement(
        self,
        anchor: int | None,
        shift: Shift | None,
        reason: str | None,
        touched: set[int],
        merged: list[tuple[int, int]],
    ) -> Placement:
        corrections = self._map.corrections(sorted(touched))
        if anchor is None:
            return Placement(None, None, reason, corrections, tuple(merged))
        keyframe = self._map[anchor]
        if keyframe.island in self._distorted:
            return Placement(None, None, self._distorted[keyframe.island], corrections, tuple(merged))
        x, y = keyframe.announced_px
        if shift is None:
            position = StagePosition(keyframe.island, x, y, 1.0)
        else:
            position = StagePosition(keyframe.island, x + shift.x_px, y + shift.y_px, max(0.0, shift.ncc))
        return Placement(position, anchor, None, corrections, tuple(merged))

    def _place(
        self, frame: PreparedFrame, may_start: bool, touched: set[int]
    ) -> tuple[int | None, Shift | None, str | None]:
        """(keyframe, shift from it, why not)."""
        found = self._locate(frame)
        if found is None:
            return self._start(frame, may_start)
        number, shift = found
        self._reference = number
        keyframe = self._map[number]
        several = len(self._map.islands) > 1
        enough = self._config.keyframe_overlap_islands if several else self._config.keyframe_overlap
        if shift.overlap >= enough or not self._may_start(frame, may_start):
            return number, shift, None
        new = self._map.add(frame, keyframe.island, keyframe.x_px + shift.x_px, keyframe.y_px + shift.y_px)
        self._map.link(number, new.number, shift)
        self._tie(new, touched, besides=number)
        self._await_comparison(new)
        self._reference = new.number
        return new.number, None, None

    def _start(self, frame: PreparedFrame, may_start: bool) -> tuple[int | None, Shift | None, str | None]:
        if not self._may_start(frame, may_start):
            poor = frame.contrast < self._config.min_contrast or frame.coherence < self._config.min_coherence
            return None, None, "no texture" if poor else "blurred"
        reason = self._distortion(frame)
        new = self._map.add(frame, self._map.new_island(), 0.0, 0.0)
        if reason is not None:
            self._distorted[new.island] = reason
        self._await_comparison(new)
        self._reference = new.number
        return new.number, None, None

    def _may_start(self, frame: PreparedFrame, may_start: bool) -> bool:
        config = self._config
        return may_start and frame.contrast >= config.min_contrast and frame.coherence >= config.min_coherence

    def _locate(self, frame: PreparedFrame) -> tuple[int, Shift] | None:
        """The keyframe that sees most of this frame, and the shift from it."""
        if self._reference is None:
            return None
        reference = self._map[self._reference]
        numbers = iter((self._reference,))
        for attempt in range(self._config.max_search):
            number = next(numbers, None)
            if number is None and attempt == 1:
                near = self._map.nearest(reference.island, reference.x_px, reference.y_px)
                numbers = (other for other in near if other != self._reference)
                number = next(numbers, None)
            if number is None:
                return None
            shift = register(self._map.frame(number), frame, self._registration)
            if shift is None or self._is_distorted(shift):
                continue
            better = self._best_view(frame, number, shift)
            if better is not None:
                return better
        return None

    def _best_view(self, frame: PreparedFrame, number: int, shift: Shift) -> tuple[int, Shift] | None:
        """The keyframe nearest to a frame found by `number`; None where the near ones contradict the finding."""
        keyframe = self._map[number]
        x, y = keyframe.x_px + shift.x_px, keyframe.y_px + shift.y_px
        for overlap, other in self._map.around(keyframe.island, frame, x, y)[:3]:
            if other == number or overlap < shift.overlap + 0.05:
                break
            seen = self._measure(other, frame, x, y)
            if seen is not None:
                return other, seen
            if overlap > 0.4 and shift.overlap < 0.15:
                return None
        return number, shift

    def _measure(self, number: int, frame: PreparedFrame, x_px: float, y_px: float) -> Shift | None:
        """Shift from a keyframe to a frame that should lie at (x_px, y_px)."""
        keyframe = self._map[number]
        guess = (x_px - keyframe.x_px, y_px - keyframe.y_px)
        shift = refine(self._map.frame(number), frame, guess, self._registration)
        if shift is None:
            shift = register(self._map.frame(number), frame, self._registration)
            if shift is not None:
                off = np.hypot(shift.x_px - guess[0], shift.y_px - guess[1])
                if off > self._config.max_surprise * frame.width:
                    return None
        return shift

    def _tie(self, new: Keyframe, touched: set[int], besides: int) -> None:
        """Measure a new keyframe against its neighbours; the island settles anew when they disagree with its place."""
        around = self._map.around(new.island, new.frame, new.x_px, new.y_px)
        off = 0.0
        for overlap, number in around[: self._config.max_links + 1]:
            if number in (new.number, besides) or overlap < self._config.link_overlap:
                continue
            shift = self._measure(number, new.frame, new.x_px, new.y_px)
            if shift is not None:
                off = max(off, self._map.link(number, new.number, shift))
        if off > self._config.settle_px:
            self._map.settle(new.island)
            new.announced_px = (new.x_px, new.y_px)
            touched.add(new.island)

    def _is_distorted(self, shift: Shift) -> bool:
        return shift.overlap > 0.3 and (
            abs(shift.turn_rad) > self._config.max_turn_rad or abs(shift.growth) > self._config.max_growth
        )

    def _distortion(self, frame: PreparedFrame) -> str | None:
        """Whether a frame that fits nowhere shows what the last one showed, turned or at another magnification."""
        if self._last is None or self._last[1].anchor is None:
            return None
        similarity = find_similarity(self._last[0], frame)
        if similarity is None:
            return None
        growth, turn_rad = similarity
        if abs(turn_rad) > self._config.max_turn_rad:
            return f"camera turned by {np.degrees(turn_rad):.1f} degrees"
        if abs(growth) > self._config.max_growth:
            return f"magnification changed to {100 * (1 + growth):.0f} %"
        return None

    def _await_comparison(self, new: Keyframe) -> None:
        if len(self._map.islands) < 2 or new.island in self._distorted:
            return
        for island in self._map.islands:
            if island != new.island and island not in self._distorted:
                self._pending.extend((number, new.number) for number in self._map.members(island))
        while len(self._pending) > self._config.max_pending:
            self._pending.popleft()
            self.given_up += 1

    def _compare_islands(self, limit: int, touched: set[int], merged: list[tuple[int, int]]) -> None:
        done = 0
        while self._pending and done < limit:
            a, b = self._pending.pop()
            first, second = self._map[a], self._map[b]
            if first.island == second.island:
                continue
            done += 1
            shift = register(self._map.frame(a), self._map.frame(b), self._registration)
            if shift is None or self._is_distorted(shift):
                continue
            if first.island > second.island:
                a, b, first, second = b, a, second, first
                shift = shift.reversed()
            self._merge(first, second, shift, touched, merged)

    def _merge(
        self, first: Keyframe, second: Keyframe, shift: Shift, touched: set[int], merged: list[tuple[int, int]]
    ) -> None:
        """Join the island of `second` to that of `first`, unless other keyframes of both contradict it."""
        x = first.x_px + shift.x_px - second.x_px
        y = first.y_px + shift.y_px - second.y_px
        gone, into = second.island, first.island
        links = []
        for number in sorted(self._map.members(gone), key=lambda n: abs(n - second.number))[:32]:
            moved = self._map[number]
            around = self._map.around(into, moved.frame, moved.x_px + x, moved.y_px + y)
            for overlap, other in around[:3]:
                if overlap < self._config.link_overlap or (other, number) == (first.number, second.number):
                    continue
                seen = self._measure(other, moved.frame, moved.x_px + x, moved.y_px + y)
                if seen is not None:
                    links.append((other, number, seen))
                elif overlap > 0.4 and shift.overlap < 0.15:
                    return
        self._map.merge(gone, into, x, y)
        for other, number, seen in [(first.number, second.number, shift), *links]:
            self._map.link(other, number, seen)
        self._map.settle(into)
        touched.add(into)
        merged.append((gone, into))
