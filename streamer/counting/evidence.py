"""What the frames of a slide say about whether its count may be believed, gathered as they are counted.

Everything is a sum or a histogram, so that a slide of any length costs the same; `EvidenceState` is all of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from engines.geometry import diameters
from streamer.records import Density, Detections, FieldColours, MergedIsland, SourceProgress
from streamer.stage.placement import Placement

NO_PLACE = "no place on the slide"
"""Why a frame that was accepted was not counted, where the stage tracker does not say."""

_BINS, _BIN = 320, 0.01
"""Of optical density, from -0.2 on."""
_LEAST_DENSITY = -0.2
_WIDTHS_PX = np.geomspace(2.0, 512.0, 257)
"""Between the bins of red cells' diameters: 2.2 % each."""
_LEAST_RED_CELLS = 10
"""Of a slide: fewer don't tell its stain or magnification."""
_NAMES_KEPT = 200
"""Beginnings of file names that are told apart: a folder has fewer slides."""

_NUMBER = re.compile(r"[\W_]*\d*[\W_]*$")
_AXIS = re.compile(r"[\W_]+(?:x|y|z|t|row|col)\d*$", re.IGNORECASE)


class _Seen(Protocol):
    """What of a frame is looked at; SeenFrame."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def placement(self) -> Placement: ...
    @property
    def detections(self) -> Detections: ...
    @property
    def accepted(self) -> bool: ...
    @property
    def reasons(self) -> Sequence[str]: ...
    @property
    def file(self) -> str | None: ...
    @property
    def colours(self) -> FieldColours | None: ...
    @property
    def progress(self) -> SourceProgress | None: ...
    @property
    def looked(self) -> bool: ...


class EvidenceState(msgspec.Struct):
    """All that an EvidenceBook knows."""

    rejected: dict[str, int] = {}
    """Frames that were not counted, by reason."""
    plasma: list[list[int]] = msgspec.field(default_factory=lambda: [[0] * _BINS for _ in range(3)])
    """Frames by the optical density of their plasma, of blue, green and red."""
    red: list[list[int]] = msgspec.field(default_factory=lambda: [[0] * _BINS for _ in range(3)])
    """The same of their red cells, which are counted instead of the frames."""
    widths: list[int] = msgspec.field(default_factory=lambda: [0] * (len(_WIDTHS_PX) - 1))
    """Red cells by their diameter."""
    has_colours: bool = True
    """False: of at least one frame they were not measured."""
    names: dict[str, int] = {}
    """Counted frames by what their files' names begin with."""
    name_of: dict[int, str] = {}
    """Of the frames of each island."""
    same: dict[str, str] = {}
    """Names that share an island: another one of them, or itself."""
    extents: dict[int, tuple[float, float, float, float]] = {}
    """x1, y1, x2, y2 of what was looked at, by island, in slide px."""
    progress: SourceProgress | None = None


