"""The desk of a run elsewhere: it follows what the run publishes, and sends it commands. The run stays the only writer,
so that nothing is signed here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from engines.base import LeukostreamError
from streamer.counting.review_events import (
    CellChange,
    Comment,
    CorrectionFault,
    HistoryEntry,
    Signature,
    Word,
    check_reviewer,
    check_text,
)
from streamer.journal.rows import now_utc
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import AnyMessage, CellMessage, DifferentialMessage, EndMessage
from streamer.protocol.requests import (
    AnyCommand,
    Confirm,
    DoneReply,
    Reclassify,
    RefusedReply,
    SnapshotReply,
    SnapshotRequest,
    new_request_id,
)
from streamer.protocol.requests import Comment as CommentCommand
from streamer.review.desk import Agreement, Change, Listener, ReviewRefused, SessionInfo, Snapshot
from streamer.review.live_slide import LiveSlide, Name
from streamer.review.messenger import Messenger

RECEIVE_S = 0.1
"""The longest wait for a message before it is looked whether the desk was closed."""

ATTEMPTS = 3
"""A command is given so often, with the same id, before its reply is given up."""

RETRY_S = 0.1
PATIENCE_S = 30.0
"""How long a run that takes no more commands this second is asked again."""

CONFIRMED_AT_ONCE = 256
"""Cells of one command."""


class LiveDesk(AbstractContextManager["LiveDesk"]):
    """A `Desk` (desk.py) of what a publisher elsewhere publishes. What was published before is asked for, as far as it
    has it. Cells of a live slide have no `views`, and their `kind` is always "white"."""

    def __init__(
        self,
        endpoint: str,
        *,
        keys: str | Path | None = None,
        server_key: str | Path | None = None,
        reply_timeout_s: float = 2.0,
        on_fault: Callable[[str], None] = lambda text: None,
    ) -> None:
        """UsageError for a malformed address or keys that can't be used; LeukostreamError where nobody answers."""
        self.endpoint = endpoint
        self._lock = threading.RLock()
        self._asking = threading.Lock()
        self._slides: dict[str, LiveSlide] = {}
        self._closed = threading.Event()
        self._on_fault = on_fault
        self._service = Subscriber(
            endpoint, ["end."], replay=False, keys=keys, server_key=server_key, reply_timeout_s=reply_timeout_s
        )
        try:
            self._begin()
            self._stream = Subscriber(
                endpoint, ["cell.", "differential.", "end."], history=True, keys=keys, server_key=server_key
            )
        except BaseException:
            self._service.close()
            raise
        self._messenger = Messenger(None, on_fault)
        self._thread = threading.Thread(target=self._follow, name="review-live", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        """Where every source stands."""
        for _ in range(ATTEMPTS):
            reply = self._service.ask(SnapshotRequest(id=new_request_id()))
            if isinstance(reply, SnapshotReply):
                for source, one in reply.sources.items():
                    slide = LiveSlide(one.session, source, reply.run_id or "", ended=one.end is not None)
                    slide.differential = one.differential
                    self._slides[one.session] = slide
                return
            self._service.receive(0)  # RefusedError where our key is not wanted
        raise LeukostreamError(
            f"endpoint {self.endpoint}: got no answer, expected a leukostream that publishes there: check the address"
        )

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                received = self._stream.receive(RECEIVE_S)
            except LeukostreamError as error:
                self._on_fault(str(error))
                self._closed.wait(RECEIVE_S)
                continue
            if received is not None:
                payload = received.payloads[0] if received.payloads else None
                with self._lock:
                    change = self._take(received.message, payload)
                if change is not None:
                    self._messenger.tell(change)
        self._stream.close()

    def _take(self, message: object, payload: bytes | None) -> Change | None:
        if not isinstance(message, CellMessage | DifferentialMessage | EndMessage):
            return None
        known: AnyMessage = message
        slide = self._slides.setdefault(known.session, LiveSlide(known.session, known.source, known.run_id))
        slide.ended = isinstance(message, EndMessage)
        return None if isinstance(message, EndMessage) else slide.take(message, payload)

    # What there is

    def sessions(self) -> list[SessionInfo]:
        with self._lock:
            self._check_open()
            return [slide.info() for slide in self._slides.values()]

    def snapshot(self, session: str, reviewer: str | None = None) -> Snapshot:
        with self._lock:
            return self._slide(session).snapshot()

    def version(self, session: str) -> int:
        with self._lock:
            return self._slide(session).version

    def picture(self, session: str, cell_id: int) -> bytes | None:
        with self._lock:
            slide = self._slide(session)
            return slide.pictures.get(slide.present(cell_id))

    # What people do

    def classify(
        self, session: str, cell_ids: Sequence[int], class_name: str | None, subclass: str | None, reviewer: str
    ) -> None:
        slide, cells = self._checked(session, cell_ids, reviewer)
        if class_name is not None and class_name not in slide.classes:
            raise ReviewRefused("bad class", f"got class {class_name!r}, expected one of {', '.join(slide.classes)}")
        before, done = {cell: slide.said(cell) for cell in cells}, dict[int, Name]()
        try:
            self._name(slide, dict.fromkeys(cells, (class_name, subclass)), reviewer, done)
        finally:
            self._note(slide, reviewer, "corrected", before, done)

    def confirm(self, session: str, cell_ids: Sequence[int], reviewer: str) -> None:
        slide, cells = self._checked(session, cell_ids, reviewer)
        before, done = {cell: slide.said(cell) for cell in cells}, dict[int, Name]()
        names = {cell: (slide.cells[cell].class_, slide.cells[cell].subclass) for cell in cells}
        try:
            for name in dict.fromkeys(names.values()):
                of_class = [cell for cell in names if names[cell] == name]
                for start in range(0, len(of_class), CONFIRMED_AT_ONCE):
                    some = of_class[start : start + CONFIRMED_AT_ONCE]
                    self._confirm(slide, some, name, reviewer)
                    done |= dict.fromkeys(some, name)
        finally:
            self._note(slide, reviewer, "confirmed", before, done)

    def _confirm(self, slide: LiveSlide, cells: list[int], name: tuple[str, str | None], reviewer: str) -> None:
        self._give(
            Confirm(
                id=new_request_id(),
                run_id=slide.run_id,
                source=slide.source,
                cell_ids=cells,
                class_=name[0],
                subclass=name[1],
                reviewer=reviewer,
            )
        )

    def undo(self, session: str, reviewer: str) -> None:
        """Of what this desk sent; a cell that others named since stays as they did."""
        with self._lock:
            slide = self._slide(session)
            self._check(check_reviewer, reviewer)
            groups = slide.undoable.get(reviewer, [])
            if not groups:
                raise ReviewRefused("nothing to undo", f"got an undo of {reviewer}, who has said nothing here")
            group = groups.pop()
            back = {
                cell: before
                for cell, (before, since) in group.items()
                if cell in slide.cells and slide.said(cell) in (since, (None, None))
            }
        try:
            self._name(slide, back, reviewer, {})
        except ReviewRefused:
            with self._lock:
                slide.undoable[reviewer].append(group)
            raise
        entry = HistoryEntry(
            number=None,
            at=now_utc(),
            by=reviewer,
            kind="withdraw",
            changes=tuple(CellChange(cell, None, _name(before)) for cell, before in back.items()),
        )
        with self._lock:
            change = slide.note(entry, lambda cell: None, list(back))
        self._messenger.tell(change)

    def comment(self, session: str, text: str, reviewer: str, *, cell_id: int | None = None) -> None:
        self._check(check_text, text, "comment")
        slide, cells = self._checked(session, [] if cell_id is None else [cell_id], reviewer)
        cell_id = cells[0] if cells else None
        self._give(
            CommentCommand(
                id=new_request_id(),
                run_id=slide.run_id,
                source=slide.source,
                text=text,
                cell_id=cell_id,
                reviewer=reviewer,
            )
        )
        at = now_utc()
        with self._lock:
            slide.comments.append(Comment(reviewer, at, text, cell_id))
            entry = HistoryEntry(number=None, at=at, by=reviewer, kind="comment", text=text, cell_id=cell_id)
            change = slide.note(entry, slide.words.get, cells)
        self._messenger.tell(change)

    def begin(self, session: str, reviewer: str, *, blind: bool = False) -> None:
        """Nothing is sent: the first change begins a review."""
        with self._lock:
            self._slide(session)
        self._check(check_reviewer, reviewer)
        if blind:
            self._refuse("blind review")

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
        self._refuse("adding a cell")

    def sign(
        self, session: str, reviewer: str, *, despite: str | None = None, version: int | None = None
    ) -> Signature | None:
        self._refuse("signing")

    def amend(self, session: str, reviewer: str, reason: str) -> None:
        self._refuse("an amendment")

    def agreement(self, session: str, first: str, second: str) -> Agreement:
        self._refuse("a comparison of blind reviewers")

    def settle(
        self, session: str, cell_ids: Sequence[int], class_name: str, subclass: str | None, reviewer: str
    ) -> None:
        self._refuse("settling")

    def settle_agreed(self, session: str, first: str, second: str, reviewer: str) -> int:
        self._refuse("settling")

    def verify(self, session: str) -> tuple[Signature, ...]:
        """A slide that is being counted has none."""
        with self._lock:
            self._slide(session)
        return ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._messenger.listen(listener)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        self._messenger.close()
        with self._asking:
            self._service.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse(self, what: str) -> NoReturn:
        raise ReviewRefused(
            "not possible",
            f"got a slide that a run still counts, expected a finished one for {what}: end the run, then open its"
            " journal",
        )

    def _checked(self, session: str, cell_ids: Iterable[int], reviewer: str) -> tuple[LiveSlide, list[int]]:
        self._check(check_reviewer, reviewer)
        with self._lock:
            slide = self._slide(session)
            cells = list(dict.fromkeys(slide.present(cell) for cell in cell_ids))
            unknown = [cell for cell in cells if cell not in slide.cells]
            if unknown:
                raise ReviewRefused("unknown cell", f"got cell {unknown[0]}, expected one that is counted")
            return slide, cells

    def _check(self, check: Callable[..., None], *values: object) -> None:
        try:
            check(*values)
        except CorrectionFault as fault:
            raise ReviewRefused("bad text" if fault.code == "bad text" else "bad reviewer", str(fault)) from None

    def _name(self, slide: LiveSlide, names: dict[int, Name], reviewer: str, done: dict[int, Name]) -> None:
        """A command for each cell; `done` gets the names that were given."""
        for cell, (class_name, subclass) in names.items():
            self._give(
                Reclassify(
                    id=new_request_id(),
                    run_id=slide.run_id,
                    source=slide.source,
                    cell_id=cell,
                    class_=class_name,
                    subclass=subclass,
                    reviewer=reviewer,
                )
            )
            done[cell] = class_name, subclass

    def _note(self, slide: LiveSlide, reviewer: str, kind: str, before: dict[int, Name], done: dict[int, Name]) -> None:
        if not done:
            return
        at = now_utc()
        confirmed = kind == "confirmed"
        entry = HistoryEntry(
            number=None,
            at=at,
            by=reviewer,
            kind="confirm" if confirmed else "class",
            changes=tuple(CellChange(cell, None, _name(name)) for cell, name in done.items()),
        )
        word = Word("confirmed" if confirmed else "corrected", reviewer, at)
        with self._lock:
            slide.undoable.setdefault(reviewer, []).append({cell: (before[cell], name) for cell, name in done.items()})
            change = slide.note(entry, lambda cell: None if done[cell][0] is None else word, list(done))
        self._messenger.tell(change)

    def _give(self, command: AnyCommand) -> None:
        """Until the run has carried it out. ReviewRefused where it does not."""
        until = time.monotonic() + PATIENCE_S
        lost = 0
        while True:
            with self._asking:
                self._check_open()
                reply = self._service.ask(command)
            if isinstance(reply, DoneReply):
                return
            if reply is None:
                lost += 1
                if lost >= ATTEMPTS:
                    raise ReviewRefused("no answer", f"endpoint {self.endpoint}: got no answer of the run")
                continue
            if not isinstance(reply, RefusedReply):
                raise ReviewRefused("not possible", f"endpoint {self.endpoint}: got {reply}, expected a reply")
            if reply.code != "too many" or time.monotonic() > until:
                raise ReviewRefused("not possible", f"the run refused it ({reply.code}): {reply.reason}")
            time.sleep(RETRY_S)

    def _slide(self, session: str) -> LiveSlide:
        self._check_open()
        slide = self._slides.get(session)
        if slide is None:
            raise ReviewRefused(
                "unknown session", f"got session {session[:64]!r}, expected one that is published there"
            )
        return slide

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ReviewRefused("closed", f"endpoint {self.endpoint}: this desk is closed")


def _name(name: Name) -> tuple[str, str | None] | None:
    return None if name[0] is None else (name[0], name[1])
