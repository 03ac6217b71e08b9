"""How far positions are believed, and all that is remembered of them between frames."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from streamer.records import PositionsState
from streamer.stage.affine import StageAffine
from streamer.stage.joins import Offset


@dataclass(frozen=True, slots=True)
class PositionsConfig:
    """How far positions are believed. Lengths are pixels of the frame unless their name says otherwise."""

    candidates: int = 4
    """Keyframes that are tried because of the stage, besides those that are tried without one."""
    fitted: int = 256
    """Keyframes, the newest, that the affine is fitted to."""
    fitted_again: int = 12
    """The least of them for a stage that was ignored before."""
    hopeless: int = 16
    """A fit that so many keyframes, spread over both directions, do not give is given up."""
    stuck: int = 5
    """So many keyframes at different places with one position: the stage reports nothing."""
    spread_fields: float = 0.15
    """Root mean square distance from their middle, in widths of the frame, of keyframes at different places."""
    floor_px: float = 4.0
    """A disagreement of less is none, whatever the fit says."""
    spreads: float = 3.0
    """Standard deviations of a reading that a disagreement may have."""
    least_spread_px: float = 0.7
    slack: float = 0.02
    """Disagreement allowed per pixel of distance, for a lens that distorts and axes that differ."""
    gross_fields: float = 0.25
    """A disagreement of more, in widths of the frame, is a jump of the stage's zero, or a wrong reading."""
    most_zeros: int = 3
    """A stage whose zero jumps so often is not homed: it is mirrored or turned against what it states."""
    judged: int = 16
    refuted: int = 8
    """So many disagreements among the last `judged` frames, and the stage is ignored."""
    scale_factor: float = 1.25
    """A fitted scale off by more from the one that the source states is another unit."""


class LastReading(msgspec.Struct, frozen=True):
    """That of a located frame, and where the pictures put it."""

    x_um: float
    y_um: float
    number: int
    """Its keyframe."""
    dx_px: float
    """From that keyframe."""
    dy_px: float


class PositionsMemory(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a stage but the readings of keyframes, to be stored outside."""

    state: PositionsState
    note: str | None
    exact: bool
    affine: StageAffine | None
    error_um: float | None
    epoch: int
    zeros: int
    frames: int
    unusable: int
    disagreed: int
    given_up: int
    fit_at: int
    first: int
    outcomes: tuple[bool, ...]
    last: LastReading | None
    suspect: LastReading | None
    aside: LastReading | None
    joins: dict[int, Offset]
    arranged: tuple[int, ...]
