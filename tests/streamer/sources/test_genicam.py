"""Cameras through a GenTL producer: the simulator that the genicam wheel ships."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines.base import UsageError
from streamer.sources import genicam, parse_source
from streamer.sources.attached import attached_cameras
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.genicam import PATH_VARIABLE, GenicamAddress
from tests.streamer.sources import driven
from tests.streamer.sources.driven import check_is_found_again_after_a_kill, frames_of, until_none

pytest.importorskip("harvesters", reason="needs harvesters and genicam: pip install 'leukostream[genicam]'")

PRODUCER = Path(find_spec("genicam").origin or "").with_name("viky.cti")  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _ctrl_c_of_python() -> Iterator[None]:
    """Where the driver runs in the test's own process, the library takes Ctrl-C for itself."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, f"/not/there{os.pathsep}{PRODUCER.parent}")


def opened(target: str) -> DrivenSource:
    return driven.opened(f"genicam:{target}")


def test_addresses() -> None:
    address = GenicamAddress.parse("lib/Maker.CTI, DEV-7 ,exposure=5000")
    assert (address.producer, address.serial, address.settings.given) == (
        "lib/Maker.CTI",
        "DEV-7",
        {"exposure": "5000"},
    )
    for target in ("", "maker.cti", "maker.cti,", "exposure=5"):
        with pytest.raises(UsageError, match=r"got no serial number, expected genicam:\[FILE.cti,\]SERIAL"):
            GenicamAddress.parse(target)
    assert parse_source("genicam:maker.cti,40012").name == "genicam-40012"


@pytest.mark.lengthy
def test_frames_the_newest_first_and_none_of_them_lost(producer: None) -> None:
    source = opened("1")
    try:
        first = next(frames_of(source, 1))
        time.sleep(0.5)  # ten frames of it
        second, third = frames_of(source, 2)
    finally:
        source.close()
    assert first.image.shape == (400, 400, 3)
    assert [first.frame_id, second.frame_id, third.frame_id] == [0, 1, 2]
    assert 5 <= source.passed_over <= 15
    assert second.captured_ns - first.captured_ns > 0.35e9
    assert first.exposed_ns is None  # the simulator has no exposure
    assert source.settings == {"pixel_format": "RGBa8", "fps": "20"}


@pytest.mark.lengthy
def test_settings_are_set_and_read_back(producer: None) -> None:
    source = opened(f"{PRODUCER},0,pixel_format=Mono8,fps=50,size=640x480,BouncingBallSize=40")
    try:
        (frame,) = frames_of(source, 1)
    finally:
        source.close()
    assert source.settings == {"pixel_format": "Mono8", "fps": "50"}
    assert frame.image.shape == (480, 640, 3)
    assert (frame.image[..., 0] == frame.image[..., 2]).all()


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("77", SourceAbsentError, "camera 77: got no camera with the serial number '77', expected one of those "
         "attached: 0, 1, 2; check the cable"),
        ("0,size=9000x400", SourceError, "camera 0: got size (Width) 9000, expected 100 to 800"),
        ("0,pixel_format=Mono7", SourceError, "got pixel_format (PixelFormat) Mono7, expected one of RGBa8, Mono8"),
        ("0,exposure=50", SourceError, "got the setting exposure (ExposureTime), which it does not have"),
        ("/not/there.cti,0", SourceError, "got no file '/not/there.cti', expected the GenTL producer of the camera's "
         "maker"),
        (f"{__file__},0", UsageError, "got the setting '0'"),
    ],
)  # fmt: skip
def test_what_does_not_open(producer: None, target: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        opened(target)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.lengthy
def test_a_file_that_is_no_producer(tmp_path: Path) -> None:
    (tmp_path / "broken.cti").write_bytes(b"no library")
    with pytest.raises(SourceError, match=r"expected a GenTL producer that loads"):
        opened(f"{tmp_path / 'broken.cti'},0")


def test_no_producer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    with pytest.raises(SourceError, match=rf"got no {PATH_VARIABLE}, expected the GenTL producer"):
        genicam.producers(None)
    monkeypatch.setenv(PATH_VARIABLE, "/not/there")
    with pytest.raises(SourceError, match=r"got no .cti file in /not/there"):
        genicam.producers(None)


@pytest.mark.lengthy
def test_a_camera_that_another_program_holds() -> None:
    driver = genicam.connect(f"{PRODUCER},0")
    try:
        device = next(one for one in driver._harvester.device_info_list if one.serial_number == "0")
        with pytest.raises(SourceAbsentError, match="got a camera that another program holds"):
            genicam.acquirer_of(driver._harvester, device)
    finally:
        driver.close()


@pytest.mark.lengthy
def test_a_camera_that_is_unplugged_is_lost_and_found_again(producer: None) -> None:
    source = opened("0")
    check_is_found_again_after_a_kill(source)
    assert max(source.pauses_s) <= 5.0


@pytest.mark.lengthy
def test_a_device_that_falls_silent_or_closes_underneath_the_driver() -> None:
    driver = genicam.connect(f"{PRODUCER},0")
    assert driver.next(3.0) is not None
    driver._acquirer.stop()
    driver.next(0.5)  # one may have come before
    assert driver.next(0.5) is None
    driver.close()
    driver = genicam.connect(f"{PRODUCER},0")
    assert driver.next(3.0) is not None
    driver._acquirer.destroy()
    with pytest.raises(SourceLostError, match=r"expected images; is it plugged in\?"):
        until_none(driver.next)
    driver.close()


@pytest.mark.lengthy
def test_they_are_listed_without_opening_them(producer: None) -> None:
    found = attached_cameras({"genicam": genicam.attached})
    assert [(camera.source, camera.gives, camera.usable) for camera in found.cameras] == [
        ("genicam:0", "ready", True),
        ("genicam:1", "ready", True),
        ("genicam:2", "ready", True),
    ]
    assert found.cameras[0].name == "Machine Vision Games Ltd. Viky"
    assert not found.faults
