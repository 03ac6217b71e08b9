from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.records import Frame, Skip
from streamer.run.ring import Ring
from streamer.sources import SourceError, SourceLostError, open_source, parse_source
from streamer.sources.reconnection import SourceReader
from streamer.sources.video import StreamSource, VideoFileSource
from tests.streamer.sources.pictures import encoded, field
from tests.streamer.sources.scripted import Opener, ScriptedCapture

FRAMES = 20


@pytest.fixture(scope="module")
def avi(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A motion JPEG film of FRAMES frames 160x120 whose brightness tells their number."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    assert writer.isOpened()
    noise = np.random.default_rng(1).integers(0, 61, (120, 160, 3), np.uint8)
    for number in range(FRAMES):
        writer.write(noise + np.uint8(10 * number))
    writer.release()
    return path.read_bytes()


def video(path: Path, data: bytes) -> VideoFileSource:
    path.write_bytes(data)
    clock = itertools.count(1000)
    return VideoFileSource("film", str(path), lambda: next(clock))


def numbers(items: list[Frame | Skip]) -> list[int]:
    return [round((float(item.image.mean()) - 30) / 10) for item in items if isinstance(item, Frame)]


def test_every_frame_of_a_file(tmp_path: Path, avi: bytes) -> None:
    source = video(tmp_path / "film.avi", avi)
    source.open()
    items = list(iter(source.read, None))
    assert numbers(items) == list(range(FRAMES))
    frames = [item for item in items if isinstance(item, Frame)]
    assert [frame.frame_id for frame in frames] == list(range(FRAMES))
    assert all(later.captured_ns > earlier.captured_ns for earlier, later in itertools.pairwise(frames))
    assert {(frame.source, frame.file, frame.image.shape) for frame in frames} == {("film", None, (120, 160, 3))}
    assert source.read() is None
    source.close()
    source.close()


@pytest.mark.parametrize("kept", [0.3, 0.4, 0.61, 0.8])
def test_a_file_cut_off_in_the_middle_gives_what_is_whole(tmp_path: Path, avi: bytes, kept: float) -> None:
    film = avi[: int(len(avi) * kept)]
    whole = at = 0
    while (at := film.find(b"00dc", at) + 1) > 0:
        whole += at + 7 + int.from_bytes(film[at + 3 : at + 7], "little") <= len(film)
    assert 0 < whole < FRAMES
    source = video(tmp_path / "film.avi", film)
    source.open()
    *frames, last = iter(source.read, None)
    assert len(frames) in (whole - 1, whole)  # FFmpeg takes the one before the cut for damaged too
    assert numbers(frames) == list(range(len(frames)))
    assert all(abs(frame.image[-16:].mean() - frame.image.mean()) < 3 for frame in frames if isinstance(frame, Frame))
    assert isinstance(last, Skip)
    assert (last.reason, last.what) == ("truncated", f"frame {len(frames)}")
    assert f"expected about {FRAMES} frames" in last.detail


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "got an empty file"),
        (b"a film, in words\n" * 100, "got a text file"),
        (b"\0\1\2\3 no film" * 1000, "got a file that is no video"),
    ],
)
def test_what_is_no_video(tmp_path: Path, data: bytes, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "film.txt").write_bytes(data)
    source = open_source(parse_source(str(tmp_path / "film.txt")))
    assert source.default_mode == "analysis"
    with pytest.raises(SourceError, match=says) as caught:
        source.open()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_file_that_vanished() -> None:
    with pytest.raises(SourceError, match=re.escape("gone.mp4: got no such file")):
        open_source(parse_source("gone.mp4"))
    with pytest.raises(SourceError, match=re.escape("gone.mp4: got No such file or directory")):
        VideoFileSource("film", "gone.mp4", lambda: 0).open()


def test_played_live_it_keeps_the_pace_of_the_file(tmp_path: Path, avi: bytes) -> None:
    (tmp_path / "film.avi").write_bytes(avi)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    source = VideoFileSource("film", str(tmp_path / "film.avi"), lambda: round(now[0] * 1e9), live=True, sleep=sleep)
    source.open()
    times = []
    for number in range(6):
        item = source.read()
        assert isinstance(item, Frame)
        times.append(round(item.captured_ns / 1e9, 3))
        if number == 2:
            now[0] += 5.0
    assert times == [0.0, 0.1, 0.2, 5.2, 5.3, 5.4]


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


@pytest.fixture
def network_camera() -> Iterator[MotionJpeg]:
    camera = MotionJpeg()
    camera.on()
    yield camera
    camera.off()


@pytest.mark.parametrize("loss", ["off", "hangs"])
def test_a_network_camera_that_goes_and_comes(network_camera: MotionJpeg, loss: str) -> None:
    source = StreamSource("net", network_camera.url, time.monotonic_ns, open_timeout_s=1.0, read_timeout_s=0.5)
    ring: Ring[Frame] = Ring(2, "drop_oldest")
    stop = threading.Event()
    reader = SourceReader(source, ring, stop, pauses_s=[0.05])
    thread = threading.Thread(target=reader.run, daemon=True)
    thread.start()
    try:
        before = [ring.get(10) for _ in range(3)]
        network_camera.off() if loss == "off" else network_camera.hangs.set()
        for _ in range(1000):
            if reader.status.state == "reopening":
                break
            time.sleep(0.01)
        lost = reader.status
        assert lost.state == "reopening"
        assert lost.fault is not None
        assert "secret" not in lost.fault
        network_camera.on() if loss == "off" else network_camera.hangs.clear()
        while (got := ring.get(10)) is not None and got.frame_id < lost.captured:
            pass
        after = [got, *[ring.get(10) for _ in range(2)]]
    finally:
        stop.set()
        thread.join(10)
    frames = [frame for frame in [*before, *after] if frame is not None]
    assert len(frames) == 6
    ids = [frame.frame_id for frame in frames]
    assert ids == sorted(set(ids))
    assert all(np.abs(frame.image.astype(int) - field(120, 160)).mean() < 4 for frame in frames)
    assert reader.status.reopened >= 1
    assert reader.status.state == "ended"


def test_a_stream_that_never_answered_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    camera = MotionJpeg()
    camera.on()
    camera.off()
    source = StreamSource("net", camera.url, time.monotonic_ns, open_timeout_s=1.0)
    assert source.default_mode == "live"
    with pytest.raises(SourceError, match=re.escape("got 'Connection refused' from 127.0.0.1")) as caught:
        source.open()
    assert not isinstance(caught.value, SourceLostError)
    assert "secret" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_stream_of_known_length_ends_and_another_is_lost() -> None:
    film = ScriptedCapture([True, True], {cv2.CAP_PROP_FRAME_COUNT: 2.0})
    endless = ScriptedCapture([True, True], {cv2.CAP_PROP_FRAME_COUNT: -9.2e18})
    opener = Opener(film, endless)
    source = StreamSource("net", "http://host/film.mp4", lambda: 0, open_capture=opener)
    source.open()
    assert [isinstance(source.read(), Frame), isinstance(source.read(), Frame), source.read()] == [True, True, None]
    source.close()
    source.open()
    assert [isinstance(source.read(), Frame), isinstance(source.read(), Frame)] == [True, True]
    with pytest.raises(SourceLostError, match=re.escape("stream http://host/film.mp4: got no frame")):
        source.read()
    assert opener.asked[0][2] == [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 5000),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5000),
        *(cv2.CAP_PROP_N_THREADS, 1),
    ]
