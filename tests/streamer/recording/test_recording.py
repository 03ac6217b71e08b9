"""Recordings: what comes out is what went in, a file cut anywhere plays what is whole, and every loss is counted."""

import errno
import threading
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import UsageError
from streamer.protocol.messages import decode
from streamer.recording import FrameEncoding, Recording, RecordingError
from streamer.recording.format import FILE_HEADER_BYTES, MAGIC
from streamer.records import EncodedImage, Frame, StagePoint
from streamer.sources.replay import ReplaySource, decoded
from tests.streamer.protocol.message_cases import make_differential, make_factory
from tests.streamer.recording.recording_cases import PERIOD_NS, UTC_OFFSET_NS, frames_of, pictures, record, recorder


def messages(source, count):
    factory = make_factory(source)
    return [factory.differential(make_differential()) for _ in range(count)]


@pytest.mark.parametrize("clock_ns", [0, 10**12], ids=["compressed", "uncompressed"])
def test_frames_come_back_as_they_were_with_their_numbers_and_times(tmp_path, clock_ns):
    images = pictures(4)
    clock = iter(range(0, 10**18, clock_ns)) if clock_ns else iter(lambda: 0, 1)
    kept = record(tmp_path / "a.rec", frames_of("slide", images, first=3), now_ns=lambda: next(clock))
    with Recording(tmp_path / "a.rec") as recording:
        track = recording.track(None)
        assert (recording.ending.fault, track.name, track.address) == (None, "slide", "sim:slide")
        assert track.frame_ids() == [3, 4, 5, 6]
        for number, image in zip(track.frame_ids(), images, strict=True):
            frame = recording.frame(track, number)
            assert frame.captured_utc_ns == number * PERIOD_NS + UTC_OFFSET_NS
            assert np.array_equal(decoded(frame), image)
    assert (kept.health().frames, kept.health().frames_lost) == (4, {})


def test_compression_gets_a_quarter_of_a_core(tmp_path):
    """By a clock that goes 10 ms further with each look: a compression takes 10 ms of it."""
    ticks = iter(range(0, 10**15, 10_000_000))
    record(tmp_path / "a.rec", frames_of("slide", pictures(60)), now_ns=lambda: next(ticks))
    with Recording(tmp_path / "a.rec") as recording:
        track = recording.track(None)
        encodings = [recording.frame(track, number).encoding for number in track.frame_ids()]
    share = encodings.count(FrameEncoding.PNG) * 10 / (60 * 10 + encodings.count(FrameEncoding.PNG) * 10)
    assert 0.2 < share <= 0.27
    assert set(encodings) == {FrameEncoding.PNG, FrameEncoding.RAW}


@pytest.mark.parametrize(("suffix", "keep"), [(".jpg", "got"), (".jpg", "jpeg"), (".tif", "got")])
def test_the_bytes_of_an_image_file_are_kept(tmp_path, suffix, keep):
    image = pictures(1)[0]
    data = cv2.imencode(suffix, image)[1].tobytes()
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    frame = Frame("slide", 0, 0, stored, "field1" + suffix, EncodedImage(data, 8))
    record(tmp_path / "a.rec", [frame], keep=keep)
    with Recording(tmp_path / "a.rec") as recording:
        back = recording.frame(recording.track(None), 0)
        assert (back.encoding, back.data, back.head.file) == (FrameEncoding.FILE, data, "field1" + suffix)
        assert np.array_equal(decoded(back), stored)
        assert recording.track(None).lossy == 0


def test_kept_as_jpeg_it_is_smaller_and_says_so(tmp_path):
    images = pictures(3, 320, 240)
    record(tmp_path / "a.rec", frames_of("slide", images), keep="jpeg")
    with Recording(tmp_path / "a.rec") as recording:
        track = recording.track(None)
        assert track.lossy == 3
        back = decoded(recording.frame(track, 1))
    assert 0 < np.abs(back.astype(int) - images[1]).mean() < 4
    assert (tmp_path / "a.rec").stat().st_size < sum(image.nbytes for image in images) / 3


