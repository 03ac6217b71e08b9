"""The journal of a finished slide of as many white cells as wanted, without a model that runs: for what is measured of
journals afterwards."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from engines.base import Classifications, Detections
from streamer.counting.slide_count import SlideCount
from streamer.journal import Emission, Journal, SeenFrame, decision_of
from streamer.protocol.factory import MessageFactory
from streamer.records import StagePosition
from streamer.stage.placement import Placement
from streamer.stage.static_mask import StaticMask
from streamer.stage.tracker_state import StageChanges, TrackerState
from tools.bench.journal import CLASSES, KINDS, LABELS, PARENTS, RULES, SUBCLASSES

WIDTH, HEIGHT = 1440, 900
COLUMNS, ROWS, STEP_PX, SIDE_PX = 9, 5, 150, 90
A_FRAME = COLUMNS * ROWS
A_ROW = 20
"""Frames beside each other on the slide; the next ones lie below."""
PICTURES = 40
"""Different ones, that the cells have by turns."""

_NO_TRACKER = TrackerState(0, None, (), {}, 0, False, None, None, (), StaticMask())


def write_slide(path: Path, cells: int, *, seed: int = 0) -> Path:
    """Frames side by side, 45 cells each, each cell seen whole and once, with a picture and random probabilities."""
    rng = np.random.default_rng(seed)
    pictures = [_picture(rng) for _ in range(PICTURES)]
    journal = Journal(path)
    kept = journal.new_session("slide", "made", address="camera:0", live=True, rules=RULES)
    kept.begin_run("run", "{}")
    count = SlideCount(decision_of(RULES), operating_score=RULES.operating_score)
    factory = MessageFactory("slide", session="made", run_id="run")
    for frame_id, start in enumerate(range(0, cells, A_FRAME)):
        seen = _frame(frame_id, min(A_FRAME, cells - start), rng)
        update = count.add_frame(seen)
        emissions: list[Emission] = [
            (factory.cell(cell), pictures[cell.cell_id % PICTURES]) for cell in count.changed_cells(update)
        ]
        if update.differential_due:
            emissions.append((factory.differential(count.differential(final=False)), None))
        kept.frame(seen, update.slide, StageChanges((), _NO_TRACKER), emissions)
    update = count.finish(())
    last: list[Emission] = [(factory.differential(count.differential(final=True)), None)]
    last.append((factory.end("finished", "end of the source"), None))
    kept.end((), update.slide, last)
    journal.close()
    return path


def _frame(frame_id: int, cells: int, rng: np.random.Generator) -> SeenFrame:
    number = np.arange(cells)
    x, y = number % COLUMNS * STEP_PX + 40.0, number // COLUMNS * STEP_PX + 40.0
    place = StagePosition(0, frame_id % A_ROW * (WIDTH + 50.0), frame_id // A_ROW * (HEIGHT + 50.0), 1.0)
    odds = rng.dirichlet(np.full(len(CLASSES), 0.1), cells)
    return SeenFrame(
        frame_id=frame_id,
        width=WIDTH,
        height=HEIGHT,
        placement=Placement(place, 0),
        detections=Detections(
            boxes_px=np.stack([x, y, x + SIDE_PX, y + SIDE_PX], 1).astype(np.float32),
            scores=np.full(cells, 0.9, np.float32),
            labels=np.zeros(cells, np.intp),
            label_names=LABELS,
            kinds=KINDS,
            truncated=False,
        ),
        looks=Classifications(
            probabilities=odds.astype(np.float32),
            class_names=CLASSES,
            subclass_probabilities=rng.dirichlet(np.full(len(SUBCLASSES), 0.3), cells).astype(np.float32),
            subclass_names=SUBCLASSES,
            subclass_parents=PARENTS,
        ),
        accepted=True,
        reasons=(),
        focus=0.6,
        file=None,
        captured_utc="2026-01-01T00:00:00.000000Z",
    )


def _picture(rng: np.random.Generator) -> bytes:
    """JPEG of something like a cell, of the size that a run keeps."""
    side = int(1.4 * SIDE_PX)
    image = np.full((side, side, 3), 228, np.float32)
    centre = (side // 2, side // 2)
    cv2.circle(image, centre, SIDE_PX // 2, (205, 170, 190), -1, cv2.LINE_AA)
    cv2.ellipse(image, (*centre,), (26, 17), float(rng.uniform(0, 180)), 0, 360, (120, 40, 90), -1, cv2.LINE_AA)
    noisy = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
