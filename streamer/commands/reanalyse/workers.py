"""Jobs over processes of this machine. Ray does the same over many machines (streamer/inference/ray_fleet.py)."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from streamer.sources.own_process import OwnProcess, ProcessEndedError

J = TypeVar("J")
R = TypeVar("R")

TRIES = 3
"""Of a job whose process dies: a full memory may have killed it on another's account."""

_LOOK_S = 0.5


def on_processes(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Generator[tuple[J, R | str]]:
    """Each job with what `function`, of a module, returns for it, in the order in which they are done; a text says why
    there is nothing. Each has a process of its own, so that what one leaves behind is no other's.

    Processes end with this one, however it ends, and when the iterator is closed.
    """
    waiting = iter(jobs)
    taking, stopped = threading.Lock(), threading.Event()
    done: queue.SimpleQueue[tuple[J, R | str]] = queue.SimpleQueue()

    def work() -> None:
        while not stopped.is_set():
            with taking:
                job = next(waiting, None)
            if job is None:
                return
            done.put((job, _tried(function, job, stopped)))

    threads = [threading.Thread(target=work, name=f"shard worker {n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            yield done.get()
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _tried(function: Callable[[J], R], job: J, stopped: threading.Event) -> R | str:
    fault = ""
    for _ in range(TRIES):
        process = OwnProcess(_answer, function, job)
        try:
            while not stopped.is_set():
                try:
                    answer: R = process.receive(_LOOK_S)
                except TimeoutError:
                    continue
                return answer
            return "stopped"
        except ProcessEndedError as error:
            fault = str(error)
        finally:
            process.end(0.0)
    return f"{fault}, {TRIES} times"


def _answer(pipe: Connection, function: Callable[[J], R], job: J) -> None:
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    pipe.send(function(job))


def _end_with_parent() -> None:
    """A journal is held by who writes it: one that nobody waits for must not keep it from who goes on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
