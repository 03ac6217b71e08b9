"""Films for tools/bench/area.py, painted before they are shown, and the sources that show them.

A film is an array of uint8 (frames, H, W, 3) BGR in a .npy file, read frame by frame so that it takes no memory.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.lib.format
import numpy.typing as npt

from streamer.records import Frame, Mode, Skip
from streamer.sources import Source, open_source, parse_source
from streamer.sources.address import split_options
from streamer.sources.base import PassedOnSource, SourceError
from tools.data.crops import read_image

Image = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 640, 480
"""Of the window that goes over a mosaic, as of the simulated camera."""
DWELL_FRAMES = 3
FRAMES_A_FIELD = 24
"""Of a pan, as of the simulated stage."""
LEAST_SHARED = 0.3
"""Of the field, between two pictures of a slide, for the stage to go from one to the other; it jumps else."""
LATE_S = 1 / 30
"""A camera does not wait longer for its reader: it gives the next frame instead."""

_GROUND = 180.0
"""Mean of an evenly lit picture."""

_fed_s: list[float] = []


def fed_s() -> float:
    """Processor time that sources of this process spent on giving frames."""
    return sum(_fed_s)


def write_film(path: Path, frames: Iterable[Image]) -> int:
    """How many frames it holds."""
    count = 0
    with path.open("wb") as file:
        for frame in frames:
            if count == 0:
                _write_header(file, (0, *frame.shape))
            file.write(frame.tobytes())
            count += 1
        file.seek(0)
        _write_header(file, (count, *frame.shape))
    return count


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """As long for any number of frames: NumPy leaves room for it to grow."""
    numpy.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def painted(address: str, most: int | None = None) -> Iterator[Image]:
    """The frames of the simulated slide."""
    source = open_source(parse_source(address), mode="analysis")
    source.open()
    for _ in itertools.count() if most is None else range(most):
        item = source.read()
        if not isinstance(item, Frame):
            return
        yield item.image


def with_noise(frames: Iterable[Image], seed: int, grey_levels: float = 1.0) -> Iterator[Image]:
    """The same with a little more noise, of a seed: two such films differ as two recordings of a slide do."""
    rng = np.random.default_rng(seed)
    for frame in frames:
        noise = rng.standard_normal(frame.shape, np.float32) * np.float32(grey_levels)
        yield np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)


def over_mosaic(data: Path, slide: str) -> Iterator[Image]:
    """A pan over the pictures of a real slide (`chula_wbc`), laid where `unique_cells.json` says that they lie.

    The stage goes from each picture to the next one, and jumps where they share too little of the slide.
    """
    root = data / "chula_wbc"
    places: dict[str, dict[str, Any]] = json.loads((root / "unique_cells.json").read_text())[slide]["positions"]
    for _, members in itertools.groupby(sorted(places, key=lambda name: places[name]["island"]), _island_of(places)):
        names = sorted(members)
        corners = np.rint([(places[name]["x_px"], places[name]["y_px"]) for name in names]).astype(int)
        corners -= corners.min(0)
        pictures = [_evenly_lit(read_image(root / "images" / name)) for name in names]
        height, width = pictures[0].shape[:2]
        canvas = np.zeros((corners[:, 1].max() + height, corners[:, 0].max() + width, 3), np.uint8)
        for picture, (x, y) in zip(pictures, corners.tolist(), strict=True):
            canvas[y : y + height, x : x + width] = picture
        size = min(WIDTH, width), min(HEIGHT, height)
        centres = corners + (np.array([width, height]) - size) // 2
        for x, y in _path(centres, (width, height)):
            yield canvas[y : y + size[1], x : x + size[0]]


def _evenly_lit(picture: Image) -> Image:
    """Without the lamp's vignette, which would show where one picture ends and the next begins."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 16, height // 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    light = cv2.resize(cv2.GaussianBlur(small, (0, 0), width / 96), (width, height))
    return np.clip(np.rint(picture * (_GROUND / np.maximum(light, 1))), 0, 255).astype(np.uint8)


def _island_of(places: dict[str, dict[str, Any]]) -> Callable[[str], int]:
    return lambda name: int(places[name]["island"])


