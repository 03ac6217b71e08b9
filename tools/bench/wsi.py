"""A whole slide from end to end: cells counted once, memory, and speed beside JPEG files of the same tiles.

    python -m tools.bench wsi --json wsi.json
    python -m tools.bench wsi --size 12000x9000 --keep slides/

The slide is the simulated one (streamer/sources/simulated) as a scanner would give it: even light, in focus, clear
glass around the smear, a pyramidal TIFF of JPEG tiles that is written tile by tile. `leukostream run` counts it in a
process of its own, whose peak memory is what the operating system says; then it counts the same tiles as JPEG files.
The truth is every white cell of the smear. Each of them that has no counted cell at its place is `missed`, one that has
several is `doubled`, and a counted cell where none lies is `false`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.spatial

from engines.base import UsageError, usable_cores
from streamer.counting.verdict import RED_CELL_UM
from streamer.records import Frame
from streamer.sources import SourceError, open_source, parse_source
from streamer.sources.packages import extra
from streamer.sources.simulated import SlideCell, SlideParameters
from streamer.sources.simulated.optics import SHARPEST_PX
from streamer.sources.simulated.smear import Smear
from streamer.sources.simulated.tiles import Tiles
from tools.commands import command_parser

Image = npt.NDArray[np.uint8]

TILE = 512
LEVELS = 3
SHRINK = 4
"""From one level to the next."""
RED_PX = 44.0
UM_PER_PX = RED_CELL_UM / RED_PX
GLASS_SHARE = 0.04
"""Of the slide's sides, around the smear."""
WHITE_PER_PX = 2.0 / (640 * 480)
"""As many white cells as in the simulated slide's fields."""
LAMP = (221, 228, 232)
"""Clear glass in blue, green and red."""
NOISE = 1.6
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Found:
    """The counted cells beside the true ones."""

    missed: int
    doubled: int
    false: int
    place_error_um: float
    """Median distance of a cell from its true place."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One run over the slide."""

    source: str
    frames: int
    islands: int
    counted: int
    edge: int
    unclassified: int
    difference_percent: float
    found: Found | None
    """None where the places of the cells on the slide are not known: of JPEG files."""
    peak_mb: float
    frames_per_s: float
    """Between the first and the last frame published."""
    wall_s: float
    """With the start of the program, its models, and the search for tissue."""


