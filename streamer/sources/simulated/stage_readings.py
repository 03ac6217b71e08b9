"""What the simulated stage says of where it is: exactly, with errors, turned or mirrored against the camera, with
backlash."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.counting.verdict import RED_CELL_UM
from streamer.records import StagePoint
from streamer.sources.simulated.parameters import SlideParameters
from streamer.sources.simulated.stage_motion import StageMotion

_ERRORS = 23
_TURNING_PX = 2.0
"""A stage that shakes less has not turned round."""


class StageReadings:
    """The readings of all frames."""

    def __init__(self, parameters: SlideParameters, motion: StageMotion) -> None:
        self._given = parameters.positions != "none"
        self._motion = motion
        along = parameters.turn == 0 and not parameters.mirror and parameters.backlash == 0
        off_um = parameters.position_error_um
        scale = RED_CELL_UM / parameters.red
        self.um_per_px = scale if self._given and off_um == 0 else None
        """As it says; None: it does not."""
        self.error_um: float | None = off_um if off_um > 0 or (self._given and along) else None
        """Likewise."""
        lag = parameters.backlash / 2 / scale
        px = motion.x_px + lag * _direction(motion.x_px) + 1j * (motion.y_px + lag * _direction(motion.y_px))
        stage = px * scale * np.exp(-1j * np.radians(parameters.turn))
        if parameters.mirror:
            stage = stage.conj()
        errors = np.random.default_rng([parameters.seed, _ERRORS]).uniform(-off_um, off_um, (2, len(stage)))
        self._points = stage + errors[0] + 1j * errors[1]

    def point(self, frame_id: int) -> StagePoint | None:
        """None where the stage says nothing."""
        if not self._given:
            return None
        at = complex(self._points[frame_id])
        return StagePoint(at.real, at.imag, float(self._motion.focus[frame_id]))


def _direction(places_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """-1 or 1 a frame: where the stage last went along one axis."""
    direction = np.ones(len(places_px))
    turned_at, now = float(places_px[0]), 1.0
    for frame_id, place in enumerate(places_px.tolist()):
        if abs(place - turned_at) > _TURNING_PX:
            now, turned_at = float(np.sign(place - turned_at)), place
        direction[frame_id] = now
    return direction
