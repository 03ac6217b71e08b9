"""Keys of the dashboard of a streamer elsewhere: its commands over the service socket."""

from __future__ import annotations

from collections import deque

from streamer.dashboard import Answer
from streamer.network.subscriber import Subscriber
from streamer.protocol.requests import AnyCommand, DoneReply, RefusedReply


class RemoteCommands:
    """Gives commands to the streamer that a subscriber listens to. One thread."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._waiting: deque[tuple[AnyCommand, Answer]] = deque()

    def give(self, command: AnyCommand, answer: Answer) -> None:
        """Keep a command until `serve`."""
        self._waiting.append((command, answer))

    def stop(self) -> str | None:
        """Why a run elsewhere can't be ended from here."""
        return "a run elsewhere is stopped where it runs; q leaves this screen"

    def serve(self) -> None:
        """Give what is kept, and wait for the answers for a moment."""
        while self._waiting:
            command, answer = self._waiting.popleft()
            reply = self._subscriber.ask(command)
            if isinstance(reply, DoneReply):
                answer(reply.state)
            else:
                answer(reply.reason if isinstance(reply, RefusedReply) else "no answer came; try again")
