"""The frames of one source are placed on their slide, in their order, and it is decided which of them the models see.

`Placer.run` is the body of a thread: ring of frames > place > decide > ring of placed frames, which the batcher reads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from streamer.analysis.measured import MeasuredFrame
from streamer.looking.decision import Decider
from streamer.looking.owed import OwedCells
from streamer.looking.plan import WHOLE, Candidate, Plan
from streamer.records import Frame
from streamer.run.measuring import Measuring
from streamer.run.ring import Ring
from streamer.run.session import SlideSession
from streamer.run.slide_stage import Placed
from streamer.sources.reconnection import STOPPED

STALE = "stale"
"""The reason under which frames older than the budget are counted."""

HURRY_S = 0.05
"""How long a frame waits for the next one of a camera, or of a source that is paused, before it is decided on."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedFrame:
    """A frame on its way from the stage tracker to the models and to the count."""

    measured: MeasuredFrame
    placed: Placed
    order: int
    """Among the placed frames of its slide."""
    plan: Plan = WHOLE
    """But for the cells that are looked at again: see `final_plan`."""
    owing: OwedCells | None = None
    """None: no cell is looked at again."""

    @property
    def is_ready(self) -> bool:
        """Whether all is known that `final_plan` waits for."""
        return self.owing is None or self.owing.known

    @property
    def final_plan(self) -> Plan:
        """What the models see of it."""
        return self.plan if self.owing is None else replace(self.plan, cells=self.owing.wait())

    @property
    def frame(self) -> Frame:
        return self.measured.frame

    @property
    def captured_ns(self) -> int:
        return self.frame.captured_ns

    @property
    def candidate(self) -> Candidate:
        quality, frame = self.measured.quality, self.frame
        sharpness = 1.0 if quality.focus is None else quality.focus
        size_px = frame.width, frame.height
        return Candidate(self.placed.placement, size_px, quality.accepted, sharpness, quality.noise)


