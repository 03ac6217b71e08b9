"""`leukostream recount`: the differential of a journal, counted again from its frames by the code that counted them
first, and whether it equals what was published."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.commands.options import Parser
from streamer.commands.output import remark, say
from streamer.config import FIVE_PART_RANGES, VerdictConfig
from streamer.counting.morphometry import summary
from streamer.counting.slide_count import CountUpdate, SlideCount
from streamer.dashboard import format_differential
from streamer.journal import (
    JournalError,
    JournalReader,
    SeenFrame,
    StoredOptions,
    StoredSession,
    decision_of,
    reading,
    replay,
)
from streamer.protocol.factory import MessageFactory, new_id
from streamer.protocol.messages import DifferentialMessage, Message, WireError, decode
from streamer.records import Differential


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")


def main(options: Options) -> int:
    return recount(options.journal)


@dataclass(frozen=True, slots=True)
class Recounted:
    """A session as its journal's frames make it."""

    count: SlideCount
    differential: Differential
    """Final where the session has ended, else that of all its frames."""
    last_due: Differential | None
    """What was published last, as it is counted now; None where none was due yet."""


def recounted(stored: StoredSession, each: Callable[[SeenFrame], None] = lambda seen: None) -> Recounted:
    """Run a session's frames through the count; `each` gets every frame once it was counted."""
    rules = stored.rules
    runs = stored.runs()
    options = runs[-1].options if runs else StoredOptions()
    count = SlideCount(
        decision_of(rules),
        operating_score=rules.operating_score,
        reference_ranges=FIVE_PART_RANGES if options.reference_ranges is None else options.reference_ranges,
        stop_at_precision=options.stop_at_precision,
        known=rules.known,
        verdict=VerdictConfig() if options.verdict is None else options.verdict,
    )
    last_due: Differential | None = None

    def note(update: CountUpdate) -> None:
        nonlocal last_due
        if update.differential_due:
            last_due = count.differential(final=False)

    replay(stored, count, on_update=note, on_frame=each)
    if not stored.ended:
        return Recounted(count, count.differential(final=False), last_due)
    with stored.reading("sessions.end_corrections"):
        count.finish(stored.end_corrections, stored.end_progress)
    final = count.differential(final=True)
    return Recounted(count, final, final)


def recount(path: str) -> int:
    """Print the differential of each session; 1 where one is not what was published."""
    differing = 0
    with opened(path) as journal:
        for stored in journal.sessions:
            counted = recounted(stored)
            factory = MessageFactory(stored.source, session=stored.id, run_id=new_id())
            print(format_differential(factory.differential(counted.differential)))
            if stored.rules.segmenter is not None:
                say(summary(counted.count.cells()))
            published = _last_published(stored)
            if published is None or counted.last_due is None:
                say("no differential was published yet")
                continue
            again = factory.differential(counted.last_due)
            what = "the final differential" if published.final else "the last differential"
            if published.version.startswith("1."):
                print(f"{what} published has other rules, those of protocol {published.version}: not compared")
                continue
            differences = _differences(again, published)
            if not differences:
                say(f"equal to {what} published, {published.published_utc}")
                continue
            differing += 1
            program = stored.runs()[-1].program
            remark(
                f"journal {path}: session of {stored.source!r}: got {'; '.join(differences)} than {what}"
                f" published, expected the same; it was counted by leukostream {program}: recount with that version"
            )
    return 1 if differing else 0


@contextlib.contextmanager
def opened(path: str) -> Iterator[JournalReader]:
    """A journal with sessions in it, and its faults while it is read as JournalError."""
    with JournalReader(path) as journal:
        if not journal.sessions:
            raise JournalError(f"journal {path}: got no session, expected one; the run ended before it began")
        with reading(Path(path), "the whole"):
            yield journal


def _last_published(stored: StoredSession) -> DifferentialMessage | None:
    """The newest; of a session that was gone on with after its end, not the one of that end."""
    newest = None
    for header in stored.differentials():
        with stored.reading("messages.header"):
            try:
                message = decode(header)
            except WireError as error:
                raise ValueError(str(error)) from error
        if isinstance(message, DifferentialMessage) and message.final == stored.ended:
            newest = message
    return newest


def _differences(again: DifferentialMessage, published: DifferentialMessage) -> list[str]:
    stamps = set(Message.__struct_fields__)
    return [
        f"another {name.replace('_', ' ')} ({getattr(again, name)} for {getattr(published, name)})"
        for name in DifferentialMessage.__struct_fields__
        if name not in stamps
        and getattr(again, name) != getattr(published, name)
        and not (name == "verdict" and published.verdict is None)  # of before there were verdicts
    ]
