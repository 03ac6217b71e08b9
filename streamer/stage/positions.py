"""What a stage that knows where it is adds to what the pictures show.

A position is a prior. Until it is known how the camera sees the stage (affine.py), positions only say which keyframes
to try first. Then they say where to look, confirm matches that are too weak alone, and put islands whose pictures do
not overlap side by side. A picture that matches always holds: a stage that contradicts it is counted, and one that does
so often is ignored, so that a run counts no worse than without a stage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from streamer.records import SCALES_UM_PER_PX, PositionsState, PositionsStatus
from streamer.stage.affine import Points, StageAffine, fit
from streamer.stage.keyframes import StageMap
from streamer.stage.positions_state import LastReading, PositionsConfig, PositionsMemory
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading, KeyframeReadings, Reading
from streamer.stage.registration import Shift


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
        self._epoch = self._zeros = 0
        """The epoch is one more with every new zero, and every time that the stage is given up."""
        self._frames = self._unusable = self._disagreed = self._given_up = 0
        self._fit_at = 0
        self._first = 0
        """Readings before it, by order, are of a stage that was ignored."""
        self._outcomes: deque[bool] = deque(maxlen=self._config.judged)
        self._last: LastReading | None = None
        self._suspect: LastReading | None = None
        self._aside: LastReading | None = None
        self.arranged: tuple[int, ...] = ()
        """The islands that were put side by side last."""

    @property
    def used(self) -> bool:
        """Whether they say where things lie."""
        return self._state == "used"

    @property
    def is_tile(self) -> bool:
        """Whether the present frame is a tile of one picture, whose place needs no registration."""
        return self._now is not None and self._now.is_tile and self._exact and self._usable and self.used

    @property
    def first_keyframe(self) -> int | None:
        """The earliest keyframe with a reading that the present one can be compared with; None: there is none yet."""
        return self._readings.first(self._epoch)

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
        near = self.nearest(now.point, 4 * self._config.candidates)
        if self._affine is None:
            return near[: self._config.candidates], False
        worth = []
        for number in near:
            x, y, distance = self.away(number, now.point)
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
        if self.point(number) is None:
            return None
        x, y, _ = self.away(number, self._now.point)
        return x, y

    def bears_out(self, number: int, shift: Shift) -> bool:
        """Whether the stage says the same as a match of the present frame with a keyframe."""
        guess = self.guess_px(number)
        return guess is not None and self._is_borne_out(guess, shift)

    def bears_out_pair(self, a: int, b: int, shift: Shift) -> bool:
        """Whether the stage says the same as a match of two keyframes."""
        if not self.used:
            return False
        point = self.point(b)
        if point is None or self.point(a) is None:
            return False
        x, y, _ = self.away(a, point)
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
            zeros=self._zeros,
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
            arranged=self.arranged,
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
        self._error_um, self._frames = memory.error_um, memory.frames
        self._epoch, self._zeros = memory.epoch, memory.zeros
        self._unusable, self._disagreed, self._given_up = memory.unusable, memory.disagreed, memory.given_up
        self._fit_at, self._first = memory.fit_at, memory.first
        self._outcomes.extend(memory.outcomes)
        self._last, self._suspect, self._aside = memory.last, memory.suspect, memory.aside
        self.arranged = memory.arranged

    # What it says of places

    def point(self, number: int) -> complex | None:
        """The reading of a keyframe, if it can be compared with present ones."""
        return self._readings.get(number, self._epoch)

    def nearest(self, point: complex, count: int) -> list[int]:
        """Keyframes with such readings, the nearest first."""
        return self._readings.nearest(point, self._epoch, count)

    def to_px(self, points: Points) -> Points:
        """Readings as pixels of the picture, up to one common addend."""
        assert self._affine is not None
        return self._affine.to_px(points)

    def away(self, number: int, point: complex) -> tuple[float, float, float]:
        """(x, y, distance) in pixels that the stage says a point lies from a keyframe with a reading."""
        own = self.point(number)
        assert own is not None
        assert self._affine is not None
        way = complex(self._affine.to_px(np.array([point - own]))[0])
        return way.real, way.imag, abs(way)

    def error_px(self, distance_px: float = 0.0) -> float:
        """How far off the stage may put something, over a distance."""
        assert self._affine is not None
        spread = max(self._affine.spread_px, self._config.least_spread_px)
        stated = (self._error_um or 0.0) / self._affine.um_per_px
        return 2 + max(self._config.spreads * spread, 2 * stated) + 3 * self._affine.unsure * distance_px

    # What follows is how

    def _tolerance_px(self, distance_px: float) -> float:
        """How far two readings may be apart from the pictures, over a distance."""
        config = self._config
        assert self._affine is not None
        slack = max(config.slack, 3 * self._affine.unsure) * distance_px
        return config.floor_px + float(np.sqrt(2)) * (self.error_px() - 2) + slack

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
                self._zeros += 1
                self._suspect = self._aside = self._last = None
            else:
                self._usable = False
                if self._suspect is None or confirmed is not None:
                    self._suspect = here
        wrong = self._outcomes.count(False)
        if self._zeros >= self._config.most_zeros:
            self._give_up(f"the zero of the stage jumped {self._zeros} times")
        elif wrong >= self._config.refuted:
            self._give_up(
                f"the picture moves otherwise than the stage says, in {wrong} of {len(self._outcomes)} frames"
            )

    def _compared_with(self, here: LastReading) -> LastReading | None:
        """The keyframe of the frame, or else the frame before, if it is on the same island."""
        anchor = self.point(here.number)
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

    def _doubt(self, points: Points, px: Points, groups: npt.NDArray[np.intp], width_px: int) -> None:
        """Give up a stage that does not move with the picture."""
        config = self._config
        _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
        largest = own == counts.argmax()
        points, px = points[largest], px[largest]
        px = px - px.mean()
        extents = np.linalg.svd(np.stack([px.real, px.imag]), compute_uv=False) / np.sqrt(len(px))
        if (
            len(px) >= config.stuck
            and np.ptp(points.real) == np.ptp(points.imag) == 0
            and extents[0] > config.spread_fields * width_px
        ):
            where = f"({points[0].real:g}, {points[0].imag:g}) µm"
            self._give_up(f"the stage reports {where} all the time while the picture moves")
        elif len(px) >= config.hopeless and extents[1] > config.spread_fields * width_px:
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
        self._zeros = 0
        self._last = self._suspect = self._aside = None
        self._usable = False
        for island in list(self._map.joins.offsets):
            self._map.part(island)
