"""The state of the dashboard: the newest messages of every source. It comes from messages alone, so that a streamer
elsewhere is shown in the same way as one in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.config import FIVE_PART_RANGES
from streamer.dashboard.chart import Chart, Step, step_of
from streamer.dashboard.palette import class_letters
from streamer.network.silence import Waiting
from streamer.protocol import messages
from streamer.records import UNCLASSIFIED, SlideInfo, SourceStatus

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 BGR."""

CELLS_KEPT = 64
"""Newest cells of each source that stay; a screen never shows more."""


@dataclass(slots=True)
class SourceView:
    """One source as its messages describe it; None: no message so far."""

    name: str
    session: str | None = None
    run_id: str | None = None
    status: SourceStatus | None = None
    frame: messages.FrameMessage | None = None
    picture: Picture | None = None
    """The image of `frame`; None if only messages come."""
    differential: messages.DifferentialMessage | None = None
    slide: SlideInfo | None = None
    """What people say of it."""
    end: messages.EndMessage | None = None
    """None while the session goes on."""
    cells: dict[int, messages.CellMessage] = field(default_factory=dict)
    """By cell id, the newest last."""
    cell_pictures: dict[int, Picture] = field(default_factory=dict)
    """Crops, of cells whose message has one."""
    renamed: dict[int, str] = field(default_factory=dict)
    """The former class of a cell, if its newest message changed it."""
    chosen: int | None = None
    """The id of the cell that the arrow keys have chosen; None: none."""
    paused: bool = False
    """As far as the commands of this display know."""
    chart: Chart = field(default_factory=Chart)
    """Where the stage has been since the first message received."""

    def newest_cells(self) -> list[messages.CellMessage]:
        """Newest first."""
        return list(reversed(self.cells.values()))

    def letters(self) -> dict[str, str]:
        """The letter of each class seen or listed, no two the same."""
        listed = () if self.differential is None else self.differential.classes
        return class_letters({UNCLASSIFIED, *listed, *self.chart.class_names, *(c.class_ for c in self.cells.values())})

    def _forget_slide(self) -> None:
        self.frame = self.picture = self.differential = self.slide = self.chosen = None
        self.cells.clear()
        self.cell_pictures.clear()
        self.renamed.clear()
        self.chart = Chart()


@dataclass(slots=True)
class DashboardState:
    """The newest of everything, for `render`. Used by one thread."""

    picture: bool | None = None
    """Whether the current frame is drawn; None: where it can be recognised."""
    draws_picture: bool = False
    """Whether the newest screen has it."""
    graphics: bool = False
    """Whether the terminal shows pictures, not only characters."""
    red_cells: bool = False
    """Whether boxes of red cells and platelets are drawn too."""
    map: bool = False
    """Whether the map of the slide is drawn large in place of the current frame; otherwise small if there is room."""
    note: str | None = None
    """The classifier's errors in a few words, from its card; shown beside the limits."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=lambda: FIVE_PART_RANGES)
    """Usual percentages per class, drawn behind the bars."""
    hint: str = ""
    """The available keys; empty if keys can't be read."""
    help: bool = False
    """Whether all of them are explained."""
    naming: bool = False
    """Whether the next key is the class of the chosen cell."""
    sure: str | None = None
    """The key that has to be pressed once more before anything is done."""
    notice: str = ""
    """What became of the last command."""
    is_fault: bool = False
    """Whether `notice` says that it was refused."""
    noticed_ns: int = 0
    waits_for: Waiting | None = None
    """What messages are waited for; None: they come from this process."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Frames that each source holds; those without an end are left out."""
    is_over: bool = False
    """The run has ended, and its last screen stays."""
    sources: dict[str, SourceView] = field(default_factory=dict)
    health: messages.HealthMessage | None = None
    selected: str | None = None
    """Name of the source shown large; None for the first one."""
    updated_ns: int | None = None
    """Local monotonic time of the newest message; None: unknown."""

    def tell(self, notice: str, now_ns: int, *, fault: bool = False) -> None:
        """Show a line for some seconds."""
        self.notice, self.is_fault, self.noticed_ns = notice, fault, now_ns

    def update(self, message: messages.AnyMessage, picture: Picture | None = None, now_ns: int | None = None) -> None:
        """Add one message; `picture` is the image of a frame message or the crop of a cell message."""
        if now_ns is not None:
            self.updated_ns = now_ns
        if isinstance(message, messages.HealthMessage):
            self.health = message
            for name, status in message.sources.items():
                self.view(name).status = status
            if message.slide is not None:
                self.view(message.source).slide = message.slide
            return
        view = self.view(message.source)
        if view.session != message.session:
            view._forget_slide()
            view.session = message.session
        view.run_id = message.run_id
        view.end = message if isinstance(message, messages.EndMessage) else None
        if isinstance(message, messages.EndMessage | messages.DifferentialMessage) and message.slide is not None:
            view.slide = message.slide
        step = step_of(message)
        if step is not None:
            view.chart.take(step)
        if isinstance(message, messages.FrameMessage):
            view.frame, view.picture = message, picture
        elif isinstance(message, messages.DifferentialMessage):
            view.differential = message
        elif isinstance(message, messages.CellMessage):
            _add_cell(view, message, picture)

    def follow(self, source: str, steps: Iterable[Step], missed: int) -> None:
        """Draw every step of a source on the map in order, with those whose messages `update` does not get. `missed`:
        steps lost before."""
        view = self.view(source)
        view.chart.missed += missed
        for step in steps:
            if step.session == view.session:
                view.chart.take(step)

    def view(self, name: str) -> SourceView:
        """The view of a source, created on first use."""
        if name not in self.sources:
            self.sources[name] = SourceView(name)
        return self.sources[name]

    @property
    def current(self) -> SourceView | None:
        """The source shown large; None before the first message."""
        if self.selected in self.sources:
            return self.sources[self.selected]
        return next(iter(self.sources.values()), None)

    def select_next(self) -> None:
        """Show the next source large; the first one follows the last."""
        names = list(self.sources)
        if names:
            current = self.current
            place = names.index(current.name) if current else -1
            self.selected = names[(place + 1) % len(names)]

    def select(self, place: int) -> None:
        """Show the source at `place`, from 0, large; nothing changes where there is none."""
        names = list(self.sources)
        if place < len(names):
            self.selected = names[place]

    def choose(self, step: int) -> None:
        """Choose the next older cell (1) or newer one (-1) of the current source; first of all its newest."""
        view = self.current
        ids = [cell.cell_id for cell in view.newest_cells()] if view is not None else []
        if view is None or not ids:
            return
        place = ids.index(view.chosen) + step if view.chosen in ids else 0
        view.chosen = ids[max(0, min(place, len(ids) - 1))]


def _add_cell(view: SourceView, message: messages.CellMessage, picture: Picture | None) -> None:
    before = view.cells.pop(message.cell_id, None)
    if not message.counted:
        view.chosen = None if view.chosen == message.cell_id else view.chosen
        view.cell_pictures.pop(message.cell_id, None)
        view.renamed.pop(message.cell_id, None)
        return
    view.cells[message.cell_id] = message
    if before is not None and before.class_ != message.class_:
        view.renamed[message.cell_id] = before.class_
    if picture is not None:
        view.cell_pictures[message.cell_id] = picture
    while len(view.cells) > CELLS_KEPT:
        oldest = next(iter(view.cells))
        if oldest == view.chosen:
            view.chosen = None
        del view.cells[oldest]
        view.cell_pictures.pop(oldest, None)
        view.renamed.pop(oldest, None)
