"""The desk of a journal: its finished slides are reviewed here, and nobody else writes it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

from streamer.counting.absolute import described
from streamer.counting.review_events import (
    AddComment,
    Amend,
    AnyEvent,
    Begin,
    Classify,
    Confirm,
    CorrectionFault,
    ReviewEvent,
    Settle,
    Sign,
    Signature,
    check_reviewer,
    check_text,
)
from streamer.counting.slide_count import CountUpdate
from streamer.journal import (
    Emission,
    Journal,
    JournalError,
    JournalHistory,
    SessionJournal,
    StoredSession,
    canonical,
    opened,
    recounted,
    review_of,
    sha256_of,
    signed_form,
)
from streamer.journal.reader import read_sessions
from streamer.journal.reviewing import signature_of
from streamer.journal.rows import now_utc
from streamer.network.history import Batch
from streamer.network.publisher import Publisher
from streamer.protocol.factory import MessageFactory, new_id
from streamer.protocol.messages import CellMessage
from streamer.records import Cell
from streamer.review.blind import agreement_of
from streamer.review.desk import Agreement, Change, Listener, RefusalCode, ReviewRefused, SessionInfo, Snapshot
from streamer.review.making import addition, namings, reason_to_sign, settlement, withdrawal
from streamer.review.messenger import Messenger
from streamer.review.slide import ReviewedSlide

Event = TypeVar("Event", bound=AnyEvent)

END_REASON = "the review was closed"

PICTURE_MAX_BYTES = 4 << 20


class JournalDesk(AbstractContextManager["JournalDesk"]):
    """A `Desk` (desk.py) of a journal, which it holds until it is closed: other processes can't open it.

    A slide is counted again when it is first asked for. `publish`: where subscribers follow, with a run id of its own;
    the newest finished slide of every source is published as it stands to begin with, and in the end an `end` of each
    of which anything was.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        publish: str | None = None,
        insecure: bool = False,
        keys: str | Path | None = None,
        linger_s: float = 0.0,
        now: Callable[[], str] = now_utc,
        on_fault: Callable[[str], None] = lambda text: None,
    ) -> None:
        """JournalError for what is no journal with a session, or one that another process holds; of the publisher
        UsageError and LeukostreamError, as of Publisher. `on_fault` gets lines for people."""
        self.path = Path(path)
        self.run_id = new_id()
        self._now = now
        self._lock = threading.RLock()
        self._closed = False
        with opened(str(path)):
            pass
        self._journal = Journal(path, resume=True)
        try:
            self._stored = {one.id: one for one in read_sessions(self._journal.database, self.path)}
            self._slides: dict[str, ReviewedSlide] = {}
            self._writers: dict[str, SessionJournal] = {}
            self._newest_factory: dict[str, MessageFactory] = {}
            """By source: the one that numbered its last message."""
            publisher = None
            if publish is not None:
                history = _LockedHistory(JournalHistory(self._stored.values()), self._lock)
                publisher = Publisher(publish, insecure=insecure, keys=keys, history=history, linger_s=linger_s)
        except BaseException:
            self._journal.close()
            raise
        self.endpoint = None if publisher is None else publisher.endpoint
        """Where it publishes, with the port that it got; None: nowhere."""
        self._messenger = Messenger(publisher, on_fault)
        if publisher is not None:
            try:
                self._publish_all()
            except BaseException:
                self.close()
                raise

    # What there is

    def sessions(self) -> list[SessionInfo]:
        with self._lock:
            self._check_open()
            return [
                self._slides[one.id].info()
                if one.id in self._slides
                else SessionInfo(one.id, one.source, review_of(one), is_live=False)
                for one in self._stored.values()
            ]

    def snapshot(self, session: str, reviewer: str | None = None) -> Snapshot:
        with self._lock:
            return self._slide(session).snapshot(reviewer)

    def version(self, session: str) -> int:
        with self._lock:
            return self._slide(session).version

    def picture(self, session: str, cell_id: int) -> bytes | None:
        with self._lock:
            return self._slide(session).picture(cell_id)

    def agreement(self, session: str, first: str, second: str) -> Agreement:
        with self._lock:
            return agreement_of(self._slide(session).corrections, first, second)

    def verify(self, session: str) -> tuple[Signature, ...]:
        with self._lock:
            self._check_open()
            found = recounted(self._stored_session(session)).corrections.signatures
            if session in self._slides:
                self._slides[session].corrections.signatures[:] = found
            return tuple(found)

    def stored(self, session: str) -> StoredSession:
        """The session in the journal, for who reads more of it; with `lock` held."""
        self._check_open()
        return self._stored_session(session)

    @property
    def lock(self) -> threading.RLock:
        """Held while the desk reads or writes its journal."""
        return self._lock

    # What people do

    def begin(self, session: str, reviewer: str, *, blind: bool = False) -> None:
        self._do(session, reviewer, lambda slide: Begin(blind=blind))

    def classify(
        self, session: str, cell_ids: Sequence[int], class_name: str | None, subclass: str | None, reviewer: str
    ) -> None:
        name = class_name, subclass
        self._do(session, reviewer, lambda slide: Classify(cells=namings(slide, cell_ids, name)))

    def confirm(self, session: str, cell_ids: Sequence[int], reviewer: str) -> None:
        self._do(session, reviewer, lambda slide: Confirm(cells=namings(slide, cell_ids, None)))

    def undo(self, session: str, reviewer: str) -> None:
        self._do(session, reviewer, lambda slide: withdrawal(slide, reviewer))

    def add_cell(
        self,
        session: str,
        frame_id: int,
        x_px: float,
        y_px: float,
        class_name: str,
        reviewer: str,
        *,
        subclass: str | None = None,
        width_px: float | None = None,
        height_px: float | None = None,
        picture: bytes | None = None,
    ) -> int:
        if picture is not None and not (picture.startswith(b"\xff\xd8") and len(picture) <= PICTURE_MAX_BYTES):
            raise ReviewRefused("not possible", f"picture: got no JPEG of at most {PICTURE_MAX_BYTES >> 20} MB")
        size, name = (width_px, height_px), (class_name, subclass)
        added = self._do(
            session,
            reviewer,
            lambda slide: addition(slide, frame_id, (x_px, y_px), size, name),
            picture=picture,
        )
        return added.cell_id

    def comment(self, session: str, text: str, reviewer: str, *, cell_id: int | None = None) -> None:
        def remark(slide: ReviewedSlide) -> AddComment:
            check_text(text, "comment")
            number = None if cell_id is None else slide.corrections.naming(cell_id, None).cell_id
            return AddComment(text=text, cell_id=number)

        self._do(session, reviewer, remark)

    def settle(
        self, session: str, cell_ids: Sequence[int], class_name: str, subclass: str | None, reviewer: str
    ) -> None:
        name = class_name, subclass
        self._do(session, reviewer, lambda slide: Settle(cells=namings(slide, cell_ids, name)))

    def settle_agreed(self, session: str, first: str, second: str, reviewer: str) -> int:
        return len(self._do(session, reviewer, lambda slide: settlement(slide, first, second)).cells)

    def sign(self, session: str, reviewer: str, *, despite: str | None = None, version: int | None = None) -> Signature:
        at = self._now()

        def signing(slide: ReviewedSlide) -> Sign:
            if version is not None and version != slide.version:
                raise ReviewRefused(
                    "not possible", "got a slide that has changed since it was looked at; look at it again, then sign"
                )
            reason = reason_to_sign(slide.corrections, despite)
            slide.to_sign = canonical(signed_form(slide.stored, slide.corrections, reviewer, at, reason))
            return Sign(sha256=sha256_of(slide.to_sign), despite=reason)

        with self._lock:
            self._do(session, reviewer, signing, at=at)
            return self._slides[session].corrections.signatures[-1]

    def amend(self, session: str, reviewer: str, reason: str) -> None:
        def amendment(slide: ReviewedSlide) -> Amend:
            check_text(reason, "reason")
            return Amend(reason=reason)

        self._do(session, reviewer, amendment, amends=True)

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._messenger.listen(listener)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for slide in self._slides.values():
                if slide.is_touched and not self._journal.broken:
                    self._end(slide)
        self._messenger.close()
        self._journal.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(
        self,
        session: str,
        reviewer: str,
        event_of: Callable[[ReviewedSlide], Event],
        *,
        picture: bytes | None = None,
        at: str | None = None,
        amends: bool = False,
    ) -> Event:
        """Make an event, apply it, journal it with its messages, and have them published: or refuse it, with nothing
        changed."""
        with self._lock:
            slide = self._slide(session)
            if self._journal.broken:
                raise ReviewRefused("not written", f"journal {self.path}: a write failed: make room and open it again")
            if not slide.stored.ended:
                raise ReviewRefused(
                    "not ended",
                    f"got a slide of {slide.stored.source!r} whose run has not ended, expected one that has: go on"
                    " with it by run --resume, or review the run itself by its endpoint",
                )
            try:
                check_reviewer(reviewer)
                if not amends:
                    slide.corrections.check_not_frozen()
                event = event_of(slide)
                given, update = slide.apply(reviewer, at or self._now(), event)
            except CorrectionFault as fault:
                raise ReviewRefused(cast(RefusalCode, fault.code), str(fault)) from None
            try:
                self._keep(slide, given, update, picture)
            except BaseException as error:
                del self._slides[session]  # it is ahead of the journal
                if isinstance(error, JournalError):
                    raise ReviewRefused("not written", str(error)) from error
                raise
            return event

    def _keep(self, slide: ReviewedSlide, given: ReviewEvent, update: CountUpdate, picture: bytes | None) -> None:
        """Write down what was applied, and tell of it."""
        signed = None
        if isinstance(given.event, Sign):
            signed, slide.to_sign = slide.to_sign, b""
            slide.corrections.signatures.append(signature_of(given, given.event, signed))
        cells, records = slide.follow(given, update)
        removed = tuple(number for number, _ in update.slide.removed)
        emissions = self._messages(slide, removed, cells, picture)
        self._writers[slide.stored.id].review(given, signed, update.slide, emissions)
        for message, payload in emissions:
            if payload is not None and isinstance(message, CellMessage):
                slide.keep_picture(message.cell_id, message.session_seq)
        self._messenger.tell(
            Change(
                session=slide.stored.id,
                version=slide.version,
                messages=tuple(emissions),
                cells=records,
                removed=removed,
                differential=slide.differential,
                history=(slide.corrections.history[given.number],),
            )
        )

    def _messages(
        self, slide: ReviewedSlide, removed: Sequence[int], cells: Sequence[Cell], picture: bytes | None
    ) -> list[Emission]:
        """The messages of a change, numbered on from what the journal holds."""
        factory, count = slide.factory, slide.corrections.count
        self._number(slide)
        emissions: list[Emission] = [
            (factory.cell(replace(count.cell(one), cell_id=one), counted=False), None) for one in removed
        ]
        emissions += [(factory.cell(cell), picture) for cell in cells]
        found = described(count.differential(final=slide.stored.ended), slide.stored.slide)
        slide.differential = factory.differential(found)
        return [*emissions, (slide.differential, None)]

    def _number(self, slide: ReviewedSlide) -> None:
        """Topics are numbered over all slides of a source."""
        source, factory = slide.stored.source, slide.factory
        before = self._newest_factory.get(source)
        if before is not None and before is not factory:
            factory.go_on_from(before)
        self._newest_factory[source] = factory

    def _publish_all(self) -> None:
        """The newest finished slide of every source as it stands, so that who joins sees it."""
        with self._lock:
            newest = {one.source: one.id for one in self._stored.values() if one.ended}
            for session in newest.values():
                slide = self._slide(session)
                emissions = self._messages(slide, (), (), None)
                self._writers[slide.stored.id].other(emissions)
                slide.is_touched = True
                self._messenger.tell(tuple(emissions))

    def _end(self, slide: ReviewedSlide) -> None:
        self._number(slide)
        emissions: list[Emission] = [(slide.factory.end("finished", END_REASON), None)]
        try:
            self._writers[slide.stored.id].other(emissions)
        except JournalError:
            return
        self._messenger.tell(tuple(emissions))

    def _slide(self, session: str) -> ReviewedSlide:
        self._check_open()
        slide = self._slides.get(session)
        if slide is None:
            stored = self._stored_session(session)
            factory = MessageFactory(
                stored.source, session=session, run_id=self.run_id, next_session_seq=self._next_session_seq(stored)
            )
            slide = ReviewedSlide(stored, factory)
            self._slides[session] = slide
            self._writers[session] = SessionJournal(self._journal, stored)
        return slide

    def _next_session_seq(self, stored: StoredSession) -> int:
        """As the journal has it now."""
        with stored.reading("sessions.next_seq"):
            (found,) = self._journal.database.execute(
                "SELECT next_seq FROM sessions WHERE number = ?", (stored.number,)
            ).fetchone()
            return int(found)

    def _stored_session(self, session: str) -> StoredSession:
        stored = self._stored.get(session)
        if stored is None:
            raise ReviewRefused("unknown session", f"got session {session[:64]!r}, expected one of this journal")
        return stored

    def _check_open(self) -> None:
        if self._closed:
            raise ReviewRefused("closed", f"journal {self.path}: this desk is closed")


class _LockedHistory:
    """A journal's messages for the thread that publishes, while others write it."""

    def __init__(self, history: JournalHistory, lock: threading.RLock) -> None:
        self._history, self._lock = history, lock

    def read(
        self, session: str, after: int, until: int, topics: Sequence[bytes], *, max_messages: int, max_bytes: int
    ) -> Batch | None:
        with self._lock:
            return self._history.read(session, after, until, topics, max_messages=max_messages, max_bytes=max_bytes)
