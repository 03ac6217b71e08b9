"""The tables of a list, their version, and opening a database that has them.

Two programs that write at once wait for each other: one lock, taken when a transaction begins and given back with it,
on PostgreSQL an advisory one, on SQLite that of its file. Journals are read before, so that it is held for moments.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from streamer.interop.formats import needed
from streamer.worklist.address import Address
from streamer.worklist.entries import WorklistError

VERSION = 1
APPLICATION_ID = 0x4C45554C
"""Distinguishes an SQLite file from others: "LEUL"."""

BUSY_S = 30
"""How long another writer is waited for."""
CONNECT_S = 10
_WRITER_LOCK = 0x4C45554C
_WRITES = "leukostream_writes"

_tables = MetaData()

version_table = Table("leukostream_worklist", _tables, Column("version", Integer, nullable=False))

journals = Table(
    "leukostream_journals",
    _tables,
    Column("host", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("fingerprint", Text),
    Column("remark", Text),
    Column("looked_utc", Text, nullable=False),
)

slides = Table(
    "leukostream_slides",
    _tables,
    Column("session", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("in_journal", Boolean, nullable=False),
    Column("moved_from", Text),
    Column("source", Text, nullable=False),
    Column("slide", Text),
    Column("accession", Text),
    Column("operator", Text),
    Column("instrument", Text),
    Column("begun_utc", Text, nullable=False, index=True),
    Column("ended", Boolean, nullable=False),
    Column("ended_utc", Text),
    Column("total", BigInteger, nullable=False),
    Column("verdict", Text),
    Column("verdict_reason", Text),
    Column("review", Text, nullable=False),
    Column("reviewed_by", Text),
    Column("reviewed_utc", Text),
    Column("signature_fault", Text),
    Column("progress", BigInteger, nullable=False),
    Column("words", Text, nullable=False),
)

flags = Table(
    "leukostream_flags",
    _tables,
    Column("session", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("code", Text, nullable=False),
    Column("class", Text),
    Column("direction", Text),
    Column("text", Text, nullable=False),
)

sendings = Table(
    "leukostream_sendings",
    _tables,
    Column("session", Text, primary_key=True),
    Column("receiver", Text, primary_key=True),
    Column("control_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("stored_utc", Text, nullable=False),
    Column("answered_utc", Text, nullable=False),
)
"""Rows are added and never changed: what was acknowledged stays so."""


class Database:
    """A database with the tables of a list, of this version. Any thread."""

    def __init__(self, address: Address, *, make: bool) -> None:
        """`make`: the tables, and the file, where they are not there yet. WorklistError where it can't be used."""
        self.address = address
        if address.file is not None and not make and not address.file.is_file():
            raise WorklistError(f"--to: got no list {address.shown}, expected one; leukostream worklist add makes it")
        self._engine = _engine(address)
        try:
            with self.reading() as connection:
                found = self._version(connection)
            if found is None and make:
                with self.writing() as connection:
                    found = self._version(connection)  # another program may have made them by now
                    if found is None:
                        found = self._make(connection)
        except BaseException:
            self.close()
            raise
        if found is None:
            raise WorklistError(
                f"--to: got a database {address.shown} without a list, expected one; leukostream worklist add makes it"
            )
        if found != VERSION:
            raise WorklistError(
                f"--to: got a list of version {found} in {address.shown}, expected {VERSION}; use the version of"
                " leukostream that made it"
            )

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction, which sees one moment. WorklistError for whatever the database refuses."""
        engine = self._engine
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with self._reporting(), engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, alone; whole or not at all."""
        with self._reporting(), self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @staticmethod
    def _version(connection: Connection) -> int | None:
        """None: there is no list."""
        if not inspect(connection).has_table(version_table.name):
            return None
        return connection.execute(select(version_table.c.version)).scalar_one_or_none()

    def _make(self, connection: Connection) -> int:
        if connection.dialect.name == "sqlite":
            application_id = connection.execute(text("PRAGMA application_id")).scalar_one()
            if application_id or inspect(connection).get_table_names():
                raise WorklistError(
                    f"--to: got the file {self.address.shown} of another program, expected a worklist, or none yet;"
                    " check the path"
                )
            connection.execute(text(f"PRAGMA application_id = {APPLICATION_ID}"))
        _tables.create_all(connection)
        connection.execute(insert(version_table).values(version=VERSION))
        return VERSION

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # Not the error's own text, which repeats statements and their values.
            said = self.address.without_secrets(str(error.orig if isinstance(error, DBAPIError) else error))
            raise WorklistError(
                f"--to: got '{said}' of {self.address.shown}, expected a database that can be used; check the address"
                " and who may use it"
            ) from None


def _engine(address: Address) -> Engine:
    if address.file is None:
        with needed("--to postgresql://", "postgresql"):
            return create_engine(
                address.url,
                poolclass=NullPool,
                hide_parameters=True,
                connect_args={"connect_timeout": CONNECT_S, "application_name": "leukostream worklist"},
            )
    engine = create_engine(address.url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": BUSY_S})

    # sqlite3 would begin a transaction at the first change alone, after what was read before: it is begun here.
    @event.listens_for(engine, "connect")
    def by_hand(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA trusted_schema = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        alone = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if alone else "BEGIN")

    return engine
