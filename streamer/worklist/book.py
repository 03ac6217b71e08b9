"""The list itself: slides put in and found again."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy import select, update

from streamer.worklist.address import Address
from streamer.worklist.entries import ListedSlide, WorklistError
from streamer.worklist.finding import Filter, found
from streamer.worklist.putting import Put, is_at, left_journals, note, put_slide
from streamer.worklist.reading import JournalPath, JournalReading
from streamer.worklist.tables import Database, journals, slides


class Worklist:
    """WorklistError for whatever the database refuses. Any thread."""

    def __init__(self, address: Address, *, make: bool = False) -> None:
        """`make`: the list, where there is none yet."""
        self.address = address
        self._database = Database(address, make=make)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def known(self, host: str) -> list[JournalPath]:
        """The journals of a machine, by path."""
        with self._database.reading() as connection:
            paths = connection.execute(select(journals.c.path).where(journals.c.host == host)).scalars().all()
        return [JournalPath(host, path) for path in sorted(paths)]

    def fingerprint(self, place: JournalPath) -> str | None:
        """Of a journal as it was put in; None: it was not, or should be looked at again."""
        with self._database.reading() as connection:
            return connection.execute(select(journals.c.fingerprint).where(is_at(journals, place))).scalar_one_or_none()

    def put(self, reading: JournalReading, is_current: Callable[[], bool] = lambda: True) -> list[Put] | None:
        """All slides of a journal, at once. None, and nothing, unless `is_current`, which is asked while nobody else
        writes: whether the journal is still as it was read."""
        with self._database.writing() as connection:
            if not is_current():
                return None
            done = [put_slide(connection, reading.place, entry) for entry in reading.slides]
            held = [entry.session for entry in reading.slides]
            connection.execute(
                update(slides)
                .where(is_at(slides, reading.place), slides.c.session.not_in(held))
                .values(in_journal=False)
            )
            is_listed = all(one.outcome != "copy" for one in done)  # else it is looked at again: the other may vanish
            note(connection, reading.place, reading.fingerprint if is_listed else None, reading.remark)
            connection.execute(left_journals(reading.place))
            return done

    def could_not_read(self, place: JournalPath, remark: str) -> None:
        """Note why."""
        with self._database.writing() as connection:
            note(connection, place, None, remark)

    def find(self, what: Filter | None = None) -> list[ListedSlide]:
        """The newest first; journals that nobody could read yet before them. As they are now, a moment's truth."""
        with self._database.reading() as connection:
            try:
                return found(connection, what or Filter())
            except ValueError as error:
                raise WorklistError(
                    f"--to: got a row in {self.address.shown} that is none ({error}), expected those of leukostream;"
                    " add the journals to a new list"
                ) from error
