"""Between an RTSP camera and its reader: a TCP proxy on 127.0.0.1 that damages or drops packets of RTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import BinaryIO, Literal

RTP_HEAD = 12 + 2
"""Of a packet, with that of H.264's fragments (RFC 6184): left as it is."""


class DamagingProxy:
    """Passes on what it gets. Of video's packets, which RTSP sends among its answers (RFC 2326, 10.12), every
    `every`-th is damaged as `does` says, while that is set."""

    def __init__(self, port: int) -> None:
        """`port`: the camera's."""
        self.does: Literal["corrupt", "drop"] | None = None
        self.every = 20
        self.harmed = 0
        """Packets so far."""
        self._camera = port
        self._packets = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # or `accept` would go on
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                reader, _ = self._server.accept()
                camera = socket.create_connection(("127.0.0.1", self._camera))
                threading.Thread(target=self._ask, args=(reader, camera), daemon=True).start()
                threading.Thread(target=self._answer, args=(camera, reader), daemon=True).start()

    def _ask(self, reader: socket.socket, camera: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := reader.recv(65_536):
                camera.sendall(data)
        _close(camera)

    def _answer(self, camera: socket.socket, reader: socket.socket) -> None:
        with contextlib.suppress(OSError), camera.makefile("rb") as sent:
            while data := self._next(sent):
                reader.sendall(data)
        _close(reader)

    def _next(self, sent: BinaryIO) -> bytes:
        """The next packet as it is passed on, or line of an answer; b"" at the end."""
        while (first := sent.read(1)) == b"$":
            head = sent.read(3)
            packet = bytearray(sent.read(int.from_bytes(head[1:], "big")))
            if head[0] == 0 and self.does is not None and len(packet) > RTP_HEAD:  # channel 1 is RTCP
                self._packets += 1
                if self._packets % self.every == 0:
                    self.harmed += 1
                    if self.does == "drop":
                        continue
                    packet[RTP_HEAD:] = bytes(byte ^ 0x5A for byte in packet[RTP_HEAD:])
            return first + head + packet
        return first + sent.readline() if first else b""


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
