"""Frames as JPEG, for those who ask for them, and not more often than is useful."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from streamer.records import Frame

INTERVAL_NS = 500_000_000
"""At most two a second for each source."""

WIDTH_MAX_PX = 960
QUALITY = 80


class PictureMaker:
    """Decides which frames become pictures, and encodes them."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        """`wanted` says of a source whether anyone asks for its pictures."""
        self._wanted = wanted
        self._due_ns: dict[str, int] = {}

    def picture(self, frame: Frame, now_ns: int) -> tuple[bytes, int, int] | None:
        """(JPEG, width, height); None for a frame that nobody needs a picture of."""
        if not self._wanted(frame.source) or now_ns < self._due_ns.get(frame.source, now_ns):
            return None
        self._due_ns[frame.source] = now_ns + INTERVAL_NS
        image = frame.image
        if frame.width > WIDTH_MAX_PX:
            size = WIDTH_MAX_PX, max(1, round(frame.height * WIDTH_MAX_PX / frame.width))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return (encoded.tobytes(), image.shape[1], image.shape[0]) if done else None
