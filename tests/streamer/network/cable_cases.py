"""A TCP connection through a cable that can be pulled out: nothing passes any more, and neither side is told."""

from __future__ import annotations

import contextlib
import socket
import threading


class Cable:
    """Listens on two ports side by side and passes what comes on to a publisher's two."""

    def __init__(self, endpoint: str) -> None:
        self._to = int(endpoint.rpartition(":")[2])
        self._pulled = threading.Event()
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        listeners = self._listen()
        self.endpoint = f"tcp://127.0.0.1:{listeners[0].getsockname()[1]}"
        for number, listener in enumerate(listeners):
            self._start(self._accept, listener, self._to + number)

    def pull(self) -> None:
        """What is connected stays so, for both, and carries nothing more; who connects anew gets through."""
        self._pulled.set()
        self._pulled = threading.Event()

    def close(self) -> None:
        self._over.set()
        self._pulled.set()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> list[socket.socket]:
        while True:
            first = socket.create_server(("127.0.0.1", 0))
            try:
                second = socket.create_server(("127.0.0.1", first.getsockname()[1] + 1))
            except (OSError, OverflowError):
                first.close()
                continue
            return [first, second]

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, port: int) -> None:
        self._open.append(listener)
        while not self._over.is_set():
            try:
                near = listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            self._open += [near, far]
            pulled = self._pulled
            self._start(self._carry, near, far, pulled)
            self._start(self._carry, far, near, pulled)

    def _carry(self, from_: socket.socket, to: socket.socket, pulled: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := from_.recv(65536):
                if not pulled.is_set():
                    to.sendall(data)
            if not pulled.is_set():  # the end of a connection does not get through a pulled cable either
                to.shutdown(socket.SHUT_WR)
