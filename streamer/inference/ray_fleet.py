"""All of Ray: where servers and shards run, and who starts them again when they die. Ray supervises; it carries no
pixels and no results of a live microscope."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import ray
import ray.exceptions

from engines.base import LeukostreamError

J = TypeVar("J")
R = TypeVar("R")

HERE = "local"
"""The address of a cluster of this machine alone, which lasts as long as this process."""

OBJECT_STORE_BYTES = 100 << 20
"""Of a cluster of this machine: only jobs and their outcomes are in it, some kilobytes each."""

REACHED_WITHIN_S = 5.0

TRIES = 3
"""Of a shard whose worker or node dies."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Within, tasks and actors run on the cluster at `address`. LeukostreamError where there is none."""
    # Nobody's slides are anybody's business: Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == HERE:
        given |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        _check_reach(address)
        ray.init(address=address, namespace="leukostream", **given)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise LeukostreamError(
            f"--ray {address}: got no cluster ({_line(error)}), expected one: start it with ray start --head, and give"
            " HOST:6379, or auto on one of its nodes"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reach(address: str) -> None:
    """OSError where nobody listens: Ray would try for ten minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), REACHED_WITHIN_S).close()


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


def _line(error: BaseException) -> str:
    """What Ray says, without the traceback of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0][:200]
