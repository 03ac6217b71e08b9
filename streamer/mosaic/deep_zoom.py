"""A picture too large to be looked at whole, as a pyramid of small ones: Deep Zoom (DZI), which OpenSeadragon and other
viewers read.

`NAME.dzi` says how large the picture is, `NAME_files/LEVEL/COLUMN_ROW.jpg` are its tiles; level 0 is one pixel, each
level above twice the one below. https://learn.microsoft.com/en-us/previous-versions/windows/silverlight/dotnet-windows-silverlight/cc645077(v=vs.95)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from engines.geometry import Image

TILE_PX = 512
"""Even, so that two rows of tiles become one of the level below."""
QUALITY = 90


def write(path: Path, width: int, height: int, parts: Iterable[Image]) -> None:
    """Write `path` (NAME.dzi) and its folder of tiles. `parts`: uint8 (h, width, 3) from the top, together `height`
    high. FileExistsError where the folder is there already; OSError for what can't be written."""
    folder = folder_of(path)
    folder.mkdir()
    top = _Level(folder, (max(width, height) - 1).bit_length(), width)
    for part in parts:
        for row in range(0, len(part), TILE_PX):
            top.add(part[row : row + TILE_PX])
    top.finish()
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" '
        f'TileSize="{TILE_PX}"><Size Width="{width}" Height="{height}"/></Image>\n'
    )


def folder_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_files")


class _Level:
    """Takes rows from the top, writes what is as high as a tile, and hands it on at half its size."""

    def __init__(self, folder: Path, number: int, width: int) -> None:
        self._folder = folder / str(number)
        self._folder.mkdir()
        self._below = _Level(folder, number - 1, -(-width // 2)) if number else None
        self._kept = np.empty((0, width, 3), np.uint8)
        self._row = 0

    def add(self, rows: Image) -> None:
        self._kept = np.concatenate([self._kept, rows])
        while len(self._kept) >= TILE_PX:
            self._write(self._kept[:TILE_PX])
            self._kept = self._kept[TILE_PX:]

    def finish(self) -> None:
        if len(self._kept):
            self._write(self._kept)
        if self._below is not None:
            self._below.finish()

    def _write(self, rows: Image) -> None:
        height, width = rows.shape[:2]
        for column in range(-(-width // TILE_PX)):
            tile = rows[:, column * TILE_PX : (column + 1) * TILE_PX]
            encoded = cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            (self._folder / f"{column}_{self._row}.jpg").write_bytes(encoded.tobytes())
        self._row += 1
        if self._below is not None:
            half = -(-width // 2), -(-height // 2)
            self._below.add(np.asarray(cv2.resize(rows, half, interpolation=cv2.INTER_AREA), np.uint8))