def _path(corners: npt.NDArray[np.int_], size_px: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Of the window's corner, frame by frame: a rest at each place, and a pan to the next one if it is near."""
    for here, there in zip(corners, (*corners[1:], None), strict=True):
        yield from [(int(here[0]), int(here[1]))] * DWELL_FRAMES
        if there is None:
            return
        shared = np.maximum(0, 1 - np.abs(there - here) / size_px).prod()
        if shared >= LEAST_SHARED:
            steps = max(2, round(float(np.abs((there - here) / size_px).max()) * FRAMES_A_FIELD))
            for step in range(1, steps):
                x, y = np.rint(here + (there - here) * step / steps).astype(int).tolist()
                yield x, y


class FilmSource:
    """A film, or the part of it from frame `first` on that has `count` frames; at a rate of frames like a camera, if
    one is given."""

    def __init__(
        self,
        name: str,
        path: Path,
        now_ns: Callable[[], int],
        *,
        fps: float | None = None,
        first: int = 0,
        count: int | None = None,
    ) -> None:
        self.name = name
        self.default_mode: Mode = "analysis" if fps is None else "live"
        self.passed_over = 0
        self._path, self._now_ns, self._fps, self._next, self._count = path, now_ns, fps, first, count
        self._begun_ns = 0
        self._given = 0

    def open(self) -> None:
        self._file = self._path.open("rb", buffering=0)
        numpy.lib.format.read_magic(self._file)
        shape, _, _ = numpy.lib.format.read_array_header_1_0(self._file)
        self._data = self._file.tell()
        self._shape = tuple(shape[1:])
        left = int(shape[0]) - self._next
        self._count = left if self._count is None else min(self._count, left)
        self._begun_ns = self._now_ns()
        self._first = self._next

    def read(self) -> Frame | None:
        assert self._count is not None
        number = self._next - self._first
        if number >= self._count:
            return None
        if self._fps is not None:
            number = self._in_time(number, self._fps)
            if number >= self._count:
                return None
        begun = time.thread_time()
        image = np.empty(self._shape, np.uint8)
        self._file.seek(self._data + (self._first + number) * image.nbytes)
        self._file.readinto(image.data)
        self._next = self._first + number + 1
        captured_ns = self._now_ns() if self._fps is None else self._due_ns(number, self._fps)
        frame = Frame(self.name, self._given, captured_ns, image)
        self._given += 1
        _fed_s.append(time.thread_time() - begun)
        return frame

    def _in_time(self, number: int, fps: float) -> int:
        """Wait until a frame is due; the number of the one that is due then."""
        late_s = (self._now_ns() - self._due_ns(number, fps)) / 1e9
        if late_s > LATE_S:
            missed = int(late_s * fps)
            self.passed_over += missed
            return number + missed
        time.sleep(max(0.0, -late_s))
        return number

    def _due_ns(self, number: int, fps: float) -> int:
        """When a camera would have grabbed it, which is what its age is counted from."""
        return self._begun_ns + round(number * 1e9 / fps)

    def close(self) -> None:
        if self._begun_ns:
            self._file.close()


class FedSource(PassedOnSource):
    """Another source, whose processor time is the feeder's."""

    def read(self) -> Frame | Skip | None:
        begun = time.thread_time()
        item = super().read()
        _fed_s.append(time.thread_time() - begun)
        return item


def open_film(name: str, target: str, now_ns: Callable[[], int]) -> Source:
    """Of `PATH[,fps=F][,first=N][,count=N]`."""
    path, options = split_options(target)
    given = dict(option.partition("=")[::2] for option in options.split(",") if option)
    if unknown := given.keys() - {"fps", "first", "count"}:
        raise SourceError(f"film {target}: got {', '.join(unknown)}, expected fps, first and count")
    return FilmSource(
        name,
        Path(path),
        now_ns,
        fps=float(given["fps"]) if "fps" in given else None,
        first=int(given.get("first", 0)),
        count=int(given["count"]) if "count" in given else None,
    )


def open_painted(name: str, target: str, now_ns: Callable[[], int]) -> Source:
    """Of the options of `sim:`."""
    return FedSource(open_source(parse_source(f"{name}=sim:{target}"), now_ns=now_ns))
