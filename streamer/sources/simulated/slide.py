"""The simulated slide under its microscope: frames in any order, and their ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from streamer.sources.simulated.optics import Optics
from streamer.sources.simulated.overlay import burn_in
from streamer.sources.simulated.parameters import SlideParameters
from streamer.sources.simulated.smear import BLOCK_PX, SlideCell, Smear
from streamer.sources.simulated.stage_motion import MOVE, STOP_ERROR_PX, plan_motion, plan_scan
from streamer.sources.simulated.stage_readings import StageReadings
from streamer.sources.simulated.tiles import Tiles
from streamer.sources.simulated.truth import FrameTruth, cells_in_frame

_BORDER_PX = 64
"""The smear extends this far beyond what the pattern covers."""


class VirtualSlide:
    """`parameters` decide everything: a frame id always gives the same pixels and the same truth."""

    def __init__(self, parameters: SlideParameters) -> None:
        self.parameters = parameters
        self.scan = plan_scan(parameters, _BORDER_PX)
        self.motion = plan_motion(parameters, self.scan)
        self.readings = StageReadings(parameters, self.motion)
        width = self.scan.step_x_px * (self.scan.columns - 1) + parameters.width + 2 * _BORDER_PX
        height = self.scan.step_y_px * (self.scan.rows - 1) + parameters.height + 2 * _BORDER_PX
        self.smear = Smear(
            parameters.seed,
            int(np.ceil(width)),
            int(np.ceil(height)),
            parameters.white_looks(),
            red_px=parameters.red,
            margin_px=_BORDER_PX + STOP_ERROR_PX + 1,
        )
        across = parameters.width // BLOCK_PX + 3
        down = parameters.height // BLOCK_PX + 3
        self._tiles = Tiles(self.smear, kept=max(48, 2 * across * down))
        self._optics = Optics(parameters)

    def __len__(self) -> int:
        """Frames in one pass of the pattern."""
        return len(self.motion)

    def render(self, frame_id: int) -> NDArray[np.uint8]:
        """The frame from the camera, uint8 (height, width, 3) BGR; the caller owns it."""
        x, y, motion_px, defocus_px = self._pose(frame_id)
        margin = self._optics.margin_px(motion_px, defocus_px)
        view = self._tiles.view(*self._part(x, y, margin))
        frame = self._optics.expose(view, frame_id, margin, (x % 1, y % 1), motion_px, defocus_px)
        if self.parameters.overlay:
            burn_in(frame, frame_id / self.parameters.fps)
        return frame

    def paint_ahead(self, frame_id: int, frames: int = 12) -> bool:
        """Spend some milliseconds on painting for frames from `frame_id` on; False if all is painted.

        This changes only when the work is done, never the pixels.
        """
        for later in range(frame_id, min(frame_id + frames, len(self))):
            x, y, motion_px, defocus_px = self._pose(later)
            if self._tiles.paint_one(*self._part(x, y, self._optics.margin_px(motion_px, defocus_px))):
                return True
        return False

    def truth(self, frame_id: int) -> FrameTruth:
        """What the frame shows."""
        x, y, motion_px, defocus_px = self._pose(frame_id)
        width, height = self.parameters.width, self.parameters.height
        cells = cells_in_frame(self.smear.cells_in(x, y, x + width, y + height), x, y, width, height)
        moving = bool(self.motion.state[frame_id] == MOVE)
        return FrameTruth(frame_id, x, y, moving, motion_px, defocus_px, cells)

    def cells(self) -> Iterator[SlideCell]:
        """All cells of the slide. Slow for a large slide, since it scatters all red cells."""
        return self.smear.cells()

    def white_cells(self) -> tuple[SlideCell, ...]:
        """The white cells of the slide, without erythroblasts, by id; cheap."""
        return tuple(placed.cell for placed in self.smear.white if placed.cell.kind == "white")

    def white_cells_seen(
        self, frame_ids: Iterable[int], *, max_motion_px: float | None = None, beyond_px: float = 0.0
    ) -> dict[int, SlideCell]:
        """White cells that lie whole in at least one of these frames, by id.

        max_motion_px: leave out frames with more motion blur. beyond_px: how far cells may extend beyond the frame.
        """
        seen: dict[int, SlideCell] = {}
        for frame_id in frame_ids:
            x, y, motion_px, _ = self._pose(frame_id)
            if max_motion_px is not None and np.hypot(*motion_px) > max_motion_px:
                continue
            right, bottom = x + self.parameters.width, y + self.parameters.height
            for cell in self.smear.white_cells_within(
                x - beyond_px, y - beyond_px, right + beyond_px, bottom + beyond_px
            ):
                seen[cell.cell_id] = cell
        return dict(sorted(seen.items()))

    def _part(self, x: float, y: float, margin: int) -> tuple[int, int, int, int]:
        """Left, top, width, height of the part of the slide that a frame at (x, y) needs."""
        left, top = int(np.floor(x)) - margin, int(np.floor(y)) - margin
        return left, top, self.parameters.width + 2 * margin, self.parameters.height + 2 * margin

    def _pose(self, frame_id: int) -> tuple[float, float, tuple[float, float], float]:
        if not 0 <= frame_id < len(self):
            raise IndexError(f"frame {frame_id} of the simulated slide: expected 0 to {len(self) - 1}")
        motion = self.motion
        way = float(motion.motion_x_px[frame_id]), float(motion.motion_y_px[frame_id])
        defocus_px = self._optics.defocus_px(float(motion.focus[frame_id]))
        return float(motion.x_px[frame_id]), float(motion.y_px[frame_id]), way, defocus_px
