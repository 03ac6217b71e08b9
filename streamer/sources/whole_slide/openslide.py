"""Slides of scanners by OpenSlide: Aperio, Hamamatsu, Leica, MIRAX, Philips, Sakura, Trestle, Ventana, Zeiss."""

from __future__ import annotations

import numpy as np

from streamer.sources.packages import extra
from streamer.sources.whole_slide.slide_image import Image, levels_of, stated, to_bgr

GENERIC = "generic-tiff"
"""What OpenSlide calls a tiled TIFF of no scanner that it knows."""

with extra("wsi", "source wsi:…"):
    import openslide


def scanner_of(path: str) -> str | None:
    """OpenSlide's name of the format; None: it does not know it."""
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor


class OpenSlideImage:
    """A file that OpenSlide knows."""

    def __init__(self, path: str) -> None:
        self._slide = openslide.OpenSlide(path)
        properties = self._slide.properties
        self.format: str = properties.get(openslide.PROPERTY_NAME_VENDOR, "OpenSlide")
        self.levels = levels_of(self._slide.level_dimensions)
        scale = [properties.get(name) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)]
        self.um_per_px = stated(*(None if text is None else float(text) for text in scale))

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Image:
        # Places are of the full size, and OpenSlide turns them into those of the level by its own ratio.
        ratio = self._slide.level_downsamples[level]
        part = self._slide.read_region((round(left * ratio), round(top * ratio)), level, (width, height))
        return to_bgr(np.asarray(part))

    def close(self) -> None:
        self._slide.close()