class SimulatedScan:
    """The slide as a scanner sees it."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        self.width, self.height = width, height
        self.border = round(GLASS_SHARE * min(width, height))
        size = width - 2 * self.border, height - 2 * self.border
        cells = round(size[0] * size[1] * WHITE_PER_PX)
        looks = SlideParameters(seed=seed, cells=cells).white_looks()
        self.smear = Smear(seed, *size, looks, red_px=RED_PX, margin_px=8)
        self._tiles = Tiles(self.smear, kept=4 * (width // 320 + 3))
        rng = np.random.default_rng([seed, 61])
        noise = cv2.GaussianBlur(rng.standard_normal((2 * TILE, 2 * TILE, 3), dtype=np.float32), (0, 0), 0.6)
        self._noise = np.clip(np.rint(noise * NOISE / float(noise.std()) + 128), 0, 255).astype(np.uint8)
        self._lamp = np.full((TILE, TILE, 3), LAMP, np.uint8)

    def tile(self, left: int, top: int) -> Image:
        """(TILE, TILE, 3) BGR."""
        reach = 4
        view = self._tiles.view(
            left - self.border - reach, top - self.border - reach, TILE + 2 * reach, TILE + 2 * reach
        )
        sharp = cv2.GaussianBlur(view, (0, 0), SHARPEST_PX)[reach:-reach, reach:-reach]
        lit = cv2.multiply(sharp, self._lamp, scale=1 / 255)
        y, x = (17 * top // TILE * 31) % TILE, (left // TILE * 53) % TILE
        return np.asarray(cv2.addWeighted(lit, 1.0, self._noise[y : y + TILE, x : x + TILE], 1.0, -128.0), np.uint8)

    def white_cells(self) -> list[SlideCell]:
        return [placed.cell for placed in self.smear.white if placed.cell.kind == "white"]


def write_slide(scan: SimulatedScan, path: Path) -> None:
    """As a pyramidal OME-TIFF; in memory is a row of tiles, the smaller levels wait on the disk."""
    with extra("wsi", "tools.bench wsi"):
        import tifffile

    folder = tempfile.TemporaryDirectory(dir=path.parent)
    sizes = [(scan.height // SHRINK**n, scan.width // SHRINK**n) for n in range(LEVELS)]
    with folder, tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        smaller = [
            np.lib.format.open_memmap(Path(folder.name, f"{n}.npy"), "w+", np.uint8, (*size, 3))
            for n, size in enumerate(sizes[1:], 1)
        ]
        options: dict[str, Any] = {
            "dtype": np.uint8,
            "tile": (TILE, TILE),
            "photometric": "rgb",
            "compression": "jpeg",
            "compressionargs": {"level": JPEG_QUALITY},
            "maxworkers": 1,
        }
        scale = {"PhysicalSizeX": UM_PER_PX, "PhysicalSizeY": UM_PER_PX, "axes": "YXS"}
        first = _full_size(scan, smaller[0])
        file.write(first, shape=(*sizes[0], 3), subifds=LEVELS - 1, metadata=scale, **options)
        for number, level in enumerate(smaller):
            following = smaller[number + 1] if number + 1 < len(smaller) else None
            file.write(_of_level(level, following), shape=level.shape, subfiletype=1, **options)


def _full_size(scan: SimulatedScan, smaller: Image) -> Iterator[Image]:
    for top in range(0, scan.height, TILE):
        for left in range(0, scan.width, TILE):
            tile = scan.tile(left, top)
            _put(smaller, tile, left, top)
            yield tile[..., ::-1]


def _of_level(level: Image, smaller: Image | None) -> Iterator[Image]:
    for top in range(0, level.shape[0], TILE):
        for left in range(0, level.shape[1], TILE):
            tile = np.full((TILE, TILE, 3), LAMP, np.uint8)
            part = level[top : top + TILE, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            if smaller is not None:
                _put(smaller, tile, left, top)
            yield tile[..., ::-1]


def _put(smaller: Image, tile: Image, left: int, top: int) -> None:
    """A tile of the level above, shrunk, into its place."""
    part = smaller[top // SHRINK : (top + TILE) // SHRINK, left // SHRINK : (left + TILE) // SHRINK]
    shrunk = cv2.resize(tile, (TILE // SHRINK, TILE // SHRINK), interpolation=cv2.INTER_AREA)
    part[:] = shrunk[: part.shape[0], : part.shape[1]]


def write_tiles(source: str, folder: Path) -> int:
    """The frames of a source as JPEG files; how many."""
    folder.mkdir()
    opened = open_source(parse_source(source))
    opened.open()
    count = 0
    while (item := opened.read()) is not None:
        if isinstance(item, Frame):
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            cv2.imwrite(str(folder / f"tile{item.frame_id:05}.jpg"), item.image, quality)
            count += 1
    opened.close()
    return count


def count_cells(source: str, scan: SimulatedScan, folder: Path) -> Counted:
    """`leukostream run` over a source, in a process of its own."""
    lines = folder / "messages.jsonl"
    lines.unlink(missing_ok=True)
    words = ["-m", "streamer", "run", "--source", f"slide={source}", "--jsonl", str(lines), "--no-dashboard"]
    begun = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    process = os.posix_spawn(
        sys.executable, [sys.executable, *words], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)]
    )
    os.close(null)
    _, status, usage = os.wait4(process, 0)
    wall_s = time.perf_counter() - begun
    if status:
        raise SourceError(
            f"leukostream run --source {source}: got status {os.waitstatus_to_exitcode(status)}, expected 0"
        )
    peak_mb = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return _counted(source, scan, lines, peak_mb, wall_s)


def _counted(source: str, scan: SimulatedScan, lines: Path, peak_mb: float, wall_s: float) -> Counted:
    frames: list[dict[str, Any]] = []
    cells: dict[int, dict[str, Any]] = {}
    final: dict[str, Any] = {}
    with lines.open() as file:
        for line in file:
            message = json.loads(line)
            if message["type"] == "frame":
                frames.append({key: message.get(key) for key in ("published_ns", "stage", "stage_um", "um_per_px")})
            elif message["type"] == "cell":
                cells[message["cell_id"]] = message
            elif message["type"] == "differential":
                final = message
    truth = len(scan.white_cells())
    spent_s = (frames[-1]["published_ns"] - frames[0]["published_ns"]) / 1e9
    islands = {frame["stage"]["island"] for frame in frames if frame["stage"] is not None}
    found = None
    if frames[0].get("stage_um") is not None and islands == {0}:
        found = _compared(frames[0], [one for one in cells.values() if one["counted"] and not one["partial"]], scan)
    return Counted(
        source="wsi" if source.startswith("wsi:") else "JPEG files",
        frames=len(frames),
        islands=len(islands),
        counted=final["total"],
        edge=final["edge"],
        unclassified=final["unclassified"],
        difference_percent=round(100 * (final["total"] - truth) / truth, 3),
        found=found,
        peak_mb=round(peak_mb, 1),
        frames_per_s=round((len(frames) - 1) / spent_s, 2),
        wall_s=round(wall_s, 1),
    )


def _compared(first: dict[str, Any], cells: Sequence[dict[str, Any]], scan: SimulatedScan) -> Found:
    """`first`: the message of the frame at which the island begins; `cells`: those counted, whole."""
    um_per_px, corner = first["um_per_px"], first["stage_um"]
    px = np.array([[cell["x_px"], cell["y_px"]] for cell in cells])
    places = (px + np.array([corner["x"], corner["y"]]) / um_per_px) * um_per_px / UM_PER_PX - scan.border
    truth = scan.white_cells()
    boxes = np.array([cell.box_px for cell in truth])
    centres, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2
    distances, nearest = scipy.spatial.KDTree(centres).query(places)
    inside = distances < reach[nearest]
    times = Counter(nearest[inside].tolist())
    return Found(
        missed=len(truth) - len(times),
        doubled=sum(count - 1 for count in times.values()),
        false=int(np.count_nonzero(~inside)),
        place_error_um=round(float(np.median(distances[inside])) * UM_PER_PX, 3),
    )


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench wsi", __doc__)
    parser.add_argument(
        "--size", default="40000x30000", metavar="WxH", help="pixels of the slide (default 40000x30000)"
    )
    parser.add_argument("--mpp", type=float, metavar="F", help="at which it is read (default: that of wsi:)")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="for slide and tiles (default: one that goes again)"
    )
    parser.add_argument("--note", help="kept with the figures: what else the machine did")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(arguments)
    size = re.fullmatch(r"(\d+)x(\d+)", options.size)
    if size is None or min(map(int, size.groups())) < 4 * TILE:
        raise UsageError(f"--size: got {options.size!r}, expected WxH of {4 * TILE} px or more, such as 12000x9000")
    width, height = map(int, size.groups())
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    with nullcontext(str(options.keep)) if options.keep else tempfile.TemporaryDirectory() as name:
        figures = measure(SimulatedScan(width, height, options.seed), Path(name), options.mpp)
    figures |= {"seed": options.seed, "note": options.note}
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(scan: SimulatedScan, folder: Path, mpp: float | None = None) -> dict[str, Any]:
    """The slide is made where `folder` has none of that size yet."""
    path = folder / f"slide-{scan.width}x{scan.height}-{scan.smear.seed}.ome.tif"
    written_s = None
    if not path.exists():
        begun = time.perf_counter()
        write_slide(scan, path)
        written_s = round(time.perf_counter() - begun, 1)
    source = f"wsi:{path}" if mpp is None else f"wsi:{path},mpp={mpp}"
    tiles = folder / f"{path.name.partition('.')[0]}-tiles-{mpp or 'usual'}"
    if not tiles.exists():
        write_tiles(source, tiles)
    runs = [count_cells(source, scan, folder), count_cells(str(tiles), scan, folder)]
    return {
        "machine": {"cores": usable_cores(), "processor": platform.processor() or platform.machine()},
        "slide": {
            "width_px": scan.width,
            "height_px": scan.height,
            "um_per_px": UM_PER_PX,
            "white_cells": len(scan.white_cells()),
            "file_mb": round(path.stat().st_size / 1e6, 1),
            "written_s": written_s,
        },
        "runs": [asdict(run) for run in runs],
    }
