"""The journal of a run: a session for each source, new or resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamer.journal.reader import JournalReader, StoredSession, read_sessions
from streamer.journal.rows import Rules
from streamer.journal.writer import Journal, SessionJournal
from streamer.protocol.factory import new_id
from streamer.records import Frame
from streamer.sources import Source
from streamer.sources.resumed import NumberedOnSource, ReadOnSource
from streamer.stage.preparation import PreparedFrame, RegistrationConfig, prepare


@dataclass(frozen=True, slots=True)
class JournaledSource:
    """A source, and the address that the journal has for it."""

    source: Source
    address: str


class RunJournal:
    """The open journal of a run. `sources`: the sources to read, each from where its session ended."""

    def __init__(
        self,
        path: str,
        sources: Sequence[JournaledSource],
        rules: Mapping[str, Rules],
        *,
        resume: bool,
        run_id: str,
        configuration: str,
        on_remark: Callable[[str], None] = lambda text: None,
        passed: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        """`rules` by source. `configuration` is JSON. `on_remark` gets lines for people. `passed`: of ReadOnSource.

        UsageError and JournalError as of Journal; JournalError and SourceError for a session of other models, another
        source or another slide. Nothing is written before all of it is checked.
        """
        self.sources: list[Source] = [one.source for one in sources]
        self._sessions: dict[str, SessionJournal] = {}
        self._given = {one.source.name: one for one in sources}
        self._rules, self._run_id, self._configuration = rules, run_id, configuration
        with contextlib.ExitStack() as undo:
            for source in self.sources:
                undo.callback(source.close)
            if resume and Path(path).exists():
                self.sources = _resumed_sources(path, sources, rules, passed)
            self.journal = Journal(path, resume=resume)
            undo.callback(self.journal.close)
            if resume and not self.journal.resumed:
                on_remark(f"--journal {path}: got no such file to resume, starting a new one")
            for one in sources:
                self._sessions[one.source.name] = self._open(one, on_remark)
            undo.pop_all()

    def session(self, source: str) -> SessionJournal:
        return self._sessions[source]

    def next_session(self, source: str) -> SessionJournal:
        """Begin another slide of a source, with a new session."""
        session = self._sessions[source] = self._new(self._given[source])
        session.begin_run(self._run_id, self._configuration)
        return session

    def stored(self) -> list[StoredSession]:
        """The sessions of the run's sources, with those of earlier slides."""
        sessions = read_sessions(self.journal.database, self.journal.path)
        return [stored for stored in sessions if stored.source in self._given]

    def close(self) -> None:
        self.journal.close()

    def _new(self, one: JournaledSource) -> SessionJournal:
        live = one.source.default_mode == "live"
        return self.journal.new_session(
            one.source.name, new_id(), address=one.address, live=live, rules=self._rules[one.source.name]
        )

    def _open(self, one: JournaledSource, on_remark: Callable[[str], None]) -> SessionJournal:
        name = one.source.name
        session = self.journal.session(name) or self._new(one)
        last = session.stored.last_frame()
        if last is not None:
            on_remark(f"{name}: going on after frame {last[0]} of the journal")
        session.begin_run(self._run_id, self._configuration)
        return session


def _resumed_sources(
    path: str,
    sources: Sequence[JournaledSource],
    rules: Mapping[str, Rules],
    passed: Callable[[Frame], None],
) -> list[Source]:
    """The sources, each continuing its newest session; all sessions are checked before any source opens."""
    with JournalReader(path) as reader:
        stored = {session.source: session for session in reader.sessions}
        begun = {session.source: session for session in reader.sessions if session.last_frame() is not None}
        for one in sources:
            if one.source.name in stored:
                stored[one.source.name].check(path, address=one.address, rules=rules[one.source.name])
        return [
            _resumed(one.source, begun[one.source.name], passed) if one.source.name in begun else one.source
            for one in sources
        ]


def _resumed(source: Source, session: StoredSession, passed: Callable[[Frame], None]) -> Source:
    last, picture = session.last_frame(), session.stage.last_picture()
    if last is None or picture is None:
        return source
    if source.default_mode == "live":
        return NumberedOnSource(source, last[0] + 1)

    def is_same(frame: Frame) -> bool:
        return last[1] == frame.file and _shows(frame, picture)

    return ReadOnSource(source, last[0], is_same, passed)


def _shows(frame: Frame, picture: PreparedFrame) -> bool:
    if (frame.width, frame.height) != (picture.width, picture.height):
        return False
    return np.array_equal(prepare(frame.image, RegistrationConfig()).fine, picture.fine)
