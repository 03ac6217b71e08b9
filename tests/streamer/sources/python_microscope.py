"""A microscope in Python, for UniMMCore: a camera whose image is where its stage stands, and that stage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike
from pymmcore_plus.experimental.unicore import CameraDevice, XYStageDevice

STAGE = [0.0, 0.0]


class Camera(CameraDevice):
    """10 images a second, (40, 60) grey or colours, until LEUKOSTREAM_TEST_IMAGES of them were sent."""

    _exposure_ms = 10.0

    def get_exposure(self) -> float:
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        self._exposure_ms = min(exposure, 100.0)

    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (40, 60, 3) if os.environ.get("LEUKOSTREAM_TEST_COLOURS") else (40, 60)

    def dtype(self) -> DTypeLike:
        return np.uint8

    def start_sequence(
        self, n: int | None, get_buffer: Callable[[Sequence[int], DTypeLike], np.ndarray]
    ) -> Iterator[Mapping[str, object]]:
        for _ in range(int(os.environ.get("LEUKOSTREAM_TEST_IMAGES", "100000"))):
            image = get_buffer(self.shape(), self.dtype())
            image[:] = (10, 20, 30) if image.ndim == 3 else round(STAGE[0]) % 256
            yield {}
            time.sleep(0.1)


class Stage(XYStageDevice):
    """Moves at once, or by itself with LEUKOSTREAM_TEST_SPEED µm a second."""

    def get_position_um(self) -> tuple[float, float]:
        speed = float(os.environ.get("LEUKOSTREAM_TEST_SPEED", "0"))
        STAGE[0] = STAGE[0] if not speed else time.monotonic() % 1000 * speed
        return STAGE[0], STAGE[1]

    def set_position_um(self, x: float, y: float) -> None:
        STAGE[:] = x, y

    def home(self) -> None: ...

    def stop(self) -> None: ...

    def set_origin_x(self) -> None: ...

    def set_origin_y(self) -> None: ...
