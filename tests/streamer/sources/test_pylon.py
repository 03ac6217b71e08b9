"""Basler's cameras: the emulated one of pylon."""

from __future__ import annotations

import os
import signal
import time

import pytest

from engines.base import UsageError
from streamer.sources import parse_source, pylon
from streamer.sources.attached import attached_cameras
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.pylon import PylonAddress
from tests.streamer.sources import driven
from tests.streamer.sources.driven import frames_of, until_none

pytest.importorskip("pypylon", reason="needs pypylon: pip install 'leukostream[pylon]'")

SERIAL = "0815-0000"


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLON_CAMEMU", "1")


def opened(target: str) -> DrivenSource:
    return driven.opened(f"pylon:{target}")


def test_addresses() -> None:
    address = PylonAddress.parse("40012345,gain=3")
    assert (address.serial, address.settings.given) == ("40012345", {"gain": "3"})
    for target in ("", "gain=3"):
        with pytest.raises(UsageError, match=r"got no serial number, expected pylon:SERIAL"):
            PylonAddress.parse(target)
    assert parse_source("pylon:40012345").name == "pylon-40012345"


@pytest.mark.lengthy
def test_frames_the_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(f"{SERIAL},exposure=2000,fps=20,gain=6")
    try:
        first = next(frames_of(source, 1))
        time.sleep(0.5)  # ten frames of it
        second, third = frames_of(source, 2)
    finally:
        source.close()
    assert first.image.shape == (1040, 1024, 3)
    assert [first.frame_id, second.frame_id, third.frame_id] == [0, 1, 2]
    assert 5 <= source.passed_over <= 15
    assert second.captured_ns - first.captured_ns > 0.35e9
    assert first.exposed_ns == first.captured_ns - 1_000_000
    assert source.settings == {"pixel_format": "Mono8", "exposure": "2000", "gain": "6", "fps": "20"}


@pytest.mark.lengthy
@pytest.mark.parametrize(
    "pixel_format", ["Mono12", "BayerRG8", "BayerGB12", "RGB8Packed", "BGRA8Packed", "RGB16Packed"]
)
def test_formats_of_pixels(pixel_format: str) -> None:
    """The test picture is a grey ramp, x + y in 256 levels; test_pixel_formats.py has the colours and phases."""
    source = opened(f"{SERIAL},TestImageSelector=Testimage1,pixel_format={pixel_format},size=640x480")
    try:
        (frame,) = frames_of(source, 1)
    finally:
        source.close()
    assert source.settings["pixel_format"] == pixel_format
    assert frame.image.shape == (480, 640, 3)
    assert frame.image[100, 100].tolist() == [200] * 3
    assert frame.image[300, 470].tolist() == [770 % 256] * 3


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("77", SourceAbsentError, f"camera 77: got no camera with the serial number '77', expected one of those "
         f"attached: {SERIAL}; check the cable"),
        (f"{SERIAL},exposure=1e12", SourceError, "got exposure (ExposureTime) 1e12, expected 1 to 1e+07"),
        (f"{SERIAL},gain=99", SourceError, "got gain (Gain) 99, expected 0 to 48"),
        (f"{SERIAL},pixel_format=Mono7", SourceError, "got pixel_format (PixelFormat) Mono7, expected one of Mono8, "),
        (f"{SERIAL},white_balance=auto", SourceError, "got the setting white_balance (BalanceWhiteAuto), which it does "
         "not have"),
        (f"{SERIAL},ForceFailedBufferCount=0", SourceError, "got ForceFailedBufferCount 0, expected 1 to 1024"),
    ],
)  # fmt: skip
def test_what_does_not_open(target: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        opened(target)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.lengthy
def test_images_that_fail_are_counted() -> None:
    """The emulator fails so many on demand: they are damaged, and no frame."""
    driver = pylon.connect(f"{SERIAL},fps=50")
    try:
        assert driver.next(3.0) is not None
        nodes = driver._camera.GetNodeMap()
        nodes.GetNode("ForceFailedBufferCount").FromString("7")
        nodes.GetNode("ForceFailedBuffer").Execute()
        damaged, until = 0, time.monotonic() + 5
        while damaged < 7 and time.monotonic() < until:
            image = driver.next(3.0)
            assert image is not None
            damaged += image.damaged
        assert damaged == 7
    finally:
        driver.close()


@pytest.mark.lengthy
def test_a_camera_that_closes_underneath_is_lost() -> None:
    driver = pylon.connect(SERIAL)
    assert driver.next(3.0) is not None
    driver._camera.StopGrabbing()
    with pytest.raises(SourceLostError, match="got the end of its images"):
        until_none(driver.next)
    driver.close()


@pytest.mark.lengthy
def test_a_camera_that_is_unplugged_is_lost_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(SERIAL)
    try:
        list(frames_of(source, 2))
        assert source.pid is not None
        os.kill(source.pid, signal.SIGKILL)
        with pytest.raises(SourceLostError, match="SIGKILL"):
            list(frames_of(source, 100))
        source.close()
        monkeypatch.setenv("PYLON_CAMEMU", "0")
        with pytest.raises(SourceLostError, match=f"'{SERIAL}', expected one of those attached: none"):
            source.open()
        source.close()
        monkeypatch.setenv("PYLON_CAMEMU", "1")
        source.open()
        (frame,) = frames_of(source, 1)
        assert frame.frame_id >= 2
    finally:
        source.close()
    assert max(source.pauses_s) <= 5.0


@pytest.mark.lengthy
def test_they_are_listed_without_opening_them() -> None:
    found = attached_cameras({"pylon": pylon.attached})
    assert [(camera.source, camera.name, camera.gives) for camera in found.cameras] == [
        (f"pylon:{SERIAL}", "Emulation", "ready")
    ]
