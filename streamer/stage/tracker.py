"""Stage tracking: the position of every frame on the slide, from the frames alone.

A frame is first correlated with the keyframe that placed the last one. This fast path works at any shift with a few per
cent of overlap. If it fails, the stage has jumped or returned, and all other keyframes are tried, the nearest first. A
frame that fits nowhere starts a new island, or is lost if its picture is too poor for that. Islands that turn out to
overlap are merged (streamer/stage/merging.py).

The camera must not be turned or its magnification changed in a session. Frames after such a change are recognised by
their features; they are reported with that reason and get no position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from streamer.records import PositionsStatus, StagePosition
from streamer.stage.arranging import IslandArranger
from streamer.stage.config import StageConfig
from streamer.stage.hidden import HiddenParts, Mask
from streamer.stage.keyframes import Keyframe, KeyframeState, StageMap
from streamer.stage.merging import IslandMerger
from streamer.stage.placement import Placement, without_news
from streamer.stage.positions import StagePositions
from streamer.stage.preparation import PreparedFrame, RegistrationConfig, prepare, restored
from streamer.stage.readings import KeyframeReading, Reading
from streamer.stage.registration import Shift, at_rest, find_similarity, refine, register, register_near
from streamer.stage.static_mask import BoxesPx, StaticMask, learn, visible, widened, with_given
from streamer.stage.tracker_state import StageChanges, TrackerState


class StageTracker:
    """Positions of one source's frames. `prepare` may run in any thread, the rest in one, in the frames' order."""

    def __init__(self, config: StageConfig | None = None, ignored_px: BoxesPx = ()) -> None:
        """`ignored_px`: x1, y1, x2, y2 of parts of every frame that are known to show no slide, in frame pixels."""
        self._config = config or StageConfig()
        self._registration = RegistrationConfig()
        self._lenient = replace(self._registration, min_strength=self._config.poor_strength)
        self._map = StageMap(announce_px=self._config.settle_px)
        self._positions = StagePositions(self._map)
        self._arranger = IslandArranger(self._map, self._positions)
        self._merger = IslandMerger(self._map, self._config, self._registration, self._positions.bears_out_pair)
        self._reference: int | None = None
        self._last: tuple[PreparedFrame, Placement] | None = None
        self._found: tuple[PreparedFrame, int, Shift] | None = None
        """The last frame, its keyframe and the shift from it, if it is good and did not become a keyframe."""
        self._was_found = False
        """Whether the last frame was on the map. If so, one that is not may come from a turned camera."""
        self._distorted: dict[int, str] = {}
        """Islands that are left out, and what had changed at the camera."""
        self._static = StaticMask()
        self._ignored_px = ignored_px
        self._parts: HiddenParts | None = None
        self._hidden: Mask | None = None
        """What is left out of every picture: the hidden parts, and what flat-fielding makes of them."""

    @property
    def islands(self) -> tuple[int, ...]:
        """The present islands as they are published, without those of a turned or rescaled camera."""
        return tuple(dict.fromkeys(self._map.joins.root(island) for island in self._undistorted()))

    @property
    def positions(self) -> PositionsStatus | None:
        """What was made of the positions that frames came with; None: none did."""
        return self._positions.status

    @property
    def keyframes(self) -> int:
        return len(self._map)

    @property
    def forgotten(self) -> int:
        """Keyframes whose picture was dropped to bound memory; their places are not recognised again."""
        return self._map.forgotten

    @property
    def given_up(self) -> int:
        """Comparisons between islands given up because too many waited."""
        return self._merger.given_up

    @property
    def hidden(self) -> HiddenParts | None:
        """The parts of the frames that are known to show no slide; None: none are."""
        return self._parts

    def anchor_position(self, anchor: int) -> StagePosition:
        """The present position of a keyframe."""
        keyframe = self._map[anchor]
        return StagePosition(*self._map.joins.published(keyframe.island, keyframe.x_px, keyframe.y_px), 1.0)

    def picture(self, anchor: int) -> PreparedFrame:
        """Of a keyframe; without one where it was forgotten."""
        return self._map[anchor].frame

    def prepare(self, image: npt.NDArray[np.uint8]) -> PreparedFrame:
        """What `update` needs of a uint8 (H, W, 3) BGR image. Depends on nothing else, so any thread may call it."""
        return prepare(image, self._registration)

    def update(
        self,
        frame: PreparedFrame,
        may_start: bool = True,
        reading: Reading | None = None,
        *,
        unusable: bool = False,
    ) -> Placement:
        """Place the next frame. With `may_start` False (the quality gate rejects it) it never starts an island.
        `reading`: where its source says that it was taken. `unusable`: it said what is no position."""
        self._positions.begin(reading, unusable=unusable)
        if self._positions.is_tile:
            placement = self._place_tile(frame)
            self._last = (frame, placement)
            return placement
        if self._last is not None and np.array_equal(self._last[0].fine, frame.fine):
            return without_news(self._last[1])
        if self._is_good(frame, may_start):
            self._learn(learn(self._static, frame, self._ignored_px))
        anchor, shift, reason = self._place(frame, may_start)
        self._merger.compare_in_passing()
        if reading is not None:
            self._arrange(frame)
        placement = replace(self._placement(anchor, shift, reason), hidden=self._hidden_parts(frame))
        self._last = (frame, placement)
        return placement

    def _place_tile(self, frame: PreparedFrame) -> Placement:
        """Place a tile of one picture where its source says, whatever it shows: on one island, whose only keyframe is
        its first frame, so that memory stays flat, and empty glass is placed as well."""
        anchor = self._positions.first_keyframe
        if anchor is None:
            anchor, _, _ = self._start(frame, {}, None)
            assert anchor is not None
        away = self._positions.guess_px(anchor)
        assert away is not None
        keyframe = self._map[anchor]
        x, y = keyframe.announced_px
        position = StagePosition(keyframe.announced_island, x + away[0], y + away[1], 1.0)
        return Placement(position, anchor, None, self._map.corrections(), self._take_merged())

    def finish(self) -> Placement:
        """Make the comparisons between islands that still wait. The Placement has corrections and no position."""
        self._merger.compare_rest()
        self._arranger.arrange(self._undistorted())
        return self._placement(None, None, "end")

    def take_changes(self) -> StageChanges:
        """What `restore` needs beyond earlier changes; small enough to be stored after every frame."""
        last = self._last
        if last is not None:
            last = last[0], without_news(last[1])
        tracker = TrackerState(
            next_island=self._map.next_island,
            reference=self._reference,
            pending=self._merger.pending,
            distorted=dict(self._distorted),
            given_up=self._merger.given_up,
            was_found=self._was_found,
            last=last,
            found=self._found,
            hunches=self._merger.hunches,
            static=self._static,
            positions=self._positions.memory,
        )
        changed = tuple((state, self._map[state.number].frame) for state in self._map.take_changed())
        return StageChanges(changed, tracker, self._positions.take_new_readings())

    def restore(
        self,
        keyframes: Iterable[tuple[KeyframeState, PreparedFrame]],
        tracker: TrackerState,
        readings: Iterable[KeyframeReading] = (),
    ) -> None:
        """Continue as the tracker that `keyframes` (all, by number), `tracker` and `readings` (all, in their order)
        were taken from. ValueError for what contradicts itself."""
        self._map.restore(keyframes, tracker.next_island)
        if tracker.positions is not None:
            self._positions.restore(tracker.positions, readings)
        for pair in (*tracker.pending, *(hunch[:2] for hunch in tracker.hunches)):
            self._map.check(pair)
        named = tracker.reference, tracker.found and tracker.found[1], tracker.last and tracker.last[1].anchor
        self._map.check(number for number in named if number is not None)
        self._merger.restore(tracker.pending, tracker.hunches, tracker.given_up)
        self._reference = tracker.reference
        self._distorted = dict(tracker.distorted)
        self._was_found = tracker.was_found
        self._last = tracker.last
        self._found = tracker.found
        self._learn(with_given(tracker.static, self._ignored_px))
        if self._last is not None:
            self._last = self._last[0], replace(self._last[1], hidden=self._hidden_parts(self._last[0]))

    def _placement(self, anchor: int | None, shift: Shift | None, reason: str | None) -> Placement:
        merged = self._take_merged()
        corrections = self._map.corrections()
        if anchor is None:
            return Placement(None, None, reason, corrections, merged)
        keyframe = self._map[anchor]
        if keyframe.island in self._distorted:
            return Placement(None, None, self._distorted[keyframe.island], corrections, merged)
        x, y = keyframe.announced_px
        if shift is None:
            position = StagePosition(keyframe.announced_island, x, y, 1.0)
        else:
            position = StagePosition(keyframe.announced_island, x + shift.x_px, y + shift.y_px, max(0.0, shift.ncc))
        return Placement(position, anchor, None, corrections, merged)

    def _take_merged(self) -> tuple[tuple[int, int], ...]:
        merged = self._merger.take_merged()
        for gone, into in merged:
            reason = self._distorted.pop(gone, None)
            if reason is None:  # what fits an island of the unchanged camera is not from a changed one
                self._distorted.pop(into, None)
        return merged

    def _learn(self, static: StaticMask) -> None:
        """Leave out what is known to be static now, of the keyframes too that were made before."""
        before, self._static = self._static, static
        if static.found is not before.found:
            self._hidden = None if static.found is None else widened(static.found)
            self._map.hide(self._hidden)
        if static.sure is not before.sure:
            sure, of = static.sure, static.last
            self._parts = None if sure is None or of is None else HiddenParts(sure, of.factor)

    def _hidden_parts(self, frame: PreparedFrame) -> HiddenParts | None:
        parts = self._parts
        return parts if parts is not None and parts.mask.shape == frame.fine.shape else None

    def _place(self, whole: PreparedFrame, may_start: bool) -> tuple[int | None, Shift | None, str | None]:
        """(keyframe, shift from it, reason for none) of a frame, static places and all."""
        good = self._is_good(whole, may_start)
        frame = visible(whole, self._hidden)
        match = self._rested(frame)
        if match is None:
            frame = restored(frame)
        compared: dict[int, Shift | None] = {}
        if match is None:
            most = self._config.max_search if good else self._config.max_search_poor
            match = self._locate(frame, most, compared)
        if match is None:
            if not good or (self._was_found and frame.smear > self._config.max_start_smear):
                return self._follow(frame)
            self._keep_last()
            return self._start(frame, compared, self._distortion(whole) if self._was_found else None)
        self._was_found = True
        number, shift = match
        self._positions.located(number, shift)
        self._reference = number
        keyframe = self._map[number]
        if not good or not self._is_worth_keeping(frame, keyframe, shift):
            self._found = (whole, number, shift) if good else None
            self._positions.set_aside()
            return number, shift, None
        self._found = None
        new = self._keep(frame, number, shift)
        self._positions.kept(new.number)
        self._arranger.check(new.number)
        self._compare_first(new, {})
        return new.number, None, None

    def _keep(self, frame: PreparedFrame, number: int, shift: Shift) -> Keyframe:
        """Make a keyframe of a frame that lies `shift` from keyframe `number`."""
        keyframe = self._map[number]
        new = self._map.add(frame, keyframe.island, keyframe.x_px + shift.x_px, keyframe.y_px + shift.y_px)
        self._map.link(number, new.number, shift)
        self._tie(new, besides=number)
        self._merger.add(new)
        self._reference = new.number
        return new

    def _keep_last(self) -> None:
        """When the stage jumps, make a keyframe of the place that it left: another path may lead there."""
        if self._found is not None:
            frame, number, shift = self._found
            self._found = None
            frame = visible(frame, self._hidden)
            if shift.overlap < self._config.keyframe_overlap_islands and frame.smear <= self._config.max_smear:
                self._positions.kept_aside(self._keep(frame, number, shift).number)

    def _is_worth_keeping(self, frame: PreparedFrame, keyframe: Keyframe, shift: Shift) -> bool:
        """Whether a frame on the map should become a keyframe."""
        config = self._config
        if frame.smear > config.max_smear:
            return shift.overlap < config.keyframe_overlap_smeared
        before = self._map.smear(keyframe.number)
        if before > config.max_smear and frame.smear < before - 0.1:
            return True
        several = len(self._map.islands) > 1
        return shift.overlap < (config.keyframe_overlap_islands if several else config.keyframe_overlap)

    def _start(
        self, frame: PreparedFrame, compared: dict[int, Shift | None], distortion: str | None
    ) -> tuple[int | None, Shift | None, str | None]:
        """Start an island with this frame, which fits none of the keyframes `compared` beyond doubt."""
        self._was_found = False
        new = self._map.add(frame, self._map.new_island(), 0.0, 0.0)
        if distortion is not None:
            self._distorted[new.island] = distortion
        else:
            self._positions.located(new.number, None)
            self._positions.kept(new.number)
        self._merger.add(new, compared)
        self._compare_first(new, compared)
        self._reference = new.number
        return new.number, None, None

    def _compare_first(self, new: Keyframe, compared: Mapping[int, Shift | None]) -> None:
        """Compare a new keyframe with those of other islands that should see part of it, by the stage."""
        others = [number for number in self._arranger.overlapping(new.number) if number not in compared]
        self._merger.compare_with(new.number, others[: self._config.max_by_stage])

    def _follow(self, frame: PreparedFrame) -> tuple[int | None, Shift | None, str | None]:
        """The shift of a frame too poor to be counted from the last keyframe, if they can be registered at all."""
        if self._reference is not None:
            shift = register(self._map.frame(self._reference), frame, self._lenient)
            if shift is not None:
                return self._reference, shift, None
        config = self._config
        poor = frame.contrast < config.min_contrast or frame.coherence < config.min_coherence
        return None, None, "no texture" if poor else "blurred"

    def _is_good(self, frame: PreparedFrame, may_start: bool) -> bool:
        config = self._config
        return may_start and frame.contrast >= config.min_contrast and frame.coherence >= config.min_coherence

    def _rested(self, frame: PreparedFrame) -> tuple[int, Shift] | None:
        """As `_locate`, for a frame that looks like the last one and so lies near it."""
        if self._last is None or self._reference is None or self._last[1].anchor != self._reference:
            return None
        before, keyframe = self._last[1].position, self._map[self._reference]
        if before is None or not at_rest(visible(self._last[0], self._hidden), frame):
            return None
        guess = before.x_px - keyframe.announced_px[0], before.y_px - keyframe.announced_px[1]
        shift = refine(self._map.frame(keyframe.number), frame, guess, self._registration)
        if shift is None or self._config.is_distorted(shift):
            return None
        return self._best_view(frame, keyframe.number, shift)

    def _locate(self, frame: PreparedFrame, most: int, compared: dict[int, Shift | None]) -> tuple[int, Shift] | None:
        """The keyframe that overlaps this frame most, and the shift from it; at most `most` are tried.

        A match with any but the last keyframe must be beyond doubt, or confirmed by a second one.
        """
        if self._reference is None:
            return None
        for number in self._to_try(self._reference, frame, most):
            if number in compared:
                continue
            shift = compared[number] = self._compare(number, frame)
            if shift is None or self._config.is_distorted(shift):
                continue
            better = self._best_view(frame, number, shift)
            if better is None:
                continue
            if number == self._reference or better[0] != number or self._is_believed(number, shift):
                return better
        return None

    def _to_try(self, reference: int, frame: PreparedFrame, most: int) -> Iterator[int]:
        """Keyframes to compare a frame with: `most` as without a stage, and those besides that the stage points at."""
        near, first = self._positions.candidates(reference, frame)
        if not first:
            yield reference
        yield from near
        yield from islice(self._candidates(self._map[reference]), most)

    def _compare(self, number: int, frame: PreparedFrame) -> Shift | None:
        """The shift of a frame from a keyframe, looked for where the stage says and then everywhere."""
        guess_px = self._positions.guess_px(number)
        if guess_px is not None:
            shift = refine(self._map.frame(number), frame, guess_px, self._registration)
            if shift is not None:
                return shift
        return register(self._map.frame(number), frame, self._registration)

    def _is_believed(self, number: int, shift: Shift) -> bool:
        return self._config.is_beyond_doubt(shift) or self._positions.bears_out(number, shift)

    def _arrange(self, frame: PreparedFrame) -> None:
        """Once more is known of the stage, or of the islands: put those side by side whose pictures do not overlap."""
        known_anew = self._positions.learn(self._distorted, frame.width)
        islands = self._undistorted()
        if known_anew or islands != self._positions.arranged:
            self._arranger.arrange(islands)

    def _undistorted(self) -> tuple[int, ...]:
        return tuple(island for island in self._map.islands if island not in self._distorted)

    def _candidates(self, reference: Keyframe) -> Iterator[int]:
        """Keyframes to try: the last one, those around it, then all by distance."""
        yield reference.number
        around = self._map.around(reference.island, reference.frame, reference.x_px, reference.y_px)
        tried = {reference.number, *(number for _, number in around)}
        yield from (number for _, number in around if number != reference.number)
        for number in self._map.nearest(reference.island, reference.x_px, reference.y_px):
            if number not in tried:
                yield number

    def _best_view(self, frame: PreparedFrame, number: int, shift: Shift) -> tuple[int, Shift] | None:
        """The keyframe nearest to a frame that matched `number`; None if nearer ones contradict the match."""
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
        """(overlap, number) of the keyframes that may place a frame: sharp ones first, then by overlap."""
        around = self._map.around(island, frame, x_px, y_px)
        worth = [(o / max(1.0, self._map.smear(n)) ** 4, o, n) for o, n in around]
        return [(overlap, number) for _, overlap, number in sorted(worth, key=lambda entry: (-entry[0], entry[2]))]

    def _measure(self, number: int, frame: PreparedFrame, x_px: float, y_px: float) -> Shift | None:
        """The shift from a keyframe to a frame expected at (x_px, y_px)."""
        keyframe = self._map[number]
        guess_px = x_px - keyframe.x_px, y_px - keyframe.y_px
        within_px = self._config.max_surprise * frame.width
        return register_near(self._map.frame(number), frame, guess_px, within_px, self._registration)

    def _tie(self, new: Keyframe, besides: int) -> None:
        """Register a new keyframe with its neighbours, and settle the island again if they disagree with its place."""
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

    def _distortion(self, whole: PreparedFrame) -> str | None:
        """Why a frame that fits nowhere still shows the last field: turned, or at another magnification. Then the
        middle of the picture stays in place, and must not be left out for it."""
        if self._last is None or self._last[1].anchor is None:
            return None
        hidden = None if self._static.sure is None else self._hidden
        similarity = find_similarity(visible(self._last[0], hidden), visible(whole, hidden), self._registration)
        if similarity is None:
            return None
        growth, turn_rad = similarity
        if abs(turn_rad) > self._config.max_turn_rad:
            return f"camera turned by {np.degrees(turn_rad):.1f} degrees"
        if abs(growth) > self._config.max_growth:
            return f"magnification changed to {100 * (1 + growth):.0f} %"
        return None
