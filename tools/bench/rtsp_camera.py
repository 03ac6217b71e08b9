"""A network camera on 127.0.0.1: GStreamer's RTSP server in a process of its own, which can be frozen and killed.

As a program (`-m tools.bench.rtsp_camera PORT [WxH [FPS]]`) it is one at this port, until its standard input ends.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import UsageError
from tools.bench.rtsp_frames import PATH, write_frames

if TYPE_CHECKING:
    from tools.bench.sender import NumberedFilm

PYTHON = "/usr/bin/python3"
"""Debian's own, which its packages bring the bindings of GStreamer to."""

INSTALL = (
    "apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi"
    " gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)

_PROBE = """
import gi
for name in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from gi.repository import Gst, GstRtsp, GstRtspServer
Gst.init(None)
missing = [name for name in ("appsrc", "h264parse", "rtph264pay") if Gst.ElementFactory.find(name) is None]
if missing:
    raise SystemExit(f"no {missing[0]}")
"""
_ROOT = Path(__file__).parents[2]


@cache
def why_no_server() -> str | None:
    """Why there is no RTSP server here; None: there is one."""
    try:
        probe = subprocess.run([PYTHON, "-c", _PROBE], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return f"no {PYTHON} ({error.strerror})"
    if probe.returncode:
        return (probe.stderr.strip() or "no answer").splitlines()[-1]
    return None


class RtspCamera:
    """Sends films over and over, each frame when it is due. Several films of one rate follow one another: a camera that
    changes its resolution. UsageError where there is no server."""

    def __init__(self, films: Sequence[NumberedFilm], *, user: str = "", password: str = "", port: int = 0) -> None:
        """`user`: without one it asks for none. `port`: 0 for one that is free."""
        if (why := why_no_server()) is not None:
            raise UsageError(f"RTSP server: got {why}, expected GStreamer's: {INSTALL}")
        self._frames = [(frame.data, frame.is_key) for film in films for frame in film.frames]
        self._fps = films[0].fps
        self._credentials = f"{user}:{password}" if user else "-"
        self._began_s = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="rtsp-")
        self._film = Path(self._folder.name) / "film"
        write_frames(self._film, self._frames)
        self.port = port
        self._server: subprocess.Popen[str] | None = None
        self.on()

    @property
    def url(self) -> str:
        return self.address()

    def address(self, credentials: str = "", path: str = PATH, port: int | None = None) -> str:
        """`credentials`: USER:PASSWORD@; `port`: of what stands between."""
        return f"rtsp://{credentials}127.0.0.1:{port or self.port}{path}"

    def age_s(self, number: int, now_s: float) -> float:
        """How long ago the frame of this number was captured: the last of all that bore it."""
        return (now_s - self._began_s - number / self._fps) % (len(self._frames) / self._fps)

    def on(self) -> None:
        """Switch it on, again at the same port."""
        words = [str(self.port), str(self._fps), repr(self._began_s), self._credentials, str(self._film)]
        self._server = subprocess.Popen(
            [PYTHON, "-m", "tools.bench.rtsp_server", *words],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._server.stdout is not None
        port = self._server.stdout.readline().strip()
        if not port:
            raise UsageError(f"RTSP server: got no answer on port {self.port}, expected that it is free")
        self.port = int(port)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def off(self) -> None:
        """Killed: no connection is closed in an orderly way."""
        if self._server is not None:
            self._signal(signal.SIGKILL)
            with self._server:
                self._server = None

    def close(self) -> None:
        self.off()
        self._folder.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.send_signal(number)


def main(port: str, size: str = "640x480", fps: str = "10") -> None:
    from tools.bench.sender import NumberedFilm

    width, height = (int(side) for side in size.lower().split("x"))
    film = NumberedFilm.encode(width, height, frames=30 * int(fps), fps=int(fps), keys_every=int(fps))
    with contextlib.closing(RtspCamera([film], port=int(port))) as camera:
        print(camera.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
