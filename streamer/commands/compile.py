"""`leukostream compile`: a TensorRT plan of a model, with the frames that its precision is compared on."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from engines.backends.conversion import Say, convert
from engines.backends.tensorrt.builder import BuildOptions, check_options
from engines.backends.tensorrt.compiler import CompileResult, compile_model, sized
from engines.backends.tensorrt.flavour import FLAVOURS, Name
from engines.backends.tensorrt.libraries import Libraries, load_builder
from engines.backends.tensorrt.manifest import PlanStore, default_folder
from engines.backends.tensorrt.operators import check_operators
from engines.base import UsageError
from engines.geometry import Image
from engines.zoo.card import Card, DetectorInput
from engines.zoo.registry import Model, WrongTaskError, compact, find
from streamer.commands.options import Parser, positive, size_of, whole
from streamer.commands.output import writing
from streamer.sources import open_source, parse_source
from streamer.sources.base import SourceError

FRAMES = 64
"""Frames kept of the source of a detector, spread evenly over it."""
CROPS = 512
"""Pictures of cells kept for a classifier: of fewer, one class changed would already be more than parity allows."""
SIMULATED = "sim:seed=5,cells=60"


@dataclass(frozen=True, slots=True)
class Options:
    model: str
    precision: str
    batch: str
    calibration: str | None = None
    size: str = "640x480"
    """Width x height of the camera's frames; a detector's input follows from it and the card."""
    workspace_mib: int = 1024
    optimization_level: int = 3
    version_compatible: bool = False
    hardware_compatible: bool = False
    accept_parity_loss: bool = False
    force: bool = False
    layers: str | None = None
    """File for TensorRT's description of the layers, JSON."""
    onnx: str | None = None
    """Write the converted graph there and stop: needs no GPU."""
    device: int = 0
    backend: Name = "tensorrt"
    compute_capability: str | None = None
    """With tensorrt-rtx: GPUs to build for, "8.6,12.0"; None: a portable plan."""

    def build(self) -> BuildOptions:
        """How to build. UsageError: a batch or a compute capability that is none."""
        return BuildOptions(
            _batch(self.batch),
            self.workspace_mib,
            self.version_compatible,
            self.hardware_compatible,
            self.optimization_level,
            _capabilities(self.compute_capability),
        )


def add_options(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a detector or classifier: its name or its file")
    precision = parser.add_argument_group("precision", "what the engine computes in, and what it is compared on")
    precision.add_argument("--precision", choices=("fp32", "fp16", "int8"), required=True, help="of the network")
    precision.add_argument("--calibration", metavar="SRC", help="real frames; for a classifier, pictures of cells")
    precision.add_argument("--accept-parity-loss", action="store_true", help="build even where results differ too much")
    shape = parser.add_argument_group("input", "the sizes that the engine takes")
    shape.add_argument("--batch", metavar="MIN,OPT,MAX", required=True, help="images a call, for example 1,4,8")
    shape.add_argument("--size", default="640x480", metavar="WxH", help="of the camera's frames")
    build = parser.add_argument_group("build", "how TensorRT builds it, and for which machines")
    build.add_argument(
        "--backend", choices=tuple(FLAVOURS), default="tensorrt", help="tensorrt-rtx: a portable plan, without a GPU"
    )
    build.add_argument(
        "--compute-capability", metavar="N.N,N.N", help="tensorrt-rtx: the GPUs to build for, for example 7.5"
    )
    build.add_argument("--workspace-mib", type=positive, default=1024, metavar="N", help="memory it may use meanwhile")
    build.add_argument("--optimization-level", type=int, choices=range(6), default=3, help="0 builds fast, 5 runs fast")
    build.add_argument("--version-compatible", action="store_true", help="runs on later TensorRT releases too")
    build.add_argument("--hardware-compatible", action="store_true", help="runs on any GPU since Ampere")
    build.add_argument("--device", type=whole, default=0, metavar="N", help="the GPU to build on")
    build.add_argument("--force", action="store_true", help="build even where a plan is there")
    output = parser.add_argument_group("output", "beside the plan, which is kept where runs find it")
    output.add_argument("--layers", metavar="FILE", help="TensorRT's description of the layers, JSON")
    output.add_argument("--onnx", metavar="FILE", help="write the converted graph and stop; needs no GPU")


def main(options: Options) -> int:
    return compile_command(options, Console())


def compile_command(
    options: Options,
    console: Console,
    *,
    libraries: Libraries | None = None,
    store: PlanStore | None = None,
) -> int:
    """Compile and print what was done. Errors are ours: exit status 2 for what can't be meant, 1 for what fails."""
    build = options.build()
    frame_size = size_of(options.size)
    if options.onnx is None:
        libraries = libraries or load_builder(FLAVOURS[options.backend])
        check_options(build, libraries)
    model = _find(options.model)
    proto = compact(model) if model.card.task == "detector" else model.proto

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    frames = _frames(options, model.card, say)
    if options.onnx is not None:
        graph = sized(model.card, proto, frame_size)
        check_operators(graph, FLAVOURS[options.backend])
        converted = convert(
            model.card,
            graph,
            options.precision,
            frames,
            accept_parity_loss=options.accept_parity_loss,
            say=say,
        )
        check_operators(converted.model, FLAVOURS[options.backend])
        with writing(options.onnx, "--onnx") as file:
            file.write(converted.model.SerializeToString())
        say(f"{options.precision}: {converted.parity or 'as trained'}")
        flavour = FLAVOURS[options.backend]
        say(f"wrote {options.onnx}: {converted.summary}; the parser of {flavour} takes all of its operators")
        return 0
    assert libraries is not None
    with PhaseBars(console) as bars:
        result = compile_model(
            model.card,
            proto,
            options.precision,
            frames,
            libraries=libraries,
            store=store or PlanStore(default_folder()),
            options=build,
            frame_size=frame_size,
            device=options.device,
            accept_parity_loss=options.accept_parity_loss,
            force=options.force,
            say=say,
            progress=bars,
        )
    _report(result, options.layers, say)
    return 0


def _report(result: CompileResult, layers_file: str | None, say: Say) -> None:
    if result.reused:
        say(f"up to date: {result.plan_path}")
        return
    size = result.plan_path.stat().st_size / 2**20
    say(f"built {result.plan_path} ({size:.1f} MiB)")
    if result.converted is not None:
        say(f"graph: {result.converted.summary}")
    spec = result.manifest.spec
    if spec.compute_capabilities:
        say(
            f"for GPUs of compute capability {', '.join(spec.compute_capabilities)}, with TensorRT for RTX "
            f"{result.manifest.environment.tensorrt}; their kernels are made when it is first loaded"
        )
    if result.layers is not None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.layers.by_type.items())
        say(f"TensorRT made {result.layers.layers} layers of it: {kinds or 'no names given'}")
        if layers_file is not None:
            with writing(layers_file, "--layers") as file:
                file.write(result.layers.document.encode())
            say(f"wrote {layers_file}")


