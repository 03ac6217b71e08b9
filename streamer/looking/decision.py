"""Which frames the models look at: those that show something of the slide better than any look before.

A frame is decided on when the next one is placed. What it shows, and the next one shows as well, can wait for that one
while the stage moves: so a pan is looked at a few times a field and not at every step. What has waited and would be
shown worse by the next one is looked at now. So no spot is lost that an accepted frame showed: each is looked at as
deep inside a frame as any showed it, within `GAIN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streamer.looking.budget import Budget, LeftOut
from streamer.looking.coverage import Coverage, Depths, own_depths
from streamer.looking.owed import CLEAR, NO_LOOK, OwedCells, OwedLooks, WholeLook
from streamer.looking.plan import Candidate, in_frame, inside_px
from streamer.looking.state import Rows
from streamer.records import StagePosition
from streamer.stage.placement import Correction

GAIN = 0.3
"""How much deeper a frame has to show a spot than any look did, as a share of the way from no use to enough: 2 % of the
frame's longer side. A stage that shakes or stops a little off shows nothing new."""
AT_REST = 0.01
"""Of the longer side: a stage that moves less from one frame to the next rests. Then nothing waits."""
LONGEST_WAIT = 15
"""Frames in a row for which something may wait."""
DEEPER = 0.006
"""Of the longer side: so much further inside a frame than in any look a cell has to lie that was only seen cut, for a
look at where it ends."""
SHARPER = 1.5
"""So many times sharper a frame has to be to be looked at for that."""
NOISY = 1.6
"""Grey levels of noise (`FrameQuality`) above which every frame is looked at: a detector changes its mind from one to
the next. Of 3 300 pictures of ten data sets none has more than .75; the simulated slide has 1.24 at most, at three
times its usual noise 1.98 at least."""


class Decider:
    """Decides on the frames of one slide. For each, in their order: `move`, `is_settled`, and where that does not
    decide it, once the next one has moved the map too, `is_worth_a_look`."""

    def __init__(self, owed: OwedLooks | None = None, audit_percent: float = 0.0, budget: Budget | None = None) -> None:
        """`owed`: which cells are looked at again; None: none is. `audit_percent`: of the settled frames, how many are
        looked at as a proof. `budget`: what the models may take; None: what they need."""
        self.owed = owed
        self.budget = budget
        self.left_out = LeftOut()
        self.audit_percent = audit_percent
        self.every_frame = False
        """Whether all frames are looked at after all."""
        self._coverage = Coverage()
        self._waiting = Coverage()
        """The last frames, of which something waits for the next one."""
        self._order = -1
        """Of the last frame that moved the map, which is decided on next."""

    @property
    def waiting(self) -> Rows:
        """The last frames, of which something waits for the next one; `Coverage.rows`."""
        return self._waiting.rows

    def go_on_from(self, waiting: Rows) -> None:
        """As `waiting` was once the last frame was decided on."""
        self._waiting = Coverage.of(waiting)

    def move(self, order: int, corrections: Sequence[Correction]) -> None:
        """The frame of this number, from 0, below 0 for those before this run, is placed and came with these."""
        self._order = order
        self._coverage.correct(corrections)
        self._waiting.correct(corrections)
        if corrections:
            self.left_out.correct(corrections)
        if self.owed is not None:
            self.owed.moved(order, corrections)

    def owing(self, order: int, frame: Candidate) -> OwedCells | None:
        """The cells to be looked at again in the frame of this number, which the detector does not see; None: none."""
        return None if self.owed is None else self.owed.ask(order, frame)

    def look(self, frame: Candidate) -> None:
        """A frame is looked at, whoever decided it."""
        if frame.counts:
            self._coverage.add(frame.placement, frame.size_px, frame.sharpness)

    def is_settled(self, frame: Candidate) -> bool:
        """Whether a frame, the one of the last `move`, shows nothing that is worth a look, now or later."""
        if self.every_frame or frame.placement.position is None:  # of what can't be placed nothing is known
            return False
        if not frame.accepted:
            return True
        if frame.noise > NOISY:
            return False
        settled = bool((own_depths(frame.size_px) - self._seen(frame)).max() <= GAIN)
        if not settled:
            return False
        self._waiting = Coverage()
        return self._owed_whole(frame) is NO_LOOK

    def is_worth_a_look(self, frame: Candidate, following: Candidate | None) -> bool:
        """Whether a frame that is not settled is looked at. `following`: the next one; None: nothing waits for it."""
        position = frame.placement.position
        may_wait = not self.every_frame and frame.noise <= NOISY and len(self._waiting) < LONGEST_WAIT
        if may_wait and position is not None:
            shown = np.maximum(own_depths(frame.size_px), self._waiting.seen(position, frame.size_px, 0.0))
            lost = np.where(shown - self._seen(frame) > GAIN, shown - self._later(frame, following), 0)
            if lost.max() <= GAIN and not self._is_owed(frame, following):
                self._waiting.add(frame.placement, frame.size_px, frame.sharpness)
                return False
        self._waiting = Coverage()
        if self.budget is not None and not self.budget.allows():
            self.left_out.add(frame, self._coverage)
            return False
        self.look(frame)
        if self.left_out.fields:
            self.left_out.measure(self._coverage)
        return True

    def _owed_whole(self, frame: Candidate) -> WholeLook:
        """What a frame shows of cells in doubt that looks so far did not show as well."""
        owed = NO_LOOK if self.owed is None else self.owed.whole(self._order, frame)
        position = frame.placement.position
        if position is None or not len(owed.extents_px):
            return owed
        inside = inside_px(in_frame(owed.extents_px, position), frame.size_px)
        before, longer = self._coverage.inside_px(owed.extents_px, position.island), max(frame.size_px)
        deeper = (inside > before + DEEPER * longer) & (before < CLEAR * longer)
        return replace(owed, extents_px=owed.extents_px[deeper]) if owed.now or deeper.any() else NO_LOOK

    def _is_owed(self, frame: Candidate, following: Candidate | None) -> bool:
        """Whether a frame owes a known cell a look that the next one would not give as well."""
        owed, here = self._owed_whole(frame), frame.placement.position
        if owed is NO_LOOK or owed.now or here is None:
            return owed.now
        there = self._following(frame, following)
        if there is None:
            return True
        now, later = (inside_px(in_frame(owed.extents_px, one), frame.size_px) for one in (here, there))
        return bool((later < np.minimum(now, CLEAR * max(frame.size_px))).any())

    def _seen(self, frame: Candidate) -> Depths:
        """How deep looks as sharp as a frame showed its spots."""
        assert frame.placement.position is not None
        return self._coverage.seen(frame.placement.position, frame.size_px, frame.sharpness / SHARPER)

    def _later(self, frame: Candidate, following: Candidate | None) -> Depths | float:
        """How deep the next frame shows the spots of this one; 0 where nothing may wait for it."""
        here = frame.placement.position
        if self._following(frame, following) is None:
            return 0.0
        assert following is not None
        assert here is not None
        only = Coverage()
        only.add(following.placement, following.size_px, following.sharpness)
        return only.seen(here, frame.size_px, 0.0)

    def _following(self, frame: Candidate, following: Candidate | None) -> StagePosition | None:
        """Where the next frame lies, if something may wait for it."""
        here = frame.placement.position
        if following is None or not following.counts or following.size_px != frame.size_px or here is None:
            return None
        there = following.placement.position
        if there is None or there.island != here.island or following.sharpness < frame.sharpness / SHARPER:
            return None
        moved = max(abs(there.x_px - here.x_px), abs(there.y_px - here.y_px)) >= AT_REST * max(frame.size_px)
        return there if moved else None
