"""TIFF, BigTIFF and OME-TIFF with several sizes of one picture, or one, by tifffile."""

from __future__ import annotations

import logging
from typing import Any

from streamer.sources.ome_xml import UM_PER_UNIT, ome_images
from streamer.sources.packages import extra
from streamer.sources.whole_slide.arrays import part_of, size_of
from streamer.sources.whole_slide.slide_image import Image, SlideError, levels_of, stated, to_bgr

with extra("wsi", "source wsi:…"):
    import tifffile
    import zarr

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would write of a damaged file is said in one line

MOST_BYTES_AT_ONCE = 256 << 20
"""Of a compressed tile or strip, which is decoded whole."""


class TiffSlide:
    """The largest picture of a file with its smaller copies."""

    def __init__(self, path: str) -> None:
        self._file = tifffile.TiffFile(path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if not self._file.series:
            raise SlideError("got a TIFF without a picture, expected a slide")
        number, series = max(enumerate(self._file.series), key=lambda one: _pixels(one[1]))
        for level in series.levels:
            self._check_whole(level.keyframe)
        self.format = "OME-TIFF" if self._file.is_ome else "TIFF"
        self._axes = series.axes.lower()
        self.levels = levels_of([size_of(level.shape, level.axes.lower()) for level in series.levels])
        self.um_per_px = scale_of(self._file, number, series.keyframe)
        self._arrays = [self._array(series, level) for level in range(len(series.levels))]

    def _check_whole(self, page: Any) -> None:
        ends = [place + count for place, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or len(page.dataoffsets) != len(page.databytecounts) or max(ends) > self._file.filehandle.size:
            raise SlideError(f"got a file cut off after {self._file.filehandle.size} bytes, expected all of it")

    def _array(self, series: Any, number: int) -> Any:
        level = series.levels[number]
        page = level.keyframe
        at_once = page.dtype.itemsize
        for side in page.chunks:
            at_once *= side
        if at_once <= MOST_BYTES_AT_ONCE:
            return zarr.open_array(series.aszarr(level=number), mode="r")
        if level.dataoffset is not None and page.is_memmappable:
            return self._file.filehandle.memmap_array(page.dtype, level.shape, level.dataoffset)
        raise SlideError(
            f"got a picture stored in pieces of {at_once >> 20} MB, expected tiles; write it again as a tiled TIFF"
        )

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Image:
        return to_bgr(part_of(self._arrays[level], self._axes, left, top, width, height))

    def close(self) -> None:
        self._file.close()


def _pixels(series: Any) -> int:
    width, height = size_of(series.shape, series.axes.lower())
    return width * height


def scale_of(file: Any, number: int, page: Any) -> tuple[float, float] | None:
    """µm per pixel, across and down, that an open file states of its series `number`, whose first page is `page`."""
    if file.is_ome:
        images = ome_images(file.ome_metadata or "")
        scale = images[number].um_per_px if number < len(images) else None
        return None if scale is None else stated(*scale)
    factor = {tifffile.RESUNIT.INCH: 25_400.0, tifffile.RESUNIT.CENTIMETER: 10_000.0}.get(page.resolutionunit)
    if file.is_imagej:
        factor = UM_PER_UNIT.get(str((file.imagej_metadata or {}).get("unit")))
    across, down = page.resolution
    return None if factor is None or not across or not down else stated(factor / across, factor / down)
