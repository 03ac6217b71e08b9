from __future__ import annotations

import itertools
import sys

import cv2
import pytest

from streamer.records import Frame, Skip
from streamer.sources import SourceError, SourceLostError, open_source, parse_source
from streamer.sources.camera import CameraSource
from tests.streamer.sources.scripted import Opener, ScriptedCapture


def camera(opener: Opener, device: str = "0", **wishes: object) -> CameraSource:
    clock = itertools.count(1000)
    return CameraSource("scope", device, lambda: next(clock), open_capture=opener, **wishes)  # type: ignore[arg-type]


def test_frames_are_numbered_and_stamped_and_nothing_is_stored_up() -> None:
    capture = ScriptedCapture([True, None, True])
    source = camera(Opener(capture))
    source.open()
    assert (cv2.CAP_PROP_BUFFERSIZE, 1) in capture.wishes
    items = [source.read() for _ in range(3)]
    assert [(item.frame_id, item.captured_ns) for item in items if isinstance(item, Frame)] == [(0, 1000), (1, 1002)]
    assert [item.reason for item in items if isinstance(item, Skip)] == ["damaged frame"]
    source.close()
    source.close()
    assert capture.released


def test_what_is_asked_of_the_camera() -> None:
    capture = ScriptedCapture([True])
    opener = Opener(capture)
    source = camera(opener, "/dev/video3", mjpg=True, size_px=(1920, 1080), fps=30.0)
    source.open()
    assert opener.asked == [("/dev/video3", cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY, [])]
    assert capture.wishes == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1920),
        (cv2.CAP_PROP_FRAME_HEIGHT, 1080),
        (cv2.CAP_PROP_FPS, 30.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]


def test_a_camera_that_goes_and_comes_numbers_on() -> None:
    source = camera(Opener(ScriptedCapture([True, True]), ScriptedCapture([]), ScriptedCapture([True])))
    source.open()
    source.read()
    source.read()
    with pytest.raises(SourceLostError, match="got no frame"):
        source.read()
    source.close()
    with pytest.raises(SourceLostError, match="got no answer"):
        source.open()
    source.open()
    again = source.read()
    assert isinstance(again, Frame)
    assert again.frame_id == 2


@pytest.mark.parametrize("grabs", [[], [False]])
def test_a_camera_that_never_gave_a_frame_is_not_waited_for(grabs: list[bool | None]) -> None:
    source = camera(Opener(ScriptedCapture(grabs)), "7")
    if grabs:
        source.open()
    with pytest.raises(SourceError, match="camera 7: got no ") as caught:
        source.read() if grabs else source.open()
    assert not isinstance(caught.value, SourceLostError)
    assert "\n" not in str(caught.value)


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    source = open_source(parse_source("/dev/video97"))
    assert source.default_mode == "live"
    with pytest.raises(SourceError, match="camera /dev/video97: got no answer, expected a camera"):
        source.open()
    assert capfd.readouterr().err == ""
