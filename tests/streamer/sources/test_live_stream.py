"""A real stream of H.264, sent live: MPEG-TS from a thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from streamer.records import Frame, Skip
from streamer.sources.decoder import OpenDecoder, Timeouts
from streamer.sources.stream import FELL_BEHIND, StreamSource
from tests.streamer.sources.back_ends import each_back_end, needs_av, open_av

pytest.importorskip("av", reason="PyAV is not installed")

from tools.bench.sender import LiveSender, NumberedFilm, number_of

pytestmark = pytest.mark.lengthy

FRAMES = 300


@pytest.fixture(scope="module")
def film() -> NumberedFilm:
    return NumberedFilm.encode(320, 240, frames=FRAMES)


@pytest.fixture
def sending() -> Iterator[Callable[..., LiveSender]]:
    senders: list[LiveSender] = []

    def send(*films: NumberedFilm, damage_every: int = 0) -> LiveSender:
        senders.append(LiveSender(films, damage_every=damage_every))
        return senders[-1]

    yield send
    for sender in senders:
        sender.close()


def opened(sender: LiveSender, open_decoder: OpenDecoder) -> StreamSource:
    source = StreamSource("net", sender.url, time.monotonic_ns, timeouts=Timeouts(5, 5), open_decoder=open_decoder)
    source.open()
    return source


def until(source: StreamSource, wanted: Callable[[Frame | Skip], bool]) -> list[Frame | Skip]:
    """What it gives, up to and with what is wanted."""
    items: list[Frame | Skip] = []
    while not items or not wanted(items[-1]):
        item = source.read()
        assert item is not None
        items.append(item)
    return items


@each_back_end
def test_a_slow_reader_gets_the_newest_frame(
    film: NumberedFilm, sending: Callable[..., LiveSender], open_decoder: OpenDecoder
) -> None:
    source = opened(sending(film), open_decoder)
    numbers = []
    for _ in range(4):
        frame = source.read()
        assert isinstance(frame, Frame)
        numbers.append(number_of(frame.image))
        time.sleep(0.3)
    steps = [(later - earlier) % FRAMES for earlier, later in itertools.pairwise(numbers)]
    assert min(steps) > 2, numbers  # it would be 1 each, were what is stored up given in its order
    assert source.passed_over >= sum(steps) - 2 * len(steps)
    assert source.behind_s is not None
    source.close()


@each_back_end
def test_what_was_held_up_for_long_is_thrown_away(
    film: NumberedFilm, sending: Callable[..., LiveSender], open_decoder: OpenDecoder
) -> None:
    sender = sending(film)
    source = opened(sender, open_decoder)
    before = until(source, lambda item: isinstance(item, Frame) and item.frame_id == 5)[-1]
    sender.frozen.set()
    time.sleep(2.5)
    sender.frozen.clear()
    *items, skip = until(source, lambda item: isinstance(item, Skip) and item.reason == FELL_BEHIND)
    assert isinstance(skip, Skip)
    assert "jumped to now" in skip.detail
    after = source.read()
    assert isinstance(before, Frame)
    assert isinstance(after, Frame)
    assert (number_of(after.image) - number_of(before.image)) % FRAMES > 60
    assert len(items) < 30  # of the 75 that were held up
    assert source.behind_s is not None
    assert source.behind_s < 2.0
    source.close()


@needs_av
def test_a_change_of_resolution_is_seen(film: NumberedFilm, sending: Callable[..., LiveSender]) -> None:
    larger = NumberedFilm.encode(480, 360, frames=FRAMES, first=FRAMES)
    source = opened(sending(film, larger), open_av)
    first = source.read()
    assert isinstance(first, Frame)
    last = until(source, lambda item: isinstance(item, Frame) and item.width != first.width)[-1]
    assert isinstance(last, Frame)
    assert {(first.width, first.height), (last.width, last.height)} == {(320, 240), (480, 360)}
    assert (number_of(last.image) >= FRAMES) == (last.width == 480)
    source.close()


@each_back_end
def test_what_comes_before_the_first_key_frame_is_no_damage(film: NumberedFilm, open_decoder: OpenDecoder) -> None:
    sender = LiveSender([film], begins_with_key=False)
    source = opened(sender, open_decoder)
    assert isinstance(source.read(), Frame)
    source.close()
    sender.close()


@needs_av
def test_damaged_frames_are_counted(film: NumberedFilm, sending: Callable[..., LiveSender]) -> None:
    source = opened(sending(film, damage_every=4), open_av)
    items = until(source, lambda item: isinstance(item, Skip))
    assert isinstance(items[-1], Skip)
    assert items[-1].reason == "damaged frame"
    source.close()
