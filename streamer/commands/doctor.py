"""`leukostream doctor`: what is installed, which backends work, which cameras answer, and what to do about the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.backends.choice import onnxruntime_has_cuda
from engines.backends.tensorrt.flavour import FLAVOURS
from engines.backends.tensorrt.libraries import pieces
from engines.backends.tensorrt.manifest import PlanStore, default_folder
from engines.base import EngineError
from engines.zoo.registry import find, models
from streamer.commands.options import Parser
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR

DRIVER = "NVIDIA driver"
ONNXRUNTIME_CUDA = "backend onnxruntime cuda"
OF_A_GPU = (ONNXRUNTIME_CUDA, "CUDA binding", *FLAVOURS)
"""What is of no use without one."""
MODEL = "model "

REQUIRED = ("opencv-python", "numpy", "onnx", "onnxruntime", "pyzmq", "msgspec", "rich", "scipy")


@dataclass(frozen=True, slots=True)
class Options:
    """There are none."""


def add_options(_: Parser) -> None: ...


def main(_: Options) -> int:
    return doctor(Console())


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `needed` says whether leukostream can work without it."""

    what: str
    ok: bool
    detail: str
    needed: bool = False
    remedy: str = ""


def examine() -> Iterable[Finding]:
    """Look at everything, in the order in which a run needs it."""
    yield _python()
    for name in REQUIRED:
        yield _package(name, needed=True, remedy=f"pip install {name}")
    yield from _models()
    yield _onnxruntime()
    yield _onnxruntime_cuda()
    yield from _tensorrt()
    yield _package("torch", needed=False, remedy="pip install 'leukostream[train]' (only for training)")
    yield _package("av", needed=False, remedy="pip install 'leukostream[av]' (streams and films, docs/streams.md)")
    for package, name in (("pymmcore-plus", "micromanager"), ("harvesters", "genicam"), ("pypylon", "pylon")):
        yield _package(package, needed=False, remedy=f"pip install 'leukostream[{name}]' (cameras, docs/cameras.md)")
    yield _package(
        "openslide-python",
        needed=False,
        remedy="pip install 'leukostream[wsi]' (whole-slide images, docs/whole-slides.md)",
    )
    yield from _cameras()


def doctor(console: Console) -> int:
    """Print what `examine` finds, the worst first, and what is fine in one paragraph; exit status 1 when something
    needed is missing."""
    findings = list(summed(list(examine())))
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in sorted((one for one in findings if not one.ok), key=lambda one: not one.needed):
        mark = "[red]missing[/]" if finding.needed else "[yellow]absent[/]"
        remedy = f"; to have it: {finding.remedy}" if finding.remedy else ""
        table.add_row(mark, finding.what, escape(finding.detail + remedy))  # an extra's name stands in brackets
    fine = ", ".join(f"{one.what} {one.detail}".strip() for one in findings if one.ok)
    table.add_row("[green]fine[/]", "", escape(fine))
    console.print(table, highlight=False)
    failed = any(one.needed and not one.ok for one in findings)
    verdict = "leukostream can't run here yet: see the lines marked missing" if failed else "leukostream can run here"
    console.print(verdict)
    return 1 if failed else 0


def summed(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Models in one finding for those that are here and one for those that aren't, missing ones apart; without a driver
    of NVIDIA's, nothing of what only a GPU needs."""
    no_gpu = any(one.what == DRIVER and not one.ok for one in findings)
    for one in findings:
        if one.what.startswith(MODEL) and (one.ok or not one.needed):
            continue
        if no_gpu and one.what in OF_A_GPU and not one.ok:
            continue
        yield one
    here = [one.what.removeprefix(MODEL) for one in findings if one.what.startswith(MODEL) and one.ok]
    if here:
        yield Finding("models", True, f"({', '.join(here)})")
    absent = [
        one.what.removeprefix(MODEL) for one in findings if one.what.startswith(MODEL) and not one.ok and not one.needed
    ]
    if absent:
        remedy = "leukostream models pull NAME --from CLONE|URL"
        yield Finding(f"{len(absent)} models", False, ", ".join(absent), remedy=remedy)


def _python() -> Finding:
    version = platform.python_version()
    return Finding(
        "python",
        sys.version_info >= (3, 11),
        f"{version} on {platform.system()} {platform.machine()}",
        needed=True,
        remedy="3.11 or newer",
    )


def _package(name: str, *, needed: bool, remedy: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name), needed)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", needed, remedy)


def _models() -> Iterable[Finding]:
    for card in models():
        try:
            find(card.name, card.task)
        except EngineError as error:
            needed = card.name in (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER)
            remedy = "install leukostream again" if needed else ""  # else the error says how to have it
            yield Finding(f"{MODEL}{card.name}", False, str(error), needed=needed, remedy=remedy)
        else:
            yield Finding(f"{MODEL}{card.name}", True, "", needed=True)


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("backend onnxruntime", False, str(error), needed=True, remedy="pip install onnxruntime")
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    return Finding("backend onnxruntime", True, f"({providers})", needed=True)


def _onnxruntime_cuda() -> Finding:
    what = ONNXRUNTIME_CUDA
    if onnxruntime_has_cuda():
        return Finding(what, True, "its provider is installed; a run says whether it starts")
    remedy = "with a GPU: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    return Finding(what, False, "this ONNX Runtime has no CUDA", remedy=remedy)


def _tensorrt() -> Iterable[Finding]:
    """Every piece that TensorRT, or that for RTX, needs, then the plans of each model."""
    present: dict[str, bool] = {}
    for piece in pieces():
        yield Finding(piece.name, piece.present, piece.detail, remedy=piece.remedy)
        present[piece.name] = piece.present
    libraries = [present.pop(name) for name in FLAVOURS]
    ready = any(libraries) and all(present.values())
    store = PlanStore(default_folder())
    for card in models():
        plans = store.of_model(card.name)
        detail = ", ".join(plan.stem for plan in plans) or "none was built"
        remedy = f"leukostream compile {card.name} --precision fp16 --batch 1,4,8 --calibration SRC"
        if plans or ready:
            yield Finding(f"plan {card.name}", bool(plans), detail, remedy=remedy)


def _cameras() -> Iterable[Finding]:
    from streamer.sources.attached import attached_cameras

    found = attached_cameras()
    if not found.cameras:
        yield Finding("cameras", False, "none is attached", remedy="connect one, or use --source FILE or rtsp://…")
    for camera in found.cameras:
        yield Finding(camera.source.partition(",")[0], camera.usable, camera.gives)
