"""Scripted engines behind a real server on loopback, and a client that asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.backends.scripted import Answer, ScriptedEngine
from engines.base import Array, EngineId, TensorSpec
from streamer.inference.client import InferenceClient
from streamer.inference.engine import RemoteEngine
from streamer.inference.server import InferenceServer
from streamer.inference.shelf import UnknownModelError
from streamer.inference.wire import ServedModel

PATIENCE_S = 20.0
SHA, OTHER_SHA = "a" * 64, "b" * 64
ENGINE, OTHER = EngineId(SHA), EngineId(OTHER_SHA)
INPUTS = [TensorSpec("images", (None, 2, 2, 3), np.dtype(np.uint8))]
OUTPUTS = [TensorSpec("totals", (None,), np.dtype(np.float32))]


def wait_for(condition: Callable[[], object], what: str = "it") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.005)


def totals(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What tells the images of a batch apart: the sum of each."""
    return {"totals": feeds["images"].reshape(len(feeds["images"]), -1).sum(1).astype(np.float32)}


def engine(script: Callable[[Mapping[str, Array]], Answer] = totals, **settings: Any) -> ScriptedEngine:
    return ScriptedEngine(INPUTS, OUTPUTS, script, **settings)


def images(*values: int) -> dict[str, Array]:
    return {"images": np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])}


@dataclass
class ScriptedShelf:
    engines: dict[EngineId, ScriptedEngine] = field(default_factory=lambda: {ENGINE: engine()})
    rows: int = 1
    closed: bool = False

    @property
    def models(self) -> tuple[ServedModel, ...]:
        return tuple(ServedModel(id_.sha256, "scripted", "classifier") for id_ in self.engines)

    def engine(self, id_: EngineId) -> ScriptedEngine:
        if id_ not in self.engines:
            raise UnknownModelError(f"model {id_.sha256[:12]}…: not served here")
        return self.engines[id_]

    def joined_rows(self, id_: EngineId) -> int:
        return self.rows

    def close(self) -> None:
        self.closed = True


class Served:
    """A server on a thread of its own, for a `with` block; its address is free again after it."""

    def __init__(
        self, shelf: ScriptedShelf | None = None, endpoint: str = "tcp://127.0.0.1:*", **settings: Any
    ) -> None:
        self.shelf = shelf or ScriptedShelf()
        self.server = InferenceServer(endpoint, self.shelf, **settings)
        self.endpoint = self.server.endpoint
        self._thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.server.drain()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class Asking:
    """A client of some endpoints and its engine, with what it said, for a `with` block."""

    def __init__(self, *endpoints: str, local: ScriptedEngine | None = None, **settings: Any) -> None:
        self.said: list[str] = []
        self.local = local or engine()
        patience = {"first_answer_s": PATIENCE_S, "give_up_ms": 1000 * PATIENCE_S}  # a busy machine is no fault
        self.client = InferenceClient(endpoints, say=self.said.append, **{**patience, **settings})
        self.engine = self.client.engine(ENGINE, self.local)
        assert isinstance(self.engine, RemoteEngine)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def infer(self, *values: int) -> list[float]:
        return [float(total) for total in self.engine.infer(images(*values))["totals"]]

    def state_of(self, endpoint: str) -> str:
        return self.client.status().servers[endpoint].state
