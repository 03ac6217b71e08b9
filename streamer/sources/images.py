"""A folder of images, a glob, or one image as a source, in natural order of the names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from streamer.records import EncodedImage, Frame, Mode, Skip
from streamer.sources.base import SourceError
from streamer.sources.imagefile import ImageLimits, Picture, Unreadable, read_image
from streamer.sources.imageheader import FORMATS, read_header

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


class ImagesSource:
    """Reads each file of a folder (not of those in it), of a glob, or one file; ends after the last.

    Hidden files (a leading dot) are passed over; everything else that can't be a frame is a Skip. Symbolic links are
    followed, and the link's own name is the frame's `file`.
    """

    default_mode: Mode = "analysis"

    def __init__(self, name: str, where: str, now_ns: Callable[[], int]) -> None:
        self.where = where
        self.name = name
        self._now_ns = now_ns
        self._left: list[Path] = []
        self.length: int | None = None
        """Of the files; None before `open`."""
        self._frame_id = 0
        self._bits = 8

    def open(self) -> None:
        """List the files. SourceError where there are none, or none of them is an image."""
        paths = list_images(self.where)
        if not any(is_image(path) for path in paths):
            got = f"{len(paths)} files, none of them an image" if paths else "nothing that matches"
            if not paths and os.path.isdir(self.where):
                got = "an empty folder"
            raise SourceError(
                f"source {self.where}: got {got}, expected {FORMATS} files"
                " (folders inside it are not searched); give the folder that holds the images"
            )
        self._left = paths[::-1]
        self.length = len(paths)
        self._frame_id = 0
        self._bits = 8

    def read(self) -> Frame | Skip | None:
        if not self._left:
            return None
        path = self._left.pop()
        # A name that is no valid text would stop the message it stands in.
        file = os.fsencode(path.name).decode("utf-8", "replace")
        picture = read_image(path, at_least_bits=self._bits)
        captured_ns = self._now_ns()
        if isinstance(picture, Unreadable):
            return Skip(self.name, file, picture.reason, f"{file}: {picture.detail}")
        self._bits = picture.bits
        encoded = EncodedImage(picture.data, picture.bits)
        frame = Frame(self.name, self._frame_id, captured_ns, picture.pixels, file, encoded)
        self._frame_id += 1
        return frame

    def close(self) -> None:
        self._left = []


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
    try:
        with path.open("rb") as file:
            return read_header(file) is not None
    except OSError:
        return False
