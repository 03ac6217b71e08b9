"""A real RTSP server, GStreamer's, in a process of its own: H.264 at 720p over TCP."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from streamer.records import PASSED_OVER, Frame, Skip
from streamer.run.ring import Ring
from streamer.sources import SourceError
from streamer.sources.base import SourceAbsentError
from streamer.sources.decoded import DAMAGED
from streamer.sources.decoder import OpenDecoder
from streamer.sources.reconnection import SourceReader
from streamer.sources.stream import StreamSource
from tests.streamer.sources.back_ends import each_back_end, open_av
from tests.streamer.sources.damaging_proxy import DamagingProxy

pytest.importorskip("av", reason="PyAV is not installed")

from tools.bench import lag
from tools.bench.rtsp_camera import RtspCamera, why_no_server
from tools.bench.sender import NumberedFilm, number_of

pytestmark = pytest.mark.slow

LOOP_S = 60
"""Of the film that is sent over and over: longer than any outage, so that ages are certain."""

FROZEN_S = 15
KILLED_S = 20


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    if (why := why_no_server()) is not None:
        pytest.skip(f"no RTSP server of GStreamer: {why}")


@pytest.fixture(scope="module")
def film() -> NumberedFilm:
    return NumberedFilm.encode(1280, 720, frames=LOOP_S * 30)


@pytest.fixture(scope="module")
def camera(film: NumberedFilm) -> Iterator[RtspCamera]:
    """The one camera of these tests: each leaves it switched on."""
    with contextlib.closing(RtspCamera([film])) as camera:
        yield camera


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame, when a consumer had it."""

    at_s: float
    age_s: float
    number: int
    size: tuple[int, int]


class Consumer:
    """What a run has: a reader, the ring that keeps the newest, and a thread that takes some time for each frame."""

    def __init__(
        self, url: str, camera: RtspCamera, open_decoder: OpenDecoder, *, takes_s: float = 0.05, wait_s: float = 0.0
    ) -> None:
        self._camera = camera
        self._takes_s = takes_s
        self._stop = threading.Event()
        self._ring: Ring[Frame] = Ring(1, "drop_oldest")
        self.skips: list[Skip] = []
        self.seen: list[Seen] = []
        self.source = StreamSource("net", url, time.monotonic_ns, open_decoder=open_decoder, asked_every_s=1.0)
        self.reader = SourceReader(self.source, self._ring, self._stop, on_skip=self.skips.append, wait_s=wait_s)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self.reader.run, self._consume)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def until(self, what: Callable[[Seen], bool], within_s: float = 20.0) -> Seen:
        """The next frame that is so."""
        first, until_s = len(self.seen), time.monotonic() + within_s
        while time.monotonic() < until_s:
            if (found := next((seen for seen in self.seen[first:] if what(seen)), None)) is not None:
                return found
            time.sleep(0.05)
        raise AssertionError(f"no such frame in {within_s:g} s; {self.seen[-3:]}, {self.skips[-3:]}, {self.status}")

    @property
    def status(self) -> str:
        return str(self.reader.status)

    def _consume(self) -> None:
        while (frame := self._ring.get()) is not None:
            number, at_s = number_of(frame.image), time.monotonic()
            self.seen.append(Seen(at_s, self._camera.age_s(number, at_s), number, (frame.width, frame.height)))
            time.sleep(self._takes_s)


def is_new(seen: Seen) -> bool:
    return seen.age_s < 1.0


@each_back_end
def test_the_first_frame_was_just_captured(camera: RtspCamera, open_decoder: OpenDecoder) -> None:
    """FFmpeg holds what it got for a second while it looks what the stream is, where it is not told otherwise. The best
    of three: the machine may be busy."""
    ages_s = []
    for _ in range(3):
        source = StreamSource("net", camera.url, time.monotonic_ns, open_decoder=open_decoder)
        source.open()
        frame = source.read()
        assert isinstance(frame, Frame)
        ages_s.append(camera.age_s(number_of(frame.image), time.monotonic()))
        source.close()
    assert min(ages_s) < 0.1, ages_s


