"""Everything that only a GPU can show, in one run without questions: a table, and JSON for docs/benchmarks.

    python -m tools.bench gpu --json docs/benchmarks/gpu.json

Each check says ok, failed, or not run and why; the exit status is 1 when one failed. What is measured:

* slots: the same batches through one slot and through several; of the time that copies take on one stream, how much
  lies beside another stream's computing (from CUDA events). Of TensorRT's plans and of those of TensorRT for RTX, each
  where it can run; and of ONNX Runtime's CUDA provider on the same slots, streams and buffers.
* graphs: a plan of one batch size, launched as a CUDA graph and kernel by kernel.
* broken plans: garbage and a truncated plan give our error (the lean runtime does for this).
* sources: 1, 4, 16, 64 cameras of 640x480 at 30 frames a second, through the batcher and the detector; frames per
  second, latency from capture to boxes, drops, and the host's share of a batch.

All of it takes less than ten minutes: what --minutes leaves no time for is not run, and says so.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.backends.tensorrt.builder import BuildOptions, build
from engines.backends.tensorrt.compiler import check_target, sized
from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import DamagedPlanError
from engines.backends.tensorrt.flavour import TENSORRT, TENSORRT_RTX, Flavour
from engines.backends.tensorrt.libraries import Libraries, load_cuda, load_tensorrt
from engines.backends.tensorrt.runtime import StreamTimes, TensorRTEngine
from engines.base import BackendUnavailableError, Engine
from engines.geometry import Image
from engines.graphs.precision import to_fp16
from engines.models.detector import Detector, Engines
from engines.zoo.registry import Model, compact, find, zoo_names
from streamer.commands.compile import read_frames
from tools.bench.gpu_cameras import stream
from tools.commands import command_parser

FRAME_SIZE = (640, 480)
SIMULATED = "sim:seed=5,cells=12"
LEAST_OVERLAP = 0.8
"""Of the copies' time or the computing's, whichever is shorter: the share beside another batch's other."""


_NO_TIME = "the time of --minutes was over"


class Load(Protocol):
    """Makes the engine of the detector with so many slots."""

    def __call__(self, machine: Machine, slots: int, *, cuda_graphs: bool = True) -> TensorRTEngine: ...


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
    static_batch: bool = False
    """Whether plans are for `batch` alone, so that they can be captured."""

    def graph(self) -> ModelProto:
        """The detector for 640x480 frames, its batch open."""
        return sized(self.model.card, compact(self.model), FRAME_SIZE)


Check = Callable[[Machine], tuple[str, dict[str, Any]]]
"""What it found, in words and as figures; raises what makes it fail, and NotRun where it can't be made."""


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench gpu", __doc__)
    parser.add_argument("--model", default="yolov5n-blood", metavar="NAME|FILE", help="a detector")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--sources", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no check after so long")
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
    ends = time.monotonic() + 60 * options.minutes
    results = [
        _run(name, check, machine) if time.monotonic() < ends else Result(name, "not run", _NO_TIME)
        for name, check in CHECKS.items()
    ]
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


def _run(name: str, check: Check, machine: Machine) -> Result:
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
    """With the lean runtime, a full one, or that for RTX."""
    cuda = load_cuda()
    module = None
    for name in ("tensorrt_lean", "tensorrt", *TENSORRT_RTX.modules):
        with contextlib.suppress(ImportError, OSError):
            module = importlib.import_module(name)
            break
    if module is None:
        raise NotRun(f"no runtime is installed: {TENSORRT.install}, or pip install tensorrt-lean-cu13")
    messages = {}
    flavour = TENSORRT_RTX if module.__name__ in TENSORRT_RTX.modules else TENSORRT
    for what, plan in {"garbage": b"garbage" * 1000, "empty": b"", "zeros": bytes(100_000)}.items():
        try:
            TensorRTEngine(plan, libraries=Libraries(module, cuda, flavour)).close()
        except DamagedPlanError as error:
            messages[what] = str(error)
        else:
            raise AssertionError(f"a plan of {what} was loaded")
    return f"{module.__name__} {module.__version__} refuses {', '.join(messages)} with our error", messages


