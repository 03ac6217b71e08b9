"""What a journal holds of the stage tracker: its keyframes with their pictures, and its state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec

from streamer.journal.columns import KeyframePictureRow, KeyframeRow, SessionRows, check_finite
from streamer.journal.positions import keyframe_readings, positions_memory, said_um_per_px
from streamer.journal.rows import unpacked, unpacked_mask
from streamer.records import StagePosition
from streamer.stage.keyframes import KeyframeState, Link
from streamer.stage.placement import Placement
from streamer.stage.positions_state import PositionsMemory
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading
from streamer.stage.registration import Shift
from streamer.stage.static_mask import PAIRS, StaticMask
from streamer.stage.tracker_state import TrackerState

LAST_PICTURE = -1
"""Number under which the picture of the last frame is stored."""

FOUND_PICTURE = -2
"""The same for `TrackerState.found`, if that is another frame."""

STATIC_PICTURE = -3
"""The same of the frame by which static parts are looked for."""


class StaticRow(msgspec.Struct, frozen=True, kw_only=True):
    """A StaticMask as JSON, without its picture."""

    pairs: Annotated[int, msgspec.Meta(ge=0, le=PAIRS)] = 0
    history: bytes | None = None
    found: bytes | None = None


class TrackerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A TrackerState without its pictures, as JSON."""

    next_island: int
    reference: int | None
    pending: tuple[tuple[int, int], ...]
    distorted: dict[int, str]
    given_up: int
    was_found: bool
    found: tuple[int, Shift] | None
    found_is_last: bool
    """Whether `found` is of the last frame."""
    hunches: tuple[tuple[int, int, Shift], ...]
    position: tuple[int, float, float, float] | None
    """Of the last frame: island, x_px, y_px, quality."""
    anchor: int | None
    reason: str | None
    static: StaticRow = StaticRow()


@dataclass(frozen=True, slots=True)
class StoredStage(SessionRows):
    """The stage tracker of one session."""

    def keyframes(self) -> Iterator[tuple[KeyframeState, PreparedFrame]]:
        """In order of their numbers, without spectra."""
        for row in self.rows("keyframes", KeyframeRow, "ORDER BY number"):
            picture = self._picture(row.number)
            with self.reading(f"keyframes.links of keyframe {row.number}"):
                links = unpacked(row.links, "<f8", 4)
                check_finite("links", links)
                if picture is None:
                    raise ValueError("got no picture of it, expected one")
            yield (
                KeyframeState(
                    number=row.number,
                    island=row.island,
                    x_px=row.x_px,
                    y_px=row.y_px,
                    announced_px=(row.announced_x_px, row.announced_y_px),
                    announced_island=row.announced_island,
                    links=tuple(Link(int(to), *link) for to, *link in links.tolist()),
                ),
                picture,
            )

    def readings(self) -> Iterator[KeyframeReading]:
        """What the source's own stage said at keyframes."""
        return keyframe_readings(self)

    def positions(self) -> PositionsMemory | None:
        """What was made of that; None where no frame came with a position."""
        return positions_memory(self)

    def said_um_per_px(self) -> float | None:
        """Micrometres a pixel as the source stated them last; None: it did not."""
        return said_um_per_px(self)

    def last_picture(self) -> PreparedFrame | None:
        """Of the last frame; None before the first."""
        return self._picture(LAST_PICTURE)

    def _picture(self, number: int) -> PreparedFrame | None:
        row = next(self.rows("keyframe_pictures", KeyframePictureRow, "AND number = ?", number), None)
        if row is None:
            return None
        with self.reading(f"keyframe_pictures.fine of picture {number}"):
            fine = unpacked(row.fine, "i1").reshape(row.rows, -1)
            unit = 2 * row.factor
            if fine.size and fine.shape != (row.height // unit * 2, row.width // unit * 2):
                raise ValueError(f"got {fine.shape}, expected {row.height} x {row.width} px by {row.factor}")
            return PreparedFrame(row.height, row.width, row.factor, fine, None, row.contrast, row.coherence, row.smear)

    def _static(self, row: StaticRow) -> StaticMask:
        last = self._picture(STATIC_PICTURE)
        if last is None or row.history is None:
            return StaticMask()
        shape = last.fine.shape
        found = None if row.found is None else unpacked_mask(row.found, shape)
        return StaticMask(last, row.pairs, unpacked_mask(row.history, shape), found)

    def tracker(self) -> TrackerState | None:
        """None before the first frame."""
        stored = self.value("trackers", "state", "")
        picture = self.last_picture()
        if stored is None or picture is None:
            return None
        with self.reading("trackers.state"):
            state = msgspec.json.decode(stored, type=TrackerRow)
            found = None
            if state.found is not None:
                of = picture if state.found_is_last else self._picture(FOUND_PICTURE)
                found = None if of is None else (of, *state.found)
            position = None if state.position is None else StagePosition(*state.position)
            return TrackerState(
                next_island=state.next_island,
                reference=state.reference,
                pending=state.pending,
                distorted=state.distorted,
                given_up=state.given_up,
                was_found=state.was_found,
                found=found,
                hunches=state.hunches,
                static=self._static(state.static),
                positions=self.positions(),
                last=(picture, Placement(position, state.anchor, state.reason)),
            )
