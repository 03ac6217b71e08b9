from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest

from streamer.records import Frame, Skip
from streamer.run.ring import Ring
from streamer.sources import SourceLostError, capture
from streamer.sources.base import SourceAbsentError
from streamer.sources.decoder import Decoder, OpenDecoder, Timeouts
from streamer.sources.opencv_decoder import open_opencv
from streamer.sources.reconnection import SourceReader
from streamer.sources.stream import StreamSource
from tests.streamer.sources.back_ends import each_back_end
from tests.streamer.sources.network_camera import MotionJpeg
from tests.streamer.sources.pictures import field
from tests.streamer.sources.scripted import Opener, ScriptedCapture, ScriptedDecoder


@pytest.fixture
def network_camera() -> Iterator[MotionJpeg]:
    camera = MotionJpeg()
    camera.on()
    yield camera
    camera.off()


@each_back_end
@pytest.mark.parametrize("loss", ["off", "hangs"])
def test_a_network_camera_that_goes_and_comes(network_camera: MotionJpeg, loss: str, open_decoder: OpenDecoder) -> None:
    source = StreamSource(
        "net", network_camera.url, time.monotonic_ns, timeouts=Timeouts(1.0, 0.5), open_decoder=open_decoder
    )
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


@each_back_end
def test_a_stream_that_never_answered_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], open_decoder: OpenDecoder
) -> None:
    camera = MotionJpeg()
    camera.on()
    camera.off()
    source = StreamSource("net", camera.url, time.monotonic_ns, timeouts=Timeouts(1.0), open_decoder=open_decoder)
    assert source.default_mode == "live"
    with pytest.raises(SourceAbsentError, match=re.escape("got 'Connection refused' from 127.0.0.1")) as caught:
        source.open()
    assert not isinstance(caught.value, SourceLostError)
    assert "secret" not in str(caught.value)
    assert capfd.readouterr().err == ""


def scripted(*captures: ScriptedCapture) -> tuple[OpenDecoder, Opener]:
    opener = Opener(*captures)

    def open_decoder(address: str, timeouts: Timeouts | None = None) -> Decoder | None:
        return open_opencv(address, timeouts, open_capture=opener)

    return open_decoder, opener


def test_a_stream_of_known_length_ends_and_another_is_lost() -> None:
    film = ScriptedCapture([True, True], {cv2.CAP_PROP_FRAME_COUNT: 2.0})
    endless = ScriptedCapture([True, True], {cv2.CAP_PROP_FRAME_COUNT: -9.2e18})
    open_decoder, opener = scripted(film, endless)
    source = StreamSource("net", "http://host/film", lambda: 0, every_frame=True, open_decoder=open_decoder)
    source.open()
    assert [isinstance(source.read(), Frame), isinstance(source.read(), Frame), source.read()] == [True, True, None]
    source.close()
    source.open()
    assert [isinstance(source.read(), Frame), isinstance(source.read(), Frame)] == [True, True]
    with pytest.raises(SourceLostError, match=re.escape("stream http://host/film: got no frame")):
        source.read()
    source.close()
    assert endless.released
    assert film.wishes == [(cv2.CAP_PROP_ORIENTATION_AUTO, 0)]
    assert opener.asked[0][2] == [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 5000),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5000),
        *(cv2.CAP_PROP_N_THREADS, 1),
    ]


def test_one_that_falls_behind_jumps_to_now_and_says_so() -> None:
    slow, fresh = ScriptedDecoder(), ScriptedDecoder()
    decoders = iter([slow, fresh])
    source = StreamSource(
        "net", "rtsp://host/a", slow.clock, open_decoder=lambda address, timeouts=None: next(decoders)
    )
    source.open()
    for number in range(4):
        slow.feed(number / 10, number / 10)
    slow.settle()
    assert isinstance(source.read(), Frame)
    assert source.behind_s == pytest.approx(0.0)
    slow.feed(0.4, 2.9)
    slow.settle()
    assert source.behind_s == pytest.approx(2.5, abs=0.01)
    slow.end()
    skip = source.read()
    assert isinstance(skip, Skip)
    assert (skip.reason, skip.what) == ("fell behind", "2.5 s")
    assert "jumped to now" in skip.detail
    assert slow.closed.wait(10)
    fresh.feed(0.0, 3.0)
    fresh.feed(0.1, 3.1)
    fresh.settle()
    frame = source.read()
    assert isinstance(frame, Frame)
    assert frame.frame_id == 1
    assert source.passed_over == 5
    fresh.end()
    with pytest.raises(SourceLostError, match="got no frame"):
        source.read()
    source.close()
    assert source.behind_s is None


@pytest.mark.parametrize("keeps_frames", [True, False])
def test_what_was_held_up_and_comes_at_once_is_passed_over(keeps_frames: bool) -> None:
    decoder = ScriptedDecoder(keeps_frames=keeps_frames)
    decoders = iter([decoder])
    source = StreamSource("net", "rtsp://host/a", decoder.clock, open_decoder=lambda url, timeouts=None: next(decoders))
    source.open()
    for number in range(5):
        decoder.feed(number / 10, number / 10)
    decoder.settle()
    if keeps_frames:  # the last one is still there
        assert isinstance(source.read(), Frame)
    read: list[Frame | Skip | None] = []
    reader = threading.Thread(target=lambda: read.extend(source.read() for _ in range(2)))
    reader.start()
    for number in range(5, 30):  # 2.5 s of the stream
        decoder.feed(number / 10, 2.9 + number / 1000)
    number = 30
    while reader.is_alive():
        decoder.feed(number / 10, number / 10)
        number += 1
        reader.join(0.01)
    decoder.end()
    (skip,) = (item for item in read if isinstance(item, Skip))
    (frame,) = (item for item in read if isinstance(item, Frame))
    assert (skip.reason, skip.what) == ("fell behind", "2.4 s")
    assert frame.captured_ns >= (2.9e9 if keeps_frames else 2.925e9)


