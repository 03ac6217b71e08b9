"""Nothing analysed is no success: exit 1, the true reason in the last line, and no table of zeros."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.analysis import models
from streamer.cli import main
from tests.streamer.journal.journal_cases import classifier, detector, write_images
from tests.streamer.sources.av1_film import AV1_FILM


@pytest.fixture(autouse=True)
def scripted_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: classifier())


def several_pages(folder: Path) -> str:
    cv2.imwritemulti(str(folder / "pages.tif"), [np.full((64, 64, 3), grey, np.uint8) for grey in (10, 200)])
    return str(folder / "pages.tif")


def too_large(folder: Path) -> str:
    cv2.imwrite(str(folder / "large.png"), np.zeros((10_001, 10_000), np.uint8))
    return str(folder / "large.png")


def two_damaged(folder: Path) -> str:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((64, 64, 3), np.uint8))
        (folder / name).write_bytes((folder / name).read_bytes()[:60])
    return str(folder)


def unknown_codec(folder: Path) -> str:
    (folder / "film.mp4").write_bytes(AV1_FILM)
    if cv2.VideoCapture(str(folder / "film.mp4"), cv2.CAP_FFMPEG).grab():
        pytest.skip("this OpenCV decodes AV1")
    return str(folder / "film.mp4")


def damaged(folder: Path, start: int) -> str:
    """A recording whose bytes behind `start` are others than they were."""
    path = folder / "film.rec"
    assert main(["run", "--source", f"slide={write_images(folder / 'frames')}", "--record", str(path)]) == 0
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(byte ^ 0x55 for byte in data[start:]))
    return f"replay:{path}"


def recording_damaged_throughout(folder: Path) -> str:
    return damaged(folder, 200)


def recording_of_damaged_frames(folder: Path) -> str:
    return damaged(folder, 2000)


CASES: dict[Callable[[Path], str], str] = {
    several_pages: "pages.tif: several images in one TIFF: got no package 'tifffile', expected it here: pip install",
    too_large: "large.png: got 10000 x 10001 px, expected at most 100 megapixels",
    two_damaged: "got no frame, expected at least one; 2 were skipped, the last one was b.png: got ",
    unknown_codec: f"got a video in AV1, of whose frames OpenCV {cv2.__version__} decodes none",
    recording_damaged_throughout: "film.rec: got no source, expected one; it is damaged or cut off at its beginning",
    recording_of_damaged_frames: "film.rec",
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_source_without_a_frame_fails_and_says_why(
    make: Callable[[Path], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamer.sources.decoder.has_av", lambda: False)  # PyAV decodes AV1
    monkeypatch.setitem(sys.modules, "tifffile", None)  # it reads stacks
    source = make(tmp_path)
    capsys.readouterr()
    assert main(["run", "--source", source]) == 1
    said = capsys.readouterr()
    assert CASES[make] in said.err.splitlines()[-1]
    assert "differential" not in said.out


def test_a_source_with_frames_beside_one_without_is_shown_and_the_run_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write_images(tmp_path / "frames"), two_damaged(tmp_path)
    assert main(["run", "--source", f"good={good}", f"bad={bad}"]) == 1
    said = capsys.readouterr()
    assert "differential of good: " in said.out
    assert "differential of bad" not in said.out


def test_a_resumed_source_may_end_without_another_frame(tmp_path: Path) -> None:
    words = ["run", "--source", f"slide={write_images(tmp_path / 'frames')}", "--journal", str(tmp_path / "one.db")]
    assert main(words) == 0
    assert main([*words, "--resume"]) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_json_lines_that_could_not_be_written_fail_the_run_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--source", f"slide={write_images(tmp_path / 'frames')}", "--jsonl", "/dev/full"]) == 1
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith("leukostream: --jsonl /dev/full: got 'No space left on device', and lost ")
    assert "differential of slide: " in said.out


@pytest.mark.lengthy
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_second_interrupt_ends_the_process_at_once_without_an_abort() -> None:
    words = ["run", "--source", "sim:seed=3,cells=400", "--no-dashboard", "--workers", "4"]
    run = subprocess.Popen(
        [sys.executable, "-m", "streamer", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    next(line for line in run.stdout if "white cells" in line)  # its threads are inside the models
    run.send_signal(signal.SIGINT)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate()
    if run.returncode != 0:  # 0: it had ended by the first
        assert run.returncode == 130
        assert err.splitlines()[-1] == "leukostream: stopped at once, before the final differential"


def test_a_camera_that_is_not_on_is_waited_for_and_then_given_up(
    free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--source", f"cam=rtsp://127.0.0.1:{free_port}/stream", "--wait", "1.5"]) == 1
    said = capsys.readouterr()
    waiting = [line for line in said.out.splitlines() if line.startswith("cam: starting (live): ")]
    assert len(waiting) == 1
    assert waiting[0].endswith("check the address, and that the camera is on; waiting for it")
    assert "got 'Connection refused'" in said.err.splitlines()[-1]
