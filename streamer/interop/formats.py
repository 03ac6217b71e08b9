"""The formats of `leukostream export`: one module each, imported only where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Protocol, TextIO, cast

from engines.base import UsageError
from streamer.interop.sessions import ExportedSession


@dataclass(frozen=True, slots=True)
class Format:
    about: str
    module: str
    """In this package; it has `write`."""
    extra: str | None = None
    """The extra of the package that brings its library; None: nothing else is needed."""


FORMATS = MappingProxyType(
    {
        "csv": Format("a row a cell", "cells_csv"),
        "coco": Format("the frames and their boxes", "coco"),
        "json": Format("everything", "everything"),
    }
)


class Writer(Protocol):
    """What the module of a format has."""

    def write(self, sessions: Sequence[ExportedSession], file: TextIO) -> None:
        """Write all sessions to `file`, which takes UTF-8 and translates no line end."""


def writer_of(name: str) -> Writer:
    """UsageError with the command that installs it where the library of a format is not here."""
    format_ = FORMATS[name]
    with needed(f"--format {name}", format_.extra):
        return cast(Writer, import_module(f"streamer.interop.{format_.module}"))


class needed:
    """A block that imports what the extra of a package brings; `what` needs it."""

    def __init__(self, what: str, extra: str | None) -> None:
        self._what, self._extra = what, extra

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModuleNotFoundError) and self._extra is not None:
            raise UsageError(
                f"{self._what}: got no package {(error.name or '').partition('.')[0]}, expected it: "
                f"pip install 'leukostream[{self._extra}]'"
            ) from error
