"""Every shipped model through NVIDIA's builder of TensorRT for RTX, without a GPU: which plans come of it, how large.

    python -m tools.bench rtx --json docs/benchmarks/rtx-builds.json --markdown docs/gpu.md

Graph x precision x frame size x profile x compute capability, each built by itself, one after the other. The int8
graphs are quantised whole, with scales from the simulated slide: such a plan is built like any, and is not one to count
with. A build that is refused stands in the table with the reason; the exit status is 1 where a refusal is not one of
`REFUSALS`, or one of them is none any more. Nothing here runs a plan.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from onnx import ModelProto

from engines.backends.conversion import PRECISIONS, input_batch
from engines.backends.tensorrt.builder import BuildOptions, build
from engines.backends.tensorrt.compiler import sized
from engines.backends.tensorrt.errors import BuildError
from engines.backends.tensorrt.flavour import TENSORRT_RTX, targets_of
from engines.backends.tensorrt.libraries import Libraries, load_builder
from engines.base import LeukostreamError, ModelFormatError
from engines.geometry import Image
from engines.graphs.onnx_editing import dims_of, only_input
from engines.graphs.precision import to_fp16
from engines.graphs.quantization import calibrate, to_int8
from engines.zoo.card import Card, DetectorInput
from engines.zoo.registry import compact, find, models, place
from streamer.commands.compile import SIMULATED, read_frames
from tools.commands import command_parser

ROOT = Path(__file__).resolve().parents[2]
FRAME_SIZES = ((640, 480), (1920, 1080), (1024, 1024))
"""Of the cameras that detectors are built for."""
PROFILES = {
    "detector": ((1, 4, 8), (8, 8, 8)),
    "classifier": ((1, 16, 32), (32, 32, 32)),
    "segmenter": ((1, 16, 32), (32, 32, 32)),
}
"""Smallest, usual, largest batch: one that is open, and one that is static and can be captured as a CUDA graph."""
BEGIN, END = "<!-- rtx-table: made by `make rtx-table` -->", "<!-- end of rtx-table -->"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What TensorRT for RTX 1.7 does not build, and in which words it says so."""

    graph: str
    precision: str | None
    """None: in any."""
    capability: str | None
    """None: for any."""
    words: str
    """A regular expression that its reason holds."""
    why: str


REFUSALS = (
    Refusal("faster-rcnn-two-level", None, None, r"RoiAlign", "RoiAlign is a plugin, and TensorRT for RTX has none"),
    Refusal("ml-cnn", "fp32", "7.5", r"FP32 GEMM is not supported", "no fp32 matrix products on Turing"),
    Refusal("mobilenetv3-small", "fp32", "7.5", r"FP32 GEMM is not supported", "no fp32 matrix products on Turing"),
)


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph as a build parses it."""

    name: str
    task: str
    precision: str
    width: int
    height: int
    """Of the network's input."""
    model: ModelProto


@dataclass(frozen=True, slots=True)
class Row:
    """One build."""

    graph: str
    precision: str
    input: str
    """WIDTHxHEIGHT."""
    batch: tuple[int, int, int]
    capability: str
    """As "8.6"."""
    plan_bytes: int | None
    """None: refused."""
    seconds: float
    """Of processor time on all cores, parsing included: other programs on the machine don't lengthen it."""
    reason: str = ""
    """Why it was refused; empty where it was not."""

    def __str__(self) -> str:
        what = f"{self.graph} {self.precision} {self.input} batch {','.join(map(str, self.batch))} SM {self.capability}"
        made = f"refused: {self.reason}" if self.plan_bytes is None else f"{self.plan_bytes / 2**20:.1f} MiB"
        return f"rtx build: {what}: {made} ({self.seconds:.1f} s)"


def shipped() -> list[Card]:
    """The cards of the models whose graph comes with this installation or clone."""
    return [card for card in models() if place(card) in ("shipped", "in the clone")]


