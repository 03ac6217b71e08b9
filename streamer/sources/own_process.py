"""A function that runs in a process of its own: what crashes, hangs or prints there is no harm here."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from engines.base import LeukostreamError

ENDS_WITHIN_S = 5.0
"""A driver that is told to end closes its camera and its stages meanwhile."""

_KILLED_WITHIN_S = 1.0

_starting = threading.Lock()


class ProcessEndedError(LeukostreamError):
    """It ended without an answer: it crashed, was killed, or somebody ended it."""


class OwnProcess:
    """One function with one pipe to it. `send`, `receive` and `end` are for one thread."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        """`function`, of a module, is called there with its end of the pipe and these arguments; it ends when the pipe
        does."""
        context = multiprocessing.get_context("spawn")  # threads and libraries of this process are no part of it
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(function, theirs, arguments), daemon=True)
        with _without_main():
            self._process.start()
        theirs.close()
        # Before multiprocessing waits for its own at the end of the program: for ever, where one is stopped.
        atexit.register(self.end)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, message: object) -> None:
        """ProcessEndedError where nobody is there."""
        try:
            self._pipe.send(message)
        except (OSError, ValueError) as error:
            raise ProcessEndedError(self.how()) from error

    def receive(self, timeout_s: float) -> Any:
        """The next message. TimeoutError where none comes in time, ProcessEndedError where none will."""
        try:
            if not self._pipe.poll(timeout_s):
                raise TimeoutError
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ProcessEndedError(self.how()) from error

    def end(self, within_s: float = ENDS_WITHIN_S) -> None:
        """Close the pipe and wait until it ends; it is killed where that takes longer. Harmless when called twice."""
        atexit.unregister(self.end)
        self._pipe.close()
        self._process.join(within_s)
        if self._process.is_alive():
            self._process.kill()  # also one that is stopped, or hangs in a driver
            self._process.join(_KILLED_WITHIN_S)

    def how(self) -> str:
        """It ended, in words."""
        self._process.join(_KILLED_WITHIN_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        return "its process ended" if code is None else f"its process ended with status {code}"


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """While a process starts: it would run the program's own file again, which may well start a process."""
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def answer_of(function: Callable[[], Any], timeout_s: float) -> Any:
    """What a function of a module returns in a process of its own. Its LeukostreamError; TimeoutError where it takes
    longer; ProcessEndedError where it crashes."""
    process = OwnProcess(_answer, function)
    try:
        fault, answer = process.receive(timeout_s)
    finally:
        process.end(0.0)
    if fault is not None:
        raise LeukostreamError(fault)
    return answer


def _answer(pipe: Connection, function: Callable[[], Any]) -> None:
    message: tuple[str | None, Any]
    try:
        message = None, function()
    except LeukostreamError as error:
        message = str(error), None
    except Exception as error:
        message = f"{type(error).__name__}: {error}", None
    pipe.send(message)


def _run(function: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C ends the run, which closes the pipe. Libraries set handlers of their own again, some of which crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    # What libraries print would stand among the lines of --jsonl -, or across the dashboard.
    sys.stdout.flush()
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    with contextlib.suppress(EOFError, OSError):
        function(pipe, *arguments)
