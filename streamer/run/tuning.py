"""How this process keeps the memory that it frees, and how often it looks for what is free."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KEPT_BYTES = 128 << 20
_LARGEST_BLOCK_BYTES = 32 << 20
"""The most that glibc takes; a frame of 10 megapixels."""


def keep_freed_memory() -> bool:
    """Let the C library keep the buffers of a frame for the next one; False where it can't be told (no glibc).

    glibc gives every large block back to the system when it is freed. The next frame asks for it again, and the system
    clears it page by page, a thousand pages for a frame of 1440x900: decoding its JPEG then takes 7.0 ms of processor
    time, and 3.0 ms where the memory is kept. Costs up to 128 MiB of memory that is not given back.
    """
    return _set({_M_MMAP_THRESHOLD: _LARGEST_BLOCK_BYTES, _M_TRIM_THRESHOLD: _KEPT_BYTES})


def release_freed_memory() -> None:
    """Give the system what is free now, once what only the start needs is gone: widening the weights of the default
    models and handing them to ONNX Runtime leaves 90 MB, of which frames would use little. Does nothing without glibc.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def keep_all_freed_memory() -> bool:
    """The same of blocks of any size, and without bound, for a process that trains: the feature maps of a step are
    larger than frames, and a step of EfficientNet-Lite0 takes four fifths of the time where they are kept."""
    return _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def give_freed_memory_back() -> bool:
    """The C library's usual ways again, for who compares."""
    return _set({_M_MMAP_THRESHOLD: 128 << 10, _M_TRIM_THRESHOLD: 128 << 10})


def collect_rarely() -> None:
    """Let Python look for objects that only refer to one another after 20 000 new ones instead of 700, and not among
    those that there are now.

    A frame makes and frees a thousand objects, none of them in circles: looking for such costs the thread that counts
    cells a fifteenth of its time, and every other thread waits meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def collect_as_usual() -> None:
    """Python's usual ways again, for who compares."""
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()


def _set(parameters: Mapping[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return all(bool(mallopt(parameter, value)) for parameter, value in parameters.items())