def test_one_that_falls_behind_and_does_not_open_again_is_lost() -> None:
    slow = ScriptedDecoder()
    decoders = iter([slow, None])
    source = StreamSource(
        "net", "rtsp://host/a", slow.clock, open_decoder=lambda address, timeouts=None: next(decoders)
    )
    source.open()
    slow.feed(0.0, 0.0)
    slow.feed(0.1, 3.1)
    slow.settle()
    slow.end()
    with pytest.raises(SourceLostError, match=re.escape("fell 3.0 s behind")):
        source.read()


def test_where_no_frame_may_be_lost_none_is_passed_over() -> None:
    decoder = ScriptedDecoder(keeps_frames=False)
    source = StreamSource(
        "net", "rtsp://host/a", lambda: 0, every_frame=True, open_decoder=lambda address, timeouts=None: decoder
    )
    source.open()
    decoder.put(0.0, 0.0)
    decoder.put(0.1, 60.0)
    assert [isinstance(source.read(), Frame), isinstance(source.read(), Frame)] == [True, True]
    assert (source.passed_over, source.behind_s) == (0, None)


def of_another_size(sizes_px: list[tuple[int, int]]) -> tuple[StreamSource, list[ScriptedDecoder], threading.Event]:
    """A stream whose decoder scales all frames to the first size, opened; the decoders that are opened one after the
    other give these. The event is the camera's change of its description."""
    decoders = [ScriptedDecoder(keeps_frames=False, sees_sizes=False, size_px=size_px) for size_px in sizes_px]
    waiting, changed = iter(decoders), threading.Event()
    source = StreamSource(
        "net",
        "rtsp://host/a",
        lambda: 0,
        every_frame=True,
        open_decoder=lambda address, timeouts=None: next(waiting),
        described=lambda url: f"a=framesize:96 {'8-4' if changed.is_set() else '6-4'}",
        asked_every_s=0.001,
    )
    source.open()
    return source, decoders, changed


def until_said(source: StreamSource, decoder: ScriptedDecoder) -> Skip:
    """Read one frame after the other until something else comes."""
    for number in range(5000):
        decoder.put(number / 10, number / 10)
        item = source.read()
        if isinstance(item, Skip):
            return item
        time.sleep(0.001)
    raise AssertionError("nothing was said")


def test_a_camera_that_says_another_resolution_is_opened_again() -> None:
    source, decoders, changed = of_another_size([(6, 4), (8, 4)])
    decoders[0].put(0.0, 0.0)
    first = source.read()
    changed.set()
    skip = until_said(source, decoders[0])
    assert (skip.reason, skip.count) == ("another resolution", 1)
    decoders[1].put(0.0, 0.0)
    then = source.read()
    assert isinstance(first, Frame)
    assert isinstance(then, Frame)
    assert [(frame.width, frame.height) for frame in (first, then)] == [(6, 4), (8, 4)]
    assert then.frame_id > first.frame_id
    assert decoders[0].closed.is_set()
    source.close()


def test_a_description_that_changes_without_the_resolution_is_not_asked_for_again() -> None:
    source, decoders, changed = of_another_size([(6, 4), (6, 4)])
    decoders[0].put(0.0, 0.0)
    source.read()
    changed.set()
    until_said(source, decoders[0])
    changed.clear()
    for number in range(50):
        decoders[1].put(number / 10, number / 10)
        assert isinstance(source.read(), Frame)
        time.sleep(0.002)
    source.close()


@pytest.mark.parametrize("has_av", [True, False])
def test_what_opencv_does_not_see_is_said(has_av: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.sources.decoder.has_av", lambda: has_av)
    remarks = StreamSource("net", "rtsp://user:secret@host/a", lambda: 0).remarks
    assert len(remarks) == (0 if has_av else 1)
    assert all("stream rtsp://host/a: read with OpenCV" in line for line in remarks)


@pytest.mark.parametrize("as_a_person_has_it", [False, True])
def test_opencv_looks_shortly_what_a_stream_is_and_long_what_a_film_is(
    as_a_person_has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds for a second what came, where it is not told so."""
    monkeypatch.setattr(capture, "_as_a_person_has_it", as_a_person_has_it)
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "mine")
    told: list[str] = []

    def open_capture(target: int | str, backend: int, parameters: Sequence[int]) -> ScriptedCapture:
        told.append(os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"])
        return ScriptedCapture([])

    for timeouts in (Timeouts(), None):
        open_opencv("rtsp://host/a", timeouts, open_capture=open_capture)
    if as_a_person_has_it:
        assert told == ["mine", "mine"]
    else:
        assert ["analyzeduration;100000" in options for options in told] == [True, False]
        assert all("rtsp_transport;tcp|fflags;discardcorrupt" in options for options in told)
