"""Cameras and web servers on 127.0.0.1."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.streamer.sources.pictures import encoded, field


class SwitchedServer:
    """A web server on 127.0.0.1 that can be switched off, and on again at the same port."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.is_off = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def serve(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.is_off.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def off(self) -> None:
        self.is_off.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class MotionJpeg(SwitchedServer):
    """A network camera that can be made to hang, too."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = threading.Event()
        self.picture = encoded(field(120, 160), ".jpg")

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.port}/video"

    def on(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                self.end_headers()
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(camera.picture)}\r\n\r\n".encode()
                try:
                    while not camera.is_off.wait(0.01):
                        if not camera.hangs.is_set():
                            self.wfile.write(head + camera.picture + b"\r\n")
                    self.wfile.write(head + camera.picture[: len(camera.picture) // 2])
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.serve(Handler)


@dataclass(frozen=True, slots=True)
class Page:
    """What a web server has at a path."""

    content_type: str
    data: bytes
    password: str | None = None
    """Of the user "user", where it asks for one."""


class WebServer:
    """Serves pages on 127.0.0.1, with ranges, and 404 for anything else."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path)
                if page is None:
                    self.send_error(404)
                    return
                expected = base64.b64encode(f"user:{page.password}".encode()).decode()
                if page.password is not None and self.headers.get("Authorization") != f"Basic {expected}":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                first = int(asked[1]) if asked else 0
                self.send_response(206 if asked else 200)
                self.send_header("Content-Type", page.content_type)
                self.send_header("Accept-Ranges", "bytes")
                if asked:
                    self.send_header("Content-Range", f"bytes {first}-{len(page.data) - 1}/{len(page.data)}")
                self.send_header("Content-Length", str(len(page.data) - first))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(page.data[first:])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class RtspServer:
    """Answers DESCRIBE on 127.0.0.1: 401 without the right digest of user:password, then the status given."""

    def __init__(self, status: int, *, scheme: str = "Digest", description: str = "") -> None:
        self.asked: list[str] = []
        self.description = description
        self._status = status
        self._scheme = scheme
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, user: str = "user:password@") -> str:
        return f"rtsp://{user}127.0.0.1:{self._server.getsockname()[1]}/stream"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # or `accept` would go on
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection:
                    while request := connection.recv(4096).decode():
                        self.asked.append(request)
                        connection.sendall(self._answer(request))

    def _answer(self, request: str) -> bytes:
        status = self._status if self._is_allowed(request) else 401
        challenge = f'WWW-Authenticate: {self._scheme} realm="camera", nonce="abc"\r\n' if status == 401 else ""
        number = re.search(r"CSeq: (\d+)", request)
        text = self.description if status == 200 else ""
        length = f"Content-Length: {len(text)}\r\n" if text else ""
        return f"RTSP/1.0 {status} So\r\nCSeq: {number[1] if number else 0}\r\n{challenge}{length}\r\n{text}".encode()

    def _is_allowed(self, request: str) -> bool:
        if self._scheme == "Basic":
            return "Authorization: Basic dXNlcjpwYXNzd29yZA==" in request
        method, url = request.split()[:2]
        secret, asked = (hashlib.md5(text.encode()).hexdigest() for text in ("user:camera:password", f"{method}:{url}"))
        return f'response="{hashlib.md5(f"{secret}:abc:{asked}".encode()).hexdigest()}"' in request
