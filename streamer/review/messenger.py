"""The thread of a desk: it publishes what was journaled and tells listeners, in the order of the changes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from streamer.network.publisher import Publisher
from streamer.protocol.messages import AnyMessage
from streamer.review.desk import Change, Listener

SERVICE_S = 0.02
"""The longest wait between two services of the publisher, so that subscribers' requests are answered soon."""

Messages = tuple[tuple[AnyMessage, bytes | None], ...]


class Messenger:
    """Owns the publisher, if there is one."""

    def __init__(self, publisher: Publisher | None, on_fault: Callable[[str], None] = lambda text: None) -> None:
        """`on_fault`: of a listener that raised, in words; the others are told all the same."""
        self._publisher = publisher
        self._on_fault = on_fault
        self._waiting: queue.SimpleQueue[Change | Messages | None] = queue.SimpleQueue()
        self._listeners: list[Listener] = []
        self._thread = threading.Thread(target=self._run, name="review", daemon=True)
        self._thread.start()

    def tell(self, news: Change | Messages) -> None:
        """A change, or messages that are none, as the end of a session. Any thread; does not wait."""
        self._waiting.put(news)

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners = [*self._listeners, listener]

        def stop() -> None:
            self._listeners = [one for one in self._listeners if one is not listener]

        return stop

    def close(self) -> None:
        """Once all that was told is out. A listener may call it, and is not waited for then."""
        self._waiting.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                news = self._waiting.get(timeout=None if self._publisher is None else SERVICE_S)
            except queue.Empty:
                self._service()
                continue
            if news is None:
                break
            for message, payload in news.messages if isinstance(news, Change) else news:
                if self._publisher is not None:
                    self._publisher.publish(message, payload)
            self._service()
            if isinstance(news, Change):
                self._tell(news)
        if self._publisher is not None:
            self._publisher.close()

    def _service(self) -> None:
        if self._publisher is not None:
            self._publisher.service()

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception as error:  # a listener's fault is not the desk's
                self._on_fault(f"review: a listener failed: {type(error).__name__}: {error}")