def truncated_plan(flavour: Flavour) -> Check:
    def check(machine: Machine) -> tuple[str, dict[str, Any]]:
        libraries = _with_builder(flavour)
        plan = _plan(machine, libraries)
        try:
            TensorRTEngine(plan[: len(plan) // 2], libraries=libraries).close()
        except DamagedPlanError as error:
            return "half a plan is refused with our error", {"message": str(error)}
        raise AssertionError("half a plan was loaded")

    return check


# Engines -------------------------------------------------------------------------------------------------------


def _with_builder(flavour: Flavour) -> Libraries:
    """What builds and runs plans on the GPU that is here; NotRun or BackendUnavailableError says why nothing does."""
    cuda = load_cuda(flavour)
    trt = load_tensorrt(flavour)
    if not hasattr(trt, "Builder"):
        raise NotRun(f"the builder of {flavour} is not installed: {flavour.install}")
    libraries = Libraries(trt, cuda, flavour)
    if flavour.portable:
        check_target(libraries, Device(libraries).environment())
    return libraries


_PLANS: dict[tuple[str, str, bool], bytes] = {}


def _plan(machine: Machine, libraries: Libraries, precision: str = "fp16") -> bytes:
    key = (libraries.flavour.name, precision, machine.static_batch)
    if key not in _PLANS:
        graph = machine.graph()
        graph = to_fp16(graph)[0] if precision == "fp16" else graph
        smallest = machine.batch if machine.static_batch else 1
        _PLANS[key] = build(graph, BuildOptions((smallest, machine.batch, machine.batch)), libraries).plan
    return _PLANS[key]


def _real(flavour: Flavour) -> Load:
    """The detector on a plan of that library."""

    def load(machine: Machine, slots: int, *, cuda_graphs: bool = True) -> TensorRTEngine:
        libraries = _with_builder(flavour)
        return TensorRTEngine(
            _plan(machine, libraries),
            libraries=libraries,
            slots=slots,
            precision="fp16",
            record_times=True,
            cuda_graphs=cuda_graphs,
        )

    return load


def _onnxruntime_slots(machine: Machine, slots: int, *, cuda_graphs: bool = True) -> TensorRTEngine:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotRun("ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu in place of onnxruntime")
    from tools.bench.onnxruntime_slots import as_plan, libraries

    plan = as_plan(machine.graph(), machine.batch)
    return TensorRTEngine(plan, libraries=libraries(load_cuda()), slots=slots, precision="slots", record_times=True)


def _batch(machine: Machine, engine: Engine) -> np.ndarray[Any, Any]:
    shape = engine.inputs[0].shape
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (machine.batch, *(size or 1 for size in shape[1:])), np.uint8)


def same_numbers(load: Load) -> Check:
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


def slots_overlap(load: Load) -> Check:
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


def graph_launches(load: Load) -> Check:
    """A plan of one batch size through one slot, as a CUDA graph and kernel by kernel."""

    def check(machine: Machine) -> tuple[str, dict[str, Any]]:
        static = replace(machine, static_batch=True)
        rates = {}
        for captured in (True, False):
            engine = load(static, 1, cuda_graphs=captured)
            try:
                if captured and not engine.captured:
                    raise NotRun("nothing was captured: pycuda can't, and CUDA may refuse; see `leukostream doctor`")
                rates[captured] = _throughput(engine, _batch(static, engine), machine.seconds)[0]
            finally:
                engine.close()
        figures = {"graph": round(rates[True], 1), "kernels": round(rates[False], 1), "batch": machine.batch}
        return f"{rates[True]:.0f} frames/s as a graph, {rates[False]:.0f} kernel by kernel", figures

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
                rows[str(count)] = stream(machine, detector, engine.concurrency, count)
        finally:
            engine.close()
        detail = "; ".join(
            f"{count}: {row['frames_per_s']:.0f}/s, p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms, "
            f"{row['dropped']} dropped, host {100 * row['host_share']:.0f} %"
            for count, row in rows.items()
        )
        return f"{engine.backend}: {detail}", rows

    return check


def _cpu(machine: Machine) -> Engine:
    return OnnxRuntimeEngine(machine.graph(), threads=Threads(1, 2), device="cpu", max_batch=machine.batch)


def _checks_of(name: str, load: Load) -> dict[str, Check]:
    return {
        f"{name} numbers": same_numbers(load),
        f"{name} slots": slots_overlap(load),
        f"{name} cameras": cameras(lambda machine: load(machine, machine.slots)),
    }


CHECKS: dict[str, Check] = {
    "machine": what_is_here,
    "broken plans": broken_plans,
    **{
        check: run
        for flavour in (TENSORRT, TENSORRT_RTX)
        for check, run in {
            f"{flavour.name} truncated plan": truncated_plan(flavour),
            **_checks_of(flavour.name, _real(flavour)),
            f"{flavour.name} graphs": graph_launches(_real(flavour)),
        }.items()
    },
    **_checks_of("onnxruntime cuda", _onnxruntime_slots),
    "cpu cameras": cameras(_cpu),
}
