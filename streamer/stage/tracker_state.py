"""All that a stage tracker remembers, as data to be stored outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.stage.keyframes import KeyframeState
from streamer.stage.placement import Placement
from streamer.stage.positions_state import PositionsMemory
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading
from streamer.stage.registration import Shift
from streamer.stage.static_mask import StaticMask


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """What a tracker remembers besides its keyframes."""

    next_island: int
    reference: int | None
    pending: tuple[tuple[int, int], ...]
    distorted: Mapping[int, str]
    given_up: int
    was_found: bool
    last: tuple[PreparedFrame, Placement] | None
    """The last frame and its placement, without the corrections that came with it."""
    found: tuple[PreparedFrame, int, Shift] | None
    hunches: tuple[tuple[int, int, Shift], ...]
    static: StaticMask
    positions: PositionsMemory | None = None
    """None: no frame came with a position."""


@dataclass(frozen=True, slots=True, eq=False)
class StageChanges:
    """What has changed in a tracker since the last call."""

    keyframes: tuple[tuple[KeyframeState, PreparedFrame], ...]
    """Those new or changed; a keyframe's picture never changes."""
    tracker: TrackerState
    readings: tuple[KeyframeReading, ...] = ()
    """Of the stage, at new keyframes."""
