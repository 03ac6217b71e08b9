"""What a camera or a capture program burns into every frame: a clock, a logo, a crosshair, a scale bar."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CLOCK_PX = 32
"""Height of the clock's black field, as IP cameras draw it."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DAY_S = 24 * 3600


def burn_in(image: NDArray[np.uint8], time_s: float) -> None:
    """Draw over a uint8 (H, W, 3) BGR image, in place. `time_s`: since the clock showed 09:26:53."""
    height, width = image.shape[:2]
    cv2.line(image, (width // 2, 0), (width // 2, height - 1), (40, 40, 40), 1)
    cv2.line(image, (0, height // 2), (width - 1, height // 2), (40, 40, 40), 1)
    seconds = (9 * 3600 + 26 * 60 + 53 + int(time_s)) % _DAY_S
    text = f"2026-03-14 {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    across = cv2.getTextSize(text, _FONT, 0.75, 2)[0][0]
    cv2.rectangle(image, (0, 0), (across + 8, CLOCK_PX - 1), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, text, (4, CLOCK_PX - 9), _FONT, 0.75, (255, 255, 255), 2, cv2.LINE_AA)
    _logo(image[height - 44 : height - 8, width - 44 : width - 8])
    cv2.rectangle(image, (12, height - 20), (111, height - 16), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, "20 um", (36, height - 26), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def _logo(square: NDArray[np.uint8]) -> None:
    """A blue disc with a white ring and a red core."""
    side = len(square)
    for share, colour in ((0.48, (160, 60, 20)), (0.36, (250, 250, 250)), (0.26, (30, 30, 200))):
        cv2.circle(square, (side // 2, side // 2), round(share * side), colour, cv2.FILLED, cv2.LINE_AA)
