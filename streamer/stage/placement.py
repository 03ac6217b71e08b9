"""What stage tracking gives the slide map: where a frame lies, and which places turned out to lie elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.records import MergedIsland, StagePosition


@dataclass(frozen=True, slots=True)
class Correction:
    """A keyframe lies elsewhere than was announced before; everything anchored to it moves with it."""

    anchor: int
    island: int
    """Its island now: another one than before when two islands turned out to overlap."""
    dx_px: float
    """How far it moved since it was last announced; coordinates of the old island become ones of the new."""
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


class IslandBook:
    """Which islands turned out to be parts of others, and where they lie there: from the corrections alone."""

    def __init__(self, anchors: Mapping[int, int] | None = None) -> None:
        """`anchors`: those of another book, to go on as it would."""
        self.anchors = dict(anchors or {})
        """One keyframe of each island."""

    def update(self, placement: Placement) -> tuple[MergedIsland, ...]:
        """The islands that this placement merged; to be given every placement of a slide."""
        merged = []
        if placement.corrections:
            moved = {correction.anchor: correction for correction in placement.corrections}
            for island, anchor in list(self.anchors.items()):
                move = moved.get(anchor)
                if move is not None and move.island != island:
                    del self.anchors[island]
                    merged.append(MergedIsland(island, move.island, move.dx_px, move.dy_px))
        if placement.position is not None and placement.anchor is not None:
            self.anchors.setdefault(placement.position.island, placement.anchor)
        return tuple(merged)