class Placer:
    """Places the frames of one source."""

    def __init__(
        self,
        frames: Ring[Frame],
        placed: Ring[PlacedFrame],
        measuring: Measuring,
        session: SlideSession,
        *,
        stale_after_ms: float | None,
        measures_late: bool,
        now_ns: Callable[[], int],
        is_paused: Callable[[], bool],
        is_over: Callable[[], bool],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`stale_after_ms`: the budget of a live source, None for one that loses nothing: what is older when its turn
        comes is dropped and counted. `measures_late`: its frames are measured when their turn comes, and not before.
        `is_paused`: whether no frame is to be waited for. `is_over`: whether the source
        gives no more, once its frames have ended, and was not told to stop. `on_failure` gets what ended it before its
        frames did."""
        self._frames = frames
        self._placed = placed
        self._measuring, self._measures_late = measuring, measures_late
        self.session = session
        """That of the next frame; `begin` changes it."""
        self._order = 0
        self._stale_after_ns = None if stale_after_ms is None else round(stale_after_ms * 1e6)
        self._now_ns = now_ns
        self._is_paused, self._is_over = is_paused, is_over
        self._on_failure = on_failure
        self._waiting: PlacedFrame | None = None
        """A frame that is decided on when the next one is placed."""
        self._expected: deque[Frame] = deque()
        """Frames that are being placed."""
        self._changed = threading.Condition()
        self._held = self._busy = False
        self.count = 0
        """Frames placed so far."""
        self.dropped: dict[str, int] = {}

    def run(self) -> None:
        try:
            self._place_all()
        except Exception as error:
            self._on_failure(error)
            self._frames.close()
            while self._expected:
                self._expected.popleft().settle(False)
            while (frame := self._frames.get()) is not None:
                frame.settle(False)
        finally:
            self._waiting, self._busy = None, False
            self._placed.close()

    def hold(self) -> None:
        """Place no frame until `release`; those placed are on their way once it is idle."""
        with self._changed:
            self._held = True

    def begin(self, session: SlideSession) -> None:
        """The next frames are of another slide; while it is held and idle."""
        self.session, self._order = session, 0

    def release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether all frames placed were handed on."""
        with self._changed:
            return not self._busy and self._waiting is None

    def _place_all(self) -> None:
        while self._expected or not self._frames.drained:
            patience_s = 0.0 if self._expected else None if self._waiting is None else HURRY_S
            taken = self._frames.get(patience_s)
            if taken is not None and not self._is_stale(taken):
                self._begin(taken)
            elif self._expected:
                self._place_next()
            elif taken is None and self._waiting is not None and self._is_hurried():
                self._hand_on_waiting()
        if self._stale_after_ns is not None or self._is_over():
            self._hand_on_waiting()
        else:
            self._leave_out_waiting()

    def _leave_out_waiting(self) -> None:
        """A run that was stopped decides on its last frame when it goes on, and the next one is there."""
        with self._changed:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.session.leave_out()
            self._count_dropped(STOPPED)
            waiting.frame.settle(False)

    def _count_dropped(self, reason: str) -> None:
        self.dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + 1}

    def _is_hurried(self) -> bool:
        return self._held or self._stale_after_ns is not None or self._is_paused()

    def _begin(self, frame: Frame) -> None:
        """Of a frame, as soon as nobody holds it; while the one before it is decided on, it can be placed."""
        while True:
            with self._changed:
                if not self._held:
                    self._busy = True
                    break
            while self._expected:
                self._place_next()
            self._hand_on_waiting()
            with self._changed:
                self._changed.wait_for(lambda: not self._held)
        self._expected.append(frame)
        if self._measures_late:
            self._measuring.begin(frame)
        self.session.expect(frame)
        while len(self._expected) > self.session.ahead:
            self._place_next()

    def _place_next(self) -> None:
        """The oldest of those that are expected."""
        self._place(self._expected[0])
        self._expected.popleft()
        self._busy = bool(self._expected)

    def _is_stale(self, frame: Frame) -> bool:
        if self._stale_after_ns is None or self._now_ns() - frame.captured_ns <= self._stale_after_ns:
            return False
        self._count_dropped(STALE)
        return True

    def _place(self, frame: Frame) -> None:
        measured = self._measuring.measured(frame)
        placed = PlacedFrame(measured, self.session.place(measured), self._order)
        self._order += 1
        self.count += 1
        corrections = placed.placed.placement.corrections
        self._hand_on_waiting(None if corrections else placed)  # it lies on the map as it was before them
        area = self.session.area
        if area is None:
            self._placed.put(placed)
            return
        decider = area.decider
        decider.move(placed.order, corrections)
        if decider.is_settled(placed.candidate):
            audit = placed.candidate.counts and area.is_audited(frame.frame_id)
            self._hand_on(decider, placed, looked=False, audit=audit)
        else:
            self._waiting = placed
            if frame.is_awaited:  # whoever sent it sends no other one before it is answered
                self._hand_on_waiting()

    def _hand_on_waiting(self, following: PlacedFrame | None = None) -> None:
        """Decide on the frame that waits, if any; `following`: the next one, None where nobody waits for it."""
        with self._changed:
            waiting, self._waiting = self._waiting, None
            if waiting is None:
                return
            busy, self._busy = self._busy, True
        area = self.session.area
        assert area is not None
        decider = area.decider
        looked = decider.is_worth_a_look(waiting.candidate, None if following is None else following.candidate)
        self._hand_on(decider, waiting, looked)
        self._busy = busy

    def _hand_on(self, decider: Decider, placed: PlacedFrame, looked: bool, audit: bool = False) -> None:
        if not looked:
            owing = decider.owing(placed.order, placed.candidate)
            placed = replace(placed, plan=Plan(False, audit=audit, waiting=decider.waiting), owing=owing)
        self._placed.put(placed)
