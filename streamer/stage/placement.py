"""What stage tracking reports to the slide map: where a frame lies, and which earlier places have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from streamer.records import MergedIsland, StagePosition
from streamer.stage.hidden import HiddenParts


@dataclass(frozen=True, slots=True)
class Correction:
    """A keyframe has moved since it was last announced; everything anchored to it moves with it."""

    anchor: int
    island: int
    """Its island now, which changes when two islands turn out to overlap."""
    dx_px: float
    """Its move since the last announcement, from coordinates of the old island to those of the new."""
    dy_px: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one frame lies. Apply `corrections` first: `position` is in the corrected map."""

    position: StagePosition | None
    """None for a lost frame: its detections are shown but not counted."""
    anchor: int | None = None
    """The keyframe whose corrections move this position too. None without position."""
    reason: str | None = None
    """Why there is no position: "blurred", "no texture", "rotated", "other magnification", "other frame size"."""
    corrections: tuple[Correction, ...] = ()
    merged_islands: tuple[tuple[int, int], ...] = ()
    """(gone, into) for every island that turned out to be part of another one."""
    hidden: HiddenParts | None = None
    """The parts of the frame that show no slide; None: none are known."""


def without_news(placement: Placement) -> Placement:
    """Where a frame lies, without what turned out about others when it came."""
    return replace(placement, corrections=(), merged_islands=())


class IslandBook:
    """Works out from corrections alone which islands became parts of others, and where they lie there."""

    def __init__(self, anchors: Mapping[int, int] | None = None) -> None:
        """`anchors`: those of another book, to continue it."""
        self.anchors = dict(anchors or {})
        """One keyframe of each island."""

    def update(self, placement: Placement) -> tuple[MergedIsland, ...]:
        """The islands that this placement merged. Call it with every placement of a slide."""
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
