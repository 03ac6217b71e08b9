"""Runs of `leukostream` with scripted models in processes of their own (journal_cases.py)."""

import json
import os
import signal
import subprocess
import sys


class Runner:
    """Starts runs in processes that cost no imports."""

    def __init__(self, errors):
        self._errors = errors
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.streamer.journal.journal_cases"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
            start_new_session=True,
        )

    def start(self, *arguments):
        self._server.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def status(self):
        return int(self._server.stdout.readline())

    def run(self, *arguments):
        """(exit status, lines of standard output and error)."""
        before = len(self._errors.read_text())
        self.start(*arguments)
        status = self.status()
        return status, self._errors.read_text()[before:].splitlines()

    def close(self):
        self._server.stdin.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:  # a run goes on
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
