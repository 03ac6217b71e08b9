"""Cameras whose driver runs in a process of its own: what it gives, and all that can go wrong with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engines.base import UsageError
from streamer.records import Frame, Skip, StagePoint
from streamer.run.ring import Ring
from streamer.sources import camera_process
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.own_process import OwnProcess, ProcessEndedError, answer_of
from streamer.sources.reconnection import SourceReader
from tests.streamer.sources import drivers

pytestmark = pytest.mark.lengthy

ROOT = Path(__file__).parents[3]
HOLDER = """
import time
from streamer.sources.camera_process import DrivenSource
from tests.streamer.sources import drivers

source = DrivenSource("a", "camera 7", drivers.connect, "open 1", time.monotonic_ns)
source.open()
print(source.pid, flush=True)
time.sleep(60)
"""


def driven(target: str, **options: float | None) -> DrivenSource:
    return DrivenSource("a", "camera 7", drivers.connect, target, time.monotonic_ns, **options)  # type: ignore[arg-type]


def test_frames_are_numbered_and_stamped_with_when_they_came() -> None:
    source = driven("open 1 large 2 old")
    source.open()
    try:
        frames = [item for item in iter(source.read, None) if isinstance(item, Frame)]
        now_ns = time.monotonic_ns()
    finally:
        source.close()
    assert [(frame.frame_id, frame.image.shape, int(frame.image[0, 0, 0])) for frame in frames] == [
        (0, (40, 48, 3), 1),
        (1, (400, 480, 3), 9),
        (2, (40, 48, 3), 2),
        (3, (40, 48, 3), 10),
    ]
    assert source.settings == {"exposure": "10"}
    assert 0 < now_ns - frames[2].captured_ns < 1e9
    assert 2e9 < now_ns - frames[3].captured_ns < 3e9


def test_what_was_lost_is_counted_before_the_image_that_came_after_it() -> None:
    source = driven("open 1 losses odd")
    source.open()
    try:
        assert isinstance(source.read(), Frame)
        lost, damaged, frame, odd = (source.read() for _ in range(4))
    finally:
        source.close()
    assert isinstance(lost, Skip)
    assert (lost.reason, lost.count, lost.what) == ("lost on the way", 3, "after frame 0")
    assert isinstance(damaged, Skip)
    assert (damaged.reason, damaged.count) == ("damaged frame", 2)
    assert isinstance(frame, Frame)
    assert frame.frame_id == 1
    assert source.passed_over == 5
    assert isinstance(odd, Skip)
    assert odd.reason == "unsupported"


def test_the_stage_and_the_exposure_come_with_a_frame() -> None:
    source = driven("open stage")
    source.open()
    try:
        frame = source.read()
    finally:
        source.close()
    assert isinstance(frame, Frame)
    assert frame.exposed_ns is not None
    assert (frame.stage_um, frame.um_per_px, frame.moving) == (StagePoint(1.5, -2.0, None), 0.25, True)
    assert frame.captured_ns - frame.exposed_ns == 10_000_000


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ("absent", SourceAbsentError, "camera 7: says the driver"),
        ("never", SourceError, "camera 7: says the driver"),
        ("usage", UsageError, "camera 7: says the driver"),
        ("bug", SourceError, "camera 7: got ZeroDivisionError (says the driver), expected that its driver works"),
        ("crash", SourceAbsentError, "camera 7: got no answer (its process was ended by SIGABRT), expected images"),
    ],
)
def test_a_camera_that_does_not_open(target: str, error: type[Exception], says: str) -> None:
    source = driven(target)
    with pytest.raises(error) as caught:
        source.open()
    source.close()
    assert str(caught.value) == says
    assert type(caught.value) is error


def test_a_driver_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_process, "HANGS_S", 0.2)
    source = driven("hang", opens_within_s=1.0)
    with pytest.raises(SourceAbsentError, match=r"got no answer of its driver for 1 s, expected one; it hangs"):
        source.open()
    pid = source.pid
    assert pid is not None
    source.close()
    assert not Path(f"/proc/{pid}/status").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()
    later = driven("open 1 hang", silence_s=0.1)
    later.open()
    assert isinstance(later.read(), Frame)
    with pytest.raises(SourceLostError, match="it hangs"):
        later.read()
    later.close()
    later.close()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("crash", r"got no answer \(its process was ended by SIGSEGV\), expected images"),
        ("lost", "got the end of its connection, expected images"),
        ("bug", r"got ZeroDivisionError \(by a driver\)"),
        ("silence", "got no image for 3 s, expected more; is it plugged in?"),
    ],
)
def test_a_camera_that_gave_frames_and_goes_is_lost_and_opens_again(word: str, says: str) -> None:
    source = driven(f"open 1 {word}")
    source.open()
    try:
        assert isinstance(source.read(), Frame)
        with pytest.raises(SourceLostError, match=says):
            source.read()
        source.close()
        source.open()
        again = source.read()
        assert isinstance(again, Frame)
        assert again.frame_id == 1
    finally:
        source.close()


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("crash", SourceLostError, "got no answer"),
        (
            "silence",
            SourceAbsentError,
            r"got no image for 3 s, expected more; is it plugged in\? Does it wait for a trigger",
        ),
    ],
)
def test_a_camera_that_goes_before_its_first_image(word: str, error: type[SourceError], says: str) -> None:
    source = driven(f"open {word}")
    source.open()
    with pytest.raises(error, match=says):
        source.read()
    source.close()


def test_a_sequence_may_be_silent_for_as_long_as_it_likes() -> None:
    source = driven("open silence silence 1", silence_s=None)
    source.open()
    try:
        assert isinstance(source.read(), Frame)
    finally:
        source.close()


def test_a_camera_that_exposes_for_long_may_be_silent_for_longer() -> None:
    source = driven("slow 1 silence")
    source.open()
    try:
        assert isinstance(source.read(), Frame)
        with pytest.raises(SourceLostError, match="got no image for 6 s"):
            source.read()
    finally:
        source.close()


def test_ctrl_c_does_not_reach_a_driver_and_its_end_follows_ours() -> None:
    """A terminal's Ctrl-C goes to a group of processes. The driver is in its own, and ends with who started it."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    assert os.getpgid(pid) == pid
    holder.kill()
    holder.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_driver_that_hangs_does_not_keep_the_program_from_ending() -> None:
    code = HOLDER.replace("time.sleep(60)", "import os, signal; os.kill(source.pid, signal.SIGSTOP)")
    begun = time.monotonic()
    held = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert time.monotonic() - begun < 30
    assert not held.stderr
    assert not Path(f"/proc/{held.stdout.strip()}").exists()


