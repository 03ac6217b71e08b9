"""Sources from other packages: entry points of the group `leukostream.sources`, named as the prefix of their address.

    [project.entry-points."leukostream.sources"]
    snapshot = "my_package:open_snapshot"

makes `--source snapshot:TARGET` a source. The entry point is called with (name, target, now_ns) and returns a Source,
constructed and not yet opened: base.py says what that is.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from typing import Protocol

from engines.base import LeukostreamError
from streamer.sources.base import Source, SourceError

GROUP = "leukostream.sources"


class OpenSource(Protocol):
    """What an entry point is."""

    def __call__(self, name: str, target: str, now_ns: Callable[[], int]) -> Source:
        """UsageError for a target that can't be meant."""


def prefixes() -> tuple[str, ...]:
    """Of the sources that packages bring, sorted."""
    return tuple(sorted(entry.name for entry in importlib.metadata.entry_points(group=GROUP)))


def open_packaged(prefix: str, name: str, target: str, now_ns: Callable[[], int]) -> Source:
    """The source of a package. SourceError where it does not load, or lacks something."""
    (entry, *_) = importlib.metadata.entry_points(group=GROUP, name=prefix)
    origin = entry.dist.name if entry.dist is not None else entry.value
    try:
        make: OpenSource = entry.load()
        return make(name, target, now_ns)
    except LeukostreamError:
        raise
    except Exception as error:
        raise SourceError(
            f"source {prefix}:{target}: got {type(error).__name__} ({error}) from the package {origin}, expected a "
            "source; install it again, or ask who wrote it"
        ) from error


@contextlib.contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Around what imports the packages of an extra: one that is missing is a SourceError that says how to get it.
    `what`: needs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{what}: got no package {error.name!r}, expected it here: pip install 'leukostream[{name}]'"
        ) from error


def require(module: str, extra_name: str, what: str) -> None:
    """The same before a run begins, without importing it: a driver imports it in a process of its own, later."""
    with extra(extra_name, what):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