@each_back_end
def test_a_slow_consumer_gets_the_newest(camera: RtspCamera, open_decoder: OpenDecoder) -> None:
    source = StreamSource("net", camera.url, time.monotonic_ns, open_decoder=open_decoder)
    found = lag.measured(camera.age_s, source, 300, 6.0, "1280x720", "ours")
    assert found.median_ms is not None
    assert found.median_ms < 250
    assert found.behind_s is not None
    assert found.behind_s < 0.5
    assert 12 <= found.frames <= 21
    assert found.passed_over + found.frames > 150  # of the 180 that were sent
    assert found.jumps == 0


def test_whoever_reads_one_frame_after_the_other_is_late(camera: RtspCamera) -> None:
    """So that the ages above are known to show it."""
    found = lag.measured(camera.age_s, lag.FrameByFrame(camera.url), 300, 5.0, "1280x720", "plain")
    assert found.last_ms is not None
    assert found.last_ms > 3000


@each_back_end
def test_frozen_for_a_quarter_of_a_minute(camera: RtspCamera, open_decoder: OpenDecoder) -> None:
    with Consumer(camera.url, camera, open_decoder) as consumer:
        consumer.until(is_new)
        camera.freeze()
        try:
            time.sleep(FROZEN_S)
            status = consumer.reader.status
            assert status.state == "reopening"
            assert status.fault is not None
        finally:
            camera.go_on()
        went_on_s = time.monotonic()
        consumer.until(is_new)
        time.sleep(3)
        after = [seen for seen in consumer.seen if seen.at_s > went_on_s]
        assert statistics.median(seen.age_s for seen in after) < 0.5
        assert (consumer.source.behind_s or 0.0) < 2.0
        assert consumer.reader.status.state == "open"
        assert consumer.reader.status.reopened >= 1


@each_back_end
def test_held_up_for_less_than_the_timeout(camera: RtspCamera, open_decoder: OpenDecoder) -> None:
    """The connection stays, and three seconds come at once."""
    with Consumer(camera.url, camera, open_decoder) as consumer:
        consumer.until(is_new)
        camera.freeze()
        time.sleep(3)
        camera.go_on()
        went_on_s = time.monotonic()
        consumer.until(is_new)
        time.sleep(2)
        assert [skip.reason for skip in consumer.skips if skip.reason != DAMAGED] == ["fell behind"]
        stale = [seen for seen in consumer.seen if seen.at_s > went_on_s and seen.age_s > 1.0]
        assert len(stale) < 10  # of the 90 that were held up
        assert consumer.reader.status.dropped[PASSED_OVER] > 30


@each_back_end
def test_killed_and_switched_on_again(camera: RtspCamera, open_decoder: OpenDecoder) -> None:
    with Consumer(camera.url, camera, open_decoder) as consumer:
        consumer.until(is_new)
        camera.off()
        time.sleep(KILLED_S)
        status = consumer.reader.status
        camera.on()
        assert status.state == "reopening"
        assert "Connection refused" in (status.fault or "")
        consumer.until(is_new, within_s=30)
        assert consumer.reader.status.reopened == 1


@each_back_end
def test_one_that_is_switched_on_later_is_waited_for(camera: RtspCamera, open_decoder: OpenDecoder) -> None:
    """Its machine takes the call before it answers."""
    camera.off()
    with Consumer(camera.url, camera, open_decoder, wait_s=40) as consumer:
        time.sleep(2)
        refused = consumer.reader.status
        camera.on()
        camera.freeze()
        time.sleep(10)
        silent = consumer.reader.status
        camera.go_on()
        consumer.until(is_new)
        assert refused.state == silent.state == "starting"
        assert "Connection refused" in (refused.fault or "")
        assert "got no answer from 127.0.0.1" in (silent.fault or "")
        assert consumer.reader.status.reopened == 0


