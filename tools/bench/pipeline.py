"""Frames a second and latency of the whole pipeline, beside a plain loop and beside what the cores allow.

    python -m tools.bench pipeline --source DIRECTORY --json bench.json

All rows are measured in one run on the same frames with the same graphs: each step alone on one thread (what the
cores allow is cores / core-seconds a frame), a plain loop that does one thing after the other, and the pipeline with
publishing on, for every plan of workers x threads. Rounds alternate, so that a noisy neighbour hits all; medians. The
steps and the loop run with the memory settings of the C library and of Python as they are, the pipeline with its own
(streamer/run/tuning.py).
The row "the loop's work" is the pipeline without what the loop does not do either: it places no frame on the slide and
judges none, so that cells are counted anew in every frame. What a run does besides (each frame's quality and place, its
cells counted once, its messages) is measured alone as well; "of all its work" is against cores that do that too.
With `--live` a simulated camera of 30 frames a second is analysed live as well: drops and latency. With `--dense`, what
350 detections a frame cost over 20 in everything but the models (which are scripted for it).
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import Threads
from engines.backends.scripted import ScriptedEngine, candidates, detector_specs
from engines.base import usable_cores
from engines.geometry import Image
from engines.graphs.graph import TOP_K
from engines.models.classifier import Classifier
from engines.models.detector import Detector, Engines
from engines.models.loading import load_classifier, load_detector
from engines.zoo.card import DetectorInput
from streamer.analysis.analyser import Analysed, Analyser
from streamer.analysis.measured import MeasuredFrame
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, Config
from streamer.counting.decision import ClassDecision
from streamer.network.publisher import Publisher
from streamer.protocol.factory import MessageFactory, new_id
from streamer.protocol.messages import AnyMessage, FrameMessage, HealthMessage
from streamer.records import Frame, FrameQuality, Mode, Skip, StagePosition
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from streamer.run.slide_stage import OwnStage, Placed
from streamer.run.tuning import collect_as_usual, collect_rarely, give_freed_memory_back, keep_freed_memory
from streamer.sources import Source, open_source, parse_source
from streamer.sources.images import Picture, list_images, read_image
from streamer.stage.ahead import CountedStage
from streamer.stage.placement import Correction, Placement
from streamer.stage.preparation import PreparedFrame
from streamer.stage.tracker import StageTracker
from tools.bench.frame_costs import plain_loop, rest_alone, steps_alone
from tools.commands import command_parser
from tools.data import crops


@dataclass(frozen=True)
class Plan:
    """How the cores are used: frames side by side, and threads of one model call."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} workers x {self.threads} threads"


class FirstFrames:
    """A source that ends after `count` frames."""

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        self._left = count
        self.name = source.name
        self.default_mode: Mode = source.default_mode
        self.open = source.open
        self.close = source.close

    def read(self) -> Frame | Skip | None:
        if self._left == 0:
            return None
        item = self._source.read()
        self._left -= isinstance(item, Frame)
        return item


class Collector:
    """A sink that keeps the times of the frames and the last health."""

    def __init__(self) -> None:
        self.captured_ns: list[int] = []
        self.published_ns: list[int] = []
        self.detections: list[int] = []
        self.health: HealthMessage | None = None

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        if isinstance(message, FrameMessage):
            self.captured_ns.append(message.captured_ns)
            self.published_ns.append(message.published_ns)
            self.detections.append(len(message.detections))
        elif isinstance(message, HealthMessage):
            self.health = message

    def close(self) -> None: ...

    def latency_ms(self) -> list[float]:
        return [(b - a) / 1e6 for a, b in zip(self.captured_ns, self.published_ns, strict=True)]


class LoopsWork(Analyser):
    """An analyser that takes every frame for good and prepares nothing for the stage."""

    def measure(self, frame: Frame) -> MeasuredFrame:
        height, width = frame.image.shape[:2]
        nothing = PreparedFrame(height, width, 1, np.zeros((0, 0), np.int8), None, 0.0, 0.0, 1.0)
        return MeasuredFrame(
            frame, None, nothing, FrameQuality(focus=None, accepted=True), {"queue": 0.0, "prepare": 0.0}
        )


class EachFrameAlone(OwnStage):
    """An island for every frame."""

    def __init__(self) -> None:
        super().__init__()
        self._islands = itertools.count()
        self._nothing = StageTracker().take_changes()

    def place(self, measured: MeasuredFrame | Analysed) -> Placed:
        position = StagePosition(next(self._islands), 0.0, 0.0, 1.0)
        return Placed(Placement(position, anchor=0), self._nothing, 0.0)

    def finish(self, counted: CountedStage | None = None) -> tuple[Correction, ...]:
        return ()


