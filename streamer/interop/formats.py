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
    """A Writer, of that module; a FilesMaker where it makes a folder of files."""
    makes_files: bool = False


FORMATS = MappingProxyType(
    {
        "csv": Format("a row a cell", "cells_csv"),
        "coco": Format("the frames and their boxes", "coco"),
        "json": Format("everything", "everything"),
        "labelstudio": Format("Label Studio, a task a frame", "label_studio"),
        "parquet": Format(
            "Parquet, a folder: frames, cells, differentials",
            "parquet",
            extra="parquet",
            function="files",
            makes_files=True,
        ),
        "oul": Format("HL7 OUL^R22", "hl7_messages", extra="hl7", function="write_oul"),
        "oru": Format("HL7 ORU^R01", "hl7_messages", extra="hl7", function="write_oru"),
        "fhir": Format("FHIR R4, a DiagnosticReport a slide", "fhir", extra="fhir"),
        "dicom": Format(
            "DICOM, a folder: the picture of the slide, its cells",
            "dicom",
            extra="dicom",
            function="files",
            makes_files=True,
        ),
    }
)


class Writer(Protocol):
    def __call__(self, sessions: Sequence[ExportedSession], file: TextIO) -> None:
        """Write all sessions to `file`, which takes UTF-8 and translates no line end."""


class FilesMaker(Protocol):
    def __call__(self, sessions: Sequence[ExportedSession], recording: str | None) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file. `recording`: that of the same run, for the frames; None: the run's own, or its
        source. LeukostreamError for a session that can't be written so."""


def writer_of(name: str) -> Writer:
    """Of a format that is one text. UsageError as of `_function`."""
    return cast(Writer, _function(name))


def files_maker_of(name: str) -> FilesMaker:
    """Of a format that `makes_files`. UsageError as of `_function`."""
    return cast(FilesMaker, _function(name))


def _function(name: str) -> object:
    """UsageError with the command that installs it where the library of a format is not here."""
    format_ = FORMATS[name]
    with needed(f"--format {name}", format_.extra):
        module = import_module(f"streamer.interop.{format_.module}")
    return getattr(module, format_.function)


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
