"""What a stage that knows where it is adds to what the pictures show.

A position is a prior. Until it is known how the camera sees the stage (affine.py), positions only say which keyframes
to try first. Then they say where to look, confirm matches that are too weak alone, and put islands whose pictures do
not overlap side by side. A picture that matches always holds: a stage that contradicts it is counted, and one that does
so often is ignored, so that a run counts no worse than without a stage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from streamer.records import SCALES_UM_PER_PX, PositionsState, PositionsStatus
from streamer.stage.affine import StageAffine, fit
from streamer.stage.joins import Offset
from streamer.stage.keyframes import StageMap
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading, KeyframeReadings, Reading
from streamer.stage.registration import Shift


@dataclass(frozen=True, slots=True)
class PositionsConfig:
    """How far positions are believed. Lengths are pixels of the frame unless their name says otherwise."""

    candidates: int = 4
    """Keyframes that are tried because of the stage, besides those that are tried without one."""
    fitted: int = 256
    """Keyframes, the newest, that the affine is fitted to."""
    fitted_again: int = 12
    """The least of them for a stage that was ignored before."""
    hopeless: int = 16
    """A fit that so many keyframes, spread over both directions, do not give is given up."""
    stuck: int = 5
    """So many keyframes at different places with one position: the stage reports nothing."""
    floor_px: float = 4.0
    """A disagreement of less is none, whatever the fit says."""
    spreads: float = 3.0
    """Standard deviations of a reading that a disagreement may have."""
    least_spread_px: float = 0.7
    slack: float = 0.02
    """Disagreement allowed per pixel of distance, for a lens that distorts and axes that differ."""
    gross_fields: float = 0.25
    """A disagreement of more, in widths of the frame, is no error of the stage but a jump of its zero, or of one reading."""
    judged: int = 16
    refuted: int = 8
    """So many disagreements among the last `judged` frames, and the stage is ignored."""
    certain_fields: float = 0.02
    """A stage that puts an island so surely, in widths of the frame, may put it where it touches others."""
    scale_factor: float = 1.25
    """A fitted scale off by more from the one that the source states is another unit."""


class LastReading(msgspec.Struct, frozen=True):
    """That of a located frame, and where the pictures put it."""

    x_um: float
    y_um: float
    number: int
    """Its keyframe."""
    dx_px: float
    """From that keyframe."""
    dy_px: float


class PositionsMemory(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a stage but the readings of keyframes, to be stored outside."""

    state: PositionsState
    note: str | None
    exact: bool
    affine: StageAffine | None
    error_um: float | None
    epoch: int
    frames: int
    unusable: int
    disagreed: int
    given_up: int
    fit_at: int
    first: int
    outcomes: tuple[bool, ...]
    last: LastReading | None
    suspect: LastReading | None
    aside: LastReading | None
    joins: dict[int, Offset]


