"""Which library reads which slide. Each is imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from engines.base import LeukostreamError
from streamer.sources.whole_slide.slide_image import SlideError, SlideImage

EXPECTED = (
    "expected a whole-slide image: one that OpenSlide reads (SVS, NDPI, MRXS, SCN, BIF, CZI), a TIFF, DICOM (a folder"
    " or a file), or an OME-Zarr folder"
)

_ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM, _DICOM_PREAMBLE = b"DICM", 128


def open_slide(path: str) -> SlideImage:
    """SlideError for what is no slide, or a damaged one; SourceError where a package is missing.

    Scanners' files go to OpenSlide, which knows their tags. TIFFs that it calls generic go to tifffile, which finds the
    smaller sizes of an OME-TIFF too.
    """
    if not os.path.exists(path):
        raise SlideError("got no such file or folder, expected a whole-slide image; check the path")
    try:
        opener = _opener(path)
        if opener is None:
            raise SlideError(f"got {_kind(path)}, {EXPECTED}")
        return opener(path)
    except LeukostreamError:
        raise
    except OSError as error:
        raise SlideError(f"got {error.strerror or _line(error)}, expected a readable file") from error
    except Exception as error:  # each library has its own, and damaged data makes them raise nearly anything
        raise SlideError(f"got a damaged file, or one of an unknown kind ({_line(error)}), {EXPECTED}") from error


def _opener(path: str) -> Callable[[str], SlideImage] | None:
    if os.path.isdir(path) and any((Path(path) / mark).is_file() for mark in _ZARR):
        from streamer.sources.whole_slide.ome_zarr import OmeZarrSlide

        return OmeZarrSlide
    if any(_starts(file, _DICOM_PREAMBLE, (_DICOM,)) for file in _files(path)):
        from streamer.sources.whole_slide.dicom import DicomSlide

        return DicomSlide
    if os.path.isdir(path):
        return None
    from streamer.sources.whole_slide.openslide import GENERIC, OpenSlideImage, scanner_of

    scanner = scanner_of(path)
    if scanner is not None and scanner != GENERIC:
        return OpenSlideImage
    if _starts(Path(path), 0, _TIFF):
        from streamer.sources.whole_slide.tiff import TiffSlide

        return TiffSlide
    return None


def _files(path: str) -> list[Path]:
    return [file for file in Path(path).iterdir() if file.is_file()] if os.path.isdir(path) else [Path(path)]


def _starts(file: Path, offset: int, marks: Sequence[bytes]) -> bool:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(4) in marks


def _kind(path: str) -> str:
    if os.path.isdir(path):
        return "a folder with neither DICOM nor OME-Zarr"
    return "an empty file" if os.path.getsize(path) == 0 else "a file of another kind"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
