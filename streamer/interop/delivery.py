"""Sending what is stored until it is answered: at least once each, and never again once it was accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from streamer.interop.mllp import Answer, MllpClient, MllpError, Receiver
from streamer.interop.outbox import Outbox, StoredMessage

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


@dataclass(slots=True)
class Delivery:
    outbox: Outbox
    receiver: Receiver
    attempts: int = 5
    """For one message, after which it is given up; it stays in the store."""
    connect: Callable[[Receiver], MllpClient] = MllpClient
    sleep: Callable[[float], None] = time.sleep
    _client: MllpClient | None = field(default=None, init=False)

    def send(self, stored: Iterable[StoredMessage]) -> Iterator[tuple[StoredMessage, Answer | None]]:
        """Each message with the answer to it; None where it was accepted before, and is not sent again.

        MllpError when one was not answered in so many attempts: those behind it would not be either.
        """
        try:
            for one in stored:
                yield one, None if one.state == "acknowledged" else self._deliver(one)
        finally:
            self._hang_up()

    def _deliver(self, one: StoredMessage) -> Answer:
        pause_s = FIRST_PAUSE_S
        for left in reversed(range(self.attempts)):
            try:
                if self._client is None:
                    self._client = self.connect(self.receiver)
                self.outbox.attempt(self.receiver, one.message)
                answer = self._client.exchange(one.message)
            except MllpError as error:
                self._hang_up()
                if not left:
                    raise MllpError(
                        f"{self.receiver}: {error}; message {one.message.control_id} was given up after"
                        f" {self.attempts} attempts and stays stored: send again once the receiver is there"
                    ) from error
                self.sleep(pause_s)
                pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
            else:
                self.outbox.answered(self.receiver, answer)
                return answer
        raise AssertionError("at least one attempt is made")

    def _hang_up(self) -> None:
        if self._client is not None:
            with closing(self._client):
                self._client = None