class StagePositions:
    """The positions of one source's frames, in the frames' order."""

    def __init__(self, stage_map: StageMap, config: PositionsConfig | None = None) -> None:
        self._map = stage_map
        self._config = config or PositionsConfig()
        self._readings = KeyframeReadings()
        self._now: Reading | None = None
        self._usable = False
        """Whether nothing speaks against the present frame's reading."""
        self._state: PositionsState = "learning"
        self._note: str | None = None
        self._exact = False
        self._may_be_exact = True
        self._affine: StageAffine | None = None
        self._error_um: float | None = None
        self._epoch = 0
        self._frames = self._unusable = self._disagreed = self._given_up = 0
        self._fit_at = 0
        self._first = 0
        """Readings before it, by order, are of a stage that was ignored."""
        self._outcomes: deque[bool] = deque(maxlen=self._config.judged)
        self._last: LastReading | None = None
        self._suspect: LastReading | None = None
        self._aside: LastReading | None = None

    @property
    def used(self) -> bool:
        """Whether they say where things lie."""
        return self._state == "used"

    @property
    def status(self) -> PositionsStatus | None:
        """None before the first."""
        if self._frames + self._unusable == 0:
            return None
        affine, note = self._affine, self._note
        if note is None and self._unusable:
            note = f"{self._unusable} positions were no numbers, or on no slide"
        return PositionsStatus(
            state=self._state,
            frames=self._frames,
            unusable=self._unusable,
            disagreed=self._disagreed,
            um_per_px=None if affine is None else affine.um_per_px,
            turn_deg=None if affine is None else affine.turn_deg,
            mirrored=None if affine is None else affine.mirrored,
            error_um=None if affine is None or self._exact else affine.spread_px * affine.um_per_px,
            joined=len(self._map.joins),
            note=note,
        )

    # A frame

    def begin(self, reading: Reading | None, *, unusable: bool = False) -> None:
        """A frame comes, with a position, without one, or with one that is none."""
        self._now, self._usable = reading, reading is not None
        self._unusable += unusable
        if reading is None:
            return
        self._frames += 1
        if reading.error_um is not None:
            self._error_um = max(reading.error_um, self._error_um or 0.0)
        if self._affine is None and self._may_be_exact and reading.needs_no_fit and reading.um_per_px is not None:
            self._affine, self._exact, self._state, self._note = (
                StageAffine.exact(reading.um_per_px),
                True,
                "used",
                None,
            )
        elif self._exact and (not reading.needs_no_fit or not self._is_of_scale(reading)):
            self._usable = False  # another objective, or another source behind the same name

    def candidates(self, reference: int, frame: PreparedFrame) -> tuple[list[int], bool]:
        """Keyframes to try because of the stage, the likeliest first, and whether to do so before `reference`."""
        now = self._now
        if now is None or not self._usable or self._state == "ignored":
            return [], False
        near = self._readings.nearest(now.point, self._epoch, 4 * self._config.candidates)
        if self._affine is None:
            return near[: self._config.candidates], False
        worth = []
        for number in near:
            x, y, distance = self._away(number, now.point)
            within = self._tolerance_px(distance)
            across, down = frame.width + within - abs(x), frame.height + within - abs(y)
            if across > 0 and down > 0:
                worth.append((-across * down, number))
        chosen = [number for _, number in sorted(worth)[: self._config.candidates]]
        return chosen, bool(chosen) and reference not in {number for _, number in worth}

    def guess_px(self, number: int) -> tuple[float, float] | None:
        """How far the stage says that the present frame lies from a keyframe; None where it does not say."""
        if self._now is None or not self._usable or not self.used:
            return None
        if self._readings.get(number, self._epoch) is None:
            return None
        x, y, _ = self._away(number, self._now.point)
        return x, y

    def bears_out(self, number: int, shift: Shift) -> bool:
        """Whether the stage says the same as a match of the present frame with a keyframe."""
        guess = self.guess_px(number)
        return guess is not None and self._is_borne_out(guess, shift)

    def bears_out_pair(self, a: int, b: int, shift: Shift) -> bool:
        """Whether the stage says the same as a match of two keyframes."""
        if not self.used:
            return False
        point = self._readings.get(b, self._epoch)
        if point is None or self._readings.get(a, self._epoch) is None:
            return False
        x, y, _ = self._away(a, point)
        return self._is_borne_out((x, y), shift)

    def located(self, number: int, shift: Shift | None) -> None:
        """The pictures put the present frame `shift` from a keyframe; None: it is that keyframe, and matched none."""
        now = self._now
        if now is None or not self._usable:
            return
        dx, dy = (0.0, 0.0) if shift is None else (shift.x_px, shift.y_px)
        here = LastReading(now.x_um, now.y_um, number, dx, dy)
        if shift is not None and self._affine is not None and self._state != "ignored":
            self._compare(here)
        if self._usable:
            self._last = here

    def kept(self, number: int) -> None:
        """The present frame has become a keyframe."""
        if self._now is not None and self._usable:
            self._readings.add(number, self._now.point, self._epoch)
            if self._last is not None:
                self._last = LastReading(self._now.x_um, self._now.y_um, number, 0.0, 0.0)

    def set_aside(self) -> None:
        """The present frame may become a keyframe later, see `kept_aside`."""
        self._aside = self._last if self._now is not None and self._usable else None

    def kept_aside(self, number: int) -> None:
        """The frame that was set aside has become a keyframe."""
        if self._aside is not None:
            self._readings.add(number, complex(self._aside.x_um, self._aside.y_um), self._epoch)
            self._aside = None

    def learn(self, left_out: Iterable[int], width_px: int) -> bool:
        """Fit the affine anew if there is more to fit it to. Whether how the camera sees the stage is known anew.

        `left_out`: islands of a turned or rescaled camera."""
        count = len(self._readings) - self._first
        if self._exact or count < max(self._fit_at, 1):
            return False
        self._fit_at = count + max(1, count // 8)
        numbers, points, epochs = self._readings.newest(min(self._config.fitted, count))
        frames = [self._map[number] for number in numbers.tolist()]
        without = set(left_out)
        chosen = np.array([frame.island not in without for frame in frames], np.bool_)
        px = np.array([complex(frame.x_px, frame.y_px) for frame in frames])[chosen]
        islands = np.array([frame.island for frame in frames], np.intp)[chosen]
        points, groups = points[chosen], islands * (self._epoch + 1) + epochs[chosen]
        if self._given_up and len(points) < self._config.fitted_again:
            return False
        found = fit(points, px, groups, width_px)
        if found is None:
            if not self.used:
                self._doubt(points, px, groups, width_px)
            return False
        fault = self._fault_of(found)
        if fault is not None:
            self._give_up(fault)
            return False
        known_before = self.used
        self._affine, self._state, self._note = found, "used", None
        return not known_before

    # Islands

    def arrange(self, islands: Sequence[int]) -> list[tuple[int, int]]:
        """Publish those of `islands`, all that show the slide, side by side which the stage puts there; nothing is
        compared here. Returns the (island, into) that it joined."""
        if not self.used or len(islands) < 2:
            return []
        joined = []
        roots = [island for island in islands if self._map.joins.root(island) == island]
        for place, island in enumerate(roots[1:], start=1):
            offset = self._offset(island, roots[:place])
            if offset is not None:
                self._map.join(island, *offset)
                joined.append((island, offset[0]))
        return joined

    def check_joins(self, number: int) -> None:
        """Publish an island by itself again if this new keyframe of it has come where another one may lie that the
        stage put there."""
        joins = self._map.joins
        keyframe = self._map[number]
        root = joins.root(keyframe.island)
        together = joins.together(root)
        if len(together) < 2 or self._error_px() <= self._config.certain_fields * keyframe.frame.width:
            return
        others = [island for island in together if island != keyframe.island]
        touched = self._touched([number], others, self._error_px())
        for island in touched if keyframe.island == root else touched and [keyframe.island]:
            self._map.part(island)

    def overlapping(self, number: int, frame: PreparedFrame) -> list[int]:
        """Keyframes of other islands that should see part of what keyframe `number` shows, by the stage."""
        point = self._readings.get(number, self._epoch)
        if point is None or not self.used:
            return []
        own = self._map[number].island
        near = []
        for other in self._readings.nearest(point, self._epoch, 4 * self._config.candidates):
            x, y, _ = self._away(other, point)
            overlap = max(0.0, frame.width - abs(x)) * max(0.0, frame.height - abs(y))
            if overlap > 0 and self._map[other].island != own:
                near.append((-overlap, other))
        return [other for _, other in sorted(near)]

    # Its memory

    def take_new_readings(self) -> tuple[KeyframeReading, ...]:
        """Those of keyframes since the last call."""
        return self._readings.take_new()

    @property
    def memory(self) -> PositionsMemory | None:
        """None before the first position."""
        if self._frames + self._unusable == 0:
            return None
        return PositionsMemory(
            state=self._state,
            note=self._note,
            exact=self._exact,
            affine=self._affine,
            error_um=self._error_um,
            epoch=self._epoch,
            frames=self._frames,
            unusable=self._unusable,
            disagreed=self._disagreed,
            given_up=self._given_up,
            fit_at=self._fit_at,
            first=self._first,
            outcomes=tuple(self._outcomes),
            last=self._last,
            suspect=self._suspect,
            aside=self._aside,
            joins=dict(self._map.joins.offsets),
        )

    def restore(self, memory: PositionsMemory, readings: Iterable[KeyframeReading]) -> None:
        """Go on as the one that these were taken from. ValueError for what contradicts the map."""
        readings = list(readings)
        named = [memory.last, memory.suspect, memory.aside]
        self._map.check([one.number for one in readings] + [one.number for one in named if one is not None])
        islands = set(self._map.islands)
        for island, (into, *_) in memory.joins.items():
            if island not in islands or into not in islands or into in memory.joins or into >= island:
                raise ValueError(
                    f"joins: got island {island} in {into}, expected two of the map, the earlier one alone"
                )
        self._readings.restore(readings)
        self._map.joins.restore(memory.joins)
        self._state, self._note, self._exact, self._affine = memory.state, memory.note, memory.exact, memory.affine
        self._may_be_exact = memory.given_up == 0
        self._error_um, self._epoch, self._frames = memory.error_um, memory.epoch, memory.frames
        self._unusable, self._disagreed, self._given_up = memory.unusable, memory.disagreed, memory.given_up
        self._fit_at, self._first = memory.fit_at, memory.first
        self._outcomes.extend(memory.outcomes)
        self._last, self._suspect, self._aside = memory.last, memory.suspect, memory.aside

    # What follows is how

    def _away(self, number: int, point: complex) -> tuple[float, float, float]:
        """(x, y, distance) in pixels that the stage says a point lies from a keyframe with a reading."""
        own = self._readings.get(number, self._epoch)
        assert own is not None
        assert self._affine is not None
        way = complex(self._affine.to_px(np.array([point - own]))[0])
        return way.real, way.imag, abs(way)

    def _error_px(self, distance_px: float = 0.0) -> float:
        """How far off the stage may put something, over a distance."""
        assert self._affine is not None
        spread = max(self._affine.spread_px, self._config.least_spread_px)
        stated = (self._error_um or 0.0) / self._affine.um_per_px
        return 2 + max(self._config.spreads * spread, 2 * stated) + 3 * self._affine.unsure * distance_px

    def _tolerance_px(self, distance_px: float) -> float:
        """How far two readings may be apart from the pictures, over a distance."""
        config = self._config
        assert self._affine is not None
        slack = max(config.slack, 3 * self._affine.unsure) * distance_px
        return config.floor_px + float(np.sqrt(2)) * (self._error_px() - 2) + slack

    def _is_borne_out(self, guess_px: tuple[float, float], shift: Shift) -> bool:
        off = float(np.hypot(guess_px[0] - shift.x_px, guess_px[1] - shift.y_px))
        return off <= self._tolerance_px(float(np.hypot(*guess_px)))

    def _is_of_scale(self, reading: Reading) -> bool:
        assert self._affine is not None
        return reading.um_per_px is not None and abs(reading.um_per_px / self._affine.um_per_px - 1) < 0.01

    def _compare(self, here: LastReading) -> None:
        """Whether stage and pictures say the same of the way to an earlier frame."""
        before = self._compared_with(here)
        found = None if before is None else self._disagreement(before, here)
        if found is None:
            return
        off, allowed = found
        self._outcomes.append(off <= allowed)
        if off <= allowed:
            self._suspect = None
            return
        self._disagreed += 1
        frame = self._map[here.number].frame
        if off > max(3 * allowed, self._config.gross_fields * frame.width):
            confirmed = None if self._suspect is None else self._disagreement(self._suspect, here)
            if confirmed is not None and confirmed[0] <= confirmed[1]:
                self._epoch += 1  # its zero is another one from here on
                self._suspect = self._aside = None
                self._last = None
            else:
                self._usable = False
                if self._suspect is None or confirmed is not None:
                    self._suspect = here
        wrong = self._outcomes.count(False)
        if wrong >= self._config.refuted:
            self._give_up(
                f"the picture moves otherwise than the stage says, in {wrong} of {len(self._outcomes)} frames"
            )

    def _compared_with(self, here: LastReading) -> LastReading | None:
        """The keyframe of the frame, or else the frame before, if it is on the same island."""
        anchor = self._readings.get(here.number, self._epoch)
        if anchor is not None:
            return LastReading(anchor.real, anchor.imag, here.number, 0.0, 0.0)
        last = self._last
        same = last is not None and self._map[last.number].island == self._map[here.number].island
        return last if same else None

    def _disagreement(self, before: LastReading, here: LastReading) -> tuple[float, float] | None:
        """(off, allowed) in pixels; None where neither stage nor picture moved, or the two are on no one island."""
        one, two = self._map[before.number], self._map[here.number]
        if one.island != two.island:
            return None
        assert self._affine is not None
        seen = complex(two.x_px + here.dx_px - one.x_px - before.dx_px, two.y_px + here.dy_px - one.y_px - before.dy_px)
        said = complex(self._affine.to_px(np.array([complex(here.x_um - before.x_um, here.y_um - before.y_um)]))[0])
        far = max(abs(seen), abs(said))
        allowed = self._tolerance_px(far)
        return None if far <= allowed else (abs(said - seen), allowed)

    def _doubt(
        self,
        points: np.ndarray[tuple[int], np.dtype[np.complex128]],
        px: np.ndarray[tuple[int], np.dtype[np.complex128]],
        groups: np.ndarray[tuple[int], np.dtype[np.intp]],
        width_px: int,
    ) -> None:
        """Give up a stage that does not move with the picture."""
        config = self._config
        _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
        largest = own == counts.argmax()
        points, px = points[largest], px[largest]
        px = px - px.mean()
        extents = np.linalg.svd(np.stack([px.real, px.imag]), compute_uv=False) / np.sqrt(len(px))
        if len(px) >= config.stuck and np.ptp(points.real) == np.ptp(points.imag) == 0 and extents[0] > width_px / 4:
            where = f"({points[0].real:g}, {points[0].imag:g}) µm"
            self._give_up(f"the stage reports {where} all the time while the picture moves")
        elif len(px) >= config.hopeless and extents[1] > width_px / 4:
            self._give_up("the picture does not follow what the stage reports")

    def _fault_of(self, found: StageAffine) -> str | None:
        """Why a fit is not to be believed."""
        low, high = SCALES_UM_PER_PX
        stated = None if self._now is None else self._now.um_per_px
        pixel = f"a pixel would be {found.um_per_px:.3g} µm by what the stage reports"
        if not low <= found.um_per_px <= high:
            return f"{pixel}, expected {low:g} to {high:g}: check its unit"
        if (
            stated is not None
            and not 1 / self._config.scale_factor <= found.um_per_px / stated <= self._config.scale_factor
        ):
            return f"{pixel}, and is {stated:.3g} µm by what the source states: check the unit of either"
        return None

    def _give_up(self, why: str) -> None:
        """Ignore the stage; it is believed again once new readings give a fit."""
        self._state, self._note = "ignored", f"positions are ignored: {why}"
        self._given_up += 1
        self._affine, self._exact, self._may_be_exact = None, False, False
        self._epoch += 1
        self._first, self._fit_at = len(self._readings), self._config.fitted_again
        self._outcomes.clear()
        self._last = self._suspect = self._aside = None
        self._usable = False
        for island in list(self._map.joins.offsets):
            self._map.part(island)

    def _offset(self, island: int, earlier: Sequence[int]) -> Offset | None:
        """Where the stage puts an island among earlier ones that are not joined; None where it can't say."""
        assert self._affine is not None
        own = [n for one in self._map.joins.together(island) for n in self._map.members(one)]
        read = [(number, point) for number in own if (point := self._readings.get(number, self._epoch)) is not None]
        if not read:
            return None
        middle = sum(point for _, point in read) / len(read)
        allowed = set(earlier)
        there = [
            number
            for number in self._readings.nearest(middle, self._epoch, len(read) + 8 * self._config.candidates)
            if self._map.joins.root(self._map[number].island) in allowed
        ]
        if not there:
            return None
        into = self._map.joins.root(self._map[there[0]].island)
        there = [number for number in there if self._map.joins.root(self._map[number].island) == into]
        zero = self._zero(read)
        other = self._zero([(n, p) for n in there if (p := self._readings.get(n, self._epoch)) is not None])
        offset = other - zero
        distance = min(self._away(number, middle)[2] for number in there)
        error, width = self._error_px(distance), self._map[own[0]].frame.width
        if error > self._config.certain_fields * width:
            if self._touched(own, self._map.joins.together(into), error, offset):
                return None
        elif self._is_contradicted(own, self._map.joins.together(into), offset):
            return None
        return into, offset.real, offset.imag

    def _zero(self, read: Sequence[tuple[int, complex]]) -> complex:
        """Where the zero of the stage lies on the published island of these keyframes: the median of what they say."""
        assert self._affine is not None
        said = self._affine.to_px(np.array([point for _, point in read]))
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

    def _is_contradicted(self, numbers: Sequence[int], islands: Sequence[int], by: complex) -> bool:
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


LEAST_JUDGED_OVERLAP = 0.12
"""Share of the field; pictures that overlap by less may fail to match."""

LEAST_SEEN = 0.008
"""Contrast of a part of a picture that would have matched, as `StageConfig.min_contrast`: fields with cells have more."""


def _shows_something(frame: PreparedFrame, x_px: float, y_px: float) -> bool:
    """Whether the part of a picture that another one, (x_px, y_px) from it, shows too has any contrast."""
    if frame.fine.size == 0:
        return False
    height, width = frame.fine.shape
    x, y = round(x_px / frame.factor), round(y_px / frame.factor)
    part = frame.fine[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)].astype(np.float32)
    return part.size > 0 and float(np.sqrt((part * part).mean())) / 32 * frame.contrast >= LEAST_SEEN
