"""Measure the journal: milliseconds a frame, bytes a frame, and how long it takes to go on with it.

    python -m tools.bench_journal --frames 300 --json journal.json

The simulated slide is walked over at 1440x900; its own truth stands in for the detector, random looks for the
classifier, so that what is measured is the journal: the transaction of each frame, with its boxes, looks, messages
and the stage tracker's changes. The disk's own speed shows in p99 and largest, when the log is moved into the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streamer.analysis import Analysed
from streamer.journal import Journal, ModelId, Rules, SessionJournal
from streamer.message_factory import MessageFactory
from streamer.naming import Naming
from streamer.quality import assess
from streamer.records import Classifications, Detections, Frame
from streamer.registration import RegistrationConfig, prepare
from streamer.session import SlideSession
from streamer.sources.simulated import SlideParameters, VirtualSlide

LABELS = ("WBC", "RBC", "platelet")
KINDS = ("white", "red", "platelet")
CLASSES = ("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil")
SUBCLASSES = ("band neutrophil", "segmented neutrophil", "metamyelocyte", "myelocyte", "promyelocyte")
PARENTS = ("neutrophil", "neutrophil", "immature granulocyte", "immature granulocyte", "immature granulocyte")


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


def frames_of(source: str, count: int, rng: np.random.Generator) -> Iterator[Analysed]:
    slide = VirtualSlide(SlideParameters.parse(source))
    for frame_id in range(min(count, len(slide))):
        image = slide.render(frame_id)
        cells = [one for one in slide.truth(frame_id).cells if one.cell.kind in KINDS and one.fraction_visible > 0.2]
        boxes = np.array([one.box_px for one in cells], np.float32).reshape(-1, 4)
        labels = np.array([KINDS.index(one.cell.kind) for one in cells], np.intp)
        scores = np.sort(rng.uniform(0.5, 1, len(cells)).astype(np.float32))[::-1].copy()
        white = np.flatnonzero(labels == 0)
        yield Analysed(
            frame=Frame("slide", frame_id, time.monotonic_ns(), image),
            detections=Detections(boxes, scores, labels, LABELS, KINDS, False),
            white=white,
            classifications=Classifications(
                rng.dirichlet(np.full(len(CLASSES), 0.3), len(white)).astype(np.float32),
                CLASSES,
                rng.dirichlet(np.ones(len(SUBCLASSES)), len(white)).astype(np.float32),
                SUBCLASSES,
                PARENTS,
            ),
            prepared=prepare(image, RegistrationConfig()),
            quality=assess(image),
            timings_ms={"queue": 1.0, "detect": 100.0, "classify": 20.0, "prepare": 4.0},
        )


def session_of(kept: Any) -> SlideSession:
    factory = MessageFactory("slide", session="bench", run_id="bench", next_session_seq=kept.stored.next_seq)
    return SlideSession(factory, Naming(CLASSES, 0.5, SUBCLASSES, PARENTS), operating_score=0.25, journal=kept)


def measure(source: str, frames: int, folder: Path) -> dict[str, float]:
    path = folder / "bench.db"
    journal = Journal(path)
    rules = Rules(
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
    timed = _Timed(journal.new_session("slide", "bench", address=source, live=False, rules=rules))
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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="seed=7,cells=300,width=1440,height=900", help="parameters of sim:")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where the journal is written (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(options.source, options.frames, Path(folder))
    for name, value in result.items():
        print(f"{name:28}{value:10.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
