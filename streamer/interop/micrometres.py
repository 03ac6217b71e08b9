"""Where cells lie in micrometres: on their island, and on the stage, where it is known how the camera sees it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from streamer.journal import SeenFrame, StoredSession
from streamer.mosaic.places import FinalPlaces
from streamer.mosaic.scale import scale_of
from streamer.records import Cell, StagePoint
from streamer.stage.affine import Points, StageAffine

Micrometres = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Readings:
    """Of the frames of one island."""

    places: Points
    """Their upper left corners, pixels of the island."""
    um: Points


class MicrometrePlaces:
    """Takes the frames of a session in order, with `finish` behind the last; then gives the places of its cells."""

    def __init__(self) -> None:
        self._places = FinalPlaces()
        self._said: dict[int, StagePoint] = {}
        self._half = 0j
        self._um_per_px: float | None = None
        self._affine: StageAffine | None = None
        self._of_corner = False
        self._by_island: dict[int, _Readings] = {}

    def add(self, seen: SeenFrame) -> None:
        self._places.add(seen)
        if seen.stage_um is not None:
            self._said[seen.frame_id] = seen.stage_um
            self._half = complex(seen.width, seen.height) / 2

    def finish(self, session: StoredSession, rbc_px: float | None) -> None:
        """Of that session, as it is at its end. `rbc_px`: usual diameter of its red cells in frame pixels, no ruler for
        cells; None: too few were seen."""
        if session.ended:
            self._places.correct(session.end_corrections)
        scale = scale_of(session, rbc_px)
        self._um_per_px = None if scale is None or scale.ruler == "red cells" else scale.um_per_px
        known = session.stage.positions()
        if known is None or known.affine is None:
            return
        self._affine, self._of_corner = known.affine, known.exact
        gathered: dict[int, list[tuple[complex, complex]]] = defaultdict(list)
        for frame in self._places.frames():
            said = self._said.get(frame.frame_id)
            if said is not None:
                gathered[frame.island].append((complex(frame.x_px, frame.y_px), complex(said.x, said.y)))
        for island, pairs in gathered.items():
            places, um = np.array(pairs).T
            self._by_island[island] = _Readings(places, um)

    def on_island(self, cell: Cell) -> Micrometres | None:
        """x and y on its island, times the size of a pixel; None where that is not known."""
        scale = self._um_per_px
        return None if scale is None else (cell.x_px * scale, cell.y_px * scale)

    def on_stage(self, cell: Cell) -> Micrometres | None:
        """Where the stage has the cell in the middle of the picture; of a source with exact positions, where the cell
        lies. None where that is not known."""
        known = self._by_island.get(cell.island)
        if known is None or self._affine is None:
            return None
        corner = complex(cell.x_px, cell.y_px) - (0 if self._of_corner else self._half)
        away = corner - known.places
        near = np.argsort(np.abs(away), kind="stable")[:NEAREST]
        said = known.um[near] + self._affine.to_um(away[near])
        return float(np.median(said.real)), float(np.median(said.imag))


NEAREST = 9
"""Frames by which a cell's place on the stage is told: the middle one of what they say, since single readings err."""
