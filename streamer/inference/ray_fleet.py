"""All of Ray: where servers and shards run, and who starts them again when they die. Ray supervises; it carries no
pixels and no results of a live microscope.

A fleet is actors that outlast whoever started them: one, `fleet`, that knows the servers (fleet_plan.py says how many
there are to be), and one each server. Servers report once a second, so that a fleet actor that was started again knows
in seconds what the one before knew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import ray
import ray.exceptions
import ray.util

from engines.backends.choice import Backend
from engines.backends.onnxruntime import Threads
from engines.base import LeukostreamError
from streamer.inference.fleet_plan import FleetSpec, FleetState, Member, Planner, ServerReport
from streamer.inference.server import InferenceServer
from streamer.inference.shelf import ModelShelf, Precision

J = TypeVar("J")
R = TypeVar("R")

HERE = "local"
"""The address of a cluster of this machine alone, which lasts as long as this process."""

NAMESPACE, FLEET = "leukostream", "fleet"

OBJECT_STORE_BYTES = 100 << 20
"""Of a cluster of this machine: jobs, outcomes and reports are in it, some kilobytes each."""

REACHED_WITHIN_S = 5.0
ANSWERED_WITHIN_S = 10.0
BEGUN_WITHIN_S = 60.0

TRIES = 3
"""Of a shard whose worker or node dies."""

_STEP_S = 1.0
_SETTLE_S = 3 * _STEP_S
"""A fleet actor listens so long to servers that are there before it starts or ends any."""
_AGAIN_AFTER_S = 5.0
"""After a server that could not begin."""


@contextlib.contextmanager
def connected(address: str, option: str = "--address") -> Iterator[None]:
    """Within, tasks and actors run on the cluster at `address`. LeukostreamError where there is none."""
    # Nobody's slides are anybody's business: Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == HERE:
        given |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        _check_reach(address)
        ray.init(address=address, namespace=NAMESPACE, **given)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise LeukostreamError(
            f"{option} {address}: got no cluster ({_line(error)}), expected one: start it with ray start --head, and"
            " give HOST:6379, or auto on one of its nodes"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def own_address() -> str:
    """Where the cluster that this process is connected to can be reached."""
    return str(ray.get_runtime_context().gcs_address)


def _check_reach(address: str) -> None:
    """OSError where nobody listens: Ray would try for ten minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), REACHED_WITHIN_S).close()


