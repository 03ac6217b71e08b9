"""A publisher in a thread of its own, as the pipeline runs it, and requests of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from streamer.network.publisher import Publisher
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import AnyMessage
from streamer.protocol.requests import AnyCommand, AnyRequest, Command, RequestRefused, SourceState, encode_request
from tests.streamer.protocol.message_cases import frame_message, make_cell, make_differential, make_health

PATIENCE_S = 20.0
ids = map("id-{}".format, itertools.count())


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} seconds"
        time.sleep(0.005)


class Served:
    """Publishes what it is told to and serves in between, on one thread that owns the publisher."""

    def __init__(self, make: Callable[[], Publisher]) -> None:
        self._make = make
        self._jobs: list[Callable[[Publisher], Any]] = []
        self._stop = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.endpoint = self.service_endpoint = ""

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._started.wait(PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def do(self, job: Callable[[Publisher], Any]) -> Any:
        """What `job` gives on the publisher's thread."""
        results: list[Any] = []
        self._jobs.append(lambda publisher: results.append(job(publisher)))
        wait_for(lambda: results)
        return results[0]

    def publish(self, *messages: AnyMessage) -> None:
        def job(publisher: Publisher) -> None:
            for message in messages:
                publisher.publish(message)

        self.do(job)

    def _run(self) -> None:
        with self._make() as publisher:
            self.endpoint, self.service_endpoint = publisher.endpoint, publisher.service_endpoint
            self._started.set()
            while not self._stop.is_set():
                while self._jobs:
                    self._jobs.pop(0)(publisher)
                publisher.service()
                time.sleep(0.001)
            self._started.set()


def slide(factory: MessageFactory, frames: int, *, first: int = 0) -> list[AnyMessage]:
    """What a run publishes: each frame, a cell and a differential every third, health every tenth."""
    messages: list[AnyMessage] = []
    for number in range(first, first + frames):
        messages.append(frame_message(factory))
        if number % 3 == 0:
            messages.append(factory.cell(make_cell(number)))
            messages.append(factory.differential(make_differential(number // 3 + 1)))
        if number % 10 == 9:
            messages.append(factory.health(make_health()))
    return messages


class ScriptedControls:
    """Does what it is told, remembers it, and refuses a stop at 13."""

    def __init__(self) -> None:
        self.done: list[tuple[AnyCommand, str]] = []
        self.earlier: set[tuple[str, str]] = set()
        """Ids and givers of the commands that an earlier run carried out."""
        self.state = SourceState(session="slide-1", paused=False, stop_at=None, white_cells=5)

    def execute(self, command: AnyCommand, *, by: str) -> SourceState:
        if getattr(command, "cells", None) == 13:
            raise RequestRefused("not possible", "got 13, expected a luckier number")
        self.done.append((command, by))
        return self.state

    def recall(self, command: AnyCommand, *, by: str) -> SourceState | None:
        return self.state if (command.id, by) in self.earlier else None

    def states(self) -> dict[str, SourceState]:
        return {"cam": self.state}


def request_of(kind: type[AnyRequest], **fields: Any) -> Any:
    if issubclass(kind, Command):
        fields = {"run_id": "run-1", "source": "cam", **fields}
    return kind(**{"id": next(ids), **fields})


def encoded(kind: type[AnyRequest], **fields: Any) -> bytes:
    return encode_request(request_of(kind, **fields))
