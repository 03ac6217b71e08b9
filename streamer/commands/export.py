"""`leukostream export`: what a journal holds, for other programs. The formats are in streamer/interop, most of them one
text; the cells' pictures go into a folder of their own."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from engines.base import UsageError
from streamer.commands.options import Parser, add_production_option
from streamer.commands.output import output_folder, reporting, say, writing
from streamer.commands.progress import steps
from streamer.commands.slide_info import add_wbc_options, with_wbc
from streamer.interop.formats import FORMATS, files_maker_of, writer_of
from streamer.interop.sessions import ExportedSession, exported
from streamer.journal import StoredSession, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    recording: str | None
    """Of the same run, for formats with the picture of the slide; None: the run's own, or its source."""
    format: str
    """A key of FORMATS."""
    out: str
    """A file, "-" for standard output; a folder for formats that are several files."""
    pictures: str | None
    """The folder for the cells' pictures; None: they are left out."""
    pseudonymise: bool
    production: bool
    wbc: list[str] | None
    """`[SLIDE=]N` each; None: those of the run."""
    wbc_includes_nrbc: bool | None


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")
    parser.add_argument(
        "recording", metavar="RECORDING", nargs="?", help="of the same run, for dicom (default: the run's own)"
    )
    output = parser.add_argument_group("output", "what to write, and where")
    output.add_argument(
        "--format",
        choices=tuple(FORMATS),
        required=True,
        help="; ".join(f"{name}: {format_.about}" for name, format_ in FORMATS.items()),
    )
    output.add_argument("-o", dest="out", metavar="FILE|DIR|-", required=True, help="-: standard output")
    output.add_argument("--pictures", metavar="DIR", help="write the cells' pictures there")
    output.add_argument(
        "--pseudonymise", action="store_true", help="names of slides, people, instruments, sources and files stay here"
    )
    add_wbc_options(output, "[SLIDE=]", action="extend", nargs="+")
    add_production_option(output)


def main(options: Options) -> int:
    if FORMATS[options.format].makes_files:
        return _export_files(options)
    if options.recording is not None:
        raise UsageError(f"--format {options.format}: got a recording, expected none: it has no picture of the slide")
    return export(
        options.journal,
        options.format,
        options.out,
        options.pictures,
        pseudonymised=options.pseudonymise,
        production=options.production,
        wbc=options.wbc or (),
        wbc_includes_nrbc=bool(options.wbc_includes_nrbc),
    )


def export(
    path: str,
    format_: str,
    out: str,
    pictures: str | None,
    *,
    pseudonymised: bool = False,
    production: bool = False,
    wbc: Sequence[str] = (),
    wbc_includes_nrbc: bool = False,
) -> int:
    """Write the journal at `path` to the file `out` ("-": standard output), and its pictures to a folder. `wbc`:
    white-cell counts, `[SLIDE=]N` each, in place of those of the run.

    JournalError for the journal, LeukostreamError for what can't be written, UsageError for a format whose library is
    not installed, for an unknown slide and for what is no count.
    """
    write = writer_of(format_)
    with opened(path) as journal, _writing(out) as file:
        meant = with_wbc(journal.sessions, wbc, wbc_includes_nrbc)
        sessions = [_counted(stored, pseudonymised, production) for stored in meant]
        if pictures is not None:
            sessions = [replace(one, pictures=_write_pictures(one, pictures)) for one in sessions]
        write(sessions, file)
    cells = sum(1 for one in sessions for _ in one.result.count.cells())
    say(f"exported {len(sessions)} {'slide' if len(sessions) == 1 else 'slides'}, {cells} cells, to {out}", sys.stderr)
    return 0


def _export_files(options: Options) -> int:
    """To a folder, each file whole or not there. Errors as of `export`; UsageError for what can be no folder."""
    out = Path(options.out)
    if options.out == "-" or (out.suffix and not out.is_dir()):
        raise UsageError(f"-o {out}: got a file, expected the name of a folder: {options.format} is several files")
    if options.pictures is not None:
        raise UsageError(
            f"--pictures: got --format {options.format}, which has no place for them; expected another one"
        )
    if options.wbc or options.wbc_includes_nrbc:
        raise UsageError(f"--wbc: got --format {options.format}, which has no absolute counts; expected another one")
    make = files_maker_of(options.format)
    with opened(options.journal) as journal:
        sessions = [_counted(stored, options.pseudonymise, options.production) for stored in journal.sessions]
        for name, content in make(sessions, options.recording):
            path = str(output_folder(options.out) / name)
            with writing(path) as file:
                file.write(content)
            say(f"{path}: {len(content) / 1e6:.1f} MB")
    return 0


def _counted(stored: StoredSession, pseudonymised: bool, production: bool) -> ExportedSession:
    with steps(f"{stored.source}: frames", stored.frame_count) as step:
        return exported(stored, pseudonymised, production, step)


def _write_pictures(one: ExportedSession, folder: str) -> dict[int, str]:
    """Name of each cell's picture, by cell; where cells turned out to be one, the first picture stays."""
    names: dict[int, str] = {}
    made = output_folder(folder, "--pictures")
    with reporting("--pictures", folder, "a folder that can be written"):
        for number, jpeg in one.stored.pictures():
            cell_id = one.result.count.cell(number).cell_id
            if cell_id not in names:
                names[cell_id] = f"{one.source}-{one.stored.number}-{cell_id:06}.jpg"
                (made / names[cell_id]).write_bytes(jpeg)
    return names


@contextlib.contextmanager
def _writing(out: str) -> Iterator[TextIO]:
    """`out` for text in UTF-8."""
    with writing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()  # flushes; the file is not ours to close
