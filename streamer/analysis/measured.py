"""What is known of a frame before a model sees it: what registration and the quality gate need."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.geometry import Image, halved
from streamer.analysis.quality import STAGE_MOVING, assess
from streamer.records import Frame, FrameQuality
from streamer.stage.preparation import PreparedFrame, RegistrationConfig, prepare

_REGISTRATION = RegistrationConfig()


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredFrame:
    """A frame, and what is known of it before a model sees it."""

    frame: Frame
    half: Image | None
    """At half its size; None: whoever measured it has it."""
    prepared: PreparedFrame | None
    """None: whoever places it has it."""
    quality: FrameQuality
    timings_ms: dict[str, float]

    @property
    def halved(self) -> Image:
        """At half its size."""
        return halved(self.frame.image, 1) if self.half is None else self.half


def measured_image(
    image: Image, half: Image | None = None, *, moving: bool = False
) -> tuple[PreparedFrame, FrameQuality]:
    """Of a uint8 (H, W, 3) BGR image. `half`: it at half its size, where the caller has it; `moving`: whether its
    source says that its stage moved while it was exposed."""
    half = halved(image, 1) if half is None else half
    quality = assess(image, half=half)
    if moving:
        quality = replace(quality, accepted=False, reasons=(STAGE_MOVING, *quality.reasons))
    return prepare(image, _REGISTRATION, half), quality