@each_back_end
@pytest.mark.parametrize("harm", ["corrupt", "drop"])
def test_packets_that_are_damaged_or_lost(
    camera: RtspCamera, open_decoder: OpenDecoder, harm: Literal["corrupt", "drop"]
) -> None:
    """Of damaged packets PyAV tells; lost ones FFmpeg conceals mostly, and OpenCV all. The stream goes on."""
    with (
        contextlib.closing(DamagingProxy(camera.port)) as proxy,
        Consumer(camera.address(port=proxy.port), camera, open_decoder) as consumer,
    ):
        consumer.until(is_new)
        proxy.does = harm
        time.sleep(5)
        proxy.does = None
        time.sleep(1)  # until the next key frame
        whole_s = time.monotonic()
        consumer.until(is_new)
        time.sleep(2)
        after = [seen for seen in consumer.seen if seen.at_s > whole_s]
        assert statistics.median(seen.age_s for seen in after) < 0.5
        assert proxy.harmed > 10
        if open_decoder is open_av and harm == "corrupt":
            assert consumer.reader.status.skipped[DAMAGED] > 5
        assert consumer.reader.status.state == "open"


@each_back_end
def test_another_resolution_in_mid_stream(open_decoder: OpenDecoder) -> None:
    """OpenCV scales the new frames to the old size, until the camera, which is asked each second here, says another."""
    films = [
        NumberedFilm.encode(1280, 720, frames=240),
        NumberedFilm.encode(640, 480, frames=240, first=240),
    ]
    with (
        contextlib.closing(RtspCamera(films)) as camera,
        Consumer(camera.url, camera, open_decoder, takes_s=0.01) as consumer,
    ):
        first = consumer.until(is_new)
        consumer.until(lambda seen: (seen.number >= 240) != (first.number >= 240))
        changed = len(consumer.seen)
        if open_decoder is not open_av:
            consumer.until(lambda seen: seen.size != first.size, within_s=6)
            assert [skip.reason for skip in consumer.skips if skip.reason != DAMAGED] == ["another resolution"]
        time.sleep(1)
        sizes = {seen.number >= 240: seen.size for seen in consumer.seen}  # of the last ones
        assert sizes == {False: (1280, 720), True: (640, 480)}
        if open_decoder is open_av:
            assert {seen.size for seen in consumer.seen[changed:]} == {sizes[first.number < 240]}
        assert all(is_new(seen) for seen in itertools.islice(reversed(consumer.seen), 10))


@each_back_end
def test_what_is_wrong_is_said(open_decoder: OpenDecoder) -> None:
    film = NumberedFilm.encode(320, 240, frames=60)
    camera = RtspCamera([film], user="user", password="p@ss")

    def said(credentials: str, path: str = "/scope") -> str:
        source = StreamSource("net", camera.address(credentials, path), time.monotonic_ns, open_decoder=open_decoder)
        with pytest.raises(SourceError) as caught, contextlib.closing(source):
            source.open()
        assert isinstance(caught.value, SourceAbsentError) == ("refused" in str(caught.value))
        assert "p%40ss" not in str(caught.value)
        return str(caught.value)

    with contextlib.closing(camera):
        right = StreamSource("net", camera.address("user:p%40ss@"), time.monotonic_ns, open_decoder=open_decoder)
        right.open()
        assert isinstance(right.read(), Frame)
        right.close()
        assert "got a wrong user or password for 127.0.0.1" in said("user:wrong@")
        assert "got no user and password, where it wants them," in said("")
        assert "got no such path '/elsewhere' on 127.0.0.1" in said("user:p%40ss@", "/elsewhere")
        camera.off()
        assert "got 'Connection refused' from 127.0.0.1" in said("user:p%40ss@")
