"""What films and streams are decoded with: PyAV where it is installed (the extra `av`), else OpenCV's FFmpeg.

Who opens a decoder grabs its frames one after the other, each decoded and not yet converted, takes those that are
wanted, and closes it; all on one thread at a time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from streamer.records import DeferredImage

Pixels = npt.NDArray[np.uint8] | DeferredImage

BackEnd = Literal["av", "opencv"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Of a network stream, in seconds."""

    open_s: float = 5.0
    read_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Grabbed:
    """One frame, decoded."""

    position_s: float | None
    """On the clock of the film or stream; None: it has none."""
    take: Callable[[], Pixels | None]
    """The pixels as the file stores them, not turned by a rotation tag; None: the frame is damaged."""
    damaged: bool = False
    """Whether the decoder has said so already."""


class Decoder(Protocol):
    """One film or stream that is open."""

    codec: str
    """Its short name, for people."""
    announced: int | None
    """How many frames the container says it has, which some only estimate; None: it has no end, or does not say."""
    fps: float | None
    begun_utc_ns: int | None
    """When a film was begun, in nanoseconds since 1970; None: it does not say."""
    keeps_frames: bool
    """Whether a frame can still be taken after the next one was grabbed."""
    sees_sizes: bool
    """Whether frames have their own size where a stream changes it, and not that of the first."""
    about: str
    """What decodes, with its version."""

    def grab(self) -> Grabbed | None:
        """The next frame; None at the end, and where nothing came for the time allowed."""

    def close(self) -> None:
        """Harmless when called twice."""


class OpenDecoder(Protocol):
    def __call__(self, address: str, timeouts: Timeouts | None = None) -> Decoder | None:
        """The decoder of a path, or of the URL of a stream, which has timeouts; None for what can't be opened."""


def has_av() -> bool:
    return importlib.util.find_spec("av") is not None


def back_end() -> BackEnd:
    """The one in use here."""
    return "av" if has_av() else "opencv"


def open_decoder(address: str, timeouts: Timeouts | None = None) -> Decoder | None:
    """As OpenDecoder says, with the back end in use here."""
    if back_end() == "av":
        from streamer.sources.av_decoder import open_av

        return open_av(address, timeouts)
    from streamer.sources.opencv_decoder import open_opencv

    return open_opencv(address, timeouts)
