"""Where a stage was while an image was exposed, from positions that are asked for again and again.

A stage is asked over a serial line or a network, at times of its own. The image is placed between the last position
before its exposure and the first after it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

STILL_PX = 2.0
"""A stage that moves less than this while an image is exposed smears no cell: those of a camera are 40 px and more."""

STILL_UM = 0.5
"""The same where the size of a pixel is not known: 2 px of a usual 40x objective."""

_KEPT = 64


@dataclass(frozen=True, slots=True)
class StageSample:
    """What a stage said once."""

    at_ns: int
    x_um: float
    y_um: float
    z_um: float | None
    busy: bool = False
    """It says itself that it moves."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a stage was during an exposure."""

    stage_um: tuple[float, float, float | None]
    moving: bool | None
    """None: it can't be said yet, from one position alone."""


def whereabouts(
    samples: list[StageSample], begun_ns: int, ended_ns: int, um_per_px: float | None
) -> Whereabouts | None:
    """None where there is no position. `samples` in the order of their times; the exposure from `begun_ns` to
    `ended_ns`."""
    if not samples:
        return None
    before = next((sample for sample in reversed(samples) if sample.at_ns <= begun_ns), samples[0])
    after = next((sample for sample in samples if sample.at_ns >= ended_ns), samples[-1])
    span_ns = after.at_ns - before.at_ns
    middle_ns = (begun_ns + ended_ns) / 2
    share = min(1.0, max(0.0, (middle_ns - before.at_ns) / span_ns)) if span_ns > 0 else 1.0
    x_um, y_um = (
        start + share * (end - start) for start, end in ((before.x_um, after.x_um), (before.y_um, after.y_um))
    )
    moving: bool | None = None
    if before.busy or after.busy:
        moving = True
    elif span_ns > 0:
        way_um = math.hypot(after.x_um - before.x_um, after.y_um - before.y_um)
        smear_um = way_um * min(1.0, (ended_ns - begun_ns) / span_ns)
        moving = smear_um > (STILL_UM if um_per_px is None else STILL_PX * um_per_px)
    return Whereabouts((x_um, y_um, after.z_um), moving)


class StagePoller:
    """Asks a stage on a thread of its own. `stop` ends it."""

    def __init__(self, ask: Callable[[], StageSample], every_s: float) -> None:
        """`ask` raises OSError or RuntimeError where the stage does not answer: it is asked again later. It is called
        on two threads."""
        self._ask = ask
        self._every_s = every_s
        self._samples: deque[StageSample] = deque(maxlen=_KEPT)
        self._stopped = threading.Event()
        self.silent = 0
        """How often it did not answer."""
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)

    def start(self) -> None:
        self._add()
        self._thread.start()

    def during(self, begun_ns: int, ended_ns: int, um_per_px: float | None) -> Whereabouts | None:
        """Where it was; it is asked once more where it was not after the exposure. None: it does not answer."""
        if (not self._samples or self._samples[-1].at_ns < ended_ns) and not self._add():
            return None  # what it said before is no position of this image
        return whereabouts(sorted(self._samples, key=lambda sample: sample.at_ns), begun_ns, ended_ns, um_per_px)

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._add()

    def _add(self) -> bool:
        try:
            self._samples.append(self._ask())
        except (OSError, RuntimeError):
            self.silent += 1
            return False
        return True
