"""Everything that only a GPU can show, in one run without questions: a table, and JSON for docs/benchmarks.

    python -m tools.bench gpu --json docs/benchmarks/gpu.json

Each check says ok, failed, or not run and why; the exit status is 1 when one failed. What is measured:

* slots: the same batches through one slot and through several; of the time that copies take on one stream, how much
  lies beside another stream's computing (from CUDA events). TensorRT's plans where its builder is there, else ONNX
  Runtime's CUDA provider on the same slots, streams and buffers.
* broken plans: garbage and a truncated plan give our error (the lean runtime does for this).
* sources: 1, 4, 16, 64 cameras of 640x480 at 30 frames a second, through the batcher and the detector; frames per
  second, latency from capture to boxes, drops, and the host's share of a batch.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.backends.tensorrt.builder import BuildOptions, build
from engines.backends.tensorrt.compiler import sized
from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import PlanError
from engines.backends.tensorrt.libraries import Libraries, load_cuda, load_tensorrt
from engines.backends.tensorrt.runtime import StreamTimes, TensorRTEngine
from engines.base import BackendUnavailableError, Engine
from engines.geometry import Image
from engines.graphs.precision import to_fp16
from engines.models.detector import Detector, Engines
from engines.zoo.registry import Model, compact, find, zoo_names
from streamer.commands.compile import read_frames
from streamer.records import Frame
from streamer.run.batcher import Batcher
from streamer.run.ring import Ring
from tools.commands import command_parser

FRAME_SIZE = (640, 480)
FPS = 30
SIMULATED = "sim:seed=5,cells=12"
LEAST_OVERLAP = 0.8
"""Of the copies' time or the computing's, whichever is shorter: the share beside another batch's other."""


class NotRun(Exception):
    """A check whose ground is missing; the message says which."""