def _line(error: BaseException) -> str:
    """What Ray says, without the traceback of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.ActorDiedError) else 0][:200]


def on_cluster(function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[J, R | str]]:
    """Each job with what `function`, of a module, returns for it, in the order in which they are done; a text says why
    there is nothing. A job takes one core; what was begun is cancelled when the iterator is closed."""
    # A process for each: what a slide leaves behind is no other's. A task whose worker or node dies is tried again.
    task = ray.remote(num_cpus=1, max_retries=TRIES - 1, max_calls=1)(function)
    waiting = {task.remote(job): job for job in jobs}
    try:
        while waiting:
            (reference, *_), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(reference)
            try:
                yield job, ray.get(reference)
            except ray.exceptions.RayError as error:
                yield job, f"got no outcome of its worker ({_line(error)}), expected one"
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


class _Server:
    """An inference server as an actor; Ray starts it again wherever there is room when its process or node dies."""

    def __init__(self, name: str, spec: FleetSpec) -> None:
        self._name, self._spec = name, spec
        self._is_over = False
        host = spec.host or _own_ip()
        shelf = ModelShelf(
            spec.models,
            backend=cast(Backend, spec.backend),
            precision=cast("Precision | None", spec.precision),
            threads=Threads(1, spec.cores),
        )
        self._server = InferenceServer(
            f"tcp://{host}:*",
            shelf,
            workers=spec.cores,
            insecure=spec.insecure,
            keys=spec.keys,
        )
        self._metrics = None if spec.metrics is None else spec.metrics(self._server, host)
        for run in (self._serve, self._report):
            threading.Thread(target=run, name=run.__name__, daemon=True).start()

    def begun(self) -> None:
        """Answers once the models are there and the address is bound."""

    def drain(self) -> None:
        self._server.drain()

    def _serve(self) -> None:
        try:
            self._server.run()
        finally:
            if not self._server.draining:
                os._exit(1)  # a fault: Ray starts it anew
            self._is_over = True

    def _report(self) -> None:
        while True:
            report = ServerReport(
                name=self._name,
                spec=self._spec,
                endpoint=self._server.endpoint,
                node=socket.gethostname(),
                process=os.getpid(),
                status=self._server.status(),
                metrics=self._metrics,
                is_over=self._is_over,
            )
            with contextlib.suppress(ValueError, ray.exceptions.RayError):  # the fleet is being started again
                ray.get_actor(FLEET, NAMESPACE).report.remote(report)
            time.sleep(_STEP_S)


class _Fleet:
    """The actor that keeps a fleet as it was asked for. `spec`: of the first call; servers know of a later one."""

    def __init__(self, spec: FleetSpec) -> None:
        self._lock = threading.Lock()
        now_s = time.monotonic()
        names = [
            one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE
        ]
        self._members = {name: Member(name, _generation(name), now_s) for name in names if name != FLEET}
        present = sum(one.generation == spec.generation for one in self._members.values())
        self._planner = Planner.of(spec, present, now_s)
        self._begin_s = now_s + (_SETTLE_S if self._members else 0.0)
        self._beginning: dict[str, Any] = {}
        """By name, what answers once that server has begun."""
        self._fault: str | None = None
        threading.Thread(target=self._run, name="fleet", daemon=True).start()

    def report(self, report: ServerReport) -> None:
        with self._lock:
            now_s = time.monotonic()
            member = self._members.setdefault(report.name, Member(report.name, report.spec.generation, now_s))
            member.take(report, now_s)
            if report.status.draining and member.told_to_end_s is None:  # an earlier fleet actor told it
                member.told_to_end_s = now_s
            if report.spec.generation > self._planner.spec.generation:
                self._use(report.spec)

    def use(self, spec: FleetSpec) -> None:
        """Go over to another spec: its servers first, then the others end."""
        with self._lock:
            self._use(spec)
            self._fault = None

    def state(self) -> FleetState:
        with self._lock:
            members = tuple(replace(one) for one in self._members.values())
            return FleetState(self._planner.spec, self._planner.wanted, members, time.monotonic(), self._fault)

    def end_all(self) -> None:
        """Tell all servers to end, and start no other."""
        with self._lock:
            self._planner = Planner.of(replace(self._planner.spec, least=0, most=0), 0, time.monotonic())

    def _use(self, spec: FleetSpec) -> None:
        present = sum(one.generation == spec.generation for one in self._members.values())
        self._planner = Planner.of(spec, present, time.monotonic())

    def _run(self) -> None:
        while True:
            with self._lock:
                self._look_after_beginners()
                if time.monotonic() >= self._begin_s:
                    self._step()
            time.sleep(_STEP_S)

    def _look_after_beginners(self) -> None:
        for name, begun in list(self._beginning.items()):
            if not ray.wait([begun], timeout=0)[0]:
                continue
            del self._beginning[name]
            try:
                ray.get(begun)
            except ray.exceptions.RayError as error:
                self._fault = _line(error)
                self._members.pop(name, None)
                self._begin_s = time.monotonic() + _AGAIN_AFTER_S

    def _step(self) -> None:
        now_s = time.monotonic()
        steps = self._planner.step(list(self._members.values()), now_s)
        for _ in range(steps.start):
            self._start(now_s)
        for name in steps.drain:
            self._members[name].told_to_end_s = now_s
            self._tell(name, lambda server: server.drain.remote())
        for name in steps.end:
            del self._members[name]
            self._tell(name, lambda server: ray.kill(server, no_restart=True))

    def _start(self, now_s: float) -> None:
        spec = self._planner.spec
        name = f"server {spec.generation} {uuid.uuid4().hex[:6]}"
        actor = _actor(_Server).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            num_cpus=spec.cores,
            num_gpus=1 if spec.kind == "gpu" else 0,
            scheduling_strategy="SPREAD",
        )
        self._members[name] = Member(name, spec.generation, now_s)
        self._beginning[name] = actor.remote(name, spec).begun.remote()

    def _tell(self, name: str, what: Callable[[Any], object]) -> None:
        with contextlib.suppress(ValueError, ray.exceptions.RayError):  # it is gone
            what(ray.get_actor(name, NAMESPACE))


def _actor(class_: type) -> Any:
    return ray.remote(class_)


def _own_ip() -> str:
    """Of this node, as the others of its cluster reach it."""
    return str(ray.util.get_node_ip_address())


def _generation(name: str) -> str:
    """Of the name of a server."""
    return name.split()[1] if name.count(" ") == 2 else ""


def bring_up(spec: FleetSpec) -> None:
    """Start a fleet on the cluster, or make the one that there is another one. LeukostreamError where it does not
    answer."""
    fleet = _actor(_Fleet).options(
        name=FLEET, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_restarts=-1, num_cpus=0
    )
    try:
        ray.get(fleet.remote(spec).use.remote(spec), timeout=BEGUN_WITHIN_S)
    except ray.exceptions.RayError as error:
        raise LeukostreamError(
            f"fleet up: got no answer of the fleet's actor ({_line(error)}), expected one in {BEGUN_WITHIN_S:.0f} s;"
            " Ray ends actors of a node whose memory is full, whoever fills it: see ray status and free -m"
        ) from error


def state() -> FleetState | None:
    """None: there is no fleet. LeukostreamError where it does not answer."""
    try:
        fleet = ray.get_actor(FLEET, NAMESPACE)
        return cast(FleetState, ray.get(fleet.state.remote(), timeout=ANSWERED_WITHIN_S))
    except ValueError:
        return None
    except ray.exceptions.RayError as error:
        raise LeukostreamError(
            f"fleet: got no answer of its actor ({_line(error)}), expected one; Ray starts it again: try again soon"
        ) from error


def tell_all_to_end() -> None:
    """Errors as of `state`."""
    try:
        fleet = ray.get_actor(FLEET, NAMESPACE)
        ray.get(fleet.end_all.remote(), timeout=ANSWERED_WITHIN_S)
    except ray.exceptions.RayError as error:
        raise LeukostreamError(f"fleet: got no answer of its actor ({_line(error)}), expected one") from error


def forget() -> None:
    """End the fleet's own actor, once its servers have ended."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(FLEET, NAMESPACE), no_restart=True)
