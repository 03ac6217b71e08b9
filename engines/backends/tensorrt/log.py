"""TensorRT's log, which is all that it says of a failure: a null result and a line here."""

from __future__ import annotations

import re
import threading
import weakref
from collections import deque
from typing import Any

_KEPT = 64
_NO_MEMORY = re.compile(
    r"out of memory|outofmemory|could not be allocated|insufficient (gpu )?memory|memoryallocation|cudaerror 2\b", re.I
)
"""The words in which TensorRT 10 to 11, TensorRT for RTX and CUDA say so: "OutOfMemory (Requested size was 1 bytes.)",
"Requested amount of GPU memory (1 bytes) could not be allocated", cudaErrorMemoryAllocation."""
_LOGGERS: weakref.WeakKeyDictionary[Any, tuple[Any, weakref.WeakSet[LogLines]]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def says_no_memory(text: str) -> bool:
    """Whether a line of TensorRT's log tells of memory that could not be had."""
    return _NO_MEMORY.search(text) is not None


class LogLines:
    """The last errors and, apart from them, the last warnings: an int8 build warns over a hundred times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self._warnings: deque[str] = deque(maxlen=_KEPT)

    def add(self, is_error: bool, line: str) -> None:
        """Called by TensorRT, from any of its threads."""
        with self._lock:
            (self._errors if is_error else self._warnings).append(line.strip())

    def clear(self) -> None:
        with self._lock:
            self._errors.clear()
            self._warnings.clear()

    def errors(self) -> str:
        """The errors since `clear`, as one line; "no message" where there is none."""
        with self._lock:
            return "; ".join(dict.fromkeys(self._errors)) or "no message"

    def warnings(self) -> tuple[str, ...]:
        """The different warnings since `clear`, of the last 64, in the order of their first."""
        with self._lock:
            return tuple(dict.fromkeys(self._warnings))


def make_logger(trt: Any, lines: LogLines) -> Any:
    """The process's one `tensorrt.ILogger` of that module, which fills `lines` too from now on.

    TensorRT keeps the first logger that it is given ("the current new logger is ignored") for as long as any builder or
    runtime lives, so a logger of each engine's own would never hear of its failures. A line goes to all who listen:
    `clear` before a call whose failure is to be told.
    """
    with _LOCK:
        if trt not in _LOGGERS:
            _LOGGERS[trt] = _new_logger(trt)
        logger, listeners = _LOGGERS[trt]
        listeners.add(lines)
        return logger


def _new_logger(trt: Any) -> tuple[Any, weakref.WeakSet[LogLines]]:
    severity = trt.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)
    listeners: weakref.WeakSet[LogLines] = weakref.WeakSet()

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity_of_line: Any, line: str) -> None:
            is_error = severity_of_line in errors
            if is_error or severity_of_line == severity.WARNING:
                with _LOCK:
                    told = list(listeners)
                for lines in told:
                    lines.add(is_error, line)

    return Logger(), listeners
