"""A made camera on a made stage: views of the made slide, each with what the stage says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from streamer.run.slide_stage import STAGE
from streamer.stage.placement import Placement
from streamer.stage.readings import Reading
from streamer.stage.tracker import StageTracker
from tests.streamer.stage.stage_cases import view

UM_PER_PX = 0.2

Place = tuple[int, int]
Said = Callable[[int, Place], Reading | None]
"""(number of the frame, where it really is) -> what the stage says."""

BLOCK = [(20 + 190 * column, 20 + 140 * row) for row in range(2) for column in range(3)]
"""Fields that overlap, 380 x 140 px apart at most: enough to know a stage by."""
DENSE = [
    (20 + 127 * (column if row % 2 == 0 else 3 - column), 20 + 85 * row) for row in range(4) for column in range(4)
]
"""The same part of the slide in more frames, for stages that err."""
APART = [(1000, 20), (1000, 400), (20, 760), (520, 760), (1010, 760)]
"""Fields that overlap none; 20 px between the nearest."""


def stage(
    turn_deg: float = 0.0,
    *,
    mirrored: bool = False,
    error_um: float = 0.0,
    stated_um: float | None = None,
    um_per_px: float | None = None,
    seed: int = 1,
) -> Said:
    """Seen turned, mirrored, and with errors of up to `error_um` along each axis."""
    rng = np.random.default_rng(seed)

    def say(number: int, place: Place) -> Reading:
        um = complex(*place) * UM_PER_PX * np.exp(-1j * np.radians(turn_deg))
        um = um.conjugate() if mirrored else um
        off = rng.uniform(-error_um, error_um, 2)
        return Reading(um.real + off[0] + 5000, um.imag + off[1] - 300, stated_um, um_per_px)

    return say


def exact() -> Said:
    """Of a source that needs no fit."""
    return stage(stated_um=0.0, um_per_px=UM_PER_PX)


@dataclass
class StagedRun:
    """A tracker fed with views and readings."""

    say: Said
    tracker: StageTracker = field(default_factory=lambda: StageTracker(STAGE))
    places: list[Place] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)

    def go(self, places: Iterable[Place]) -> Placement:
        for place in places:
            reading = self.say(len(self.places), place)
            frame = self.tracker.prepare(view(*place))
            self.placements.append(self.tracker.update(frame, reading=reading))
            self.places.append(place)
        return self.placements[-1]

    def final(self) -> list[tuple[int, float, float]]:
        """Island and place of each frame, after all corrections."""
        moved: dict[int, tuple[float, float, int]] = {}
        told = []
        for placement in self.placements:
            for one in placement.corrections:
                x, y, _ = moved.get(one.anchor, (0.0, 0.0, 0))
                moved[one.anchor] = x + one.dx_px, y + one.dy_px, one.island
            at, anchor = placement.position, placement.anchor
            if at is not None and anchor is not None:
                x, y, _ = moved.get(anchor, (0.0, 0.0, 0))
                told.append((anchor, at.island, at.x_px - x, at.y_px - y))
        now = [(moved.get(anchor, (0.0, 0.0, island)), x, y) for anchor, island, x, y in told]
        return [(island, x + dx, y + dy) for (dx, dy, island), x, y in now]

    def finish(self) -> None:
        self.placements.append(self.tracker.finish())

    def off_px(self) -> float:
        """The largest error of a place against the first frame of its island."""
        origins: dict[int, complex] = {}
        worst = 0.0
        for (island, x, y), place in zip(self.final(), self.places, strict=True):
            away = complex(x, y) - complex(*place)
            worst = max(worst, abs(away - origins.setdefault(island, away)))
        return worst
