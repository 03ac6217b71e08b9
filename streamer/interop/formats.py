"""The formats of `leukostream export`: one module each, imported only where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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
    """In this package."""
    extra: str | None = None
    """The extra of the package that brings its library; None: nothing else is needed."""
    function: str = "write"
    """A Writer, of that module."""


FORMATS = MappingProxyType(
    {
        "csv": Format("a row a cell", "cells_csv"),
        "coco": Format("the frames and their boxes", "coco"),
        "json": Format("everything", "everything"),
        "labelstudio": Format("Label Studio, a task a frame", "label_studio"),
        "oul": Format("HL7 OUL^R22", "hl7_messages", extra="hl7", function="write_oul"),
        "oru": Format("HL7 ORU^R01", "hl7_messages", extra="hl7", function="write_oru"),
        "fhir": Format("FHIR R4, a DiagnosticReport a slide", "fhir", extra="fhir"),
    }
)


class Writer(Protocol):
    def __call__(self, sessions: Sequence[ExportedSession], file: TextIO) -> None:
        """Write all sessions to `file`, which takes UTF-8 and translates no line end."""


def writer_of(name: str) -> Writer:
    """UsageError with the command that installs it where the library of a format is not here."""
    format_ = FORMATS[name]
    with needed(f"--format {name}", format_.extra):
        module = import_module(f"streamer.interop.{format_.module}")
    return cast(Writer, getattr(module, format_.function))


@contextlib.contextmanager
def needed(what: str, extra: str | None) -> Iterator[None]:
    """For a block that imports what an extra of the package brings: UsageError that says so where it is not here."""
    try:
        yield
    except ModuleNotFoundError as error:
        if extra is None:
            raise
        raise UsageError(
            f"{what}: got no package {(error.name or '').partition('.')[0]}, expected it:"
            f" pip install 'leukostream[{extra}]'"
        ) from error
