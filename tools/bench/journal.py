"""Measure the journal: milliseconds a frame, bytes a frame, and how long it takes to go on with it.

    python -m tools.bench journal --frames 300 --json journal.json
    python -m tools.bench journal --resume 100000

The simulated slide is walked over at 1440x900; its own truth stands in for the detector, random looks for the
classifier, so that what is measured is the journal: the transaction of each frame, with its boxes, looks, messages
and the stage tracker's changes. The disk's own speed shows in p99 and largest, when the log is moved into the file.

With `--resume` a journal of so many frames is written, quickly: the frames of a made-up slide with some twenty cells a
field, ten at each stop of a raster, without messages. It is read back as `run --resume` does, at the worst time: right
before the next checkpoint.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamer.analysis.analyser import Analysed
from streamer.analysis.quality import assess
from streamer.counting.decision import ClassDecision
from streamer.counting.matching import Field
from streamer.counting.size_correction import AcceptedArea
from streamer.counting.slide_map import SlideConfig, SlideMap
from streamer.journal import Checkpoint, Journal, ModelId, Rules, SeenFrame, SessionJournal
from streamer.protocol.factory import MessageFactory
from streamer.records import Classifications, Detections, Frame, StagePosition
from streamer.run.session import CHECKPOINT_EVERY_FRAMES, SlideSession
from streamer.sources.simulated import SlideParameters, VirtualSlide
from streamer.stage.keyframes import KeyframeState, Link
from streamer.stage.placement import IslandBook, Placement
from streamer.stage.preparation import PreparedFrame, RegistrationConfig, prepare
from streamer.stage.static_mask import StaticMask
from streamer.stage.tracker_state import StageChanges, TrackerState
from tools.bench import slide as bench_slide
from tools.commands import command_parser

LABELS = ("WBC", "RBC", "platelet")
KINDS = ("white", "red", "platelet")
CLASSES = ("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil")
SUBCLASSES = ("band neutrophil", "segmented neutrophil", "metamyelocyte", "myelocyte", "promyelocyte")
PARENTS = ("neutrophil", "neutrophil", "immature granulocyte", "immature granulocyte", "immature granulocyte")
RULES = Rules(
    detector=ModelId(name="bench", sha256=None),
    classifier=ModelId(name="bench", sha256=None),
    operating_score=0.25,
    long_side_px=640,
    label_names=LABELS,
    kinds=KINDS,
    class_names=CLASSES,
    class_threshold=0.5,
    subclass_names=SUBCLASSES,
    subclass_parents=PARENTS,
)
REST_FRAMES = 10


class _Timed:
    """A session's journal that notes how long each frame took."""

    def __init__(self, kept: SessionJournal) -> None:
        self._kept = kept
        self.times_ms: list[float] = []
        self.cpu_ms: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def frame(self, *arguments: Any) -> None:
        begin, cpu = time.perf_counter(), time.thread_time()
        self._kept.frame(*arguments)
        self.cpu_ms.append((time.thread_time() - cpu) * 1000)
        self.times_ms.append((time.perf_counter() - begin) * 1000)


def looks_at(detections: Detections, rng: np.random.Generator) -> Classifications:
    white = len(detections.white_rows)
    return Classifications(
        rng.dirichlet(np.full(len(CLASSES), 0.3), white).astype(np.float32).reshape(white, len(CLASSES)),
        CLASSES,
        rng.dirichlet(np.ones(len(SUBCLASSES)), white).astype(np.float32).reshape(white, len(SUBCLASSES)),
        SUBCLASSES,
        PARENTS,
    )


def frames_of(source: str, count: int, rng: np.random.Generator) -> Iterator[Analysed]:
    slide = VirtualSlide(SlideParameters.parse(source))
    for frame_id in range(min(count, len(slide))):
        image = slide.render(frame_id)
        cells = [one for one in slide.truth(frame_id).cells if one.cell.kind in KINDS and one.fraction_visible > 0.2]
        boxes = np.array([one.box_px for one in cells], np.float32).reshape(-1, 4)
        labels = np.array([KINDS.index(one.cell.kind) for one in cells], np.intp)
        scores = np.sort(rng.uniform(0.5, 1, len(cells)).astype(np.float32))[::-1].copy()
        detections = Detections(boxes, scores, labels, LABELS, KINDS, False)
        yield Analysed(
            frame=Frame("slide", frame_id, time.monotonic_ns(), image),
            detections=detections,
            classifications=looks_at(detections, rng),
            prepared=prepare(image, RegistrationConfig()),
            quality=assess(image),
            timings_ms={"queue": 1.0, "detect": 100.0, "classify": 20.0, "prepare": 4.0},
        )


def session_of(kept: Any) -> SlideSession:
    factory = MessageFactory("slide", session="bench", run_id="bench", next_session_seq=kept.stored.next_seq)
    return SlideSession(factory, ClassDecision(CLASSES, 0.5, SUBCLASSES, PARENTS), operating_score=0.25, journal=kept)