class EvidenceBook:
    """To be given every frame of a slide that is counted, in their order."""

    def __init__(self, min_score: float, state: EvidenceState | None = None) -> None:
        """`min_score`: boxes below it are passed over. `state`: that of another book, to go on as it would."""
        self._min_score = min_score
        self.state = state or EvidenceState()

    def add(self, seen: _Seen, merged: Sequence[MergedIsland]) -> None:
        state = self.state
        for one in merged:
            self._merge(one)
        if seen.progress is not None:
            state.progress = seen.progress
        position = seen.placement.position
        if not seen.accepted or position is None:
            reasons = list(seen.reasons) if not seen.accepted else [seen.placement.reason or NO_PLACE]
            reason = reasons[0] if reasons else NO_PLACE
            state.rejected[reason] = state.rejected.get(reason, 0) + 1
            return
        if seen.looked:
            self.add_widths(whole_red_cells_px(seen.detections, (seen.width, seen.height), self._min_score))
            self.add_colours(seen.colours)
        box = (position.x_px, position.y_px, position.x_px + seen.width, position.y_px + seen.height)
        self._extend(position.island, box)
        if seen.file is not None:
            name = slide_name(seen.file)
            if name in state.names or len(state.names) < _NAMES_KEPT:
                state.names[name] = state.names.get(name, 0) + 1
                self._join(name, state.name_of.setdefault(position.island, name))

    def finish(self, merged: Sequence[MergedIsland], progress: SourceProgress | None) -> None:
        """The end of the slide: the islands that were merged then, and how far the source was read."""
        for one in merged:
            self._merge(one)
        self.state.progress = progress or self.state.progress

    @property
    def slides(self) -> dict[str, int]:
        """Frames by name, those together that share an island; the commonest first."""
        frames: Counter[str] = Counter()
        for name, count in self.state.names.items():
            frames[self._root(name)] += count
        return dict(frames.most_common())

    @property
    def rbc_px(self) -> float | None:
        """Usual diameter of the red cells, in full-frame pixels; None where too few were seen."""
        counts = np.array(self.state.widths)
        if counts.sum() < _LEAST_RED_CELLS:
            return None
        return float(np.exp(_quantiles(counts, np.log(_WIDTHS_PX), (0.5,))[0]))

    @property
    def plasma(self) -> Density | None:
        """Its usual optical density; None where it was not measured in any frame."""
        return _median(self.state.plasma, 1)

    @property
    def red(self) -> Density | None:
        """That of the red cells, less the plasma's; None where too few were seen."""
        return _median(self.state.red, _LEAST_RED_CELLS)

    @property
    def light_range(self) -> float | None:
        """Optical density between which nine tenths of the frames' plasma vary, of the colour that varies most; None
        for fewer than three frames."""
        counts = np.array(self.state.plasma)
        if counts[0].sum() < 3:
            return None
        edges = _LEAST_DENSITY + _BIN * np.arange(_BINS + 1)
        return max(float(np.diff(_quantiles(row, edges, (0.05, 0.95)))[0]) for row in counts)

    @property
    def only_extent_px(self) -> float | None:
        """Longer side of the only island; None where there are several, or none."""
        if len(self.state.extents) != 1:
            return None
        x1, y1, x2, y2 = next(iter(self.state.extents.values()))
        return max(x2 - x1, y2 - y1)

    def add_widths(self, rbc_px: npt.NDArray[np.floating]) -> None:
        """Diameters of red cells."""
        for place, count in enumerate(np.histogram(rbc_px, _WIDTHS_PX)[0].tolist()):
            if count:
                self.state.widths[place] += count

    def add_colours(self, colours: FieldColours | None) -> None:
        """Those of a frame."""
        if colours is None:
            self.state.has_colours = False
            return
        if colours.plasma is not None:
            _add(self.state.plasma, colours.plasma, 1)
        if colours.red is not None:
            _add(self.state.red, colours.red, colours.red_cells)

    def _extend(self, island: int, box: tuple[float, float, float, float]) -> None:
        x1, y1, x2, y2 = self.state.extents.get(island, box)
        self.state.extents[island] = min(x1, box[0]), min(y1, box[1]), max(x2, box[2]), max(y2, box[3])

    def _merge(self, merged: MergedIsland) -> None:
        state = self.state
        gone = state.extents.pop(merged.island, None)
        if gone is not None:
            dx, dy = merged.dx_px, merged.dy_px
            self._extend(merged.into, (gone[0] + dx, gone[1] + dy, gone[2] + dx, gone[3] + dy))
        name = state.name_of.pop(merged.island, None)
        if name is not None:
            self._join(name, state.name_of.setdefault(merged.into, name))

    def _root(self, name: str) -> str:
        while self.state.same.get(name, name) != name:
            name = self.state.same[name]
        return name

    def _join(self, name: str, other: str) -> None:
        self.state.same[self._root(name)] = self._root(other)


def whole_red_cells_px(detections: Detections, size_px: tuple[int, int], min_score: float) -> npt.NDArray[np.float32]:
    """Diameters of the red cells of `min_score` or more that lie wholly in a picture of `size_px` (width, height)."""
    boxes = detections.boxes_px
    red = np.array([kind == "red" for kind in detections.kinds], bool)[detections.labels]
    whole = (boxes[:, :2] > 1).all(1) & (boxes[:, 2] < size_px[0] - 1) & (boxes[:, 3] < size_px[1] - 1)
    return diameters(boxes[red & whole & (detections.scores >= min_score)])


def slide_name(file: str) -> str:
    """What the names of one slide's files have in common: without suffix, the running number and the indices of rows,
    columns and the like at its end."""
    name = _NUMBER.sub("", file.rpartition(".")[0] or file)
    while (shorter := _AXIS.sub("", name)) != name:
        name = _NUMBER.sub("", shorter) if not shorter[-1:].isdigit() else shorter
    return name


def _add(histogram: list[list[int]], density: Density, count: int) -> None:
    for row, value in zip(histogram, density, strict=True):
        row[min(max(int((value - _LEAST_DENSITY) / _BIN), 0), _BINS - 1)] += count


def _median(histogram: Sequence[Sequence[int]], least: int) -> Density | None:
    if sum(histogram[0]) < least:
        return None
    edges = _LEAST_DENSITY + _BIN * np.arange(_BINS + 1)
    b, g, r = (float(_quantiles(row, edges, (0.5,))[0]) for row in np.array(histogram))
    return b, g, r


def _quantiles(
    counts: npt.NDArray[np.int_], edges: npt.NDArray[np.floating], shares: Sequence[float]
) -> npt.NDArray[np.floating]:
    """Of a histogram, linear within its bins."""
    below = np.zeros(len(edges), np.int64)
    np.cumsum(counts, out=below[1:])
    return np.asarray(np.interp(np.array(shares) * below[-1], below, edges))