def graphs(card: Card, frame_size: tuple[int, int], precisions: Sequence[str] = PRECISIONS) -> Iterator[Graph]:
    """The graphs of a model for frames of one size (width, height), one for each precision."""
    found = find(card.name, card.task)
    proto = compact(found) if card.task == "detector" else found.proto
    model = sized(card, proto, frame_size)
    height, width = (size or 0 for size in dims_of(only_input(model))[1:3])
    for precision in precisions:
        yield Graph(card.name, card.task, precision, width, height, _in_precision(card, model, precision))


def _in_precision(card: Card, model: ModelProto, precision: str) -> ModelProto:
    if precision == "fp16":
        return to_fp16(model)[0]
    if precision == "int8":
        return to_int8(model, calibrate(model, [input_batch(card, model, _pictures(card))]))[0]
    return model


_FRAMES: list[Image] = []


def _pictures(card: Card) -> list[Image]:
    if not _FRAMES:
        _FRAMES.extend(read_frames(SIMULATED, 2))
    return _FRAMES if isinstance(card.input, DetectorInput) else [frame[:96, :96] for frame in _FRAMES]


def build_row(graph: Graph, batch: tuple[int, int, int], capability: str, libraries: Libraries) -> Row:
    """Build it; a refusal is a row, too."""
    options = BuildOptions(batch, compute_capabilities=(capability,))
    start = time.process_time()
    size: int | None = None
    reason = ""
    try:
        size = len(build(graph.model, options, libraries).plan)
    except (ModelFormatError, BuildError) as error:
        reason = re.sub(r"\s+", " ", str(error))
    seconds = round(time.process_time() - start, 2)
    shape = f"{graph.width}x{graph.height}"
    return Row(graph.name, graph.precision, shape, batch, capability, size, seconds, reason)


def expected_refusal(row: Row) -> Refusal | None:
    """The one of REFUSALS that is of this build."""
    for refusal in REFUSALS:
        same = (refusal.graph, refusal.precision or row.precision, refusal.capability or row.capability)
        if same == (row.graph, row.precision, row.capability):
            return refusal
    return None


def surprise(row: Row) -> str | None:
    """What of this build is not as it is known to be; None where it is."""
    refusal = expected_refusal(row)
    if refusal is None:
        return None if row.plan_bytes is not None else str(row)
    if row.plan_bytes is not None:
        return f"{row}; expected it to be refused ({refusal.why}): take it out of REFUSALS"
    return None if re.search(refusal.words, row.reason) else f"{row}; expected it to be refused for {refusal.words!r}"


def table(rows: Sequence[Row], targets: Sequence[str]) -> list[str]:
    """Markdown: for each graph and precision the plan's MiB by compute capability, and the median seconds of a build,
    at the first size and profile of each."""
    first: dict[tuple[str, str], tuple[str, tuple[int, int, int]]] = {}
    for row in rows:
        first.setdefault((row.graph, row.precision), (row.input, row.batch))
    lines = [
        f"| graph | precision | input, batch | {' | '.join(f'SM {target}' for target in targets)} | processor s |",
        "|---|---|---|" + "---|" * (len(targets) + 1),
    ]
    for (graph, precision), (shape, batch) in first.items():
        own = [row for row in rows if (row.graph, row.precision) == (graph, precision)]
        here = {row.capability: row for row in own if (row.input, row.batch) == (shape, batch)}
        cells = [_cell(here[target]) for target in targets]
        built = [row.seconds for row in own if row.plan_bytes is not None]
        spread = f"{median(built):.1f} ({min(built):.1f}–{max(built):.1f})" if built else "–"
        batches = ",".join(map(str, batch))
        lines.append(f"| `{graph}` | {precision} | {shape}, {batches} | {' | '.join(cells)} | {spread} |")
    return lines


def _cell(row: Row) -> str:
    return "refused" if row.plan_bytes is None else f"{row.plan_bytes / 2**20:.1f}"


