"""GigE Vision on the wire: Aravis' fake camera on 127.0.0.1, a process that sends packets as a real camera does.

It needs Debian's aravis-tools, gir1.2-aravis-0.8 and python3-gi, of the Python that runs the tests: PyGObject has no
wheel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.records import Frame, Skip
from streamer.sources import aravis, open_source, parse_source
from streamer.sources.attached import attached_cameras
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.genicam import GenicamAddress

FAKE = shutil.which("arv-fake-gv-camera-0.8")
SYSTEM = Path("/usr/lib/python3/dist-packages/gi")
"""Where Debian has PyGObject."""

slow = pytest.mark.slow


def test_without_it_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(SourceError, match=r"genicam:aravis: got .*, expected Aravis 0.8 and PyGObject of this system"):
        aravis.library()


def test_addresses() -> None:
    address = GenicamAddress.parse("aravis,GV01,gain=3")
    assert (address.producer, address.serial, address.settings.given) == ("aravis", "GV01", {"gain": "3"})
    assert parse_source("genicam:aravis,GV01").name == "GV01"


@pytest.fixture
def pygobject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's PyGObject alone, without the other packages beside it, for the processes of drivers."""
    if FAKE is None:
        pytest.skip("no arv-fake-gv-camera-0.8: apt install aravis-tools")
    if importlib.util.find_spec("gi") is not None:
        return
    version = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
    if not any(version in file.name for file in SYSTEM.glob("_gi.*.so")):
        pytest.skip("no PyGObject for this Python: apt install python3-gi gir1.2-aravis-0.8")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gi").symlink_to(SYSTEM)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), f"{tmp_path}/site"])
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def fake_camera(pygobject: None) -> Iterator[Start]:
    """Starts the camera GV01, with this many lost packets of a thousand."""
    running: list[subprocess.Popen[bytes]] = []

    def start(lost: int = 0) -> subprocess.Popen[bytes]:
        command = [str(FAKE), "-i", "127.0.0.1", "-s", "GV01", "-r", str(lost)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(0.5)
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def opened(target: str) -> DrivenSource:
    source = open_source(parse_source(f"genicam:aravis,{target}"))
    assert isinstance(source, DrivenSource)
    source.open()
    return source


def frame_of(source: DrivenSource) -> Frame:
    while not isinstance(item := source.read(), Frame):
        assert item is not None
    return item


@slow
def test_frames_over_the_wire(fake_camera: Start) -> None:
    fake_camera()
    source = opened("GV01,pixel_format=RGB8,exposure=20000,fps=20,size=640x480")
    try:
        first = frame_of(source)
        time.sleep(0.5)
        later = frame_of(source)
    finally:
        source.close()
    assert first.image.shape == (480, 640, 3)
    assert (first.frame_id, later.frame_id) == (0, 1)
    assert 5 <= source.passed_over <= 15
    assert {name: source.settings[name] for name in ("pixel_format", "exposure", "fps")} == {
        **{"pixel_format": "RGB8", "exposure": "20000", "fps": "20"}
    }


@slow
def test_packets_that_are_lost_are_counted(fake_camera: Start) -> None:
    fake_camera(lost=20)
    source = opened("GV01,fps=50")
    lost, until = 0, time.monotonic() + 20
    try:
        while not lost and time.monotonic() < until:
            item = source.read()
            lost += item.count if isinstance(item, Skip) and item.reason in ("damaged frame", "lost on the way") else 0
    finally:
        source.close()
    assert lost


@slow
def test_a_camera_that_is_unplugged_is_lost_and_found_again(fake_camera: Start) -> None:
    camera = fake_camera()
    source = opened("GV01")
    try:
        frame_of(source)
        camera.kill()
        camera.wait()
        begun = time.monotonic()
        with pytest.raises(SourceLostError, match="is it plugged in"):
            list(iter(source.read, None))
        assert time.monotonic() - begun < 8
        source.close()
        with pytest.raises(SourceLostError, match="got no camera with the serial number 'GV01'"):
            source.open()
        source.close()
        fake_camera()
        source.open()
        assert frame_of(source).frame_id > 0
    finally:
        source.close()


@slow
def test_what_does_not_open(fake_camera: Start) -> None:
    fake_camera()
    for target, error, says in (
        (
            "GV02",
            SourceAbsentError,
            "got no camera with the serial number 'GV02', expected one of those attached: GV01",
        ),
        ("GV01,size=9999x100", SourceError, "got size (Width) 9999, expected 1 to 2048"),
        ("GV01,pixel_format=Mono7", SourceError, "got pixel_format (PixelFormat) Mono7, expected one of "),
        ("GV01,white_balance=auto", SourceError, "got the setting white_balance (BalanceWhiteAuto), which it does not"),
    ):
        with pytest.raises(error) as caught:
            opened(target)
        assert says in str(caught.value)
    holding = opened("GV01")
    try:
        with pytest.raises(SourceAbsentError, match="got a camera that another program holds"):
            opened("GV01")
    finally:
        holding.close()


@slow
def test_it_is_listed(fake_camera: Start) -> None:
    fake_camera()
    found = attached_cameras({"genicam:aravis": aravis.attached})
    assert [camera.source for camera in found.cameras] == ["genicam:aravis,GV01"]
