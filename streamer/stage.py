"""Stage tracking: the place of every frame on the slide, from the frames alone.

A frame is first correlated with the keyframe that the last one was seen from; that is the fast path, and it holds at
any shift that leaves a few per cent of the field in common. Where it fails, all other keyframes are tried, the near
ones first: a jump, or a return to where the stage has been. What fits nowhere starts a new island, unless it is
too poor a picture for that (then it is lost); an island that turns out to overlap another one is merged into it.

The camera must not be turned or its magnification changed in a session: frames after such a change are recognised by
their features, said to be so, and given no position.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from streamer.placement import Placement
from streamer.prepared import PreparedFrame, RegistrationConfig, prepare, restored
from streamer.records import StagePosition
from streamer.registration import Shift, at_rest, find_similarity, refine, register
from streamer.stagemap import Keyframe, KeyframeState, StageMap


@dataclass(frozen=True, slots=True)
class StageConfig:
    """When a keyframe is made, how far is searched, and what is too poor to start an island."""

    keyframe_overlap: float = 0.75
    """A frame that shares less than this with every keyframe becomes one."""
    keyframe_overlap_islands: float = 0.85
    """The same while there are several islands: any frame may be the one that joins two of them."""
    keyframe_overlap_smeared: float = 0.3
    """The same for a frame that the stage's motion smeared: what rests in its place is worth waiting for."""
    max_smear: float = 1.2
    """Above it a picture is taken for smeared; as a keyframe it is replaced as soon as a sharper one comes."""
    link_overlap: float = 0.06
    """A new keyframe is measured against those that share more than this with it."""
    max_links: int = 6
    max_search: int = 256
    """Keyframes that one frame that fits nowhere is compared with at once."""
    max_search_poor: int = 8
    """The same for a frame that is too poor to be counted."""
    poor_strength: float = 18.0
    """What is asked of a match of such a frame; it only says where the stage is, and no cell depends on it."""
    comparisons_per_frame: int = 12
    """Keyframes of different islands compared in passing, at about 0.2 ms each."""
    few_islands: int = 8
    """With more islands the fields hardly belong together, and one comparison a frame is made."""
    max_pending: int = 20_000
    """Comparisons between islands that wait; beyond it the oldest are given up."""
    max_at_end: int = 20_000
    """Comparisons between islands that are made at the end where some were given up before; 4 s at most."""
    sure_strength: float = 52.0
    """A match this strong is beyond doubt; others join islands, or find a stage that jumped, only in pairs."""
    same_px: float = 6.0
    """Two matches that put an island at places no further apart say the same."""
    max_surprise: float = 0.15
    """A link that would move a keyframe by more than this share of the field is not believed."""
    settle_px: float = 0.25
    """A link that is off by less does not make the island settle anew."""
    settle_all_px: float = 3.0
    """A link that is off by less only moves what is near."""
    min_contrast: float = 0.004
    """Of a picture that may start an island; measured fields have 0.008 and more, blank ones with noise 0.002."""
    min_coherence: float = 0.15
    """Of a picture that may start an island; measured fields have 0.55 and more, pure noise 0."""
    max_turn_rad: float = 0.015
    max_growth: float = 0.015
    """A camera turned or a magnification changed by more is not registered. Real neighbours differ by up to 0.009."""
    max_start_smear: float = 1.5
    """While the stage is being followed, a picture smeared more than this starts no island: it will come to rest."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """What a tracker remembers besides its keyframes."""

    next_island: int
    reference: int | None
    pending: tuple[tuple[int, int], ...]
    distorted: Mapping[int, str]
    given_up: int
    was_found: bool
    last: tuple[PreparedFrame, Placement] | None
    """The last frame and what became of it, without the corrections that came with it."""
    found: tuple[PreparedFrame, int, Shift] | None
    hunches: tuple[tuple[int, int, Shift], ...]


@dataclass(frozen=True, slots=True, eq=False)
class StageChanges:
    """What is new in a tracker since it was last asked."""

    keyframes: tuple[tuple[KeyframeState, PreparedFrame], ...]
    """Those that are new or changed; a keyframe's picture never changes."""
    tracker: TrackerState


