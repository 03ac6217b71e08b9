"""A recording as a source: the same frames with the same numbers and times, at whatever pace."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engines.base import UsageError
from streamer.records import EncodedImage, Frame, Skip
from streamer.sources import SourceError, open_source, parse_source
from streamer.sources.replay import ReplayOptions
from tests.streamer.recording.recording_cases import PERIOD_NS, UTC_OFFSET_NS, frames_of, pictures, record


class Clock:
    """A monotonic clock that only sleeping moves."""

    def __init__(self):
        self.now_ns = 5_000_000_000
        self.slept_ms = []

    def __call__(self):
        return self.now_ns

    def sleep(self, seconds):
        self.slept_ms.append(round(seconds * 1000))
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "night.rec"
    record(path, frames_of("left", pictures(5), first=2))
    return path


def all_of(source):
    source.open()
    items = []
    while (item := source.read()) is not None:
        items.append(item)
    source.close()
    return items


def opened(target, clock=None, mode=None):
    clock = clock or Clock()
    source = open_source(parse_source(target), mode=mode, now_ns=clock)
    source._sleep = clock.sleep
    return source


def test_the_same_frames_with_their_numbers_and_times(path):
    clock = Clock()
    source = opened(f"replay:{path}", clock)
    assert (source.name, source.default_mode, source.remarks) == ("night", "analysis", ())
    for _ in range(2):  # it may be opened again
        frames = all_of(source)
        assert [frame.frame_id for frame in frames] == [2, 3, 4, 5, 6]
        assert [frame.captured_utc_ns for frame in frames] == [
            UTC_OFFSET_NS + number * PERIOD_NS for number in range(2, 7)
        ]
        assert {frame.captured_ns for frame in frames} == {clock.now_ns}
        assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, pictures(5), strict=True))
    assert clock.slept_ms == []


@pytest.mark.parametrize(
    ("options", "mode", "slept_ms"),
    [
        ("", None, []),
        ("", "live", [40] * 4),
        (",speed=1", None, [40] * 4),
        (",speed=2", None, [20] * 4),
        ("?speed=0.5x", "live", [80] * 4),
        (",speed=max", "live", []),
    ],
)
def test_its_pace(path, options, mode, slept_ms):
    clock = Clock()
    all_of(opened(f"replay:{path}{options}", clock, mode))
    assert clock.slept_ms == slept_ms


def test_a_reader_that_came_late_gets_its_frame_at_once_and_no_burst_after_it(path):
    clock = Clock()
    source = opened(f"replay:{path},speed=1", clock)
    source.open()
    source.read()
    clock.now_ns += 10 * PERIOD_NS
    for _ in range(2):
        source.read()
    assert clock.slept_ms == [40]


def test_the_source_of_several_is_named(tmp_path):
    path = tmp_path / "two.rec"
    record(path, frames_of("left", pictures(2)) + frames_of("right", pictures(3)))
    source = opened(f"replay:{path},source=right,speed=max")
    assert source.name == "right"
    assert len(all_of(source)) == 3
    with pytest.raises(
        UsageError,
        match=re.escape(f"got 2 sources (left, right), expected one; give it as replay:{path},source=NAME"),
    ):
        opened(f"replay:{path}")
    with pytest.raises(UsageError, match="got source 'up', expected one of: left, right"):
        opened(f"replay:{path},source=up")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("a.rec,speed=0", "got '0', expected a number above 0, such as 2, or max"),
        ("a.rec,speed=fast", "got 'fast', expected a number above 0"),
        ("a.rec,sped=2", "got the option 'sped', expected speed or source; did you mean speed?"),
    ],
)
def test_bad_options(target, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        ReplayOptions.parse(target)


@pytest.mark.parametrize(
    ("target", "path", "speed", "source"),
    [
        ("a,b.rec", "a,b.rec", None, None),
        ("/x,y=1/a.rec?source=cam1&speed=4", "/x,y=1/a.rec", 4.0, "cam1"),
        ("a.rec,source=cam1,speed=max", "a.rec", 0.0, "cam1"),
    ],
)
def test_what_is_the_path_and_what_are_options(target, path, speed, source):
    assert ReplayOptions.parse(target) == ReplayOptions(path, speed, source)


def test_what_is_no_recording(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        opened(f"replay:{tmp_path / 'missing.rec'}")


def test_one_that_was_cut_off_plays_what_is_whole_and_says_where_it_ends(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    items = all_of(opened(f"replay:{path}"))
    frames, last = items[:-1], items[-1]
    assert [frame.frame_id for frame in frames] == list(range(2, 2 + len(frames)))
    assert 0 < len(frames) < 5
    assert isinstance(last, Skip)
    assert (last.reason, last.what) == ("truncated", f"what followed frame {frames[-1].frame_id}")
    assert re.search(rf"got the middle of a record at byte \d+ of {len(data) * 2 // 3}, expected more", last.detail)


def test_it_goes_to_a_frame_at_once(path):
    source = opened(f"replay:{path}")
    source.open()
    source.seek(5)
    assert [source.read().frame_id, source.read().frame_id, source.read()] == [5, 6, None]


def test_one_kept_as_jpeg_says_so(tmp_path):
    record(tmp_path / "j.rec", frames_of("left", pictures(3)), keep="jpeg")
    (remark,) = opened(f"replay:{tmp_path / 'j.rec'}").remarks
    assert "source left: 3 of 3 frames were kept as JPEG, not as got" in remark


def test_image_files_that_decode_otherwise_here_are_told_of(tmp_path):
    image = pictures(1)[0]
    data = cv2.imencode(".png", image)[1].tobytes()
    record(tmp_path / "a.rec", [Frame("left", 0, 0, image, "f.png", EncodedImage(data, 8))])
    record(tmp_path / "b.rec", [Frame("left", 0, 0, image ^ 1, "f.png", EncodedImage(data, 8))])
    source = opened(f"replay:{tmp_path / 'a.rec'}")
    assert source.remarks == ()
    (frame,) = all_of(source)
    assert (frame.file, frame.encoded.data) == ("f.png", data)
    (remark,) = opened(f"replay:{tmp_path / 'b.rec'}").remarks
    assert "decode to other pixels here" in remark


def test_whether_the_stage_moved_is_kept(tmp_path):
    frames = [
        replace(frame, moving=moving)
        for frame, moving in zip(frames_of("a", pictures(3)), (True, False, None), strict=True)
    ]
    record(tmp_path / "moving.rec", frames)
    assert [frame.moving for frame in all_of(opened(f"replay:{tmp_path / 'moving.rec'}"))] == [True, False, None]