@dataclass(slots=True)
class Result:
    check: str
    status: str
    """ok, failed or not run."""
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Machine:
    """What the checks share."""

    model: Model
    frames: list[Image]
    seconds: float
    sources: Sequence[int]
    slots: int
    batch: int

    def graph(self) -> ModelProto:
        """The detector for 640x480 frames, its batch open."""
        return sized(self.model.card, compact(self.model), FRAME_SIZE)


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench gpu", __doc__)
    parser.add_argument("--model", default="yolov5n-blood", metavar="NAME|FILE", help="a detector")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--sources", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args(arguments)
    if options.model == "yolov5n-blood" and options.model not in zoo_names():
        parser.error("this installation ships no detector: give one with --model FILE")
    machine = Machine(
        find(options.model, "detector"),
        read_frames(SIMULATED, 16),
        options.seconds,
        options.sources,
        options.slots,
        options.batch,
    )
    results = [_run(name, check, machine) for name, check in CHECKS.items()]
    _print(results)
    if options.json is not None:
        document = {
            "command": f"python -m tools.bench gpu {' '.join(arguments)}",
            "host": platform.platform(),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "results": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return int(any(result.status == "failed" for result in results))


def _run(name: str, check: Callable[[Machine], tuple[str, dict[str, Any]]], machine: Machine) -> Result:
    try:
        detail, figures = check(machine)
    except (NotRun, BackendUnavailableError) as error:
        return Result(name, "not run", str(error))
    except Exception as error:
        return Result(name, "failed", f"{type(error).__name__}: {error}")
    return Result(name, "ok", detail, figures)


def _print(results: Sequence[Result]) -> None:
    table = Table("check", "status", "detail", box=None, pad_edge=False)
    for result in results:
        table.add_row(result.check, result.status, result.detail)
    Console().print(table)


# The machine ---------------------------------------------------------------------------------------------------


def what_is_here(machine: Machine) -> tuple[str, dict[str, Any]]:
    cuda = load_cuda()
    version = "none"
    with contextlib.suppress(BackendUnavailableError):
        version = str(load_tensorrt().__version__)

    class OnlyVersion:
        __version__ = version

    environment = Device(Libraries(OnlyVersion(), cuda)).environment()
    return f"{environment}, CUDA {environment.cuda}, driver {environment.driver}", asdict(environment)


def broken_plans(machine: Machine) -> tuple[str, dict[str, Any]]:
    """With the lean runtime, or the full one."""
    cuda = load_cuda()
    module = None
    for name in ("tensorrt_lean", "tensorrt"):
        with contextlib.suppress(ImportError, OSError):
            module = __import__(name)
            break
    if module is None:
        raise NotRun("neither tensorrt_lean nor tensorrt is installed: pip install tensorrt-lean-cu13")
    messages = {}
    for what, plan in {"garbage": b"garbage" * 1000, "empty": b"", "zeros": bytes(100_000)}.items():
        try:
            TensorRTEngine(plan, libraries=Libraries(module, cuda)).close()
        except PlanError as error:
            messages[what] = str(error)
        else:
            raise AssertionError(f"a plan of {what} was loaded")
    return f"{module.__name__} {module.__version__} refuses {', '.join(messages)} with our error", messages


def truncated_plan(machine: Machine) -> tuple[str, dict[str, Any]]:
    libraries = _with_builder()
    plan = _plan(machine, libraries)
    try:
        TensorRTEngine(plan[: len(plan) // 2], libraries=libraries).close()
    except PlanError as error:
        return "half a plan is refused with our error", {"message": str(error)}
    raise AssertionError("half a plan was loaded")


# Engines -------------------------------------------------------------------------------------------------------


def _with_builder() -> Libraries:
    trt = load_tensorrt()
    if not hasattr(trt, "Builder"):
        raise NotRun("TensorRT's builder is not installed: pip install 'leukostream[tensorrt]'")
    return Libraries(trt, load_cuda())


_PLANS: dict[str, bytes] = {}


def _plan(machine: Machine, libraries: Libraries, precision: str = "fp16") -> bytes:
    if precision not in _PLANS:
        graph = machine.graph()
        graph = to_fp16(graph)[0] if precision == "fp16" else graph
        options = BuildOptions((1, machine.batch, machine.batch))
        _PLANS[precision] = build(graph, options, libraries).plan
    return _PLANS[precision]


def _tensorrt(machine: Machine, slots: int) -> TensorRTEngine:
    libraries = _with_builder()
    plan = _plan(machine, libraries)
    return TensorRTEngine(plan, libraries=libraries, slots=slots, precision="fp16", record_times=True)


def _onnxruntime_slots(machine: Machine, slots: int) -> TensorRTEngine:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotRun("ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu in place of onnxruntime")
    from tools.bench.onnxruntime_slots import as_plan, libraries

    plan = as_plan(machine.graph(), machine.batch)
    return TensorRTEngine(plan, libraries=libraries(load_cuda()), slots=slots, precision="slots", record_times=True)


Load = Callable[[Machine, int], TensorRTEngine]


def _batch(machine: Machine, engine: Engine) -> np.ndarray[Any, Any]:
    shape = engine.inputs[0].shape
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (machine.batch, *(size or 1 for size in shape[1:])), np.uint8)


def same_numbers(load: Load) -> Callable[[Machine], tuple[str, dict[str, Any]]]:
    def check(machine: Machine) -> tuple[str, dict[str, Any]]:
        engine = load(machine, 2)
        reference = OnnxRuntimeEngine(machine.graph(), device="cpu")
        try:
            detectors = [
                Detector(machine.model.card, Engines(lambda height, width, one=one: one), fixed_size=_size(engine))  # type: ignore[misc]
                for one in (engine, reference)
            ]
            found, expected = (sum(map(len, detector.detect(machine.frames))) for detector in detectors)
        finally:
            engine.close()
            reference.close()
        if abs(found - expected) > max(2, 0.02 * expected):
            raise AssertionError(f"{found} boxes, the CPU finds {expected}")
        return f"{found} boxes in {len(machine.frames)} frames, the CPU finds {expected}", {"boxes": found}

    return check


def _size(engine: Engine) -> tuple[int, int]:
    _, height, width, _ = engine.inputs[0].shape
    assert height is not None
    assert width is not None
    return height, width


def slots_overlap(load: Load) -> Callable[[Machine], tuple[str, dict[str, Any]]]:
    def check(machine: Machine) -> tuple[str, dict[str, Any]]:
        rates = {}
        times: list[StreamTimes] = []
        for slots in (1, machine.slots):
            engine = load(machine, slots)
            try:
                batch = _batch(machine, engine)
                engine.infer({"images": batch})  # warm
                rates[slots], times = _throughput(engine, batch, machine.seconds)
            finally:
                engine.close()
        share = overlapping_share(times)
        figures = {
            "frames_per_s": {str(slots): round(rate, 1) for slots, rate in rates.items()},
            "overlap": round(share, 3),
            "batch": machine.batch,
        }
        detail = ", ".join(f"{rate:.0f} frames/s with {slots} slots" for slots, rate in rates.items())
        if share < LEAST_OVERLAP:
            wanted = 100 * LEAST_OVERLAP
            raise AssertionError(f"{detail}; {100 * share:.0f} % of the shorter overlaps, expected {wanted:.0f} %")
        return f"{detail}; {100 * share:.0f} % of copies or computing, whichever is shorter, overlap", figures

    return check


def _throughput(engine: TensorRTEngine, batch: np.ndarray[Any, Any], seconds: float) -> tuple[float, list[StreamTimes]]:
    """Frames a second with every slot kept busy, and when the parts of the last batches ran."""
    times: list[StreamTimes] = []
    tickets = [engine.submit({"images": batch}) for _ in range(engine.concurrency)]
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        _, when = engine.collect_timed(tickets.pop(0))
        times.append(when)
        tickets.append(engine.submit({"images": batch}))
        done += len(batch)
    rate = done / (time.perf_counter() - start)
    for ticket in tickets:
        engine.discard(ticket)
    return rate, times[-200:]


def overlapping_share(times: Sequence[StreamTimes]) -> float:
    """Of the copies' time or the computing's, whichever is shorter: the share beside the other of another batch."""
    copies = [(i, span) for i, one in enumerate(times) for span in (one.copy_in, one.copy_out)]
    work = [(i, one.compute) for i, one in enumerate(times)]
    shorter = min(sum(end - start for _, (start, end) in spans) for spans in (copies, work))
    beside = sum(
        max(0.0, min(end, other_end) - max(start, other_start))
        for i, (start, end) in copies
        for j, (other_start, other_end) in work
        if i != j
    )
    return min(1.0, beside / shorter) if shorter > 0 else 0.0


# Cameras -------------------------------------------------------------------------------------------------------


def cameras(load: Callable[[Machine], Engine]) -> Callable[[Machine], tuple[str, dict[str, Any]]]:
    def check(machine: Machine) -> tuple[str, dict[str, Any]]:
        engine = load(machine)
        rows = {}
        try:
            detector = Detector(machine.model.card, Engines(lambda height, width: engine), fixed_size=_size(engine))
            detector.detect(machine.frames[:1])  # warm
            for count in machine.sources:
                rows[str(count)] = _stream(machine, detector, engine.concurrency, count)
        finally:
            engine.close()
        detail = "; ".join(
            f"{count}: {row['frames_per_s']:.0f}/s, p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, "
            f"{row['dropped']} dropped, host {100 * row['host_share']:.0f} %"
            for count, row in rows.items()
        )
        return f"{engine.backend}: {detail}", rows

    return check


def _stream(machine: Machine, detector: Detector, workers: int, count: int) -> dict[str, float]:
    """`count` cameras for some seconds: rings of two frames that drop the oldest, batches closed at N or 5 ms."""
    rings: dict[str, Ring[Frame]] = {f"camera{i}": Ring(2, "drop_oldest") for i in range(count)}
    batcher = Batcher(rings, now_ns=time.monotonic_ns, max_frames=machine.batch, max_wait_ms=5)
    latencies_ms: list[float] = []
    spent_ms = [0.0, 0.0]
    lock = threading.Lock()

    def work() -> None:
        while (batch := batcher.next_batch()) is not None:
            _, timings = detector.detect_timed([one.frame.image for one in batch])
            now = time.monotonic_ns()
            with lock:
                latencies_ms.extend((now - one.frame.captured_ns) / 1e6 for one in batch)
                spent_ms[0] += timings.letterbox_ms + timings.nms_ms
                spent_ms[1] += timings.infer_ms

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    for number, due in enumerate(_ticks(machine.seconds)):
        time.sleep(max(0.0, start + due - time.perf_counter()))
        for i, (name, ring) in enumerate(rings.items()):
            image = machine.frames[(number + i) % len(machine.frames)]
            ring.put(Frame(name, number, time.monotonic_ns(), image))
    for ring in rings.values():
        ring.close()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    p50, p99 = np.percentile(latencies_ms, [50, 99]) if latencies_ms else (0.0, 0.0)
    return {
        "frames_per_s": round(len(latencies_ms) / elapsed, 1),
        "offered_per_s": count * FPS,
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "dropped": sum(sum(ring.dropped.values()) for ring in rings.values()),
        "host_share": round(spent_ms[0] / max(sum(spent_ms), 1e-9), 3),
    }


def _ticks(seconds: float) -> Iterator[float]:
    """When each frame of a camera is due, in seconds."""
    return (n / FPS for n in range(max(1, round(seconds * FPS))))


def _cpu(machine: Machine) -> Engine:
    return OnnxRuntimeEngine(machine.graph(), threads=Threads(1, 2), device="cpu", max_batch=machine.batch)


CHECKS: dict[str, Callable[[Machine], tuple[str, dict[str, Any]]]] = {
    "machine": what_is_here,
    "broken plans": broken_plans,
    "truncated plan": truncated_plan,
    "tensorrt numbers": same_numbers(_tensorrt),
    "tensorrt slots": slots_overlap(_tensorrt),
    "tensorrt cameras": cameras(lambda machine: _tensorrt(machine, machine.slots)),
    "onnxruntime cuda numbers": same_numbers(_onnxruntime_slots),
    "onnxruntime cuda slots": slots_overlap(_onnxruntime_slots),
    "onnxruntime cuda cameras": cameras(lambda machine: _onnxruntime_slots(machine, machine.slots)),
    "cpu cameras": cameras(_cpu),
}