def summary(rows: Sequence[Row], version: str, host: str, command: str) -> list[str]:
    """What stands in docs/gpu.md."""
    built = [row for row in rows if row.plan_bytes is not None]
    reasons = [f"* `{one.graph}`{_of(one)}: {one.why} («{one.words}»)." for one in REFUSALS]
    return [
        BEGIN,
        f"TensorRT for RTX {version} on {host}: {len(built)} of {len(rows)} plans were built. MiB of each at its first "
        "size and profile; processor seconds are the median (least–most) of all sizes, profiles and targets of the "
        f"line. Made by `{command}`; each build is in [rtx-builds.json](benchmarks/rtx-builds.json).",
        "",
        *table(rows, sorted({row.capability for row in rows}, key=float)),
        "",
        "Refused, by name:",
        "",
        *reasons,
        END,
    ]


def _of(refusal: Refusal) -> str:
    parts = [refusal.precision or "", f"on SM {refusal.capability}" if refusal.capability else ""]
    return "".join(f" {part}" for part in parts if part)


def write_between(path: Path, lines: Iterable[str]) -> None:
    """Put `lines` in the place of what stands between BEGIN and END."""
    text = path.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise LeukostreamError(f"{path}: got no place for the table, expected the lines {BEGIN} and {END}")
    path.write_text(before + "\n".join(lines) + after, "utf-8")


def load_rtx() -> Libraries:
    """TensorRT for RTX as it is installed, else as `make bindings` fetched it."""
    fetched = ROOT / "build" / "rtx"
    if (fetched / "tensorrt_rtx_bindings").is_dir() and str(fetched) not in sys.path:
        sys.path.append(str(fetched))
    return load_builder(TENSORRT_RTX)


_HOST = f"{platform.system()} {platform.machine()}"


def _command(arguments: Sequence[str]) -> str:
    return f"python -m tools.bench rtx {' '.join(arguments)}"


def _write(path: Path | None, rows: Sequence[Row], arguments: Sequence[str], libraries: Libraries) -> None:
    """After each model, so that a run that is stopped leaves what it has."""
    if path is None:
        return
    document: dict[str, Any] = {
        "command": _command(arguments),
        "tensorrt_rtx": str(libraries.trt.__version__),
        "host": _HOST,
        "builds": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench rtx", __doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table between its two marks there")
    parser.add_argument(
        "--from", dest="kept", type=Path, metavar="FILE", help="of a --json that is there; builds nothing"
    )
    parser.add_argument("--models", nargs="+", metavar="NAME", help="of the shipped models; default: all")
    parser.add_argument("--sizes", type=int, default=len(FRAME_SIZES), metavar="N", help="only the first N frame sizes")
    parser.add_argument("--profiles", type=int, default=2, metavar="N", help="only the first N profiles")
    options = parser.parse_args(arguments)
    if options.kept is not None:
        document = json.loads(options.kept.read_text("utf-8"))
        rows = [Row(**{**row, "batch": tuple(row["batch"])}) for row in document["builds"]]
        if options.markdown is not None:
            write_between(
                options.markdown, summary(rows, document["tensorrt_rtx"], document["host"], document["command"])
            )
        return 0
    libraries = load_rtx()
    targets = targets_of(libraries.trt)
    rows = []
    for card in shipped():
        if options.models and card.name not in options.models:
            continue
        for frame_size in FRAME_SIZES[: options.sizes if card.task == "detector" else 1]:
            for graph in graphs(card, frame_size):
                for batch in PROFILES[card.task][: options.profiles]:
                    for capability in targets:
                        rows.append(build_row(graph, batch, capability, libraries))
                        print(rows[-1], flush=True)
        _write(options.json, rows, arguments, libraries)
    surprises = [line for line in map(surprise, rows) if line is not None]
    if options.markdown is not None:
        lines = summary(rows, str(libraries.trt.__version__), _HOST, _command(arguments))
        write_between(options.markdown, lines)
    for line in surprises:
        print(f"unexpected: {line}", file=sys.stderr)
    return int(bool(surprises))
