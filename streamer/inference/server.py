"""The inference server: one thread owns the socket, some run engines. It keeps nothing: killed and started again at
the same address, it goes on.

socket thread (checks a request, lets it wait)  >  workers (take what runs next, run it)  >  socket thread (answers)
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from engines.base import Array, EngineError, EngineId, LeukostreamError, UsageError, printable
from streamer import __version__
from streamer.inference.counts import ServerCounts, ServerFigures
from streamer.inference.shelf import Shelf, UnknownModelError, run_rows
from streamer.inference.waiting import NotYet, Waiting
from streamer.inference.wire import (
    MESSAGE_MAX_BYTES,
    TENSORS_MAX,
    AnyReply,
    EngineKey,
    InferRequest,
    InvalidMessageError,
    OtherVersionError,
    OutputsReply,
    PreparedReply,
    PrepareRequest,
    RefusedReply,
    Spec,
    StatusReply,
    decode_request,
    encode,
    pack,
    unpack,
)
from streamer.network.auth import CONNECTIONS_MAX, HANDSHAKE_S, ZapAuthenticator
from streamer.network.endpoints import check_endpoint, is_ipv6, is_local
from streamer.network.keys import AuthorisedKeys, KeyPair, read_key_pair
from streamer.network.sockets import HEARTBEAT_MS, bind, notice_silence

POLL_MS = 20
"""How long the socket thread sleeps at most: handshakes wait for it."""

DRAIN_S = 10.0
"""How long what was taken may still run at the end."""

_FLUSH_MS = 1000
_REPLIES_WAITING_MAX = 256
_REQUESTS_WAITING_MAX = 64
"""Of one peer, in its socket; further ones wait in the peer's own."""

