"""A microscope's end of remote inference: one thread owns the connections, and any thread asks.

What an engine is asked goes to one of the servers (dispatch.py says which, and when again), and is answered by this
machine where none does. So `RemoteEngine.infer` always answers, and whoever calls it waits for his own answer: nothing
is put out of order.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from engines.base import Array, Engine, EngineId, TensorSpec, UsageError
from streamer.inference.dispatch import GIVE_UP_MS, Action, Dispatcher, GiveUp, Prepare, Send
from streamer.inference.engine import RemoteEngine, checked, difference
from streamer.inference.link import Link
from streamer.inference.patience import Patience
from streamer.inference.wire import (
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
    StatusRequest,
    Tensor,
    decode_reply,
    encode,
    pack,
    unpack,
)
from streamer.network.connection import curve_options
from streamer.network.endpoints import check_endpoint, is_local
from streamer.records import InferenceStatus

Say = Callable[[str], None]

STATUS_EVERY_MS = 1000.0
FIRST_ANSWER_S = 1.5
"""How long an engine waits, when it is made, for a server that has it. While no server at all is there, from the start
of the client on, so that several engines do not wait one after the other."""

_POLL_MS = 50
_LAST_RESORT_MS = 400.0
"""So long after it should have given up, who waits for an answer does, whatever the thread of the connections does."""

_PUBLISH_EVERY_MS = 200.0

Socket = zmq.Socket[bytes]


@dataclass(slots=True, eq=False)
class _Question:
    """What a thread asks, and waits for."""

    number: int
    engine: EngineId
    tensors: tuple[Tensor, ...]
    parts: list[bytes]
    rows: int
    give_up_ms: float
    answer: dict[str, Array] | None = None
    """None once it is settled: this machine has to."""
    settled: threading.Event = field(default_factory=threading.Event)


class InferenceClient:
    """Asks inference servers, for all engines of this process. `status` and `engine` are for any thread."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        insecure: bool = False,
        keys: str | Path | None = None,
        server_key: str | Path | None = None,
        say: Say = lambda line: None,
        first_answer_s: float = FIRST_ANSWER_S,
        give_up_ms: float = GIVE_UP_MS,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Connects in the background, again after every break. `first_answer_s`: see FIRST_ANSWER_S. `give_up_ms`:
        after so long a question, or all those of a frame, is answered by this machine. `keys`: one's own key folder,
        `server_key`: the public key of the servers. `say` is told in one line when servers come, go, or can't be used.

        UsageError for a malformed address, for keys that can't be used, and for TCP to another machine unless with
        keys or `insecure`.
        """
        self._insecure, self._keys, self._server_key = insecure, keys, server_key
        self._curve: dict[int, bytes] = {}
        for endpoint in endpoints:
            self._check(endpoint)
        self._say, self._now_ns = say, now_ns
        self._first_answer_s, self._give_up_ms = first_answer_s, give_up_ms
        self._began_ns = now_ns()
        self._own = threading.local()
        """Of each thread that asks: its `patience`."""
        self.session = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._asked: deque[_Question] = deque()
        self._wishes: deque[Callable[[], list[Action]]] = deque()
        self._specs: dict[EngineId, tuple[tuple[Spec, ...], tuple[TensorSpec, ...]]] = {}
        self._fit: frozenset[EngineId] = frozenset()
        self._fit_changed = threading.Condition()
        self._next_number = 0
        self.server_ms = 0.0
        """What the server of the newest answer says that it took, waiting and running, in milliseconds."""
        self._remote = self._local = self._sent_bytes = self._received_bytes = 0
        self._dispatcher = Dispatcher(endpoints, give_up_ms)
        self._status = self._dispatcher.status()
        self._resent = self._late = 0
        self._said: dict[str, str] = {}
        self._expected: set[EngineId] = set()
        """Engines whose first servers had their time to answer."""
        self._missed: frozenset[EngineId] = frozenset()
        self._publish_due_ns = 0
        self._questions: dict[int, _Question] = {}
        self._links: dict[str, Link] = {}
        self._status_due_ns = 0
        self._closing = threading.Event()
        self._context: zmq.Context[Socket] = zmq.Context()
        self._woken: Socket = self._context.socket(zmq.PULL)
        self._woken.bind("inproc://wake")
        self._wake_socket: Socket = self._context.socket(zmq.PUSH)
        self._wake_socket.connect("inproc://wake")
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def engine(self, id_: EngineId, local: Engine) -> Engine:
        """The engine that asks the servers, and `local` where none answers. Waits a moment for a server that has it, so
        that the first frames find one."""
        specs = tuple(Spec.of(spec) for spec in (*local.inputs, *local.outputs))
        with self._lock:
            self._specs[id_] = specs, local.outputs
        self._wish(lambda: self._dispatcher.want(id_))
        began_ns = self._now_ns()

        def is_over() -> bool:
            since_ns = began_ns if any(one.state == "ready" for one in self._status.values()) else self._began_ns
            return self._closing.is_set() or (self._now_ns() - since_ns) / 1e9 >= self._first_answer_s

        with self._fit_changed:
            while id_ not in self._fit and not is_over():
                self._fit_changed.wait(_POLL_MS / 1000)
        with self._lock:
            self._expected.add(id_)
        return RemoteEngine(lambda feeds: self.ask(id_, feeds), local, "inference servers")

    def use(self, endpoints: Sequence[str]) -> None:
        """From now on these servers, for example those that a supervisor has started. Errors as of the constructor."""
        for endpoint in endpoints:
            self._check(endpoint)
        self._wish(lambda: self._dispatcher.use(endpoints, self._now_ns()))

    def ask(self, id_: EngineId, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
        """The outputs that a server gave; None where none did: this machine has to. A thread that has waited waits for
        less the next time, so that the questions of one frame (`next_frame`) together take less than two seconds."""
        if id_ not in self._fit or self._closing.is_set():
            self._count(remote=False)
            return None
        tensors, parts = pack(feeds)
        rows = tensors[0].shape[0] if tensors and tensors[0].shape else 0
        patience, began_ns = self._patience(), self._now_ns()
        give_up_ms = patience.left_ms(began_ns)
        with self._lock:
            question = _Question(self._next_number, id_, tensors, parts, rows, give_up_ms)
            self._next_number += 1
            self._asked.append(question)
        self._wake()
        in_time = question.settled.wait((give_up_ms + _LAST_RESORT_MS) / 1000)
        answer = question.answer if in_time else None
        patience.waited(began_ns, self._now_ns())
        self._count(remote=answer is not None)
        return answer

    def status(self) -> InferenceStatus:
        with self._lock:
            asked = self._remote + self._local
            return InferenceStatus(
                servers=dict(self._status),
                remote=self._remote,
                local=self._local,
                local_share=self._local / asked if asked else None,
                resent=self._resent,
                late=self._late,
                sent_bytes=self._sent_bytes,
                received_bytes=self._received_bytes,
            )

    def close(self) -> None:
        """Disconnect; who waits is answered by this machine. Safe to call twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        self._thread.join()
        self._wake_socket.close(0)
        self._context.term()

    def _check(self, endpoint: str) -> None:
        check_endpoint(endpoint, "--inference", side="connect")
        if endpoint.startswith("inproc://"):
            raise UsageError(f"--inference {endpoint}: got inproc, expected a tcp or ipc address")
        self._curve = curve_options(endpoint, self._keys, self._server_key)
        if self._server_key is None and not self._insecure and not is_local(endpoint):
            raise UsageError(
                f"--inference {endpoint}: got an address of another machine, to which pictures would go unencrypted; "
                "expected --keys DIR and --server-key FILE, or --insecure to allow it"
            )

    def _patience(self) -> Patience:
        """Of the calling thread, which has one frame at a time."""
        patience: Patience | None = getattr(self._own, "patience", None)
        if patience is None:
            patience = self._own.patience = Patience(self._give_up_ms)
        return patience

    def _count(self, *, remote: bool) -> None:
        with self._lock:
            self._remote += remote
            self._local += not remote

    def _wish(self, wish: Callable[[], list[Action]]) -> None:
        self._wishes.append(wish)
        self._wake()

    def _wake(self) -> None:
        with self._lock, suppress(zmq.ZMQError):  # full: it is awake anyway
            self._wake_socket.send(b"", zmq.DONTWAIT)

    # All below runs on the thread of the connections.

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._turn()
        finally:
            self._closing.set()
            self._do(self._dispatcher.give_up_all("the run ends"))
            for question in self._asked:
                question.settled.set()
            with self._fit_changed:
                self._fit = frozenset()
                self._fit_changed.notify_all()
            for link in self._links.values():
                link.close()
            self._woken.close(0)

    def _turn(self) -> None:
        self._connect_all()
        poller = zmq.Poller()
        poller.register(self._woken, zmq.POLLIN)
        for link in self._links.values():
            poller.register(link.socket, zmq.POLLIN)
            poller.register(link.monitor, zmq.POLLIN)
        due_ns = self._dispatcher.due_ns()
        wait_ms = _POLL_MS if due_ns is None else min(_POLL_MS, max(0, (due_ns - self._now_ns()) // 1_000_000))
        poller.poll(wait_ms)
        with suppress(zmq.Again):
            while True:
                self._woken.recv(zmq.DONTWAIT)
        while self._wishes:
            self._do(self._wishes.popleft()())
        for endpoint, link in list(self._links.items()):
            self._watch(endpoint, link)
            self._receive(endpoint, link)
        while self._asked:
            question = self._asked.popleft()
            self._questions[question.number] = question
            self._do(self._dispatcher.ask(question.number, question.engine, self._now_ns(), question.give_up_ms))
        self._do(self._dispatcher.step(self._now_ns()))
        if self._now_ns() >= self._status_due_ns:
            self._status_due_ns = self._now_ns() + round(STATUS_EVERY_MS * 1e6)
            for link in self._links.values():
                self._send(link, [encode(StatusRequest())])
        self._publish()

    def _connect_all(self) -> None:
        wanted = self._dispatcher.endpoints
        for endpoint in [one for one in self._links if one not in wanted]:
            self._links.pop(endpoint).close()
        for endpoint in wanted:
            if endpoint not in self._links:
                self._links[endpoint] = Link(self._context, endpoint, self._curve)

    def _watch(self, endpoint: str, link: Link) -> None:
        for event in link.events():
            if event == "in":
                self._send(link, [encode(StatusRequest())])
            elif event == "lost":
                self._do(self._dispatcher.lost(endpoint, "connection lost", self._now_ns()))
            else:
                self._dispatcher.not_let_in(endpoint, link.why_refused(event))

    def _receive(self, endpoint: str, link: Link) -> None:
        while True:
            try:
                parts = [frame.buffer for frame in link.socket.recv_multipart(zmq.DONTWAIT, copy=False)]
            except zmq.Again:
                return
            with self._lock:
                self._received_bytes += sum(part.nbytes for part in parts)
            self._reply(endpoint, parts)

    def _reply(self, endpoint: str, parts: Sequence[Any]) -> None:
        try:
            reply = decode_reply(parts[0])
        except OtherVersionError as error:
            self._dispatcher.other_version(endpoint, str(error))
            return
        except InvalidMessageError as error:
            self._dispatcher.other_version(endpoint, f"got what is no answer of an inference server ({error})")
            return
        now_ns = self._now_ns()
        if isinstance(reply, StatusReply):
            models = [model.sha256 for model in reply.models]
            actions = self._dispatcher.said_status(
                endpoint, reply.server, reply.release, models, reply.draining, now_ns
            )
            self._do(actions)
        elif isinstance(reply, PreparedReply):
            self._prepared(endpoint, reply)
        elif isinstance(reply, OutputsReply):
            self._outputs(endpoint, reply, parts[1:])
        else:
            self._refused(endpoint, reply)

    def _refused(self, endpoint: str, reply: RefusedReply) -> None:
        now_ns = self._now_ns()
        if reply.number is not None and reply.attempt is not None:
            if reply.session == self.session:
                at = endpoint, reply.number, reply.attempt
                self._do(self._dispatcher.refused(*at, reply.code, reply.reason, now_ns))
        elif reply.engine is not None:
            self._dispatcher.not_prepared(endpoint, reply.engine.id, reply.code, reply.reason, now_ns)
        elif reply.code == "version":
            self._dispatcher.other_version(endpoint, reply.reason)

    def _prepared(self, endpoint: str, reply: PreparedReply) -> None:
        id_ = reply.engine.id
        with self._lock:
            expected = self._specs.get(id_)
        if expected is None:
            return
        fault = difference((*reply.inputs, *reply.outputs), expected[0])
        if fault is None:
            self._dispatcher.prepared(endpoint, id_)
        else:
            self._dispatcher.not_prepared(endpoint, id_, "another engine", f"its engine {fault}", self._now_ns())

    def _outputs(self, endpoint: str, reply: OutputsReply, parts: Sequence[Any]) -> None:
        question = self._questions.get(reply.number) if reply.session == self.session else None
        now_ns = self._now_ns()
        if question is not None:
            try:
                with self._lock:
                    specs = self._specs[question.engine][1]
                answer = checked(unpack(reply.tensors, parts), specs, question.rows)
            except InvalidMessageError as error:
                self._do(self._dispatcher.wrong(endpoint, reply.number, reply.attempt, str(error), now_ns))
                return
        if not self._dispatcher.answered(endpoint, reply.number, reply.attempt, now_ns) or question is None:
            return
        question.answer = answer
        self.server_ms = reply.waited_ms + reply.ran_ms
        del self._questions[reply.number]
        question.settled.set()

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Prepare):
                link = self._links.get(action.server)
                if link is not None:
                    self._send(link, [encode(PrepareRequest(engine=EngineKey.of(action.engine)))])
            elif isinstance(action, GiveUp):
                question = self._questions.pop(action.number, None)
                if question is not None:
                    question.settled.set()
            else:
                self._send_question(action)

    def _send_question(self, action: Send) -> None:
        question, link = self._questions.get(action.number), self._links.get(action.server)
        if question is None:
            return
        header = InferRequest(
            session=self.session,
            number=question.number,
            attempt=action.attempt,
            engine=EngineKey.of(question.engine),
            tensors=question.tensors,
            within_ms=action.within_ms,
        )
        if link is None or not self._send(link, [encode(header), *question.parts]):
            at = action.server, action.number, action.attempt
            self._do(self._dispatcher.refused(*at, "not sent", "its queue is full", self._now_ns()))

    def _send(self, link: Link, parts: Sequence[bytes]) -> bool:
        try:
            link.socket.send_multipart(parts, zmq.DONTWAIT, copy=False)
        except zmq.ZMQError:
            return False
        with self._lock:
            self._sent_bytes += sum(map(len, parts))
        return True

    def _publish(self) -> None:
        """What other threads and people see."""
        now_ns = self._now_ns()
        with self._lock:
            known, expected = list(self._specs), frozenset(self._expected)
        fit = frozenset(id_ for id_ in known if self._dispatcher.fit(id_, now_ns))
        if fit != self._fit:
            with self._fit_changed:
                self._fit = fit
                self._fit_changed.notify_all()
            self._publish_due_ns = 0
        if now_ns < self._publish_due_ns:
            return
        self._publish_due_ns = now_ns + round(_PUBLISH_EVERY_MS * 1e6)
        status = self._dispatcher.status()
        with self._lock:
            self._status = status
            self._resent, self._late = self._dispatcher.resent, self._dispatcher.late
        for endpoint, one in status.items():
            seen = one.state if one.detail is None else f"{one.state}: {one.detail}"
            if self._said.get(endpoint, "connecting") != seen:
                self._said[endpoint] = seen
                self._say(f"inference server {endpoint}: {seen}")
        missed = frozenset(id_ for id_ in expected if not self._dispatcher.is_answered(id_, now_ns))
        if missed != self._missed:
            self._missed = missed
            self._say(f"inference: {_missed_in_words(missed, expected)}")


def _missed_in_words(missed: frozenset[EngineId], expected: frozenset[EngineId]) -> str:
    if not missed:
        return "servers answer for every model"
    if missed == expected:
        return "no server answers; this machine goes on by itself"
    hashes = ", ".join(sorted({f"{id_.sha256[:12]}…" for id_ in missed}))
    return f"no server answers for the model {hashes}; this machine runs it by itself"
