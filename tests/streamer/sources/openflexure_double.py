"""A double of an OpenFlexure server, made from the public description of its web API.

python -m tests.streamer.sources.openflexure_double PORT   one of version 3, until its standard input ends
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler

from tests.streamer.sources.network_camera import SwitchedServer
from tests.streamer.sources.pictures import encoded, field

V2 = {"stream": "/api/v2/streams/mjpeg", "position": "/api/v2/instrument/state/stage/position"}
V3 = {"stream": "/api/v3/camera/mjpeg_stream", "position": "/api/v3/stage/position"}
FIRST_V3 = {"stream": "/camera/mjpeg_stream", "position": "/stage/position"}


class Microscope(SwitchedServer):
    """A server that has its stream and its position at these paths, and nothing else."""

    def __init__(self, paths: Mapping[str, str], port: int = 0) -> None:
        self.position: object = {"x": 1000, "y": -200, "z": 40}
        self.speed = 0
        """Steps of x a second."""
        super().__init__(port)
        self._paths = paths
        self._picture = encoded(field(120, 160), ".jpg")
        self.on()

    def on(self) -> None:
        microscope = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == microscope._paths["stream"]:
                    self._stream()
                elif self.path == microscope._paths["position"]:
                    self._answer(200, microscope._position())
                else:
                    self._answer(404, {"detail": "Not Found"})

            def _answer(self, status: int, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not microscope.is_off.wait(0.03):
                        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + microscope._picture + b"\r\n")
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.serve(Handler)

    def _position(self) -> object:
        if self.speed and isinstance(self.position, dict):
            return {**self.position, "x": round(time.monotonic() % 1000 * self.speed)}
        return self.position


def main(port: str) -> None:
    microscope = Microscope(V3, int(port))
    microscope.speed = 100
    print(microscope.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
