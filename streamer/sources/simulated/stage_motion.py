"""The motion of the stage: its position in the middle of every exposure, and its path during the exposure.

A pattern is a list of stops and the moves between them. The poses of all frames are computed from it once, so that a
frame's place never depends on which frames were read before. Moves start and stop smoothly (minimum jerk: Flash and
Hogan 1985). After a move the stage rings for a moment, and it hits no stop exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.sources.simulated.parameters import SlideParameters

STOP_ERROR_PX = 3.0
"""Largest error of a stop, along either axis."""
EXPOSURE = 0.15
"""Usual share of the time between frames during which the shutter is open."""
_PAN_FRAMES_PER_FIELD = 24
_LONG_TRAVEL_FIELDS = 0.2

_MOTION, _FOCUS = 21, 22
REST, MOVE = 0, 1

Point = tuple[float, float]


@dataclass(frozen=True)
class Scan:
    """The grid of stops that covers the slide. Positions are those of the frame's upper left corner on the slide."""

    columns: int
    rows: int
    step_x_px: float
    step_y_px: float
    origin_px: float
    """x and y of the first stop. The smear extends beyond it, so that a missed stop never shows its end."""

    def stop(self, index: int) -> Point:
        """Stop `index` of the serpentine: left to right, then right to left one row further down."""
        row, column = divmod(index, self.columns)
        if row % 2:
            column = self.columns - 1 - column
        return self.origin_px + column * self.step_x_px, self.origin_px + row * self.step_y_px

    def __len__(self) -> int:
        return self.columns * self.rows


@dataclass(frozen=True)
class StageMotion:
    """The pose of every frame; all arrays have one entry a frame.

    x_px, y_px: upper left corner of the frame on the slide in the middle of the exposure.
    motion_x_px, motion_y_px: how far the stage moved during the exposure.
    focus: distance from focus, micrometres, about 0.
    state: uint8, REST or MOVE.
    """

    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    motion_x_px: NDArray[np.float64]
    motion_y_px: NDArray[np.float64]
    focus: NDArray[np.float64]
    state: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.x_px)


def plan_scan(parameters: SlideParameters, border_px: float) -> Scan:
    """The grid for a slide on which an average frame holds `density` white cells."""
    step_x = (1 - parameters.overlap) * parameters.width
    step_y = (1 - parameters.overlap) * parameters.height
    fields = max(parameters.cells, 1) / parameters.density * parameters.width * parameters.height
    stops = max(fields / (step_x * step_y), 1.0)
    rows = max(round(float(np.sqrt(stops * parameters.width / parameters.height / 1.5))), 1)
    return Scan(max(int(np.ceil(stops / rows)), 1), rows, step_x, step_y, border_px)


class _Path:
    """Collects the poses at which the shutter opens and closes."""

    def __init__(self, rng: np.random.Generator, exposure: float, start: Point) -> None:
        self._rng = rng
        self._exposure = exposure
        self._opening: list[NDArray[np.float64]] = []
        self._closing: list[NDArray[np.float64]] = []
        self._state: list[NDArray[np.uint8]] = []
        self._ringing = np.zeros(2)
        self.here = self._missed(start)

    def _missed(self, stop: Point) -> NDArray[np.float64]:
        error = self._rng.normal(0, STOP_ERROR_PX / 3, 2)
        return np.asarray(stop) + np.clip(error, -STOP_ERROR_PX, STOP_ERROR_PX)

    def rest(self, frames: int) -> None:
        """Stand still while the ringing of the last move decays and the table shakes a little."""
        time = np.arange(frames, dtype=np.float64)

        def at(moment: NDArray[np.float64]) -> NDArray[np.float64]:
            swing = np.exp(-moment / 0.7) * np.cos(2.6 * moment)
            return np.asarray(self.here + swing[:, None] * self._ringing)

        shake = self._rng.normal(0, 0.06, (frames, 2))
        self._add(at(time) + shake, at(time + self._exposure) + shake, REST)
        self._ringing = np.zeros(2)

    def move(self, stop: Point, frames: int) -> None:
        """Go to `stop` in `frames` frames."""
        start, end = self.here, self._missed(stop)

        def at(moment: NDArray[np.float64]) -> NDArray[np.float64]:
            share = np.clip(moment / frames, 0, 1)
            return np.asarray(start + (share**3 * (10 - 15 * share + 6 * share**2))[:, None] * (end - start))

        time = np.arange(frames, dtype=np.float64) + 0.5
        self._add(at(time - self._exposure / 2), at(time + self._exposure / 2), MOVE)
        self._arrive(end, start)

    def jump(self, stop: Point) -> None:
        """Be at `stop` with the next frame."""
        start, end = self.here, self._missed(stop)
        self._arrive(end, start)

    def pan(self, stop: Point, speed_px: float) -> None:
        """Go to `stop` at a constant speed, pixels a frame."""
        start, end = self.here, self._missed(stop)
        frames = max(round(float(np.hypot(*(end - start))) / speed_px), 1)
        time = (np.arange(frames, dtype=np.float64))[:, None]
        velocity = (end - start) / frames
        self._add(start + time * velocity, start + (time + self._exposure) * velocity, MOVE)
        self.here = end

    def _arrive(self, end: NDArray[np.float64], start: NDArray[np.float64]) -> None:
        way = end - start
        length = max(float(np.hypot(*way)), 1e-9)
        self._ringing = way / length * min(0.004 * length, 2.5)
        self.here = end

    def _add(self, opening: NDArray[np.float64], closing: NDArray[np.float64], state: int) -> None:
        self._opening.append(opening)
        self._closing.append(closing)
        self._state.append(np.full(len(opening), state, dtype=np.uint8))

    def motion(self, focus_rng: np.random.Generator, width_px: int) -> StageMotion:
        opening, closing = np.concatenate(self._opening), np.concatenate(self._closing)
        middle, way = (opening + closing) / 2, closing - opening
        return StageMotion(
            middle[:, 0],
            middle[:, 1],
            way[:, 0],
            way[:, 1],
            _focus(focus_rng, middle, width_px),
            np.concatenate(self._state),
        )


