from __future__ import annotations

import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.records import Frame, Skip
from streamer.sources import SourceError, open_source, parse_source
from streamer.sources.decoder import OpenDecoder
from streamer.sources.video import VideoFileSource
from tests.streamer.sources.back_ends import each_back_end

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


def video(path: Path, data: bytes, open_decoder: OpenDecoder) -> VideoFileSource:
    path.write_bytes(data)
    clock = itertools.count(1000)
    return VideoFileSource("film", str(path), lambda: next(clock), open_decoder=open_decoder)


def numbers(items: list[Frame | Skip]) -> list[int]:
    return [round((float(item.image.mean()) - 30) / 10) for item in items if isinstance(item, Frame)]


@each_back_end
def test_every_frame_of_a_file(tmp_path: Path, avi: bytes, open_decoder: OpenDecoder) -> None:
    source = video(tmp_path / "film.avi", avi, open_decoder)
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


@each_back_end
@pytest.mark.parametrize("kept", [0.3, 0.4, 0.61, 0.8])
def test_a_file_cut_off_in_the_middle_gives_what_is_whole(
    tmp_path: Path, avi: bytes, kept: float, open_decoder: OpenDecoder
) -> None:
    film = avi[: int(len(avi) * kept)]
    whole = at = 0
    while (at := film.find(b"00dc", at) + 1) > 0:
        whole += at + 7 + int.from_bytes(film[at + 3 : at + 7], "little") <= len(film)
    assert 0 < whole < FRAMES
    source = video(tmp_path / "film.avi", film, open_decoder)
    source.open()
    *items, last = iter(source.read, None)
    frames = [item for item in items if isinstance(item, Frame)]
    assert len(frames) in (whole - 1, whole)  # FFmpeg takes the one before the cut for damaged too
    damaged = [item.reason for item in items if isinstance(item, Skip)]
    assert damaged in ([], ["damaged frame"])  # OpenCV leaves out what was cut through without a word
    assert numbers(items) == list(range(len(frames)))
    assert all(abs(frame.image[-16:].mean() - frame.image.mean()) < 3 for frame in frames)
    assert isinstance(last, Skip)
    assert (last.reason, last.what) == ("truncated", f"frame {len(items)}")
    assert f"expected about {FRAMES} frames" in last.detail


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "got an empty file"),
        (b"a film, in words\n" * 100, "got a text file"),
        (b"\0\1\2\3 no film" * 1000, "got a file that is no video"),
    ],
)
@each_back_end
def test_what_is_no_video(
    tmp_path: Path, data: bytes, says: str, capfd: pytest.CaptureFixture[str], open_decoder: OpenDecoder
) -> None:
    source = video(tmp_path / "film.txt", data, open_decoder)
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

    source = open_source(parse_source(f"film={tmp_path / 'film.avi'}"))
    assert (source.name, source.default_mode) == ("film", "analysis")
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
