"""What the decision on the next frame depends on, besides where the looks lie: kept with each frame, so that a run that
goes on decides as one that nobody stopped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.looking.plan import CellsInDoubt

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AreaState:
    """As of the last frame that was counted."""

    waiting: Rows
    """(n, 7) of frames of which something waits, as `Coverage.rows` has them, when that frame was decided on."""
    doubts: tuple[tuple[int, CellsInDoubt], ...]
    """(island, what was in doubt) once each of the last frames was counted, that frame last."""
    proof: tuple[int, int, int, int]
    """Frames, cells, missed, added; see `Audit`."""
    every_frame: bool
    """Whether the proof failed."""
