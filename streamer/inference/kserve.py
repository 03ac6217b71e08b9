"""Models behind a server that speaks KServe's v2 protocol: Triton, KServe, MLServer. HTTP, through `tritonclient`.

Such a server names its models, and says no hash of them. So the name is made of the hash (`model_name`), and what
`leukostream models triton` writes is named so: a model of another file has another name.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from engines.base import (
    Array,
    BackendUnavailableError,
    Engine,
    EngineId,
    TensorSpec,
    UsageError,
)
from streamer.inference.dispatch import GIVE_UP_MS, WRONG_REST_MS
from streamer.inference.engine import RemoteEngine, checked
from streamer.inference.latency import KEPT, percentiles_ms
from streamer.inference.wire import InvalidMessageError
from streamer.network.endpoints import check_endpoint, is_local
from streamer.records import InferenceServerStatus, InferenceStatus

Say = Callable[[str], None]

SCHEME = "kserve://"
PROBE_EVERY_S = 1.0
BINARY = "binary_tensor_data"
"""The extension of the protocol under which tensors are bytes; without it they are numbers in JSON."""

TYPES = {
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
}
"""The protocol's names, by numpy's."""


def model_name(id_: EngineId) -> str:
    """What the model of an engine is called on such servers."""
    size = "" if id_.height is None or id_.width is None else f"-{id_.height}x{id_.width}"
    return f"leukostream-{id_.sha256[:16]}{size}{'-maps' if id_.maps else ''}"


class KserveInference:
    """One address of such a server, for all engines of this process; what is behind it balances its own load.

    A fault is answered by this machine at once; the server is asked again when it says that it is ready.
    """

    def __init__(
        self,
        address: str,
        *,
        insecure: bool = False,
        say: Say = lambda line: None,
        give_up_ms: float = GIVE_UP_MS,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`address` is kserve://HOST:PORT of its HTTP. UsageError for another one, and for another machine's unless
        `insecure`; BackendUnavailableError without `tritonclient`."""
        place = f"tcp://{address.removeprefix(SCHEME)}"
        try:
            check_endpoint(place, "--inference", side="connect")
        except UsageError:
            raise UsageError(
                f"--inference {address}: got what is no HOST:PORT after kserve://, expected kserve://127.0.0.1:8000"
            ) from None
        if not insecure and not is_local(place):
            raise UsageError(
                f"--inference {address}: got an address of another machine, to which pictures would go unencrypted; "
                "expected --insecure to allow it, within a network that nobody else listens to"
            )
        try:
            import tritonclient.http as http
        except ImportError as error:
            raise BackendUnavailableError(
                f"--inference {address}: got no package {error.name}, expected it here: "
                "pip install 'leukostream[kserve]'"
            ) from error
        self._http = http
        self.address, self._host = address, address.removeprefix(SCHEME)
        self._say, self._now_ns = say, now_ns
        self._give_up_s = give_up_ms / 1000
        self._lock = threading.Lock()
        self._local = threading.local()
        self._engines: dict[EngineId, Sequence[TensorSpec]] = {}
        self._ready: dict[EngineId, bool] = {}
        """Engines that may be asked; the value: whether tensors go as bytes."""
        self._unfit_until_ns: dict[EngineId, int] = {}
        self._state, self._detail = "connecting", "nothing heard yet"
        self._said = ""
        self._requests = self._answered = self._here = self._outstanding = self._sent = self._received = 0
        self._faults: Counter[str] = Counter()
        self._latency_ms: deque[float] = deque(maxlen=KEPT)
        self._closing = threading.Event()
        self._probe_now = threading.Event()
        self._thread = threading.Thread(target=self._probe_all, name="inference", daemon=True)
        self._thread.start()

    def engine(self, id_: EngineId, local: Engine) -> Engine:
        """The engine that asks the server, and `local` where it does not answer."""
        with self._lock:
            self._engines[id_] = (*local.inputs, *local.outputs)
        self._probe(id_)
        self._tell()
        return RemoteEngine(lambda feeds: self.ask(id_, feeds, local.outputs), local, self.address)

    def ask(self, id_: EngineId, feeds: Mapping[str, Array], outputs: Sequence[TensorSpec]) -> dict[str, Array] | None:
        """The outputs that the server gave; None where it did not: this machine has to."""
        with self._lock:
            binary = self._ready.get(id_)
            if binary is None:
                self._here += 1
                return None
            self._requests += 1
            self._outstanding += 1
        began_ns = self._now_ns()
        answer, reason, detail = None, "", ""
        try:
            answer = self._infer(id_, feeds, outputs, binary)
        except InvalidMessageError as error:
            reason, detail = "wrong answer", str(error)
        except Exception as error:  # of the client library, of gevent, of sockets: whatever it is, this machine goes on
            reason, detail = "not answered", f"{type(error).__name__}: {error}"
            self._drop_client()
        with self._lock:
            self._outstanding -= 1
            if answer is not None:
                self._answered += 1
                self._latency_ms.append((self._now_ns() - began_ns) / 1e6)
                return answer
            self._here += 1
            self._faults[reason] += 1
            self._ready.pop(id_, None)
            self._state, self._detail = "resting", detail.splitlines()[0][:300] if detail else reason
            if reason == "wrong answer":
                self._unfit_until_ns[id_] = self._now_ns() + round(WRONG_REST_MS * 1e6)
        self._tell()
        return None

    def status(self) -> InferenceStatus:
        with self._lock:
            one = InferenceServerStatus(
                state=self._state,
                release=None,
                requests=self._requests,
                answered=self._answered,
                outstanding=self._outstanding,
                faults=dict(self._faults),
                latency_ms=percentiles_ms(self._latency_ms),
                detail=self._detail or None,
            )
            asked = self._answered + self._here
            return InferenceStatus(
                servers={self.address: one},
                remote=self._answered,
                local=self._here,
                local_share=self._here / asked if asked else None,
                resent=0,
                late=0,
                sent_bytes=self._sent,
                received_bytes=self._received,
            )

    def close(self) -> None:
        self._closing.set()
        self._probe_now.set()
        self._thread.join()

    def _infer(
        self, id_: EngineId, feeds: Mapping[str, Array], outputs: Sequence[TensorSpec], binary: bool
    ) -> dict[str, Array]:
        inputs = []
        for name, array in feeds.items():
            tensor = self._http.InferInput(name, list(array.shape), TYPES[array.dtype.name])
            tensor.set_data_from_numpy(np.ascontiguousarray(array), binary_data=binary)
            inputs.append(tensor)
        wanted = [self._http.InferRequestedOutput(spec.name, binary_data=binary) for spec in outputs]
        result = self._client().infer(model_name(id_), inputs, outputs=wanted)
        rows = len(next(iter(feeds.values())))
        given = {spec.name: _shaped(result.as_numpy(spec.name), spec, rows) for spec in outputs}
        arrays = {name: array for name, array in given.items() if array is not None}
        with self._lock:
            self._sent += sum(array.nbytes for array in feeds.values())
            self._received += sum(array.nbytes for array in arrays.values())
        return checked(arrays, outputs, rows)

    def _client(self) -> Any:
        """This thread's own: the library's are not for several."""
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._http.InferenceServerClient(
                self._host, connection_timeout=self._give_up_s, network_timeout=self._give_up_s
            )
        return client

    def _drop_client(self) -> None:
        client = getattr(self._local, "client", None)
        self._local.client = None
        if client is not None:
            client.close()

    def _probe_all(self) -> None:
        while not self._closing.is_set():
            self._probe_now.wait(PROBE_EVERY_S)
            self._probe_now.clear()
            with self._lock:
                now_ns = self._now_ns()
                missing = [
                    id_
                    for id_ in self._engines
                    if id_ not in self._ready and self._unfit_until_ns.get(id_, now_ns) <= now_ns
                ]
            for id_ in missing:
                if not self._closing.is_set():
                    self._probe(id_)
            self._tell()

    def _probe(self, id_: EngineId) -> None:
        """Whether the server has the model of an engine, with the tensors that it has here."""
        name = model_name(id_)
        try:
            client = self._client()
            binary = BINARY in client.get_server_metadata().get("extensions", [])
            if not client.is_model_ready(name):
                self._not_ready(f"has no model {name} that is ready; leukostream models triton writes it")
                return
            fault = _difference(client.get_model_metadata(name), self._engines[id_])
            if fault is not None:
                self._not_ready(f"model {name} {fault}")
                return
        except Exception as error:  # as in `ask`
            self._drop_client()
            self._not_ready(f"{type(error).__name__}: {error}", "connecting")
            return
        with self._lock:
            self._ready[id_] = binary
            if len(self._ready) == len(self._engines):
                self._state = "ready"
                self._detail = "" if binary else f"it lacks the extension {BINARY}: tensors go as JSON, which is slow"

    def _not_ready(self, detail: str, state: str = "resting") -> None:
        with self._lock:
            self._state, self._detail = state, detail.splitlines()[0][:300]

    def _tell(self) -> None:
        with self._lock:
            seen = f"{self._state}: {self._detail}" if self._detail else self._state
            if seen == self._said:
                return
            self._said = seen
            missing = len(self._engines) - len(self._ready)
        here = f"; this machine runs {missing} of {len(self._engines)} models by itself" if missing else ""
        self._say(f"inference server {self.address}: {seen}{here}")


