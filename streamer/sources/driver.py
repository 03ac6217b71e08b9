"""What the driver of a camera is: the part of a source that talks to a vendor's library.

It runs in a process of its own (camera_process.py), so that a library which crashes or hangs takes nothing with it.
There one thread calls `connect` with what stands behind the prefix, `next` again and again, and `close` at the end.
* `connect` gives a camera that is sending. SourceAbsentError: it is not there, or another program holds it.
  SourceError: it never will be, such as for a setting that it does not take. UsageError: the target can't be meant.
* `next` waits for an image that was not given before: the newest, of a camera. None: nothing came in time. It raises
  EndOfImages where there are no more, SourceLostError where the camera is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class EndOfImages(Exception):
    """A driver that has given all."""


@dataclass(slots=True)
class RawImage:
    """One image as the camera sent it."""

    data: npt.NDArray[np.uint8]
    """(N,), without padding; the driver's until the next call of it."""
    width_px: int
    height_px: int
    pixel_format: str
    """As pixel_formats.py names them."""
    arrived_ns: int
    """When it was whole in this machine, by time.monotonic_ns()."""
    lost: int = 0
    """Images that the camera numbered since the last one, and that never came."""
    damaged: int = 0
    """Images since the last one that came in part."""
    passed_over: int = 0
    """Images since the last one that nobody took, because a newer one came."""
    exposure_ms: float | None = None
    """None: the camera does not say."""
    stage_um: tuple[float, float, float | None] | None = None
    """x, y, z; None: there is no stage, or it did not say."""
    um_per_px: float | None = None
    moving: bool | None = None
    """Whether the stage moved while it was exposed; None: it can't be said."""


class Driver(Protocol):
    @property
    def settings(self) -> Mapping[str, str]:
        """What is in force, read back from the camera, by name."""

    @property
    def period_s(self) -> float:
        """From one image to the next at most, by its settings; 0: short, or not known."""

    def next(self, timeout_s: float) -> RawImage | None: ...

    def close(self) -> None:
        """Release the camera."""


Connect = Callable[[str], Driver]
"""A function of a module, so that another process can find it."""


@dataclass(frozen=True, slots=True)
class AttachedCamera:
    """A camera that a back end shows."""

    source: str
    """What to write behind `--source`."""
    name: str
    """As its driver says it; "" where it does not."""
    gives: str
    """What it gives, as far as was looked: "640x480, 30 frames/s"; else why it can't be used."""
    usable: bool