Socket = zmq.Socket[bytes]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request that waits for an engine."""

    asker: bytes
    request: InferRequest | PrepareRequest
    engine: EngineId
    feeds: dict[str, Array]
    group: Hashable
    rows: int
    size_bytes: int
    arrived_ns: int


class InferenceServer:
    """Answers requests at `endpoint` until it is drained. `run` owns the socket; any thread may call `drain`."""

    def __init__(
        self,
        endpoint: str,
        shelf: Shelf,
        *,
        workers: int = 2,
        max_wait_ms: float = 2.0,
        requests_max: int = 256,
        insecure: bool = False,
        keys: str | Path | None = None,
        connections_max: int = CONNECTIONS_MAX,
        drain_s: float = DRAIN_S,
        option: str = "--bind",
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Bind `endpoint`. `workers`: runs side by side. `max_wait_ms`: how long a request waits for others, where
        runs are joined. `requests_max`: those that may wait; further ones are refused as "busy". `keys`: a key folder
        (network/keys.py); only those whose keys are in it come in.

        UsageError for a malformed address, bad keys, and for TCP that other machines can reach unless with `keys` or
        `insecure`; LeukostreamError for an address that can't be had.
        """
        check_endpoint(endpoint, option, side="bind")
        if endpoint.startswith("inproc://"):
            raise UsageError(f"{option} {endpoint}: got inproc, expected a tcp or ipc address")
        if keys is None and not insecure and not is_local(endpoint):
            raise UsageError(
                f"{option} {endpoint}: got an address that other machines can reach, where anyone could have pictures "
                "analysed and read along; expected --keys DIR, an address like tcp://127.0.0.1:PORT or ipc://PATH, or "
                "--insecure to allow it"
            )
        pair = None if keys is None else read_key_pair(keys)
        authorised = None if keys is None else AuthorisedKeys(keys)
        self.id = uuid.uuid4().hex[:12]
        self._shelf = shelf
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._drain_s = drain_s
        self.counts = ServerCounts()
        self._changed = threading.Condition()
        self._waiting: Waiting[_Job] = Waiting(self._rows_of, max_wait_ms=max_wait_ms, requests_max=requests_max)
        self._running = 0
        self._over = False
        self._draining = threading.Event()
        self._context: zmq.Context[Socket] = zmq.Context()
        self._authenticator = ZapAuthenticator(
            self._context, authorised, anyone_controls=False, connections_max=connections_max
        )
        self._socket: Socket = self._context.socket(zmq.ROUTER)
        self._answers: Socket = self._context.socket(zmq.PULL)
        self._answers.setsockopt(zmq.RCVHWM, 0)
        try:
            self._prepare(endpoint, pair)
            self._answers.bind("inproc://answers")
            self.endpoint = bind(self._socket, endpoint, option)
        except BaseException:
            self.close()
            raise
        self._workers = [
            threading.Thread(target=self._work, name=f"inference {number}", daemon=True) for number in range(workers)
        ]

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def drain(self) -> None:
        """Take no further work, answer what was taken, and let `run` return. Any thread, and signal handlers."""
        self._draining.set()

    def run(self) -> None:
        """Serve until it is drained; then free the address."""
        for worker in self._workers:
            worker.start()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._answers, zmq.POLLIN)
        until_ns: int | None = None
        try:
            while until_ns is None or (self._owes() and self._now_ns() < until_ns):
                if self.draining and until_ns is None:
                    until_ns = self._now_ns() + round(self._drain_s * 1e9)
                poller.poll(POLL_MS)
                self._authenticator.service()
                self._answer_all()
                self._take_requests()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            for worker in self._workers:
                worker.join(self._drain_s)
            self._answer_all()
            self.close()

    def close(self) -> None:
        """Free the address of a server that does not run. Safe to call twice; `run` does it at its end."""
        if self._socket.closed:
            return
        self._authenticator.close([self._socket])
        self._answers.close(0)
        self._socket.close()
        self._context.term()

    def status(self) -> StatusReply:
        figures = self.counts.figures()
        with self._changed:
            waiting, oldest_ns = len(self._waiting), self._waiting.oldest_ns()
        now_ns = self._now_ns()
        return StatusReply(
            server=self.id,
            release=__version__,
            models=self._shelf.models,
            draining=self.draining,
            uptime_s=(now_ns - self._started_ns) / 1e9,
            waiting=waiting,
            queue_age_ms=0.0 if oldest_ns is None else (now_ns - oldest_ns) / 1e6,
            answered=sum(figures.requests.values()),
            faults=figures.faults,
        )

    def figures(self) -> ServerFigures:
        return self.counts.figures()

    @property
    def connections(self) -> int:
        return self._authenticator.connections

    @property
    def refused(self) -> Counter[str]:
        """Connections refused, by reason."""
        return Counter(self._authenticator.refused)

    def _rows_of(self, group: Any) -> int:
        return self._shelf.joined_rows(group[0])

    def _prepare(self, endpoint: str, pair: KeyPair | None) -> None:
        socket = self._socket
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an answer that nobody is there for is counted
        socket.setsockopt(zmq.SNDHWM, _REPLIES_WAITING_MAX)
        socket.setsockopt(zmq.RCVHWM, _REQUESTS_WAITING_MAX)
        socket.setsockopt(zmq.LINGER, _FLUSH_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(1000 * HANDSHAKE_S))
        socket.setsockopt(zmq.IPV6, is_ipv6(endpoint))
        notice_silence(socket, HEARTBEAT_MS)
        if pair is not None:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        self._authenticator.guard(socket)

    def _owes(self) -> bool:
        with self._changed:
            return bool(len(self._waiting) or self._running) or bool(self._answers.poll(0))

    def _take_requests(self) -> None:
        for _ in range(_REQUESTS_WAITING_MAX):  # then those who wait are answered
            try:
                asker, *parts = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            reply = self._request(asker.bytes, [part.buffer for part in parts])
            if reply is not None:
                self._send([asker.bytes, encode(reply)])

    def _request(self, asker: bytes, parts: Sequence[Any]) -> AnyReply | None:
        """What can be answered at once; None for what an engine answers."""
        if not parts or len(parts) > 1 + TENSORS_MAX:
            return self._refusal("malformed", f"got {len(parts)} parts, expected a header and its tensors")
        try:
            request = decode_request(parts[0])
        except OtherVersionError as error:
            return self._refusal("version", str(error))
        except InvalidMessageError as error:
            return self._refusal("malformed", str(error))
        if isinstance(request, InferRequest | PrepareRequest):
            return self._let_wait(asker, request, parts[1:])
        return self.status()

    def _let_wait(
        self, asker: bytes, request: InferRequest | PrepareRequest, parts: Sequence[Any]
    ) -> RefusedReply | None:
        if self.draining:
            return self._refusal("draining", "the server ends and takes no further work", request)
        feeds: dict[str, Array] = {}
        if isinstance(request, InferRequest):
            try:
                feeds = unpack(request.tensors, parts)
            except InvalidMessageError as error:
                return self._refusal("malformed", str(error), request)
        rows = {len(array) if array.ndim else 0 for array in feeds.values()}
        if feeds and (len(rows) != 1 or 0 in rows):
            return self._refusal("malformed", f"got tensors of {sorted(rows)} rows, expected as many in each", request)
        id_ = request.engine.id
        shapes = tuple((name, array.dtype.name, array.shape[1:]) for name, array in sorted(feeds.items()))
        job = _Job(
            asker,
            request,
            id_,
            feeds,
            (id_, shapes),
            rows=max(rows, default=1),
            size_bytes=sum(array.nbytes for array in feeds.values()),
            arrived_ns=self._now_ns(),
        )
        with self._changed:
            taken = self._waiting.add(job)
            self._changed.notify()
        if not taken:
            return self._refusal("busy", f"{len(self._waiting)} requests wait already", request)
        return None

    def _refusal(self, code: str, reason: str, request: InferRequest | PrepareRequest | None = None) -> RefusedReply:
        self.counts.fault(code)
        reason = printable(reason)[:1000]
        if isinstance(request, InferRequest):
            return RefusedReply(
                server=self.id,
                code=code,
                reason=reason,
                session=request.session,
                number=request.number,
                attempt=request.attempt,
                engine=request.engine,
            )
        return RefusedReply(server=self.id, code=code, reason=reason, engine=request.engine if request else None)

    def _send(self, parts: Sequence[Any]) -> None:
        try:
            self._socket.send_multipart(parts, zmq.DONTWAIT, copy=False)
        except zmq.ZMQError:  # it left, or does not read: it asks again, or another server
            self.counts.fault("answer not taken")

    def _answer_all(self) -> None:
        while True:
            try:
                self._send(self._answers.recv_multipart(zmq.DONTWAIT, copy=False))
            except zmq.Again:
                return

    def _work(self) -> None:
        answers: Socket = self._context.socket(zmq.PUSH)
        answers.setsockopt(zmq.SNDHWM, 0)
        answers.setsockopt(zmq.LINGER, 0)
        answers.connect("inproc://answers")
        try:
            while (jobs := self._next()) is not None:
                for asker, reply, parts in self._run(jobs):
                    answers.send_multipart([asker, encode(reply), *parts], copy=False)
                with self._changed:
                    self._running -= 1
        finally:
            answers.close()

    def _next(self) -> list[_Job] | None:
        """What runs next; None at the end."""
        with self._changed:
            while True:
                step = self._waiting.take(self._now_ns())
                if not isinstance(step, NotYet):
                    self._running += 1
                    return step
                if self._over:
                    return None
                self._changed.wait(None if step.at_most_ns is None else step.at_most_ns / 1e9)

    def _run(self, jobs: Sequence[_Job]) -> list[tuple[bytes, AnyReply, list[bytes]]]:
        """What to answer to whom."""
        started_ns = self._now_ns()
        answers: list[tuple[bytes, AnyReply, list[bytes]]] = []
        wanted: list[tuple[_Job, InferRequest]] = []
        for job in jobs:
            if isinstance(job.request, PrepareRequest):
                answers.append((job.asker, self._prepared(job.request), []))
            elif started_ns - job.arrived_ns > job.request.within_ms * 1e6:
                reason = f"it waited {(started_ns - job.arrived_ns) / 1e6:.0f} ms, longer than its asker does"
                answers.append((job.asker, self._refusal("stale", reason, job.request), []))
            else:
                wanted.append((job, job.request))
        if not wanted:
            return answers
        try:
            outputs = self._infer([job for job, _ in wanted])
        except Exception as error:  # an engine's own fault must not end the worker
            code = "unknown model" if isinstance(error, UnknownModelError) else "engine failed"
            reason = str(error) if isinstance(error, LeukostreamError) else f"{type(error).__name__}: {error}"
            return answers + [(job.asker, self._refusal(code, reason, request), []) for job, request in wanted]
        ran_ms = (self._now_ns() - started_ns) / 1e6
        waited_ms = [(started_ns - job.arrived_ns) / 1e6 for job, _ in wanted]
        self.counts.ran(wanted[0][0].engine.sha256, sum(job.rows for job, _ in wanted), waited_ms, ran_ms)
        first = 0
        for (job, request), waited in zip(wanted, waited_ms, strict=True):
            tensors, parts = pack({name: array[first : first + job.rows] for name, array in outputs.items()})
            first += job.rows
            reply = OutputsReply(
                server=self.id,
                session=request.session,
                number=request.number,
                attempt=request.attempt,
                tensors=tensors,
                waited_ms=waited,
                ran_ms=ran_ms,
            )
            answers.append((job.asker, reply, parts))
        return answers

    def _infer(self, jobs: Sequence[_Job]) -> dict[str, Array]:
        engine = self._shelf.engine(jobs[0].engine)
        feeds = jobs[0].feeds
        if len(jobs) > 1:
            feeds = {name: np.concatenate([job.feeds[name] for job in jobs]) for name in feeds}
        outputs = run_rows(engine, feeds)
        rows = sum(job.rows for job in jobs)
        wrong = [name for name, array in outputs.items() if not array.ndim or len(array) != rows]
        if wrong:
            raise EngineError(f"output {wrong[0]!r}: got {outputs[wrong[0]].shape}, expected {rows} rows")
        return outputs

    def _prepared(self, request: PrepareRequest) -> AnyReply:
        try:
            engine = self._shelf.engine(request.engine.id)
        except Exception as error:
            code = "unknown model" if isinstance(error, UnknownModelError) else "engine failed"
            reason = str(error) if isinstance(error, LeukostreamError) else f"{type(error).__name__}: {error}"
            return self._refusal(code, reason, request)
        return PreparedReply(
            server=self.id,
            engine=EngineKey.of(request.engine.id),
            backend=engine.backend,
            inputs=tuple(Spec.of(spec) for spec in engine.inputs),
            outputs=tuple(Spec.of(spec) for spec in engine.outputs),
        )
