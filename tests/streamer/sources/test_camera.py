from __future__ import annotations

import itertools
import sys

import cv2
import pytest

from engines.base import UsageError
from streamer.records import Frame, Skip
from streamer.sources import SourceError, SourceLostError, open_source, parse_source
from streamer.sources.camera import CameraSource
from tests.streamer.sources.scripted import Opener, ScriptedCapture


def camera(opener: Opener, target: str = "0") -> CameraSource:
    clock = itertools.count(1000)
    return CameraSource("scope", target, lambda: next(clock), open_capture=opener)


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
    source = camera(opener, "/dev/video3,fps=30, size=1920x1080,exposure=50,fourcc=mjpg")
    source.open()
    assert opener.asked == [("/dev/video3", cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY, [])]
    assert capture.wishes == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1920),
        (cv2.CAP_PROP_FRAME_HEIGHT, 1080),
        (cv2.CAP_PROP_FPS, 30.0),
        (cv2.CAP_PROP_AUTO_EXPOSURE, 1.0),
        (cv2.CAP_PROP_EXPOSURE, 50.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera:scope", "got the device 'scope', expected an index or /dev/videoN"),
        ("camera:0,size=big", "got size 'big', expected one such as size=1920x1080"),
        ("camera:0,fps=0", "got fps '0', expected one such as fps=30"),
        ("camera:0,fourcc=MJ", "got fourcc 'MJ', expected one such as fourcc=MJPG"),
        ("camera:0,exposure=auto", "got exposure 'auto', expected one such as exposure=50"),
        ("camera:0,sise=640x480", "got the setting 'sise', which does not exist; did you mean 'size'"),
        ("camera:0,gain=3", "expected one of size, fps, fourcc, exposure"),
    ],
)
def test_a_setting_that_can_not_be_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(parse_source(text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_camera_with_settings_is_that_of_the_camera() -> None:
    for text in ("2", "camera:2", "camera:2,size=640x480", "/dev/video2", "camera:/dev/video2,fps=5"):
        assert (parse_source(text).name, parse_source(text).kind) == ("camera2", "camera")


class Refusing(ScriptedCapture):
    """Has one exposure."""

    def set(self, prop: int, value: float) -> bool:
        return super().set(prop, value) and prop != cv2.CAP_PROP_EXPOSURE


def test_a_camera_that_does_not_take_what_was_asked_for_is_said_and_not_used() -> None:
    properties = {
        cv2.CAP_PROP_FRAME_WIDTH: 640.0,
        cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
        cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
    }
    capture = Refusing([True], properties)
    source = camera(Opener(capture), "0,size=1920x1080,fourcc=MJPG,exposure=50")
    with pytest.raises(SourceError) as caught:
        source.open()
    assert "got size 640x480 (asked for: 1920x1080), format YUYV (asked for: MJPG), no exposure of 50, " in str(
        caught.value
    )
    assert not isinstance(caught.value, SourceLostError)
    source.close()
    assert capture.released
    fits = camera(Opener(ScriptedCapture([True], properties)), "0,size=640x480,fourcc=YUYV,exposure=50,fps=30")
    fits.open()
    assert isinstance(fits.read(), Frame)


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
