"""An RTSP server of GStreamer that sends encoded frames, each when it is due.

RtspCamera starts it, with the Python that has GStreamer's bindings:

    python3 -m tools.bench.rtsp_server PORT FPS BEGAN_S USER:PASSWORD|- FILE   until its standard input ends
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import gi

from tools.bench.rtsp_frames import PATH, read_frames

for name in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ROLE = "viewer"

# Frames bear their parameter sets. Told to add them too, this version of rtph264pay cuts a key frame of several slices
# in two.
PIPELINE = (
    "( appsrc name=film is-live=true format=time caps=video/x-h264,stream-format=byte-stream,alignment=au"
    " ! h264parse ! rtph264pay name=pay0 pt=96 )"
)


class Sender:
    """Sends to whoever connects, from the next key frame on. What is overdue, after the program was stopped for some
    time, is sent at once."""

    def __init__(self, frames: list[tuple[bytes, bool]], fps: int, began_s: float) -> None:
        """`began_s`: when the first of the frames was due, by time.monotonic; they are sent over and over."""
        self._frames = frames
        self._fps = fps
        self._began_s = began_s

    def configure(self, factory: Any, media: Any) -> None:
        """A reader has come: GStreamer calls it for each."""
        source = media.get_element().get_by_name_recurse_up("film")
        gone = threading.Event()
        media.connect("unprepared", lambda media: gone.set())
        threading.Thread(target=self._send, args=(source, gone), daemon=True).start()

    def _send(self, source: Any, gone: threading.Event) -> None:
        number = int((time.monotonic() - self._began_s) * self._fps) + 1
        while not self._frames[number % len(self._frames)][1]:
            number += 1
        first, start_ns = number, None
        while not gone.wait(max(0.0, self._began_s + number / self._fps - time.monotonic())):
            if start_ns is None:
                start_ns = source.get_current_running_time()
            buffer = Gst.Buffer.new_wrapped(self._frames[number % len(self._frames)][0])
            buffer.pts = start_ns + (number - first) * Gst.SECOND // self._fps
            if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return
            number += 1


def protect(server: Any, factory: Any, user: str, password: str) -> None:
    """By a digest, as cameras do."""
    auth, token, permissions = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken(), GstRtspServer.RTSPPermissions()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, password, token)
    for permission in (
        GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS,
        GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT,
    ):
        permissions.add_permission_for_role(ROLE, permission, True)
    factory.set_permissions(permissions)
    server.set_auth(auth)


def main(port: str, fps: str, began_s: str, credentials: str, film: str) -> None:
    Gst.init(None)
    sender = Sender(read_frames(Path(film)), int(fps), float(began_s))
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory.set_launch(PIPELINE)
    factory.connect("media-configure", sender.configure)
    if credentials != "-":
        protect(server, factory, *credentials.split(":", 1))
    server.get_mount_points().add_factory(PATH, factory)
    if not server.attach(None):
        sys.exit(f"port {port}: got that it is taken, expected a free one")
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
