"""What an imagezmq sender was answered outlasts a kill of the streamer."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest
import zmq

from streamer.journal import JournalReader
from streamer.protocol.messages import decode
from tests.streamer.journal.journal_cases import PLACES, images
from tests.streamer.sources.test_imagezmq import array_parts

if not hasattr(os, "fork"):
    pytest.skip("no fork on this system", allow_module_level=True)


class Sender:
    """An imagezmq sender as its documents have it: a frame without an answer is sent again, over a new socket."""

    def __init__(self, endpoint, frames):
        self.answered = 0
        self._endpoint, self._frames = endpoint, frames
        self._context = zmq.Context()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self):
        while self.answered < len(self._frames) and not self._stop.is_set():
            with self._context.socket(zmq.REQ) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.RCVTIMEO, 1000)
                socket.setsockopt(zmq.RECONNECT_IVL, 10)
                socket.connect(self._endpoint)
                with contextlib.suppress(zmq.Again):
                    while self.answered < len(self._frames) and not self._stop.is_set():
                        socket.send_multipart(array_parts(self._frames[self.answered], f"scope #{self.answered}"))
                        socket.recv()
                        self.answered += 1

    @property
    def is_done(self):
        return self.answered == len(self._frames)

    def close(self):
        self._stop.set()
        self._thread.join()
        self._context.term()


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_what_was_answered_to_a_sender_is_in_the_journal_after_a_kill(kills, tmp_path, runner, free_port):
    rng = random.Random(kills)
    journal = tmp_path / "scope.db"
    endpoint = f"tcp://127.0.0.1:{free_port}"
    run = ("run", "--source", f"slide=imagezmq:{endpoint},pattern=req", "--mode", "analysis", "--journal", journal)
    sender = Sender(endpoint, images() * max(1, kills // 4))
    try:
        for number in range(kills + 1):
            child = runner.start(*run, "--resume")
            was = sender.answered
            deadline = time.monotonic() + 60
            wanted = was + rng.randint(1, len(PLACES) // 4) if number < kills else 10**9
            while sender.answered < wanted and not sender.is_done and time.monotonic() < deadline:
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL if number < kills else signal.SIGTERM)
            answered = sender.answered  # before what comes of a socket that is still open
            assert runner.status() == (-signal.SIGKILL if number < kills else 0)
            assert answered > was
            with JournalReader(journal) as kept:
                frames = sum(1 for _ in kept.sessions[0].frames())
            assert answered <= frames <= sender.answered + number + 1  # one of each run may have been kept in vain
    finally:
        sender.close()
    assert sender.is_done
    with JournalReader(journal) as kept:
        (stored,) = kept.sessions
        end = decode(list(stored.messages_after(-1))[-1][0])
    assert (end.state, end.reason) == ("stopped", "by SIGTERM")