def _shaped(array: Array | None, spec: TensorSpec, rows: int) -> Array | None:
    """With the shape that the engine here has: Triton's outputs have at least one dimension beside the rows."""
    if array is None:
        return None
    shape = (rows, *spec.shape[1:])
    known = [size for size in shape if size is not None]
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1 and array.size == int(np.prod(known)):
        return array.reshape(array.shape[:-1])
    return array


def _difference(metadata: Mapping[str, Any], expected: Sequence[TensorSpec]) -> str | None:
    """How the model differs from ours, in words; sizes that it leaves open may be any."""
    theirs = {one["name"]: one for key in ("inputs", "outputs") for one in metadata.get(key, [])}
    for spec in expected:
        other = theirs.get(spec.name)
        if other is None:
            return f"has the tensors {', '.join(sorted(theirs))}, expected {spec.name} among them"
        shape = [int(size) for size in other.get("shape", [])]
        if len(shape) == len(spec.shape) + 1 and shape[-1] == 1:
            shape = shape[:-1]
        same = len(shape) == len(spec.shape) and all(
            want is None or got in (want, -1) for got, want in zip(shape[1:], spec.shape[1:], strict=True)
        )
        if not same or other["datatype"] != TYPES.get(spec.dtype.name):
            return f"has {spec.name} {other['datatype']} {shape}, expected {TYPES[spec.dtype.name]} {list(spec.shape)}"
    return None
