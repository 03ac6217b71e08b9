"""Cameras and web servers on 127.0.0.1."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.streamer.sources.pictures import encoded, field


class MotionJpeg:
    """A network camera on 127.0.0.1 that can be switched off, made to hang, and switched on again at the same port."""

    def __init__(self) -> None:
        self.port = 0
        self.hangs = threading.Event()
        self.picture = encoded(field(120, 160), ".jpg")
        self._off = threading.Event()
        self._server: ThreadingHTTPServer | None = None

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
                    while not camera._off.wait(0.01):
                        if not camera.hangs.is_set():
                            self.wfile.write(head + camera.picture + b"\r\n")
                    self.wfile.write(head + camera.picture[: len(camera.picture) // 2])
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._off.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def off(self) -> None:
        self._off.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