def measure(source: str, frames: int, folder: Path) -> dict[str, float]:
    path = folder / "bench.db"
    journal = Journal(path)
    timed = _Timed(journal.new_session("slide", "bench", address=source, live=False, rules=RULES))
    session = session_of(timed)
    detections = done = 0
    for done, analysed in enumerate(frames_of(source, frames, np.random.default_rng(5)), start=1):  # noqa: B007
        detections += len(analysed.detections)
        list(session.update(analysed))
    keyframes = journal.database.execute("SELECT count(*) FROM keyframes").fetchone()[0]
    messages = journal.database.execute("SELECT sum(length(header)) FROM messages").fetchone()[0]
    pictures = journal.database.execute("SELECT sum(length(fine)) FROM keyframe_pictures").fetchone()[0]
    journal.close()
    begin = time.perf_counter()
    journal = Journal(path, resume=True)
    kept = journal.session("slide")
    assert kept is not None
    session_of(kept)
    resumed_s = time.perf_counter() - begin
    journal.close()
    p50, p95, p99 = np.percentile(timed.times_ms, (50, 95, 99)).tolist()
    return {
        "frames": done,
        "detections_a_frame": detections / done,
        "keyframes": keyframes,
        "ms_median": p50,
        "ms_median_of_cpu": float(np.median(timed.cpu_ms)),
        "ms_p95": p95,
        "ms_p99": p99,
        "ms_largest": max(timed.times_ms),
        "mb_per_1000_frames": path.stat().st_size / done / 1000,
        "of_it_messages": messages / done / 1000,
        "of_it_keyframe_pictures": pictures / done / 1000,
        "ms_a_frame_to_resume": resumed_s * 1000 / done,
    }


def written(path: Path, frames: int) -> None:
    """A journal of a stage that rests REST_FRAMES frames at each stop."""
    rng = np.random.default_rng(5)
    side = int(np.ceil(np.sqrt(frames / REST_FRAMES)))
    slide = bench_slide.Slide(side, side, 20, rng)
    width, height = bench_slide.WIDTH, bench_slide.HEIGHT
    image = VirtualSlide(SlideParameters(cells=20, width=width, height=height)).render(0)
    picture = prepare(image, RegistrationConfig())
    journal = Journal(path)
    kept = journal.new_session("slide", "bench", address="bench", live=False, rules=RULES)
    cells, islands, area = SlideMap(SlideConfig(min_score=RULES.operating_score)), IslandBook(), AcceptedArea()
    before = (0.0, 0.0)
    for stop, place in enumerate(itertools.islice(slide.raster(), -(-frames // REST_FRAMES))):
        found = slide.field(*place, rng)
        looks = looks_at(found, rng)
        placement = Placement(StagePosition(0, *place, 1.0), anchor=stop)
        link = () if stop == 0 else (Link(stop - 1, before[0] - place[0], before[1] - place[1], 0.5),)
        keyframes: tuple[tuple[KeyframeState, PreparedFrame], ...]
        keyframes = ((KeyframeState(stop, 0, *place, place, 0, link), picture),)
        before = place
        for frame_id in range(stop * REST_FRAMES, min(frames, (stop + 1) * REST_FRAMES)):
            update = cells.update(placement, found, (width, height), frame_id, looks)
            islands.update(placement)
            area.add(Field.of(placement, (width, height), frame_id))
            seen = SeenFrame(frame_id, width, height, placement, found, looks, True, (), None, None, "")
            tracker = TrackerState(1, stop, (), {}, 0, True, (picture, placement), None, (), StaticMask())
            checkpoint = None
            if (frame_id + 1) % CHECKPOINT_EVERY_FRAMES == 0:
                done = frame_id + 1
                checkpoint = Checkpoint(frame_id, done, done, (), 0, islands.anchors, cells.state(), area=area.state())
            kept.frame(seen, update, StageChanges(keyframes, tracker), (), checkpoint)
            keyframes = ()
    journal.close()


def measure_resume(frames: int, folder: Path) -> dict[str, float]:
    frames = frames // CHECKPOINT_EVERY_FRAMES * CHECKPOINT_EVERY_FRAMES + CHECKPOINT_EVERY_FRAMES - 1
    path = folder / "bench.db"
    written(path, frames)
    begin, cpu = time.perf_counter(), time.process_time()
    journal = Journal(path, resume=True)
    opened_s = time.perf_counter() - begin
    kept = journal.session("slide")
    assert kept is not None
    session = session_of(kept)
    result = {
        "frames": float(frames),
        "white_cells": float(session.count.total),
        "mb": path.stat().st_size / 1e6,
        "s_to_open": opened_s,
        "s_to_resume": time.perf_counter() - begin,
        "s_of_cpu": time.process_time() - cpu,
    }
    keyframes = journal.database.execute("SELECT count(*) FROM keyframes").fetchone()[0]
    journal.close()
    return {**result, "keyframes": keyframes}


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench journal", __doc__)
    parser.add_argument("--source", default="seed=7,cells=300,width=1440,height=900", help="parameters of sim:")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--resume", type=int, metavar="FRAMES", help="go on with a journal of so many frames instead")
    parser.add_argument("--folder", type=Path, help="where the journal is written (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.resume is None:
            result = measure(options.source, options.frames, Path(folder))
        else:
            result = measure_resume(options.resume, Path(folder))
    for name, value in result.items():
        print(f"{name:28}{value:10.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