class StageTracker:
    """Positions of one source's frames. `prepare` may run in any thread, the rest in one, in the frames' order."""

    def __init__(self, config: StageConfig | None = None, registration: RegistrationConfig | None = None) -> None:
        self._config = config or StageConfig()
        self._registration = registration or RegistrationConfig()
        self._lenient = replace(self._registration, min_strength=self._config.poor_strength)
        self._map = StageMap(announce_px=self._config.settle_px)
        self._reference: int | None = None
        self._last: tuple[PreparedFrame, Placement] | None = None
        self._found: tuple[PreparedFrame, int, Shift] | None = None
        """The last frame, its keyframe and the shift from it, where it is good and was not made a keyframe."""
        self._was_found = False
        """Whether the last frame was found on the map; then one that is not may show a turned camera."""
        self._pending: deque[tuple[int, int]] = deque()
        self._hunches: deque[tuple[int, int, Shift]] = deque(maxlen=256)
        """Matches between keyframes of different islands that were not sure enough to merge them."""
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

    @property
    def forgotten(self) -> int:
        """Keyframes whose picture was given up because too many were kept; their places are not recognised again."""
        return self._map.forgotten

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
        merged: list[tuple[int, int]] = []
        anchor, shift, reason = self._place(frame, may_start, merged)
        few = len(self._map.islands) <= self._config.few_islands
        self._compare_islands(self._config.comparisons_per_frame if few else 1, merged)
        placement = self._placement(anchor, shift, reason, merged)
        self._last = (frame, placement)
        return placement

    def finish(self) -> Placement:
        """Do what comparisons between islands still wait; a Placement without position, for its corrections."""
        merged: list[tuple[int, int]] = []
        self._compare_islands(len(self._pending), merged)
        if self.given_up and len(self._map.islands) <= self._config.few_islands:
            self._pending.extend(self._given_up_pairs())
            self._compare_islands(len(self._pending), merged)
        return self._placement(None, None, "end", merged)

    def take_changes(self) -> StageChanges:
        """What `restore` needs besides all that this gave before: small, so that it can be kept after every frame."""
        last = self._last
        if last is not None:
            last = last[0], Placement(last[1].position, last[1].anchor, last[1].reason)
        tracker = TrackerState(
            next_island=self._map.next_island,
            reference=self._reference,
            pending=tuple(self._pending),
            distorted=dict(self._distorted),
            given_up=self.given_up,
            was_found=self._was_found,
            last=last,
            found=self._found,
            hunches=tuple(self._hunches),
        )
        changed = tuple((state, self._map[state.number].frame) for state in self._map.take_changed())
        return StageChanges(changed, tracker)

    def restore(self, keyframes: Iterable[tuple[KeyframeState, PreparedFrame]], tracker: TrackerState) -> None:
        """Make a new tracker go on as the one that `keyframes` (all, by number) and `tracker` were taken from."""
        self._map.restore(keyframes, tracker.next_island)
        self._reference = tracker.reference
        self._pending = deque(tracker.pending)
        self._distorted = dict(tracker.distorted)
        self.given_up = tracker.given_up
        self._was_found = tracker.was_found
        self._last = tracker.last
        self._found = tracker.found
        self._hunches.extend(tracker.hunches)

    def _placement(
        self,
        anchor: int | None,
        shift: Shift | None,
        reason: str | None,
        merged: list[tuple[int, int]],
    ) -> Placement:
        corrections = self._map.corrections()
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
        self, frame: PreparedFrame, may_start: bool, merged: list[tuple[int, int]]
    ) -> tuple[int | None, Shift | None, str | None]:
        """(keyframe, shift from it, why not)."""
        good = self._may_start(frame, may_start)
        found = self._rested(frame)
        if found is None:
            frame = restored(frame)
        compared: dict[int, Shift | None] = {}
        if found is None:
            most = self._config.max_search if good else self._config.max_search_poor
            found = self._locate(frame, most, compared)
        if found is None:
            if not good or (self._was_found and frame.smear > self._config.max_start_smear):
                return self._follow(frame)
            self._keep_last()
            return self._start(frame, compared, merged)
        self._was_found = True
        number, shift = found
        self._reference = number
        keyframe = self._map[number]
        if not good or not self._is_worth_keeping(frame, keyframe, shift):
            self._found = (frame, number, shift) if good else None
            return number, shift, None
        self._found = None
        return self._keep(frame, number, shift).number, None, None

    def _keep(self, frame: PreparedFrame, number: int, shift: Shift) -> Keyframe:
        """Make a keyframe of a frame that lies `shift` from keyframe `number`."""
        keyframe = self._map[number]
        new = self._map.add(frame, keyframe.island, keyframe.x_px + shift.x_px, keyframe.y_px + shift.y_px)
        self._map.link(number, new.number, shift)
        self._tie(new, besides=number)
        self._await_comparison(new)
        self._reference = new.number
        return new

    def _keep_last(self) -> None:
        """Before the stage jumps, keep where it jumped from: another way may lead there."""
        if self._found is not None:
            frame, number, shift = self._found
            self._found = None
            if shift.overlap < self._config.keyframe_overlap_islands and frame.smear <= self._config.max_smear:
                self._keep(frame, number, shift)

    def _is_worth_keeping(self, frame: PreparedFrame, keyframe: Keyframe, shift: Shift) -> bool:
        """Whether a found frame should become a keyframe."""
        config = self._config
        if frame.smear > config.max_smear:
            return shift.overlap < config.keyframe_overlap_smeared
        if keyframe.frame.smear > config.max_smear and frame.smear < keyframe.frame.smear - 0.1:
            return True
        several = len(self._map.islands) > 1
        return shift.overlap < (config.keyframe_overlap_islands if several else config.keyframe_overlap)

    def _start(
        self, frame: PreparedFrame, compared: dict[int, Shift | None], merged: list[tuple[int, int]]
    ) -> tuple[int | None, Shift | None, str | None]:
        """A new island with this frame, which fits none of the keyframes `compared` beyond doubt."""
        reason = self._distortion(frame) if self._was_found else None
        self._was_found = False
        new = self._map.add(frame, self._map.new_island(), 0.0, 0.0)
        if reason is not None:
            self._distorted[new.island] = reason
        self._await_comparison(new, compared)
        self._reference = new.number
        for number, shift in compared.items():
            if shift is not None:
                self._weigh(number, new.number, shift, merged)
        return new.number, None, None

    def _follow(self, frame: PreparedFrame) -> tuple[int | None, Shift | None, str | None]:
        """Where a frame too poor to be counted lies from the last keyframe, if anything can be made out."""
        if self._reference is not None:
            shift = register(self._map.frame(self._reference), frame, self._lenient)
            if shift is not None:
                return self._reference, shift, None
        config = self._config
        poor = frame.contrast < config.min_contrast or frame.coherence < config.min_coherence
        return None, None, "no texture" if poor else "blurred"

    def _may_start(self, frame: PreparedFrame, may_start: bool) -> bool:
        config = self._config
        return may_start and frame.contrast >= config.min_contrast and frame.coherence >= config.min_coherence

    def _rested(self, frame: PreparedFrame) -> tuple[int, Shift] | None:
        """As `_locate`, for a frame that shows what the last one showed: it lies about where that one lay."""
        if self._last is None or self._reference is None or self._last[1].anchor != self._reference:
            return None
        before, keyframe = self._last[1].position, self._map[self._reference]
        if before is None or not at_rest(self._last[0], frame):
            return None
        guess = before.x_px - keyframe.announced_px[0], before.y_px - keyframe.announced_px[1]
        shift = refine(keyframe.frame, frame, guess, self._registration)
        if shift is None or self._is_distorted(shift):
            return None
        return self._best_view(frame, keyframe.number, shift)

    def _locate(self, frame: PreparedFrame, most: int, compared: dict[int, Shift | None]) -> tuple[int, Shift] | None:
        """The keyframe that sees most of this frame, and the shift from it; at most `most` are tried.

        What is found elsewhere than by the last keyframe must be beyond doubt, or confirmed by a second one.
        """
        if self._reference is None:
            return None
        for number in islice(self._candidates(self._map[self._reference]), most):
            shift = register(self._map.frame(number), frame, self._registration)
            compared[number] = shift
            if shift is None or self._is_distorted(shift):
                continue
            better = self._best_view(frame, number, shift)
            if better is None:
                continue
            if number == self._reference or better[0] != number or self._is_beyond_doubt(shift):
                return better
        return None

    def _candidates(self, reference: Keyframe) -> Iterator[int]:
        """Keyframes to look for a frame by: the last one, those around it, and only then all by their distance."""
        yield reference.number
        around = self._map.around(reference.island, reference.frame, reference.x_px, reference.y_px)
        tried = {reference.number, *(number for _, number in around)}
        yield from (number for _, number in around if number != reference.number)
        for number in self._map.nearest(reference.island, reference.x_px, reference.y_px):
            if number not in tried:
                yield number

    def _best_view(self, frame: PreparedFrame, number: int, shift: Shift) -> tuple[int, Shift] | None:
        """The keyframe nearest to a frame found by `number`; None where the near ones contradict the finding."""
        keyframe = self._map[number]
        x, y = keyframe.x_px + shift.x_px, keyframe.y_px + shift.y_px
        for overlap, other in self._best_first(keyframe.island, frame, x, y)[:3]:
            if other == number:
                break
            seen = self._measure(other, frame, x, y)
            if seen is not None:
                return other, seen
            if overlap > 0.4 and shift.overlap < 0.15:
                return None
        return number, shift

    def _best_first(self, island: int, frame: PreparedFrame, x_px: float, y_px: float) -> list[tuple[float, int]]:
        """(overlap, number) of the keyframes to place a frame by: sharp ones first, then those that see most of it."""
        around = self._map.around(island, frame, x_px, y_px)
        worth = [(o / max(1.0, self._map[n].frame.smear) ** 4, o, n) for o, n in around]
        return [(overlap, number) for _, overlap, number in sorted(worth, key=lambda entry: (-entry[0], entry[2]))]

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

    def _tie(self, new: Keyframe, besides: int) -> None:
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
            self._map.settle(new.island, new.number if off < self._config.settle_all_px else None)

    def _is_distorted(self, shift: Shift) -> bool:
        return shift.overlap > 0.3 and (
            abs(shift.turn_rad) > self._config.max_turn_rad or abs(shift.growth) > self._config.max_growth
        )

    def _distortion(self, frame: PreparedFrame) -> str | None:
        """Whether a frame that fits nowhere shows what the last one showed, turned or at another magnification."""
        if self._last is None or self._last[1].anchor is None:
            return None
        similarity = find_similarity(self._last[0], frame, self._registration)
        if similarity is None:
            return None
        growth, turn_rad = similarity
        if abs(turn_rad) > self._config.max_turn_rad:
            return f"camera turned by {np.degrees(turn_rad):.1f} degrees"
        if abs(growth) > self._config.max_growth:
            return f"magnification changed to {100 * (1 + growth):.0f} %"
        return None

    def _await_comparison(self, new: Keyframe, compared: Collection[int] = ()) -> None:
        others = [n for island in self._map.islands if island != new.island for n in self._map.members(island)]
        pairs = [(number, new.number) for number in others if number not in compared]
        # There may be time for a few of them only: a sample of the other islands, the same one whenever it is drawn.
        random.Random(new.number).shuffle(pairs)
        self._pending.extend(pairs)
        while len(self._pending) > self._config.max_pending:
            self._pending.popleft()
            self.given_up += 1

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

    def _compare_islands(self, limit: int, merged: list[tuple[int, int]]) -> None:
        done = 0
        while self._pending and done < limit:
            a, b = self._pending.pop()
            if self._map[a].island == self._map[b].island:
                continue
            done += 1
            shift = register(self._map.frame(a), self._map.frame(b), self._registration)
            if shift is not None and not self._is_distorted(shift):
                self._weigh(a, b, shift, merged)

    def _is_beyond_doubt(self, shift: Shift) -> bool:
        return shift.strength >= self._config.sure_strength

    def _weigh(self, a: int, b: int, shift: Shift, merged: list[tuple[int, int]]) -> None:
        """Keyframes of two islands seem to match: merge when that is beyond doubt, or when two matches say the same."""
        if self._map[a].island > self._map[b].island:
            a, b, shift = b, a, shift.reversed()
        first, second = self._map[a], self._map[b]
        x, y = first.x_px + shift.x_px - second.x_px, first.y_px + shift.y_px - second.y_px
        confirmed = self._is_beyond_doubt(shift)
        for other_a, other_b, other in self._hunches:
            one, two = self._map[other_a], self._map[other_b]
            if one.island > two.island:
                one, two, other = two, one, other.reversed()
            if (one.island, two.island) == (first.island, second.island):
                off = one.x_px + other.x_px - two.x_px - x, one.y_px + other.y_px - two.y_px - y
                confirmed |= float(np.hypot(*off)) <= self._config.same_px
        self._hunches.append((a, b, shift))
        if not confirmed:
            return
        links = self._bridges(first, second, x, y)
        if links is None:
            return
        gone, into = second.island, first.island
        self._map.merge(gone, into, x, y)
        reason = self._distorted.pop(gone, None)
        if reason is None:  # what fits an island of the unchanged camera was not taken by a changed one
            self._distorted.pop(into, None)
        for one_end, other_end, seen in [(a, b, shift), *links]:
            self._map.link(one_end, other_end, seen)
        self._map.settle(into)
        merged.append((gone, into))

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
                seen = self._measure(other, moved.frame, x, y)
                if seen is not None:
                    links.append((other, number, seen))
                elif overlap > 0.2:
                    refuted += 1
        return links if refuted <= len(links) else None