def test_a_driver_closes_its_camera_before_it_ends(tmp_path: Path) -> None:
    source = driven(f"closes:{tmp_path / 'closed'} 1")
    source.open()
    assert isinstance(source.read(), Frame)
    source.close()
    assert (tmp_path / "closed").read_text() == "after 1.5 s"


def test_what_a_library_prints_is_not_among_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    source = driven("prints 1")
    source.open()
    try:
        assert isinstance(source.read(), Frame)
    finally:
        source.close()
    assert capfd.readouterr() == ("", "")


def test_no_shared_memory_stays_behind() -> None:
    if not (shared := Path("/dev/shm")).is_dir():
        pytest.skip("this system does not show its shared memory")
    before = set(shared.glob("psm_*"))
    source = driven("open 1 crash")
    source.open()
    assert isinstance(source.read(), Frame)
    assert set(shared.glob("psm_*")) > before
    with pytest.raises(SourceLostError):
        source.read()
    source.close()
    assert set(shared.glob("psm_*")) <= before


def test_a_process_that_is_killed_is_reopened_by_the_reader_within_its_pauses() -> None:
    source = driven("endless")
    ring, stop = Ring(4, "drop_oldest"), threading.Event()
    pauses: list[float] = []
    reader = SourceReader(source, ring, stop, pause=lambda s: pauses.append(s))
    thread = threading.Thread(target=reader.run, daemon=True)
    thread.start()
    for count in (1, 2):
        until = time.monotonic() + 20
        while reader.status.reopened < count - 1 or reader.status.state != "open" or not source.pid:
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(source.pid, signal.SIGKILL)
        while reader.status.reopened < count:
            assert time.monotonic() < until
            time.sleep(0.01)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert reader.failure is None
    assert max(pauses) <= 5.0
    assert "SIGKILL" in (reader.status.fault or "")
    assert reader.status.settings == {"exposure": "10"}


def test_the_answer_of_a_process() -> None:
    assert answer_of(drivers.finds_none, 10.0) == []
    with pytest.raises(TimeoutError):
        answer_of(drivers.hangs, 1.0)
    with pytest.raises(ProcessEndedError, match="SIGABRT"):
        answer_of(drivers.crashes, 10.0)


def test_nobody_can_be_asked_who_has_ended() -> None:
    process = OwnProcess(camera_process.serve, drivers.connect, "never")
    assert process.receive(10.0).kind == "error"
    with pytest.raises(ProcessEndedError, match="ended with status 0"):
        process.receive(10.0)
    with pytest.raises(ProcessEndedError):
        process.send(None)
    process.end()


def test_a_program_that_starts_one_at_its_top_level_does_not_begin_again(tmp_path: Path) -> None:
    """As every script does that opens a run or a camera without `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(
        "from streamer.sources.own_process import answer_of\n"
        "import os\n"
        "print('begins')\n"
        "print(answer_of(os.getpid, 60) != os.getpid())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["begins", "True"]
