"""`leukostream report`: what a journal's slides show, as one page to be read and printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from engines.base import UsageError
from streamer.commands.options import Parser, switch
from streamer.commands.output import say, writing
from streamer.commands.slide_info import add_wbc_options, with_wbc
from streamer.journal import opened
from streamer.report import pdf
from streamer.report.page import page
from streamer.report.slide import show


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    recording: str | None
    """Of the same run; None: the one that the run itself kept, or its source."""
    out: str
    pdf: str | None
    source: str | None
    """None: all."""
    mosaic: bool | None
    """None: with it."""
    wbc: list[str] | None
    """`[SLIDE=]N` each; None: those of the run."""
    wbc_includes_nrbc: bool | None


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")
    parser.add_argument(
        "recording", metavar="RECORDING", nargs="?", help="of the same run, for the picture (default: the run's own)"
    )
    output = parser.add_argument_group("output", "the page; several slides are a worklist with a report each")
    output.add_argument("-o", dest="out", metavar="FILE.html", required=True, help="one file that needs nothing else")
    output.add_argument("--pdf", metavar="FILE.pdf", help="the same on A4; needs pip install 'leukostream[pdf]'")
    part = parser.add_argument_group("part", "what of the journal it shows")
    part.add_argument("--source", metavar="NAME", help="only the slides of this one")
    add_wbc_options(part, "[SLIDE=]", action="extend", nargs="+")
    switch(part, "--mosaic", "draw the picture of the film (default: on)")


def main(options: Options) -> int:
    line = report(
        options.journal,
        options.out,
        pdf_out=options.pdf,
        recording=options.recording,
        source=options.source,
        with_picture=options.mosaic is not False,
        wbc=options.wbc or (),
        wbc_includes_nrbc=bool(options.wbc_includes_nrbc),
    )
    if options.out != "-":
        say(line)
    return 0


def report(
    journal: str,
    out: str,
    *,
    pdf_out: str | None = None,
    recording: str | None = None,
    source: str | None = None,
    with_picture: bool = True,
    wbc: Sequence[str] = (),
    wbc_includes_nrbc: bool = False,
) -> str:
    """Write the page of a journal's slides to `out`, and as PDF to `pdf_out`; what was written, in a line for people.

    `wbc`: white-cell counts, `[SLIDE=]N` each, in place of those of the run.

    UsageError for an unknown source or slide and for what is no count, JournalError for the journal, LeukostreamError
    for what can't be written and where there is no WeasyPrint.
    """
    if pdf_out is not None:
        pdf.require()
    made_utc = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    with opened(journal) as reader:
        sessions = [one for one in reader.sessions if source in (None, one.source)]
        if not sessions:
            known = ", ".join(dict.fromkeys(one.source for one in reader.sessions))
            raise UsageError(f"--source: got {source!r}, expected one of {known}")
        sessions = with_wbc(sessions, wbc, wbc_includes_nrbc)
        slides = [show(one, made_utc=made_utc, recording=recording, with_picture=with_picture) for one in sessions]
    html = page(slides, made_utc=made_utc)
    with writing(out) as file:
        file.write(html.encode())
    if pdf_out is not None:
        with writing(pdf_out, "--pdf") as file:
            file.write(pdf.pdf(html))
    states = [(one.name, one.differential.verdict) for one in slides]
    verdicts = "; ".join(f"{name}: {verdict.state}" for name, verdict in states if verdict is not None)
    return f"report in {out}{'' if pdf_out is None else f' and {pdf_out}'}, {len(html) / 1e6:.1f} MB; {verdicts}"
