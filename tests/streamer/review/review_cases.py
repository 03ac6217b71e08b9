"""Journals of finished slides for the tests of the review, made without a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.base import Classifications, Detections
from streamer.counting.slide_count import SeenFrame, SlideCount
from streamer.journal import Emission, Journal, ModelId, Rules, SessionJournal, decision_of, recounted
from streamer.protocol.factory import MessageFactory
from streamer.records import Differential, StagePosition
from streamer.review.journal_desk import JournalDesk
from streamer.stage.placement import Correction, Placement
from streamer.stage.static_mask import StaticMask
from streamer.stage.tracker import StageChanges, TrackerState

CLASSES = ("neutrophil", "lymphocyte", "monocyte", "erythroblast")
SIDE_PX, STEP_PX, COLUMNS = 30, 80, 8
SIZE = (COLUMNS * STEP_PX, COLUMNS * STEP_PX)

RULES = Rules(
    detector=ModelId(name="scripted", sha256=None),
    classifier=ModelId(name="scripted", sha256="0" * 64),
    operating_score=0.5,
    long_side_px=640,
    label_names=("WBC", "RBC", "NRBC"),
    kinds=("white", "red", "nucleated red"),
    class_names=CLASSES,
    class_threshold=0.5,
    subclass_names=("band neutrophil", "segmented neutrophil"),
    subclass_parents=("neutrophil", "neutrophil"),
)

TWICE = Placement(StagePosition(1, 0.0, 0.0, 1.0), 1)
_NO_TRACKER = TrackerState(0, None, (), {}, 0, False, None, None, (), StaticMask())


def write_slide(
    path: Path,
    cells: int = 60,
    *,
    seed: int = 0,
    session: str = "one",
    source: str = "slide",
    finish: bool = True,
    twice: bool = False,
) -> Path:
    """A journal of one slide, or one more in it: frames side by side, up to 62 white cells each, a red one and a
    nucleated red one in the first, and a cell cut by the left edge in each. `twice`: the one frame comes again on an
    island that turns out to be the first one in the end, so that all its cells are joined."""
    journal = Journal(path, resume=path.exists())
    kept = journal.new_session(source, session, address="path:/frames", live=False, rules=RULES)
    kept.begin_run("run", "{}")
    count = SlideCount(decision_of(RULES), operating_score=RULES.operating_score)
    factory = MessageFactory(source, session=session, run_id="run")
    rng = np.random.default_rng(seed)
    per_frame = COLUMNS * COLUMNS - 2
    for frame_id, start in enumerate(range(0, cells, per_frame)):
        _add_frame(kept, count, factory, rng, frame_id, min(per_frame, cells - start))
    if twice:
        _add_frame(kept, count, factory, rng, 1, cells, TWICE)
    if finish:
        corrections = (Correction(1, 0, 0.0, 0.0),) if twice else ()
        update = count.finish(corrections)
        emissions: list[Emission] = [(factory.cell(cell), None) for cell in count.changed_cells(update)]
        emissions.append((factory.differential(count.differential(final=True)), None))
        emissions.append((factory.end("finished", "end of the source"), None))
        kept.end(corrections, update.slide, emissions)
    journal.close()
    return path


def _add_frame(
    kept: SessionJournal,
    count: SlideCount,
    factory: MessageFactory,
    rng: np.random.Generator,
    frame_id: int,
    whole: int,
    placement: Placement | None = None,
) -> None:
    places = [(column * STEP_PX + 25, line * STEP_PX + 25) for line in range(COLUMNS) for column in range(COLUMNS)]
    boxes = [(x, y, x + SIDE_PX, y + SIDE_PX) for x, y in places[: whole + 2]]
    labels = [0] * whole + ([1, 2] if frame_id == 0 or placement else [1, 1])
    boxes.append((0, 5, 12, 20))  # cut by the edge
    labels.append(0)
    seen = seen_frame(frame_id, boxes, labels, rng)
    seen = seen if placement is None else replace(seen, placement=placement)
    update = count.add_frame(seen)
    cells = count.changed_cells(update)
    emissions: list[Emission] = [(factory.cell(cell), b"\xff\xd8 picture") for cell in cells]
    if update.differential_due:
        emissions.append((factory.differential(count.differential(final=False)), None))
    kept.frame(seen, update.slide, StageChanges((), _NO_TRACKER), emissions)


def seen_frame(
    frame_id: int, boxes: Sequence[tuple[float, ...]], labels: Sequence[int], rng: np.random.Generator
) -> SeenFrame:
    """Accepted, placed beside the others of its island, ten in a row."""
    white = labels.count(0)
    odds = rng.dirichlet([0.4] * len(CLASSES), white)
    band = rng.uniform(0.1, 0.9, (white, 1))
    looks = Classifications(
        probabilities=odds.astype(np.float32),
        class_names=CLASSES,
        subclass_probabilities=np.concatenate([band, 1 - band], 1).astype(np.float32),
        subclass_names=RULES.subclass_names,
        subclass_parents=RULES.subclass_parents,
    )
    detections = Detections(
        boxes_px=np.array(boxes, np.float32),
        scores=np.full(len(boxes), 0.9, np.float32),
        labels=np.array(labels, np.intp),
        label_names=RULES.label_names,
        kinds=RULES.kinds,
        truncated=False,
    )
    place = StagePosition(0, float(frame_id % 10) * (SIZE[0] + 50), float(frame_id // 10) * (SIZE[1] + 50), 1.0)
    return SeenFrame(
        frame_id=frame_id,
        width=SIZE[0],
        height=SIZE[1],
        placement=Placement(place, 0),
        detections=detections,
        looks=looks,
        accepted=True,
        reasons=(),
        focus=1.0,
        file=f"frame{frame_id}.png",
        captured_utc="2026-01-01T00:00:00.000000Z",
    )


def differential_of(desk: JournalDesk, session: str = "one") -> Differential:
    """As the desk's memory has it."""
    message = desk.snapshot(session).differential
    assert message is not None
    return Differential(**{name: getattr(message, name) for name in Differential.__struct_fields__})


def assert_equal_to_the_file(desk: JournalDesk, session: str = "one") -> None:
    """What the desk keeps in memory is what its journal gives when it is counted again: differential, cells, words."""
    with desk.lock:
        again = recounted(desk.stored(session))
    snapshot = desk.snapshot(session)
    assert again.differential == differential_of(desk, session)
    cells = {cell.cell_id: cell for cell in (*again.count.cells(), *again.count.uncounted_cells())}
    assert sorted(cells) == [one.cell_id for one in snapshot.cells]
    for one in snapshot.cells:
        cell = cells[one.cell_id]
        assert (one.class_name, one.subclass, one.counted, one.partial, one.kind) == (
            *(cell.class_name, cell.subclass, cell.counted, cell.partial, cell.kind),
        )
        assert one.word == (again.corrections.word(one.cell_id) if cell.reclassified else None)
    assert tuple(again.corrections.history) == tuple(one for one in snapshot.history if one.number is not None)
    assert again.count.reviewed() == (snapshot.reviewed, snapshot.to_review)