def test_two_sources_and_their_messages_are_kept_apart(tmp_path):
    images = pictures(3)
    frames = frames_of("left", images) + frames_of("right", images[::-1])
    told = [message for pair in zip(messages("left", 2), messages("right", 2), strict=True) for message in pair]
    record(tmp_path / "a.rec", frames, told)
    with Recording(tmp_path / "a.rec") as recording:
        assert np.array_equal(decoded(recording.frame(recording.track("right"), 0)), images[2])
        assert [decode(one.header) for one in recording.messages()] == told
        assert [decode(one.header) for one in recording.messages("right")] == told[1::2]
        assert [one.published_utc_ns for one in recording.messages("left")] == [
            message.published_ns + UTC_OFFSET_NS for message in told[::2]
        ]
        with pytest.raises(RecordingError, match=r"got source 'middle', expected one of: left, right"):
            recording.track("middle")
        with pytest.raises(RecordingError, match=r"got 2 sources \(left, right\), expected one"):
            recording.track(None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.rec"
    record(path, frames_of("slide", pictures(6)), messages("slide", 3))
    return path


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1))
def test_a_recording_cut_anywhere_plays_what_is_whole(whole, tmp_path_factory, share):
    data = whole.read_bytes()
    cut = FILE_HEADER_BYTES + int(share * (len(data) - FILE_HEADER_BYTES))
    path = tmp_path_factory.mktemp("cut") / "cut.rec"
    path.write_bytes(data[:cut])
    with Recording(whole) as recording, Recording(path) as rest:
        assert (rest.ending.fault is None) == (cut == len(data))
        assert rest.ending.at_byte <= cut
        track = recording.track(None)
        complete = [number for number, (at, _) in track.frames.items() if _end_of(recording, at) <= cut]
        if complete:
            kept = rest.track(None)
            assert kept.frame_ids() == sorted(complete)
            for number in complete:
                assert rest.frame(kept, number) == recording.frame(track, number)


def _end_of(recording, at):
    return at + recording._header(at).record_bytes


def test_a_damaged_frame_is_left_out_and_the_rest_is_played(whole, tmp_path):
    data = bytearray(whole.read_bytes())
    with Recording(whole) as recording:
        at, _ = recording.track(None).frames[2]
    data[at + 300] ^= 1
    path = tmp_path / "damaged.rec"
    path.write_bytes(data)
    with Recording(path) as recording:
        track = recording.track(None)
        assert [number for number in track.frame_ids() if recording.frame(track, number) is None] == [2]


def test_a_damaged_record_header_ends_it_in_words(whole, tmp_path):
    data = bytearray(whole.read_bytes())
    with Recording(whole) as recording:
        at, _ = recording.track(None).frames[2]
    data[at + 9] ^= 1
    path = tmp_path / "damaged.rec"
    path.write_bytes(data)
    with Recording(path) as recording:
        assert recording.track(None).frame_ids() == [0, 1]
        assert f"got a damaged record at byte {at} of {len(data)}" in recording.ending.described(path)


NO_RECORDINGS = [
    (b"", "got an empty file"),
    (b"SQLite format 3\0" + bytes(100), "got no recording, expected what run --record wrote"),
    (MAGIC + b"\7\0\0\0" + bytes(4), "got no recording"),  # its checksum is wrong
    (MAGIC + b"\7\0\0\0" + zlib.crc32(MAGIC + b"\7\0\0\0").to_bytes(4, "little"), "got format 7, expected 1"),
]


