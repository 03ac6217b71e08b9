"""The pages of a TIFF or OME-TIFF with several: each is a picture; OME-TIFF says where the stage was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.records import StagePoint
from streamer.sources.base import SourceError
from streamer.sources.imagefile import ImageLimits, Unreadable, to_eight_bits
from streamer.sources.ome_xml import OmeImage, ome_images
from streamer.sources.packages import extra

_BESIDES = ("Thumbnail", "Label", "Macro", "Map")
"""What scanners store beside the slide."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One picture of a stack."""

    number: int
    """From 1, of all that the file gives."""
    pixels: npt.NDArray[np.uint8]
    """(H, W, 3) BGR, owned by the caller."""
    bits: int
    """Significant bits of a sample as stored."""
    stage_um: StagePoint | None
    """As the file states it; None: it does not."""
    um_per_px: float | None


def read_pages(path: Path, limits: ImageLimits, at_least_bits: int) -> Iterator[Page | Unreadable]:
    """All pages but reduced copies, in the file's order, one in memory at a time. Never raises for what the file holds;
    SourceError where a package is missing."""
    with extra("wsi", f"{path.name}: several images in one TIFF"):
        import tifffile

        from streamer.sources.whole_slide.tiff import scale_of
    try:
        with tifffile.TiffFile(path) as file:
            yield from _pages(file, limits, at_least_bits, scale_of)
    except SourceError:
        raise
    except Exception as error:  # damaged data makes tifffile raise nearly anything
        yield Unreadable("unreadable", f"got {_line(error)}, expected a sound TIFF")


def _pages(
    file: Any, limits: ImageLimits, at_least_bits: int, scale_of: Callable[[Any, int, Any], tuple[float, float] | None]
) -> Iterator[Page | Unreadable]:
    number = 0
    images = ome_images(file.ome_metadata or "") if file.is_ome else []
    stated: Sequence[OmeImage | None] = images if len(images) == len(file.series) else [None] * len(file.series)
    for place, (series, image) in enumerate(zip(file.series, stated, strict=True)):
        if series.name in _BESIDES:
            continue
        scale = scale_of(file, place, series.keyframe)
        axes, shape = series.get_axes(False).upper(), series.get_shape(False)
        leading = axes[: axes.index("Y")]
        planes = _planes(leading, shape[: len(leading)], len(series.pages))
        for page, plane in zip(series.pages, planes, strict=True):
            number += 1
            got = _picture(page, leading, shape, limits, at_least_bits)
            if isinstance(got, Unreadable):
                yield got
                continue
            pixels, at_least_bits = got
            position = image.positions.get(plane) if image is not None and plane is not None else None
            yield Page(number, pixels, at_least_bits, position, None if scale is None else scale[0])


def _planes(leading: str, sizes: Sequence[int], pages: int) -> list[tuple[int, int, int] | None]:
    """(channel, depth, time) of each page; None where pages and axes don't agree."""
    if int(np.prod(sizes)) != pages:
        return [None] * pages
    planes: list[tuple[int, int, int] | None] = []
    for indices in np.ndindex(*sizes):
        of: Mapping[str, int] = dict(zip(leading, indices, strict=True))
        planes.append((of.get("C", 0), of.get("Z", 0), of.get("T", 0)))
    return planes


def _picture(
    page: Any, leading: str, shape: Sequence[int], limits: ImageLimits, at_least_bits: int
) -> tuple[npt.NDArray[np.uint8], int] | Unreadable:
    if page is None:
        return Unreadable("unreadable", "got a stack without one of its pages, expected all")
    if "C" in leading and shape[leading.index("C")] > 1:
        return Unreadable("unsupported", "got channels as pages of their own, expected colour pages; merge them to RGB")
    keyframe = page.keyframe  # a page that is like an earlier one knows only its own data
    height, width = keyframe.imagelength, keyframe.imagewidth
    if min(width, height) < limits.min_side_px:
        wanted = f"at least {limits.min_side_px} px on each side"
        return Unreadable("too small", f"got {width} x {height} px, expected {wanted}")
    if width * height > 1e6 * limits.max_megapixels:
        wanted = f"at most {limits.max_megapixels:g} megapixels; a slide is given as wsi:FILE"
        return Unreadable("too large", f"got {width} x {height} px, expected {wanted}")
    photometric = keyframe.photometric.name
    if keyframe.dtype not in (np.uint8, np.uint16) or photometric == "PALETTE":
        return Unreadable("unsupported", f"got {photometric} of {keyframe.dtype}, expected grey or RGB of 8 or 16 bits")
    try:
        samples = page.asarray()
    except Exception as error:  # as in read_pages; the other pages may be whole
        return Unreadable("unreadable", f"got {_line(error)}, expected a sound page")
    if samples.ndim == 3 and samples.shape[2] not in (1, 3, 4):
        samples = np.moveaxis(samples, 0, 2)  # planes of colour one after the other
    if samples.ndim == 3:
        samples = samples[..., 0] if samples.shape[2] < 3 else samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return to_eight_bits(samples, at_least_bits, inverted=photometric == "MINISWHITE")


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
