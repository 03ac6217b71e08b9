"""DICOM whole-slide images (VL Whole Slide Microscopy, Supplement 145) by wsidicom: a folder of files, or one file."""

from __future__ import annotations

from streamer.sources.packages import extra
from streamer.sources.whole_slide.slide_image import Image, SlideError, levels_of, stated, to_bgr

with extra("wsi", "source wsi:…"):
    import wsidicom


class DicomSlide:
    """All files of a folder that are of one slide, or one file alone."""

    format = "DICOM"

    def __init__(self, path: str) -> None:
        try:
            self._slide = wsidicom.WsiDicom.open(path)
        except (wsidicom.errors.WsiDicomNotFoundError, wsidicom.errors.WsiDicomNoResolutionError) as error:
            raise SlideError(f"got DICOM without a whole-slide image ({error}), expected one") from error
        pyramid = self._slide.pyramid
        self._numbers = [level.level for level in pyramid]
        self.levels = levels_of([(level.size.width, level.size.height) for level in pyramid])
        spacing = pyramid.pixel_spacing
        self.um_per_px = stated(1000 * spacing.width, 1000 * spacing.height)

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Image:
        return to_bgr(self._slide.read_region((left, top), self._numbers[level], (width, height), as_array=True))

    def close(self) -> None:
        self._slide.close()
