"""A session's differential, counted again from its journal's frames by the code that counted them first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.config import FIVE_PART_RANGES, VerdictConfig
from streamer.counting.absolute import described
from streamer.counting.corrections import Corrections
from streamer.counting.review_events import Signature
from streamer.counting.slide_count import CountUpdate, SeenFrame, SlideCount
from streamer.journal.columns import reading
from streamer.journal.reader import JournalReader, StoredOptions, StoredSession
from streamer.journal.replay import replay
from streamer.journal.reviewing import reviewed
from streamer.journal.rows import decision_of
from streamer.journal.schema import JournalError
from streamer.protocol.messages import AnyMessage, DifferentialMessage, Envelope, Message, WireError, decode
from streamer.records import Differential


@dataclass(frozen=True, slots=True)
class Recounted:
    """A session as its journal's frames make it."""

    count: SlideCount
    differential: Differential
    """Final where the session has ended, else that of all its frames."""
    last_due: Differential | None
    """What was published last, as it is counted now; None where none was due yet."""
    corrections: Corrections
    """The review of it, which is in the count."""

    @property
    def faults(self) -> list[str]:
        """Of the signatures that do not hold, why, one line each."""
        return [
            f"the signature of {one.by}, {one.at}, does not hold: {one.fault}"
            for one in self.corrections.signatures
            if one.fault is not None
        ]

    @property
    def signature(self) -> Signature | None:
        """That of a signed slide; None: it is not signed, or is being amended."""
        return self.corrections.signatures[-1] if self.corrections.is_frozen else None


def recounted(stored: StoredSession, each: Callable[[SeenFrame], None] = lambda seen: None) -> Recounted:
    """Run a session's frames through the count, and then what people said of it when it had ended; `each` gets every
    frame once it was counted."""
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
            last_due = described(count.differential(final=False), stored.slide)

    replay(stored, count, on_update=note, on_frame=each)
    if not stored.ended:
        so_far = described(count.differential(final=False), stored.slide)
        return Recounted(count, so_far, last_due, Corrections(count))
    with stored.reading("sessions.end_corrections"):
        count.finish(stored.end_corrections, stored.end_progress)
    corrections = reviewed(stored, count)
    final = described(count.differential(final=True), stored.slide)
    return Recounted(count, final, final, corrections)


@contextlib.contextmanager
def opened(path: str) -> Iterator[JournalReader]:
    """A journal with sessions in it, and its faults while it is read as JournalError."""
    with JournalReader(path) as journal:
        if not journal.sessions:
            raise JournalError(f"journal {path}: got no session, expected one; the run ended before it began")
        with reading(Path(path), "the whole"):
            yield journal


def last_published(stored: StoredSession) -> DifferentialMessage | None:
    """The newest; of a session that was gone on with after its end, not the one of that end."""
    newest = None
    for message in published(stored):
        if message.final == stored.ended:
            newest = message
    return newest


def published(stored: StoredSession) -> Iterator[DifferentialMessage]:
    """The differentials of a session as they were published, in their order."""
    for header in stored.differentials():
        message = decoded(stored, header)
        if isinstance(message, DifferentialMessage):
            yield message


def decoded(stored: StoredSession, header: bytes) -> AnyMessage | Envelope:
    """One of a session's messages; JournalError for what is none."""
    with stored.reading("messages.header"):
        try:
            return decode(header)
        except WireError as error:
            raise ValueError(str(error)) from error


def differences(again: DifferentialMessage, published: DifferentialMessage) -> list[str]:
    """In words, where a differential counted again is another one than that published; empty where it is the same.
    What people say of the slide, a white-cell count among it, is not counted and may be said later."""
    stamps = {*Message.__struct_fields__, "slide", "wbc"}
    return [
        f"another {name.replace('_', ' ')} ({getattr(again, name)} for {getattr(published, name)})"
        for name in DifferentialMessage.__struct_fields__
        if name not in stamps
        and getattr(again, name) != getattr(published, name)
        and not (name == "verdict" and published.verdict is None)  # of before there were verdicts
        and not (name in ("review", "reviewed_cells") and published.review is None)
    ]