class PhaseBars:
    """The phases of a build as bars, each inside its parent; a Progress of engines.backends.tensorrt.builder.

    Called from TensorRT's threads. Where the output is no terminal, rich prints the bars once, at the end.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[TaskID, int]] = {}

    def __enter__(self) -> PhaseBars:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            if not self._bars.live.is_started and self._bars.console.is_terminal:
                self._bars.start()
            depth = self._tasks[parent][1] + 1 if parent in self._tasks else 0
            self._tasks[phase] = (self._bars.add_task("  " * depth + phase, total=steps), depth)

    def stepped(self, phase: str, done: int) -> None:
        with self._lock:
            if phase in self._tasks:
                self._bars.update(self._tasks[phase][0], completed=done)

    def finished(self, phase: str) -> None:
        with self._lock:
            if phase in self._tasks:
                self._bars.remove_task(self._tasks.pop(phase)[0])


def _find(name: str) -> Model:
    """The detector or classifier of that name or path."""
    try:
        return find(name, "detector")
    except WrongTaskError as error:
        if error.got != "classifier":
            raise
        return find(name, "classifier")


def _batch(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise UsageError(f"--batch: got {text!r}, expected MIN,OPT,MAX of 1 and more, for example 1,4,8")
    low, usual, high = (int(part) for part in parts)
    if not low <= usual <= high:
        raise UsageError(f"--batch: got {text!r}, expected MIN <= OPT <= MAX, for example 1,4,8")
    return low, usual, high


def _capabilities(text: str | None) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",")) if text is not None else ()
    if not all(re.fullmatch(r"\d+\.\d", part) for part in parts):
        raise UsageError(f"--compute-capability: got {text!r}, expected numbers with one point, for example 8.6,12.0")
    return parts


def _frames(options: Options, card: Card, say: Say) -> list[Image]:
    if options.precision == "fp32":
        return []
    source = options.calibration
    is_detector = isinstance(card.input, DetectorInput)
    if source is None:
        if options.precision == "int8" or not is_detector:
            what = "frames of your microscope" if is_detector else "pictures of single cells"
            raise UsageError(
                f"--calibration: got nothing, expected {what} for {options.precision} of {card.name}: "
                "a folder, a video or a glob"
            )
        say(f"no --calibration given: fp16 is compared on the simulated slide ({SIMULATED}) only")
        source = SIMULATED
    elif options.precision == "int8" and parse_source(source).kind == "sim":
        raise UsageError("--calibration: got the simulated slide, expected real frames: scales made from it would clip")
    return read_frames(source, FRAMES if is_detector else CROPS)


def read_frames(source: str, count: int) -> list[Image]:
    """Up to `count` frames, uint8 (H,W,3) BGR, spread evenly over a source that ends. SourceError where it has none."""
    opened = open_source(parse_source(source), mode="analysis")
    kept: list[Image] = []
    step = seen = 0
    try:
        opened.open()
        while (frame := opened.read()) is not None:
            image = getattr(frame, "image", None)  # a Skip has none
            if image is None:
                continue
            if seen % (1 << step) == 0:
                kept.append(image)
                if len(kept) == 2 * count:
                    kept, step = kept[::2], step + 1
            seen += 1
    finally:
        opened.close()
    if not kept:
        raise SourceError(f"--calibration {source}: got no image, expected frames; give a folder, a video or a glob")
    if len(kept) <= count:
        return kept
    return [kept[i * len(kept) // count] for i in range(count)]
