"""Cameras and stages of Micro-Manager: the demo configuration of mm-test-adapters, and devices in Python."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from engines.base import UsageError
from streamer.records import StagePoint
from streamer.sources import micromanager, open_source, parse_source
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.driver import EndOfImages
from streamer.sources.micromanager import MicroManagerAddress
from streamer.sources.micromanager_sequence import SequenceOfImages
from tests.streamer.sources import driven
from tests.streamer.sources.driven import check_is_found_again_after_a_kill, frames_of, until_none

pytest.importorskip("pymmcore_plus", reason="needs pymmcore-plus: pip install 'leukostream[micromanager]'")
pytest.importorskip("mm_test_adapters", reason="needs mm-test-adapters")

DEMO = "MMConfig_demo.cfg"

PYTHON = """\
#py pyDevice,Camera,tests.streamer.sources.python_microscope,Camera
#py pyDevice,XY,tests.streamer.sources.python_microscope,Stage
#py Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,XYStage,XY
"""
SEQUENCE = """
stage_positions:
  - {x: 0, y: 0, z: 1}
  - {x: 100, y: 50, z: 2}
  - {x: 200, y: 50}
channels: [DAPI, FITC]
"""


@pytest.fixture
def python_config(tmp_path: Path) -> str:
    pytest.importorskip("pymmcore_plus.experimental.unicore", reason="pymmcore-plus has no UniMMCore")
    file = tmp_path / "python.cfg"
    file.write_text(PYTHON)
    return str(file)


@pytest.fixture
def sequence(tmp_path: Path) -> str:
    file = tmp_path / "fields.yaml"
    file.write_text(SEQUENCE)
    return str(file)


def opened(target: str) -> DrivenSource:
    return driven.opened(f"mm:{target}")


def test_addresses(tmp_path: Path) -> None:
    address = MicroManagerAddress.parse("a, b/C d.cfg, camera=Cam 1,xy=XY,z=Z,exposure=12.5,mda=f/s.yaml")
    assert address == MicroManagerAddress("a, b/C d.cfg", "Cam 1", "XY", "Z", 12.5, "f/s.yaml")
    assert parse_source("mm:lab/Scope one.cfg,camera=A").name == "Scope-one"
    for target, says in (
        ("", "got no configuration"),
        ("a.cfg,cam=A", "got the setting 'cam', which does not exist; did you mean 'camera'?"),
        ("a.cfg,exposure=long", "got exposure 'long', expected milliseconds"),
        ("a.cfg,exposure=0", "got exposure '0', expected milliseconds"),
        ("a.cfg,xy=", "got no xy"),
    ):
        with pytest.raises(UsageError) as caught:
            MicroManagerAddress.parse(target)
        assert says in str(caught.value)
    with pytest.raises(SourceError, match=r"got no file '/not/there.yaml', expected a useq sequence"):
        open_source(parse_source("mm:a.cfg,mda=/not/there.yaml"))


@pytest.mark.lengthy
def test_the_newest_frame_with_its_position_and_scale() -> None:
    source = opened(f"{DEMO},exposure=20")
    try:
        first = next(frames_of(source, 1))
        time.sleep(0.5)
        second, third = frames_of(source, 2)
    finally:
        source.close()
    assert [frame.image.shape for frame in (first, second, third)] == [(512, 512, 3)] * 3
    assert [first.frame_id, second.frame_id, third.frame_id] == [0, 1, 2]
    assert source.passed_over >= 10
    assert second.captured_ns - first.captured_ns > 0.4e9
    assert first.stage_um == StagePoint(0.0, 0.0, 0.0)
    assert (first.um_per_px, first.moving) == (1.0, False)
    assert first.exposed_ns == first.captured_ns - 10_000_000
    assert source.settings == {"camera": "Camera", "exposure": "20 ms", "xy": "XY", "z": "Z", "um_per_px": "1"}


@pytest.mark.lengthy
def test_a_stage_that_moves_is_marked_while_it_does() -> None:
    driver = micromanager.connect(f"{DEMO},exposure=20")
    assert isinstance(driver, micromanager.LiveMicroscope)
    try:
        core = driver._core
        assert _image(driver).moving is False
        core.setXYPosition(4000, 100)
        during = _image(driver)
        core.waitForDevice("XY")
        time.sleep(0.2)
        after = _image(driver)
    finally:
        driver.close()
    assert during.moving is True
    assert during.stage_um is not None
    assert during.stage_um[0] < 3999
    assert after.moving is False
    assert after.stage_um == pytest.approx((4000, 100, 0), abs=0.02)


def _image(driver: Any) -> Any:
    image = driver.next(3.0)
    assert image is not None
    return image


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (f"{DEMO},camera=Cam2", SourceError, "got camera 'Cam2', expected one of the configuration: Camera"),
        (f"{DEMO},xy=Z", SourceError, "got xy 'Z', expected one of the configuration: XY"),
        (f"{DEMO},exposure=99999999", SourceError, "got exposure 1e+08 ms, expected "),
        ("not_there.cfg", SourceError, "got no file 'not_there.cfg', expected a configuration of Micro-Manager"),
    ],
)
def test_what_does_not_open(target: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        opened(target)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.lengthy
def test_hardware_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "absent.cfg"
    file.write_text("Device,Camera,NoSuchAdapter,Cam\n")
    with pytest.raises(SourceAbsentError, match=r"^microscope absent.cfg: got '.*NoSuchAdapter.*', expected that its"):
        opened(str(file))
    file.write_text("Device,XY,DemoCamera,DXYStage\nProperty,Core,Initialize,1\n")
    with pytest.raises(SourceError, match="got a configuration without a camera, expected one"):
        opened(str(file))


@pytest.mark.lengthy
def test_a_microscope_whose_process_is_killed_is_lost_and_found_again() -> None:
    source = opened(DEMO)
    check_is_found_again_after_a_kill(source)


@pytest.mark.lengthy
def test_a_device_that_goes_underneath_the_driver_is_lost() -> None:
    driver = micromanager.connect(DEMO)
    assert isinstance(driver, micromanager.LiveMicroscope)
    assert driver.next(3.0) is not None
    driver._core.stopSequenceAcquisition()
    with pytest.raises(SourceLostError, match="got the end of its images"):
        until_none(driver.next)
    driver.close()


@pytest.mark.lengthy
def test_a_sequence_is_taken_as_it_comes_and_ends(sequence: str) -> None:
    source = opened(f"{DEMO},mda={sequence}")
    assert source.default_mode == "analysis"
    try:
        frames = list(frames_of(source, 6))
        assert source.read() is None
    finally:
        source.close()
    places = [frame.stage_um for frame in frames if frame.stage_um is not None]
    assert [(round(place.x, 1), round(place.y, 1), place.z) for place in places] == [
        *[(0.0, 0.0, 1.0)] * 2,
        *[(100.0, 50.0, 2.0)] * 2,
        *[(200.0, 50.0, 2.0)] * 2,
    ]
    assert {frame.um_per_px for frame in frames} == {1.0}
    assert not any(frame.moving for frame in frames)


@pytest.mark.lengthy
def test_a_slow_reader_makes_the_sequence_wait(sequence: str) -> None:
    driver = micromanager.connect(f"{DEMO},mda={sequence}")
    assert isinstance(driver, SequenceOfImages)
    count = 0
    try:
        while True:
            image = driver.next(10.0)
            assert image is not None
            count += 1
            time.sleep(0.1)
    except EndOfImages:
        pass
    finally:
        driver.close()
    assert count == 6


@pytest.mark.lengthy
def test_a_file_that_is_no_sequence(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("stage_positions: 7\n")
    with pytest.raises(SourceError, match=r"got odd.yaml \(.*\), expected a useq sequence"):
        opened(f"{DEMO},mda={file}")


@pytest.mark.lengthy
def test_devices_in_python(python_config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOSTREAM_TEST_SPEED", "1000")
    source = opened(f"{python_config},exposure=20")
    try:
        list(frames_of(source, 1))
        (frame,) = frames_of(source, 1)
    finally:
        source.close()
    assert frame.image.shape == (40, 60, 3)
    assert frame.moving is True
    assert frame.stage_um is not None
    assert frame.stage_um.x > 0
    assert frame.stage_um.z is None
    assert frame.um_per_px is None


@pytest.mark.lengthy
def test_colours_of_a_camera_in_python_and_its_end(python_config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOSTREAM_TEST_COLOURS", "1")
    monkeypatch.setenv("LEUKOSTREAM_TEST_IMAGES", "1")
    source = opened(python_config)
    try:
        (frame,) = frames_of(source, 1)
        assert frame.image[0, 0].tolist() == [30, 20, 10]
        with pytest.raises(SourceLostError, match="got the end of its images"):
            source.read()
    finally:
        source.close()
