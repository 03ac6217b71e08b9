"""`leukostream sign`: freeze a finished slide of a journal as it stands, under the initials of who answers for it."""

from __future__ import annotations

from dataclasses import dataclass

from engines.base import LeukostreamError, UsageError
from streamer.commands.options import Parser
from streamer.commands.output import say
from streamer.counting.review_events import CorrectionFault, check_reviewer
from streamer.dashboard.words import number
from streamer.review.desk import ReviewRefused, SessionInfo
from streamer.review.journal_desk import JournalDesk

OF_USAGE = ("bad text", "bad reviewer")
"""Refusals of what was given, not of the slide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    reviewer: str
    source: str | None
    session: str | None
    """Where a source has several slides."""
    despite: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote, of a run that has ended")
    parser.add_argument("--reviewer", metavar="INITIALS", required=True, help="who signs")
    parser.add_argument("--despite", metavar="REASON", help="why, where the verdict is 'do not use'")
    which = parser.add_argument_group("slide", "where the journal has several")
    which.add_argument("--source", metavar="NAME", help="the slide of this source")
    which.add_argument("--session", metavar="ID", help="this session of a source with several slides")


def main(options: Options) -> int:
    """Sign one slide. UsageError for initials, a reason or a choice of the slide that can't be meant; JournalError for
    the journal, one that another process holds among them; LeukostreamError where it can't be signed."""
    try:
        check_reviewer(options.reviewer)
    except CorrectionFault as fault:
        raise UsageError(f"--reviewer: {fault}") from None
    with JournalDesk(options.journal) as desk:
        one = _chosen(options, desk.sessions())
        try:
            signature = desk.sign(one.id, options.reviewer, despite=options.despite)
        except ReviewRefused as refusal:
            raise _refused(options, one, refusal) from None
        snapshot = desk.snapshot(one.id)
    total = snapshot.differential.total if snapshot.differential is not None else 0
    say(
        f"{one.source}: {snapshot.info.review.state} by {signature.by}, {signature.at}, SHA-256 {signature.sha256};"
        f" {number(total)} white cells, {number(snapshot.reviewed)} of {number(snapshot.to_review)} cells reviewed"
    )
    return 0


def _chosen(options: Options, sessions: list[SessionInfo]) -> SessionInfo:
    found = [one for one in sessions if options.source in (None, one.source) and options.session in (None, one.id)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{one.source} (--session {one.id}, {one.review.state})" for one in found or sessions)
    got = "no slide of that name" if not found else f"{len(found)} slides"
    raise UsageError(f"sign {options.journal}: got {got}, expected one; give --source or --session of: {known}")


def _refused(options: Options, one: SessionInfo, refusal: ReviewRefused) -> LeukostreamError:
    hint = ": add --despite REASON" if refusal.code == "do not use" else ""
    text = f"sign {options.journal}: {one.source}: {refusal.reason}{hint}"
    return UsageError(text) if refusal.code in OF_USAGE else LeukostreamError(text)
