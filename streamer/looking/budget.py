"""A share of the machine for the models of one camera, and what of the slide was left out to keep to it.

Whole frames are left out before any model sees them, never cells of a frame. What they showed stays unseen: it is owed
when the stage comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from streamer.looking.coverage import Coverage, own_depths
from streamer.looking.plan import Candidate
from streamer.stage.placement import Correction

SAVED_S = 1.0
"""Seconds of a share that may be saved up while nothing is new."""
MOST_LEFT_OUT = 200
"""Frames left out whose area is remembered, the newest."""
UNSEEN = 0.5
"""Depth, of what is enough, below which a spot was not seen."""


class Budget:
    """Processor time that the models of one source may take."""

    def __init__(self, cores: float, now_ns: Callable[[], int]) -> None:
        """`cores`: processor seconds a second."""
        self._cores = cores
        self._now_ns = now_ns
        self._at_ns = now_ns()
        self._left_s = cores * SAVED_S

    def spend(self, milliseconds: float) -> None:
        """The models took so long; on any thread."""
        self._left_s -= milliseconds / 1000

    def allows(self) -> bool:
        """Whether another frame may be looked at."""
        now_ns = self._now_ns()
        earned_s = self._cores * (now_ns - self._at_ns) / 1e9
        self._at_ns, self._left_s = now_ns, min(self._cores * SAVED_S, self._left_s + earned_s)
        return self._left_s > 0


class LeftOut:
    """Frames that were not looked at though they showed something new."""

    def __init__(self) -> None:
        self.frames = 0
        self.fields = 0.0
        """The area that nobody has looked at since, in fields; what is too long ago is not in it."""
        self._frames: list[Candidate] = []

    def add(self, frame: Candidate, seen: Coverage) -> None:
        self.frames += 1
        if frame.counts:
            self._frames = [*self._frames, frame][-MOST_LEFT_OUT:]
            self.measure(seen)

    def correct(self, corrections: Sequence[Correction]) -> None:
        """The stage map moved: what was left out on what moved is forgotten, as it can't be said where it lies."""
        moved = {one.anchor for one in corrections}
        self._frames = [one for one in self._frames if one.placement.anchor not in moved]

    def measure(self, seen: Coverage) -> None:
        """Work out anew what is unseen."""
        missing, kept, fields = Coverage(), [], 0.0
        for frame in self._frames:
            position = frame.placement.position
            assert position is not None
            own = own_depths(frame.size_px) >= UNSEEN
            unseen = own & (seen.seen(position, frame.size_px, 0.0) < UNSEEN)
            unseen &= missing.seen(position, frame.size_px, 0.0) < UNSEEN
            if unseen.any():
                missing.add(frame.placement, frame.size_px, frame.sharpness)
                kept.append(frame)
                fields += float(np.count_nonzero(unseen) / np.count_nonzero(own))
        self._frames, self.fields = kept, fields