@pytest.mark.parametrize(("data", "says"), NO_RECORDINGS, ids=[says for _, says in NO_RECORDINGS])
def test_what_is_no_recording_is_one_clear_line(tmp_path, data, says):
    path = tmp_path / "x.rec"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=says) as caught:
        Recording(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_exists_is_not_replaced(tmp_path):
    path = tmp_path / "a.rec"
    path.write_text("precious")
    with pytest.raises(UsageError, match="got a file that exists, expected a new one"):
        recorder(path)
    with pytest.raises(RecordingError, match="got no recording"):
        recorder(path, go_on=True)
    with pytest.raises(RecordingError, match="No such file or directory"):
        recorder(tmp_path / "missing" / "a.rec")
    assert path.read_text() == "precious"


def test_a_run_that_never_began_leaves_no_file(tmp_path):
    kept = recorder(tmp_path / "a.rec")
    kept.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_recording_is_gone_on_with(tmp_path, whole):
    """The last frames of the first run come again: what counts is what the second one got."""
    path = tmp_path / "a.rec"
    path.write_bytes(whole.read_bytes()[:-3])
    images = pictures(3, 96, 64)[::-1]
    record(path, frames_of("slide", images, first=5), go_on=True)
    with Recording(path) as recording:
        track = recording.track(None)
        assert recording.ending.fault is None
        assert track.frame_ids() == list(range(8))
        assert np.array_equal(decoded(recording.frame(track, 4)), pictures(6)[4])
        assert np.array_equal(decoded(recording.frame(track, 5)), images[0])


def test_a_live_source_never_waits_and_what_does_not_fit_is_counted(tmp_path):
    images = pictures(10)
    kept = recorder(tmp_path / "a.rec", mode="live", waiting_max_bytes=3 * images[0].nbytes)
    for frame in frames_of("slide", images):  # nobody writes yet
        kept.frame(frame)
    kept.close()
    kept.run()
    assert (kept.health().frames, kept.health().frames_lost) == (3, {"queue full": 7})
    with Recording(tmp_path / "a.rec") as recording:
        assert recording.track(None).frame_ids() == [0, 1, 2]
        assert recording.track(None).lost == 7


def test_a_source_that_can_wait_does(tmp_path):
    images = pictures(10)
    kept = recorder(tmp_path / "a.rec", waiting_max_bytes=3 * images[0].nbytes)
    given = []

    def give():
        for frame in frames_of("slide", images):
            kept.frame(frame)
            given.append(frame.frame_id)
        kept.close()

    giver = threading.Thread(target=give)
    giver.start()
    while len(given) < 3:
        pass
    giver.join(0.05)
    assert given == [0, 1, 2]  # the fourth waits
    kept.run()
    giver.join()
    assert (kept.health().frames, kept.health().frames_lost) == (10, {})


def test_a_full_disk_is_told_once_counted_and_leaves_a_file_that_plays(tmp_path, monkeypatch):
    said = []
    images = pictures(8)
    ticks = iter(range(0, 10**15, 300_000_000))
    kept = recorder(tmp_path / "a.rec", on_fault=said.append, now_ns=lambda: next(ticks))
    write, full_from = kept._file._file.write, kept._file.size_bytes + 2.5 * images[0].nbytes

    class Disk:
        def __getattr__(self, name):
            return getattr(file, name)

        def write(self, part):
            if file.tell() + len(part) > full_from:
                write(part[: len(part) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(part)

    file, kept._file._file = kept._file._file, Disk()
    monkeypatch.setattr("streamer.recording.recorder.COMPRESSION_SHARE", -1)
    for frame in frames_of("slide", images):
        kept.frame(frame)
    kept.close()
    kept.run()
    assert (kept.health().frames, kept.health().frames_lost) == (2, {"not written": 6})
    assert len(said) == 1
    assert said[0].startswith(f"--record {tmp_path / 'a.rec'}: got 'No space left on device', expected room")
    with Recording(tmp_path / "a.rec") as recording:
        assert recording.track(None).frame_ids() == [0, 1]
        assert recording.track(None).lost == 6
        assert recording.ending.fault is None


def test_what_the_source_knows_of_a_frame_is_kept(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    said = {"stage_um": StagePoint(1.5, -2.25, None), "stage_error_um": 0.5, "um_per_px": 0.17}
    none = Frame("slide", 1, 2000, image)
    odd = Frame("slide", 2, 3000, image, stage_um=StagePoint(float("nan"), 1.0), um_per_px=-1.0)
    record(tmp_path / "a.rec", [Frame("slide", 0, 1000, image, exposed_ns=400, **said), none, odd])
    source = ReplaySource("slide", str(tmp_path / "a.rec"), lambda: 50_000)
    first, second, third = (source.read() for _ in range(3))
    assert {name: getattr(first, name) for name in said} == said
    assert first.exposed_ns == 50_000 - 600
    for frame in (second, third):
        assert (frame.stage_um, frame.stage_error_um, frame.um_per_px, frame.exposed_ns) == (None,) * 4
