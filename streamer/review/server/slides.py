"""What the server answers of, beside the desk itself: who asks where nothing is said, and the newest of each slide."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streamer.dashboard.palette import in_order
from streamer.review.desk import CellView, Desk, ReviewRefused, Snapshot
from streamer.review.server.frames import FieldSource
from streamer.review.server.keys import Choice, choices

FrameCells = Mapping[int, Sequence[tuple[int, CellView]]]
"""By frame, the cells in it and where."""


@dataclass(slots=True)
class Slides:
    """Any thread."""

    desk: Desk
    fields: FieldSource
    reviewer: str | None = None
    """Initials of who changes something without saying who."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _snapshots: dict[str, Snapshot] = field(default_factory=dict)
    _frames: dict[str, tuple[tuple[int, int], FrameCells]] = field(default_factory=dict)
    """By slide, how many cells it had and the largest of their numbers, and where they lie: that changes with these
    alone."""

    def session(self, given: str | None) -> str:
        """`given`, or the newest slide. ReviewRefused where there is none."""
        if given is not None:
            return given
        sessions = self.desk.sessions()
        if not sessions:
            raise ReviewRefused("unknown session", "got no slide yet, expected one; wait for the run to begin it")
        return sessions[-1].id

    def initials(self, given: str | None) -> str:
        """ReviewRefused where nobody said who they are."""
        reviewer = given or self.reviewer
        if not reviewer:
            raise ReviewRefused("bad reviewer", "got no reviewer, expected initials")
        return reviewer

    def snapshot(self, session: str) -> Snapshot:
        """As everyone sees it, with every change that was answered before."""
        with self._lock:
            kept = self._snapshots.get(session)
        if kept is None or kept.version != self.desk.version(session):
            kept = self.desk.snapshot(session)
            with self._lock:
                self._snapshots[session] = kept
        return kept

    def choices(self, session: str) -> list[Choice]:
        snapshot = self.snapshot(session)
        subclasses = {name: in_order(list(names)) for name, names in snapshot.subclasses.items()}
        return choices(in_order(list(snapshot.classes)), subclasses)

    def in_frame(self, session: str, frame_id: int) -> Sequence[tuple[int, CellView]]:
        """The cells that a frame shows, and where."""
        cells = self.snapshot(session).cells
        newest = len(cells), cells[-1].cell_id if cells else 0  # they come by number
        with self._lock:
            kept = self._frames.get(session)
        if kept is None or kept[0] != newest:
            found: defaultdict[int, list[tuple[int, CellView]]] = defaultdict(list)
            for cell in cells:
                widest = {view.frame_id: view for view in sorted(cell.views, key=_width)}  # two boxes of one cell
                for frame, view in widest.items():
                    found[frame].append((cell.cell_id, view))
            kept = newest, dict(found)
            with self._lock:
                self._frames[session] = kept
        return kept[1].get(frame_id, ())


def _width(view: CellView) -> float:
    return view.box_px[2] - view.box_px[0]
