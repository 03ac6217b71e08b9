"""A folder of images, a glob, or one image as a source, in natural order of the names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamer.records import EncodedImage, Frame, Mode, Skip, StagePoint
from streamer.sources.base import SourceError
from streamer.sources.imagefile import ImageLimits, Picture, Unreadable, read_image
from streamer.sources.imageheader import FORMATS, ImageHeader, read_header
from streamer.sources.tiles import serpentine, starts

__all__ = [
    "ImageLimits",
    "ImagesSource",
    "Picture",
    "Unreadable",
    "is_image",
    "list_images",
    "natural_key",
    "read_image",
]


LARGE_MEGAPIXELS = 40.0
"""From here on an image is read in tiles: it is no field of a camera, and shrunk to a detector's input as a whole its
cells would be specks."""


TILE_PX = (1280, 1024)
"""Of a large image, whose scale is not known: a field of 120 x 96 µm with a 40x objective, where one cell is 160 px."""

OVERLAP = 0.25
"""Of a tile's sides: cells up to 256 px wide lie whole in one."""


class ImagesSource:
    """Reads each file of a folder (not of those in it), of a glob, or one file; ends after the last.

    Hidden files (a leading dot) are passed over; everything else that can't be a frame is a Skip. Symbolic links are
    followed, and the link's own name is the frame's `file`. A file of several pages gives each as a frame, and one of
    LARGE_MEGAPIXELS or more its tiles: their `file` says which, as `stack.tif#page=2` or `scan.png#xywh=0,0,1280,1024`.
    """

    default_mode: Mode = "analysis"

    def __init__(
        self, name: str, where: str, now_ns: Callable[[], int], *, large_megapixels: float = LARGE_MEGAPIXELS
    ) -> None:
        self.where = where
        self.name = name
        self._now_ns = now_ns
        self._large = large_megapixels
        self._left: list[Path] = []
        self._items: Iterator[Frame | Skip] = iter(())
        """Of the file that is being read."""
        self.length: int | None = None
        """Of the files; None before `open`, and where one of them gives several frames."""
        self._frame_id = 0
        self._bits = 8
        self._headers: dict[Path, ImageHeader | None] = {}
        """Read for a remark and used once more by `open`: those of a folder on a network are slow to read."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """A line for people where images are read in tiles."""
        self._headers = {path: header_of(path) for path in list_images(self.where)}
        headers = [(path, header) for path, header in self._headers.items() if header is not None]
        large = [path.name for path, header in headers if header.megapixels >= self._large]
        if not large:
            return ()
        return (
            f"{self.name}: {len(large)} of {len(headers)} images have {self._large:g} megapixels or more, the first is"
            f" {large[0]}: read in tiles of {TILE_PX[0]} x {TILE_PX[1]} px that share {OVERLAP:.0%}, not shrunk",
        )

    def open(self) -> None:
        """List the files. SourceError where there are none, or none of them is an image."""
        known, self._headers = self._headers, {}
        paths = list_images(self.where)
        said = (known[path] if path in known else header_of(path) for path in paths)
        headers = [header for header in said if header is not None]
        if not headers:
            got = f"{len(paths)} files, none of them an image" if paths else "nothing that matches"
            if not paths and os.path.isdir(self.where):
                got = "an empty folder"
            raise SourceError(
                f"source {self.where}: got {got}, expected {FORMATS} files"
                " (folders inside it are not searched); give the folder that holds the images"
            )
        self._left = paths[::-1]
        self._items = iter(())
        one_each = all(header.pages == 1 and header.megapixels < self._large for header in headers)
        self.length = len(paths) if one_each else None
        self._frame_id = 0
        self._bits = 8

    def read(self) -> Frame | Skip | None:
        while True:
            item = next(self._items, None)
            if item is not None:
                return item
            if not self._left:
                return None
            self._items = self._read_file(self._left.pop())

    def close(self) -> None:
        self._left = []
        self._items = iter(())

    def _read_file(self, path: Path) -> Iterator[Frame | Skip]:
        # A name that is no valid text would stop the message it stands in.
        file = os.fsencode(path.name).decode("utf-8", "replace")
        picture = read_image(path, at_least_bits=self._bits)
        if isinstance(picture, Unreadable):
            if picture.reason == "several pages" and _is_tiff(path):
                yield from self._read_stack(path, file)
            else:
                yield self._skip(file, picture)
            return
        self._bits = picture.bits
        if picture.pixels.shape[0] * picture.pixels.shape[1] >= 1e6 * self._large:
            yield from self._tiles(file, picture.pixels)
        else:
            yield self._frame(file, picture.pixels, encoded=EncodedImage(picture.data, picture.bits))

    def _read_stack(self, path: Path, file: str) -> Iterator[Frame | Skip]:
        from streamer.sources.tiff_stack import read_pages

        try:
            for page in read_pages(path, ImageLimits(), self._bits):
                if isinstance(page, Unreadable):
                    yield self._skip(file, page)
                    continue
                self._bits = page.bits
                name = f"{file}#page={page.number}"
                if page.pixels.shape[0] * page.pixels.shape[1] >= 1e6 * self._large:
                    yield from self._tiles(name, page.pixels)
                else:
                    yield self._frame(name, page.pixels, page.stage_um, page.um_per_px)
        except SourceError as error:  # no package for it
            yield self._skip(file, Unreadable("several pages", str(error).removeprefix(f"{file}: ")))

    def _tiles(self, file: str, pixels: npt.NDArray[np.uint8]) -> Iterator[Frame]:
        """The tiles of a large image; where they lie on the slide is found as that of any other frames."""
        height, width = min(pixels.shape[0], TILE_PX[1]), min(pixels.shape[1], TILE_PX[0])
        columns, rows = starts(pixels.shape[1], width, OVERLAP), starts(pixels.shape[0], height, OVERLAP)
        between = "&" if "#" in file else "#"
        for left, top in serpentine(columns, rows):
            name = f"{file}{between}xywh={left},{top},{width},{height}"
            yield self._frame(name, pixels[top : top + height, left : left + width].copy())

    def _frame(
        self,
        file: str,
        pixels: npt.NDArray[np.uint8],
        stage_um: StagePoint | None = None,
        um_per_px: float | None = None,
        encoded: EncodedImage | None = None,
    ) -> Frame:
        frame = Frame(
            self.name,
            self._frame_id,
            self._now_ns(),
            pixels,
            file,
            encoded,
            stage_um=stage_um,
            um_per_px=um_per_px,
        )
        self._frame_id += 1
        return frame

    def _skip(self, file: str, unreadable: Unreadable) -> Skip:
        return Skip(self.name, file, unreadable.reason, f"{file}: {unreadable.detail}")


def list_images(where: str) -> list[Path]:
    """The files of a folder or glob, or the one file, in natural order; folders and hidden files left out.

    SourceError where `where` is neither a file, a folder nor a glob, or can't be listed.
    """
    try:
        if os.path.isdir(where):
            names: Iterable[str] = (entry.path for entry in os.scandir(where))
        elif os.path.lexists(where):
            names = [where]
        elif glob.has_magic(where):
            names = glob.glob(where)
        else:
            raise SourceError(
                f"source {where}: got no such file or folder, expected a folder of images, a glob, a video file,"
                " a camera or an address; check the path"
            )
        paths = [Path(path) for path in names]
    except OSError as error:
        raise SourceError(f"source {where}: got {error.strerror}, expected a folder that can be listed") from error
    # A dangling link is kept, to be reported; what would block when opened (a pipe) or is a folder is not.
    kept = [path for path in paths if not path.name.startswith(".") and (path.is_file() or not path.exists())]
    return sorted(kept, key=lambda path: natural_key(str(path)))


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which `frame2` comes before `frame10`; letters first by their lower case, then as they are."""
    parts = re.split(r"(\d+)", text)
    # Even places are text, odd ones digits; `isdecimal` digits of any script have an int.
    keys = [(1, int(part), "") if index % 2 else (0, 0, part.casefold()) for index, part in enumerate(parts)]
    return keys, text


def is_image(path: Path) -> bool:
    """Whether the file starts as an image does; it may still be damaged."""
    return header_of(path) is not None


def header_of(path: Path) -> ImageHeader | None:
    """What a file says of itself; None: it is no image, or can't be read."""
    try:
        with path.open("rb") as file:
            return read_header(file)
    except OSError:
        return None


def _is_tiff(path: Path) -> bool:
    header = header_of(path)
    return header is not None and header.format == "tiff"
