"""How far what comes out of a live stream is behind what its camera sends."""

from __future__ import annotations

LEAST_GAIN_S = 0.005
"""A frame that comes sooner after its time than any before it, by more than that, was stored up."""

STEADY_FRAMES = 2
"""Frames in a row without such a gain, after which what is being sent has come: one may be due to a busy machine."""

WITHOUT_TIME = 2
"""First frames without a time, of a stream that has no clock: FFmpeg knows that of the first frame of RTSP not yet."""

LARGEST_STEP_S = 10.0
"""Of the stream's clock beyond the time that passed: a larger one is a clock that was set."""

MOST_DRIFT = 200e-6
"""Seconds a second by which a camera's clock may be wrong, twice what a quartz is."""


class StreamClock:
    """Compares the clock of a stream with this machine's, of one connection.

    The frame that came the soonest after its time defines what is not behind. That moment may move by `MOST_DRIFT`: a
    stream that falls behind by more than 0.7 s an hour shows.
    """

    def __init__(self) -> None:
        self.behind_s: float | None = None
        """Of the last frame; None: there was none, or it had no time."""
        self.stored_up = True
        """Whether the last frame was one of those that were stored up before the stream was read. The first ones are
        taken to be: it shows from when the next ones come."""
        self._steady = 0
        self._without_time = 0
        self._soonest_s = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, position_s: float | None, now_s: float) -> None:
        """The next frame: its time on the stream's clock, and when it came."""
        if position_s is None:
            self._without_time += 1
            self.stored_up = self.stored_up and self._without_time < WITHOUT_TIME
            return
        if self._last is None:
            self._soonest_s, self.behind_s = now_s - position_s, 0.0
        else:
            step_s, passed_s = position_s - self._last[0], now_s - self._last[1]
            if step_s < 0 or step_s > passed_s + LARGEST_STEP_S:
                self._soonest_s = now_s - position_s - (self.behind_s or 0.0)
            is_gain = self._soonest_s - (now_s - position_s) > LEAST_GAIN_S
            self._steady = 0 if is_gain else self._steady + 1
            self.stored_up = self.stored_up and self._steady < STEADY_FRAMES
            self._soonest_s = min(now_s - position_s, self._soonest_s + MOST_DRIFT * passed_s)
            self.behind_s = now_s - position_s - self._soonest_s
        self._last = position_s, now_s