def _focus(rng: np.random.Generator, place: NDArray[np.float64], width_px: int) -> NDArray[np.float64]:
    """Slow drift of the focus, and a slide that does not lie quite flat. Micrometres."""
    time = np.arange(len(place))
    drift = np.zeros(len(place))
    for period in (310, 730, 1900):
        drift += 0.34 * np.sin(2 * np.pi * (time / (period * rng.uniform(0.8, 1.25)) + rng.random()))
    waves = 0.22 * np.sin(place / (5.0 * width_px) * 2 * np.pi + rng.uniform(0, 2 * np.pi, 2)).sum(axis=1)
    return np.asarray(drift + waves)


def plan_motion(parameters: SlideParameters, scan: Scan) -> StageMotion:
    """One pass of the pattern over the slide."""
    rng = np.random.default_rng([parameters.seed, _MOTION])
    focus_rng = np.random.default_rng([parameters.seed, _FOCUS])
    exposure = min(EXPOSURE * parameters.blur, 1.0)
    path = _Path(rng, exposure, scan.stop(0))
    if parameters.pattern == "pan":
        _pan(path, scan, parameters.width / _PAN_FRAMES_PER_FIELD)
    elif parameters.pattern == "jump":
        order = [0, *(int(stop) for stop in rng.permutation(np.arange(1, len(scan))))]
        for stop in order:
            path.jump(scan.stop(stop))
            path.rest(parameters.dwell)
    else:
        runs: Sequence[Sequence[int]] = [range(len(scan))]
        back_after: set[int] = set()
        if parameters.pattern == "return":
            back_after = set(range(3, len(scan), 4))
        elif parameters.pattern == "mixed":
            runs = _cut(rng, len(scan), parameters.jumps)
            wanted = min(parameters.returns, max(len(scan) - 2, 0))
            back_after = {int(turn) for turn in rng.choice(np.arange(2, len(scan)), wanted, replace=False)}
        _visit(path, scan, parameters, runs, back_after, rng)
    return path.motion(focus_rng, parameters.width)


def _pan(path: _Path, scan: Scan, speed_px: float) -> None:
    for row in range(scan.rows):
        if row:
            path.pan(scan.stop(row * scan.columns), speed_px)
        path.pan(scan.stop((row + 1) * scan.columns - 1), speed_px)
    path.rest(1)


def _cut(rng: np.random.Generator, stops: int, jumps: int) -> list[range]:
    """The serpentine in jumps + 1 pieces, in an order in which no piece continues the one before it."""
    cuts = sorted(int(cut) for cut in rng.choice(np.arange(1, stops), min(jumps, stops - 1), replace=False))
    pieces = [range(first, last) for first, last in zip([0, *cuts], [*cuts, stops], strict=True)]
    while True:
        order = rng.permutation(len(pieces))
        if not np.any(np.diff(order) == 1):
            return [pieces[piece] for piece in order]


def _visit(
    path: _Path,
    scan: Scan,
    parameters: SlideParameters,
    runs: Sequence[Sequence[int]],
    back_after: set[int],
    rng: np.random.Generator,
) -> None:
    """Rest at every stop, jump between runs, and return to an earlier stop after those numbered `back_after`."""
    visited: list[int] = []
    for run in runs:
        for place, stop in enumerate(run):
            if place == 0:
                path.jump(scan.stop(stop))
            else:
                path.move(scan.stop(stop), parameters.travel)
            path.rest(parameters.dwell)
            if len(visited) in back_after:
                earlier = visited[int(rng.integers(max(len(visited) - 12, 0), max(len(visited) - 1, 1)))]
                for goal in (earlier, stop):
                    way = np.subtract(scan.stop(goal), path.here)
                    fields = float(np.hypot(way[0] / parameters.width, way[1] / parameters.height))
                    frames = max(parameters.travel, int(np.ceil(fields / _LONG_TRAVEL_FIELDS)))
                    path.move(scan.stop(goal), frames)
                    path.rest(parameters.dwell)
            visited.append(stop)
