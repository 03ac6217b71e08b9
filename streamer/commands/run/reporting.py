"""`run --report`: the page of a run, written when its journal is closed."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from engines.base import LeukostreamError
from streamer.commands.output import remark, reporting, say


class ReportAtEnd(AbstractContextManager["ReportAtEnd"]):
    """Writes the report on leaving, once it `is_due`, also of a run that failed then: its journal has what was counted.

    To be entered before the journal is opened, and left after it was closed.
    """

    def __init__(self, out: str, journal: str | None, people: TextIO) -> None:
        """`journal`: None: one is kept beside `out` until then. `people`: where lines for people go.

        LeukostreamError where `out` can't be written, now rather than after a long run.
        """
        folder = Path(out).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise LeukostreamError(f"--report {out}: got no folder {folder} that can be written, expected one; make it")
        self._out, self._people = out, people
        self._kept = ExitStack()
        self.is_due = False
        if journal is None:
            with reporting("--report", out):
                made = self._kept.enter_context(tempfile.TemporaryDirectory(prefix=".leukostream-", dir=folder))
            journal = str(Path(made) / "journal.db")
        self.journal = journal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._kept:
            if not self.is_due or not (error is None or isinstance(error, LeukostreamError)):
                return
            from streamer.commands.report import report  # here: what it needs is not needed while a run goes on

            try:
                say(report(self.journal, self._out), self._people)
            except LeukostreamError as fault:
                if error is None:
                    raise
                remark(str(fault))