class CountedAnew(SlideSession):
    """A session that counts the cells of every frame."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, stage=EachFrameAlone(), **options)


def load(plan: Plan, config: Config) -> tuple[Detector, Classifier]:
    threads = Threads(plan.threads, plan.workers)
    detector = load_detector(DEFAULT_DETECTOR, threads=threads, long_side_px=config.long_side_px)
    return detector, load_classifier(DEFAULT_CLASSIFIER, threads=threads)


def run_pipeline(
    source: Source,
    mode: Mode,
    plan: Plan,
    models: tuple[Detector, Classifier | None],
    warm_up: int,
    *,
    only_the_loops_work: bool = False,
) -> tuple[float, Collector]:
    """(frames a second after `warm_up` frames, what was published)."""
    detector, classifier = models
    collector = Collector()
    analyser, session = (LoopsWork, CountedAnew) if only_the_loops_work else (Analyser, SlideSession)

    def new_session(name: str) -> SlideSession:
        return session(
            MessageFactory(name, session=new_id(), run_id=new_id()),
            ClassDecision.of(classifier) if classifier else None,
            operating_score=detector.card.thresholds.operating,
        )

    publisher = Publisher("tcp://127.0.0.1:*")
    pipeline = Pipeline(
        [(source, mode)],
        analyser(detector, classifier),
        new_session,
        RunOutputs([publisher, collector], service=publisher.service),
        Limits(workers=plan.workers),
    )
    keep_freed_memory()
    collect_rarely()
    try:
        pipeline.start()
        pipeline.finish()
    finally:
        collect_as_usual()
        give_freed_memory_back()
    at = collector.published_ns[warm_up:]
    return (len(at) - 1) * 1e9 / (at[-1] - at[0]), collector


class StillFrames:
    """`count` times the same picture."""

    name = "still"
    default_mode: Mode = "analysis"

    def __init__(self, image: Image, count: int) -> None:
        self._image = image
        self._ids = iter(range(count))

    def open(self) -> None: ...

    def read(self) -> Frame | None:
        number = next(self._ids, None)
        return None if number is None else Frame(self.name, number, time.monotonic_ns(), self._image)

    def close(self) -> None: ...


def ms_a_frame_with(detections: int, frames: int = 150) -> float:
    """Median milliseconds from frame to frame; the detector is scripted to find so many cells, 5 % of them white."""
    corners = [(24.0 * (i % 26), 24.0 * (i // 26)) for i in range(detections)]
    boxes = [((x + 1, y + 1, x + 21, y + 21), 0.9, int(i % 20 > 0)) for i, (x, y) in enumerate(corners)]
    answer = candidates([boxes], top_k=TOP_K)
    card = replace(load_detector(DEFAULT_DETECTOR).card, input=DetectorInput(long_side_px=640))
    engines = Engines(lambda height, width: ScriptedEngine(*detector_specs(height, width, TOP_K), lambda feeds: answer))
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    image = np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), noise, 0, 255, cv2.NORM_MINMAX), np.uint8)
    models = (Detector(card, engines), None)
    _, collector = run_pipeline(StillFrames(image, frames), "analysis", Plan(1, 1), models, warm_up=10)
    return float(np.median(np.diff(collector.published_ns[10:]))) / 1e6


def main(arguments: Sequence[str]) -> None:
    parser = command_parser("tools.bench pipeline", __doc__)
    parser.add_argument("--source", required=True, help="a folder or glob of images")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plans", default=None, help="WORKERSxTHREADS,…; default: cores x 1, 1 x cores")
    parser.add_argument("--live", action="store_true", help="also a simulated camera, 640x480 at 30 frames a second")
    parser.add_argument("--live-source", default="sim:seed=7,cells=200", help="what the camera looks at")
    parser.add_argument("--live-frames", type=int, default=900)
    parser.add_argument("--dense", action="store_true", help="also the cost of many detections")
    parser.add_argument("--long-side-px", type=int, default=None)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    cores = usable_cores()
    plans = [Plan(cores, 1), Plan(1, cores)]
    if options.plans:
        plans = [Plan(*map(int, plan.split("x"))) for plan in options.plans.split(",")]
    config = Config(long_side_px=options.long_side_px)
    paths = [path for path in list_images(options.source) if isinstance(read_image(path), Picture)]
    paths = paths[: options.frames]
    warm_up = min(10, len(paths) // 4)

    cv2.setNumThreads(1)
    models = {plan: load(plan, config) for plan in {*plans, Plan(1, 1)}}
    for pair in models.values():
        plain_loop(paths[:warm_up], pair)
    alone: list[dict[str, float]] = []
    rest: list[dict[str, float]] = []
    loops: dict[Plan, list[float]] = {plan: [] for plan in models if plan.workers == 1}
    runs: dict[tuple[Plan, bool], list[tuple[float, list[float]]]] = {(plan, False): [] for plan in plans}
    runs[plans[0], True] = []
    for _ in range(options.rounds):
        alone.append(steps_alone(paths, models[Plan(1, 1)]))
        rest.append(rest_alone(paths, models[Plan(1, 1)]))
        for plan, rates in loops.items():
            rates.append(plain_loop(paths, models[plan]))
        for (plan, loops_work), results in runs.items():
            source = FirstFrames(open_source(parse_source(f"bench={options.source}")), len(paths))
            rate, collector = run_pipeline(
                source, "analysis", plan, models[plan], warm_up, only_the_loops_work=loops_work
            )
            results.append((rate, collector.latency_ms()))
    steps = {name: median(round_[name] for round_ in alone) for name in alone[0]}
    besides = {name: median(round_[name] for round_ in rest) for name in rest[0]}
    allowed = cores * 1000 / sum(steps.values())
    allowed_all = cores * 1000 / sum([*steps.values(), *besides.values()])
    loop_best = max(median(rates) for rates in loops.values())

    report: dict[str, object] = {
        "machine": {"cores": cores, "processor": platform.processor() or platform.machine()},
        "frames": len(paths),
        "rounds": options.rounds,
        "input_px": models[plans[0]][0].input_size(*size_of(paths[0])),
        "step_ms": steps,
        "allowed_fps": allowed,
        "rest_ms": besides,
        "allowed_with_rest_fps": allowed_all,
        "plain_loop_fps": {str(plan.threads): rates for plan, rates in loops.items()},
        "pipeline": [
            {
                **asdict(plan),
                "only_the_loops_work": loops_work,
                "fps": [rate for rate, _ in results],
                "latency_ms": percentiles([ms for _, all_ms in results for ms in all_ms]),
                "of_allowed": median(rate for rate, _ in results) / allowed,
                "of_allowed_with_rest": None if loops_work else median(rate for rate, _ in results) / allowed_all,
                "of_best_plain_loop": median(rate for rate, _ in results) / loop_best,
            }
            for (plan, loops_work), results in runs.items()
        ],
    }
    if options.live:
        plan = plans[0]
        source = FirstFrames(open_source(parse_source(options.live_source), mode="live"), options.live_frames)
        rate, collector = run_pipeline(source, "live", plan, models[plan], warm_up=30)
        status = next(iter(collector.health.sources.values())) if collector.health else None
        report["live"] = {
            **asdict(plan),
            "source": options.live_source,
            "frames": options.live_frames,
            "fps": rate,
            "dropped": status.dropped if status else None,
            "latency_ms": percentiles(collector.latency_ms()[30:]),
        }
    if options.dense:
        rounds = [{count: ms_a_frame_with(count) for count in (20, 350)} for _ in range(options.rounds)]
        report["dense_ms"] = {str(count): median(round_[count] for round_ in rounds) for count in rounds[0]}
    show(report)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")


def size_of(path: Path) -> tuple[int, int]:
    image = crops.read_image(path)
    return image.shape[1], image.shape[0]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)).tolist(), strict=True))


def show(report: dict[str, Any]) -> None:
    console = Console()
    steps = Table("step alone, one thread", "ms a frame")
    for name, ms in report["step_ms"].items():
        steps.add_row(name, f"{ms:.1f}")
    steps.add_row("together", f"{sum(report['step_ms'].values()):.1f}", end_section=True)
    for name, ms in report["rest_ms"].items():
        steps.add_row(name, f"{ms:.1f}")
    console.print(steps)
    rows = Table("way", "frames/s", "of allowed", "of all its work", "of best loop", "p50 ms", "p99 ms")
    cores = f"{report['machine']['cores']} cores allow"
    rows.add_row(cores, f"{report['allowed_fps']:.1f}", "1.00")
    rows.add_row(f"{cores}, of all its work", f"{report['allowed_with_rest_fps']:.1f}", "", "1.00")
    for threads, rates in report["plain_loop_fps"].items():
        rows.add_row(
            f"plain loop, {threads} threads", f"{median(rates):.1f}", f"{median(rates) / report['allowed_fps']:.2f}"
        )
    for row in report["pipeline"]:
        rows.add_row(
            f"pipeline, {row['workers']} workers x {row['threads']} threads"
            + (", the loop's work" if row["only_the_loops_work"] else ""),
            f"{median(row['fps']):.1f}",
            f"{row['of_allowed']:.2f}",
            "" if row["of_allowed_with_rest"] is None else f"{row['of_allowed_with_rest']:.2f}",
            f"{row['of_best_plain_loop']:.2f}",
            f"{row['latency_ms']['p50']:.0f}",
            f"{row['latency_ms']['p99']:.0f}",
        )
    if "live" in report:
        row = report["live"]
        lost = sum((row["dropped"] or {}).values())
        rows.add_row(
            f"live {row['source']}, {lost} dropped",
            f"{row['fps']:.1f}",
            "",
            "",
            "",
            f"{row['latency_ms']['p50']:.0f}",
            f"{row['latency_ms']['p99']:.0f}",
        )
    console.print(rows)
    if "dense_ms" in report:
        few, many = report["dense_ms"].values()
        console.print(f"350 detections a frame cost {many - few:.1f} ms more than 20 ({many:.1f} and {few:.1f} ms)")
