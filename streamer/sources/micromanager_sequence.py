"""The images of a useq sequence that pymmcore-plus runs, in their order and none of them lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streamer.sources.base import SourceError, SourceLostError
from streamer.sources.driver import EndOfImages, RawImage
from streamer.sources.packages import extra

if TYPE_CHECKING:
    import useq

    from streamer.sources.micromanager import Microscope

_WAITING = 4
"""Images that wait here; then the sequence waits."""

_STOP_S = 0.25


class SequenceOfImages:
    """A driver: the sequence begins when the first image is asked for."""

    def __init__(self, microscope: Microscope, file: str) -> None:
        """SourceError for a file that is no sequence."""
        with extra("micromanager", f"sequence {os.path.basename(file)}"):
            import useq
        try:
            self._sequence = useq.MDASequence.from_file(file)
        except Exception as error:  # whatever YAML, JSON and pydantic say
            fault = " ".join(str(error).split())[:200]
            raise SourceError(
                f"got {os.path.basename(file)} ({fault}), expected a useq sequence (YAML or JSON)"
            ) from error
        self._microscope = microscope
        self.period_s = 0.0  # it may wait for as long as it likes
        self.settings = {**microscope.settings, "mda": os.path.basename(file)}
        self._images: Queue[RawImage | Exception] = Queue(_WAITING)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sequence", daemon=True)

    def next(self, timeout_s: float) -> RawImage | None:
        if self._thread.ident is None:
            self._thread.start()
        try:
            item = self._images.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        self._stopped.set()
        self._microscope.core.mda.cancel()
        if self._thread.ident is not None:
            self._thread.join(1.0)
        self._microscope.close()

    def _run(self) -> None:
        core = self._microscope.core
        try:
            core.mda.events.frameReady.connect(self._add)
            core.mda.run(self._sequence)
        except Exception as error:
            self._put(SourceLostError(f"got '{' '.join(str(error).split())}', expected that the sequence goes on"))
        else:
            self._put(EndOfImages())

    def _add(self, stored: npt.NDArray[Any], event: useq.MDAEvent, metadata: Mapping[str, Any]) -> None:
        arrived_ns = time.monotonic_ns()
        image = self._microscope.image(np.array(stored), arrived_ns)
        image.moving = False  # the sequence waits for its stages
        image.stage_um = self._where(event, metadata)
        exposure_ms, size_um = metadata.get("exposure_ms"), metadata.get("pixel_size_um")
        image.exposure_ms = float(exposure_ms) if exposure_ms else image.exposure_ms
        image.um_per_px = float(size_um) if size_um else image.um_per_px
        self._put(image)

    def _where(self, event: useq.MDAEvent, metadata: Mapping[str, Any]) -> tuple[float, float, float | None] | None:
        """As the stage said it; of a sequence that the hardware runs by itself, where it was sent."""
        position = metadata.get("position") or {}
        x_um, y_um, z_um = (position.get(axis, getattr(event, f"{axis}_pos", None)) for axis in ("x", "y", "z"))
        if (x_um is None or y_um is None) and self._microscope.xy and not metadata.get("hardware_triggered"):
            sample = self._microscope.where()
            return sample.x_um, sample.y_um, sample.z_um
        if x_um is None or y_um is None:
            return None
        return float(x_um), float(y_um), None if z_um is None else float(z_um)

    def _put(self, item: RawImage | Exception) -> None:
        while not self._stopped.is_set():
            try:
                self._images.put(item, timeout=_STOP_S)
                return
            except Full:
                continue
