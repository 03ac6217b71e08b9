from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.base import UsageError
from tools.bench import rtsp_camera
from tools.bench.rtsp_camera import RtspCamera, why_no_server
from tools.bench.rtsp_frames import read_frames, write_frames


@pytest.fixture
def asked_anew() -> Iterator[None]:
    why_no_server.cache_clear()
    yield
    why_no_server.cache_clear()


def test_frames_come_back_as_they_were_written(tmp_path: Path) -> None:
    frames = [(b"\0\0\1key", True), (b"", False), (bytes(range(256)) * 300, False)]
    write_frames(tmp_path / "film", frames)
    assert read_frames(tmp_path / "film") == frames


@pytest.mark.parametrize(
    ("python", "why"), [("/nowhere/python3", "no /nowhere/python3 (No such file or directory)"), ("false", "no answer")]
)
@pytest.mark.usefixtures("asked_anew")
def test_a_machine_without_the_server_is_told_what_brings_it(
    python: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp_camera, "PYTHON", python)
    with pytest.raises(UsageError) as caught:
        RtspCamera([])
    assert str(caught.value).startswith(
        f"RTSP server: got {why}, expected GStreamer's: apt-get install gir1.2-gst-rtsp"
    )
