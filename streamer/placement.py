"""What stage tracking tells the slide map: where a frame lies, and which places turned out to lie elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.records import StagePosition


@dataclass(frozen=True, slots=True)
class Correction:
    """A keyframe lies elsewhere than was said before; everything anchored to it moves with it."""

    anchor: int
    island: int
    """Its island now: another one than before when two islands turned out to overlap."""
    dx_px: float
    """How far it moved since it was last told of; coordinates of the old island become ones of the new."""
    dy_px: float


@dataclass(frozen=True, slots=True)
class Placement:
    """What became of one frame. `corrections` come first: `position` is already in the corrected map."""

    position: StagePosition | None
    """None for a frame that is lost: its detections are shown, and not counted."""
    anchor: int | None = None
    """The keyframe that the position hangs on; it moves by that keyframe's corrections. None without position."""
    reason: str | None = None
    """Why there is no position: "blurred", "no texture", "rotated", "other magnification", "other frame size"."""
    corrections: tuple[Correction, ...] = ()
    merged_islands: tuple[tuple[int, int], ...] = ()
    """(gone, into) for every island that turned out to be part of another one."""
