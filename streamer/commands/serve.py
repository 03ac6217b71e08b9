"""`leukostream serve`: runs the models for microscopes elsewhere, until it is told to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Literal, get_args

from streamer.commands.options import Parser, add_metrics_option, positive, seconds
from streamer.commands.output import remark, say
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, Backend

DEFAULT_MODELS = (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    bind: str
    model: list[str] | None
    """None: DEFAULT_MODELS."""
    backend: Backend
    precision: Literal["fp32", "fp16", "int8"] | None
    max_batch: int | None
    max_wait_ms: float
    workers: int | None
    threads: int
    metrics: str | None
    keys: str | None
    insecure: bool


def add_options(parser: Parser) -> None:
    parser.add_argument("--bind", metavar="ENDPOINT", required=True, help="for example tcp://127.0.0.1:5600")
    models = parser.add_argument_group("models", "microscopes find them by the hash of their file")
    models.add_argument(
        "--model",
        action="extend",
        nargs="+",
        metavar="NAME|FILE",
        help=f"what is served (default: {' '.join(DEFAULT_MODELS)})",
    )
    models.add_argument("--backend", choices=get_args(Backend), default="auto", help="what runs them")
    models.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="refuse engines that compute in another (leukostream compile makes them)",
    )
    machine = parser.add_argument_group("machine", "how much of it is used")
    machine.add_argument(
        "--max-batch", type=positive, metavar="N", help="images of several microscopes a run (default: on a CPU none)"
    )
    machine.add_argument(
        "--max-wait-ms", type=seconds, default=2.0, metavar="MS", help="that a request waits for others to join"
    )
    machine.add_argument("--workers", type=positive, metavar="N", help="runs side by side (default: one a core)")
    machine.add_argument("--threads", type=positive, default=1, metavar="N", help="of one run")
    add_metrics_option(machine)
    security = parser.add_argument_group("security", "who may have pictures analysed")
    security.add_argument("--insecure", action="store_true", help="serve other machines unencrypted")
    security.add_argument("--keys", metavar="DIR", help="encrypt, for those whose keys are in this key folder")


def main(options: Options) -> int:
    from engines.backends.onnxruntime import Threads
    from engines.base import EngineId, usable_cores
    from streamer.inference.server import InferenceServer
    from streamer.inference.shelf import ModelShelf
    from streamer.sinks.inference_metrics import InferenceMetrics
    from streamer.sinks.metrics_server import MetricsServer

    workers = options.workers or usable_cores()
    shelf = ModelShelf(
        options.model or DEFAULT_MODELS,
        backend=options.backend,
        precision=options.precision,
        threads=Threads(options.threads, workers),
        max_batch=options.max_batch,
        say=remark,
    )
    server = InferenceServer(
        options.bind,
        shelf,
        workers=workers,
        max_wait_ms=options.max_wait_ms,
        insecure=options.insecure,
        keys=options.keys,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(shelf.close)
        stack.callback(server.close)
        for model in shelf.models:
            if model.task != "detector":  # of one size: what can't be loaded is said before anybody asks
                shelf.engine(EngineId(model.sha256))
        if options.metrics is not None:
            metrics = MetricsServer(options.metrics, InferenceMetrics(server), insecure=options.insecure)
            stack.callback(metrics.close)
            remark(f"metrics at {metrics.url}/metrics")
        served = ", ".join(f"{model.name} {model.sha256}" for model in shelf.models)
        with _drained_by_signals(server.drain):
            say(f"serving on {server.endpoint}: {served}")
            server.run()
    figures = server.figures()
    faults = "".join(f", {count} not answered ({reason})" for reason, count in figures.faults.items())
    say(f"served {sum(figures.requests.values())} requests in {figures.runs} runs{faults}")
    return 0


@contextlib.contextmanager
def _drained_by_signals(drain: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C end it as soon as it has answered what it took; the second one ends it at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, previous[number])
        remark(f"{signal.Signals(number).name}: takes no further work, answers what it has")
        drain()

    previous = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
