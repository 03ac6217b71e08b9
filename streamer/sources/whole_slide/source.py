"""A whole-slide image as a source of frames."""

from __future__ import annotations

from collections.abc import Callable

from streamer.records import Frame, Mode, Skip, StagePoint
from streamer.sources.base import SourceError
from streamer.sources.tiles import Corner
from streamer.sources.whole_slide.opening import open_slide
from streamer.sources.whole_slide.options import SlideOptions
from streamer.sources.whole_slide.plan import all_tiles, plan_reading, read_tile
from streamer.sources.whole_slide.slide_image import SlideError, SlideImage
from streamer.sources.whole_slide.tissue import STAINED_UM2, find_tissue

LARGEST_CELL_UM = 25.0
"""Megakaryocytes apart, the width of the largest cells on a smear of blood."""


class WholeSlideSource:
    """The tiles of a slide on which there is something stained, row by row, each with its exact place.

    A frame's number is that of its tile: a tile that can't be read is a Skip and leaves a gap.
    """

    default_mode: Mode = "analysis"

    def __init__(
        self, name: str, target: str, now_ns: Callable[[], int], *, open_slide: Callable[[str], SlideImage] = open_slide
    ) -> None:
        """`target`: `FILE[,mpp=F,overlap=F]`. UsageError for options that can't be meant or don't fit the slide,
        SourceError for what is no slide."""
        self.name = name
        self._options = SlideOptions.parse(target)
        self._now_ns = now_ns
        self._open_slide = open_slide
        self._slide: SlideImage | None = self._opened()
        try:
            self._plan = plan_reading(self._slide, self._options)
        except SlideError as error:
            self._slide.close()
            raise self._fault(error) from error
        except BaseException:
            self._slide.close()
            raise
        self.remarks = tuple(self._remarks(self._slide))
        """Lines for people, on how the slide is read."""
        self._tiles: list[Corner] = []
        self._next = 0
        self.length: int | None = None
        """Tiles; None before `open`."""

    def open(self) -> None:
        """Find the tissue, and go to the first tile. SourceError for a slide without any."""
        slide = self._slide_now()
        if self.length is None:
            self._tiles = self._stained_tiles(slide)
            self.length = len(self._tiles)
        self._next = 0

    def seek(self, frame_id: int) -> None:
        """Go to a tile."""
        self._next = frame_id

    def read(self) -> Frame | Skip | None:
        if self._next >= len(self._tiles):
            return None
        number, corner = self._next, self._tiles[self._next]
        self._next += 1
        try:
            image = read_tile(self._slide_now(), self._plan, corner)
        except Exception as error:  # damaged data makes the libraries raise nearly anything
            self.close()  # OpenSlide gives nothing more after a fault, but for a file opened again
            what = f"tile {number}"
            return Skip(self.name, what, "unreadable", f"{what} of {self._options.path}: got {_line(error)}")
        um_per_px = self._plan.um_per_px
        x_px, y_px = self._plan.place_px(corner)
        return Frame(
            self.name,
            number,
            self._now_ns(),
            image,
            stage_um=StagePoint(x_px * um_per_px, y_px * um_per_px),
            stage_error_um=0.0,
            is_tile=True,
            um_per_px=um_per_px,
        )

    def close(self) -> None:
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def _slide_now(self) -> SlideImage:
        if self._slide is None:
            self._slide = self._opened()
        return self._slide

    def _opened(self) -> SlideImage:
        try:
            return self._open_slide(self._options.path)
        except SlideError as error:
            raise self._fault(error) from error

    def _stained_tiles(self, slide: SlideImage) -> list[Corner]:
        plan, level = self._plan, slide.levels[self._plan.level]
        full_um = plan.um_per_px / plan.ratio_x / level.shrink_x, plan.um_per_px / plan.ratio_y / level.shrink_y
        try:
            tissue = find_tissue(slide, full_um)
        except Exception as error:  # as in `read`
            raise self._fault(
                SlideError(f"got {_line(error)} while looking for tissue, expected a sound file")
            ) from error
        width, height = plan.part_px[0] * level.shrink_x, plan.part_px[1] * level.shrink_y
        tiles = []
        for corner in all_tiles(slide, plan, self._options.overlap):
            left, top = corner[0] * level.shrink_x, corner[1] * level.shrink_y
            if tissue.area_um2(left, top, left + width, top + height) > STAINED_UM2:
                tiles.append(corner)
        if not tiles:
            raise self._fault(SlideError("got a slide on which nothing is stained, expected a stained smear"))
        return tiles

    def _remarks(self, slide: SlideImage) -> list[str]:
        plan, full = self._plan, slide.levels[0]
        scale = "a scale that it does not state" if slide.um_per_px is None else f"{slide.um_per_px[0]:.4g} µm/px"
        how = "as it is" if plan.ratio_x == plan.ratio_y == 1 else f"shrunk {plan.ratio_x:.4g} times"
        lines = [
            f"{self.name}: {slide.format}, {full.width_px} x {full.height_px} px of {scale}; level {plan.level} of"
            f" {len(slide.levels)} is read {how}, in tiles of {plan.tile_px[0]} x {plan.tile_px[1]} px of"
            f" {plan.um_per_px:.4g} µm"
        ]
        shared_um = self._options.overlap * min(plan.tile_px) * plan.um_per_px
        if shared_um < LARGEST_CELL_UM:
            lines.append(
                f"{self.name}: neighbouring tiles share {shared_um:.1f} µm: larger cells may lie whole in none, and are"
                " counted as cut by an edge; give a larger overlap or mpp"
            )
        return lines

    def _fault(self, error: SlideError) -> SourceError:
        return SourceError(f"source wsi:{self._options.path}: {error}")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__} ({text[:160]})" if text else type(error).__name__
