"""A slide of which the models see only what is new: what was looked at, what it cost, and the proof."""

from __future__ import annotations

from collections.abc import Callable

from streamer.analysis.analyser import Analysed
from streamer.counting.slide_count import SlideCount
from streamer.journal import StoredSession
from streamer.looking.audit import Audit, is_audited
from streamer.looking.decision import NOISY, Decider
from streamer.looking.state import AreaState
from streamer.records import AreaStatus, AuditStatus
from streamer.stage.placement import Placement

BUDGET = "budget"
"""The reason under which frames are counted that showed something new and were too much for the budget."""


class SlideArea:
    """What the count tells the decider of each frame, and what is told of it all."""

    def __init__(self, decider: Decider, source: str, on_remark: Callable[[str], None]) -> None:
        self.decider = decider
        self._source = source
        self._on_remark = on_remark
        self._audit = Audit()
        self._frames = self._looked = self._again = 0
        self._was_noisy = False

    def go_on_from(self, stored: StoredSession) -> None:
        """Know what an earlier run of the session looked at, and what it was about to."""
        for order, (seen, looked) in enumerate(stored.visited(), start=-stored.frame_count):
            self.decider.move(order, seen.placement.corrections)
            if looked:
                self.decider.look(seen)
        state = stored.area_state()
        if state is not None:
            self.decider.go_on_from(state.waiting)
            self.decider.every_frame = state.every_frame
            self._audit = Audit(*state.proof)
            if self.decider.owed is not None:
                self.decider.owed.go_on_from(state.doubts)

    def is_audited(self, frame_id: int) -> bool:
        """Whether a frame of which all is known is looked at as a proof."""
        return is_audited(self._source, frame_id, self.decider.audit_percent)

    def counted(self, analysed: Analysed, placement: Placement, count: SlideCount) -> None:
        """A frame was counted."""
        decider, size_px = self.decider, (analysed.frame.width, analysed.frame.height)
        self._frames += 1
        self._looked += analysed.looked
        self._again += 0 if analysed.cell_looks is None else len(analysed.cell_looks.cell_ids)
        if analysed.audit is not None:
            one = count.compare(placement, analysed.audit, size_px)
            self._audit.add(one.found, one.known, one.whole_found, one.whole_known)
            self._fall_back_if_it_fails()
        if analysed.quality.noise > NOISY and not self._was_noisy:
            self._was_noisy = True
            self._on_remark(
                f"{self._source}: got a frame with {analysed.quality.noise:.1f} grey levels of noise, expected {NOISY}"
                " at most: every such frame is looked at; more light and less gain make it cheaper"
            )
        if decider.budget is not None:
            decider.budget.spend(sum(analysed.timings_ms.get(name, 0.0) for name in ("detect", "classify")))
        if decider.owed is not None:
            island = -1 if placement.position is None else placement.position.island
            decider.owed.counted(island, count.owing(placement, size_px))

    def state(self, analysed: Analysed) -> AreaState:
        """Of a frame, once it is `counted`."""
        owed, audit = self.decider.owed, self._audit
        return AreaState(
            waiting=analysed.plan.waiting,
            doubts=() if owed is None else owed.doubts,
            proof=(audit.frames, audit.cells, audit.missed, audit.added),
            every_frame=self.decider.every_frame,
        )

    def give_up(self) -> None:
        """No more frames will be counted, so that no decision need wait for any."""
        if self.decider.owed is not None:
            self.decider.owed.give_up()

    @property
    def status(self) -> AreaStatus:
        """What was looked at in this run."""
        left_out = self.decider.left_out
        reasons = {BUDGET: left_out.frames} if left_out.frames else {}
        return AreaStatus(self._frames, self._looked, self._again, reasons, left_out.fields)

    @property
    def audit(self) -> AuditStatus | None:
        """What the proofs of this run came to; None: there are none."""
        audit = self._audit
        if not self.decider.audit_percent:
            return None
        return AuditStatus(
            audit.frames,
            audit.missed,
            audit.added,
            audit.bound,
            cells=audit.cells,
            every_frame=self.decider.every_frame,
        )

    def _fall_back_if_it_fails(self) -> None:
        audit = self._audit
        if audit.fails and not self.decider.every_frame:
            self.decider.every_frame = True
            self._on_remark(
                f"{self._source}: {audit.missed} of {audit.cells} white cells in frames that were looked at as a proof "
                "had been missed; looking at every frame from now on"
            )
