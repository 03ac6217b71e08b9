from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from streamer.records import DeferredImage, Frame
from streamer.sources.newest import Newest, NewestFrames
from tests.streamer.sources.scripted import ScriptedDecoder


@pytest.fixture(params=[True, False], ids=["keeps frames", "converts at once"])
def decoder(request: pytest.FixtureRequest) -> Iterator[ScriptedDecoder]:
    decoder = ScriptedDecoder(keeps_frames=request.param)
    yield decoder
    decoder.end()


def started(decoder: ScriptedDecoder) -> NewestFrames:
    newest = NewestFrames(decoder, decoder.clock)
    newest.start()
    return newest


def position(taken: Newest | int | None) -> float | None:
    """Of a frame that was taken, whose pixels are asked for, as the analysis does."""
    assert isinstance(taken, Newest)
    pixels = taken.grabbed.take()
    assert pixels is not None
    if isinstance(pixels, DeferredImage):
        pixels.converted()
    return taken.grabbed.position_s


def test_the_newest_is_taken_and_only_that_is_converted() -> None:
    decoder = ScriptedDecoder()
    newest = started(decoder)
    for number in range(10):
        decoder.feed(number / 10, number / 10)
    decoder.settle()
    assert position(newest.take()) == 0.9
    decoder.feed(1.0, 1.0)
    assert position(newest.take()) == 1.0
    assert decoder.converted == [0.9, 1.0]
    assert newest.passed_over == 9
    decoder.end()
    assert newest.take() is None
    newest.stop()
    newest.stop()
    assert decoder.closed.wait(10)


def test_what_cannot_be_kept_is_converted_only_while_somebody_waits() -> None:
    decoder = ScriptedDecoder(keeps_frames=False)
    newest = started(decoder)
    for number in range(10):
        decoder.feed(number / 10, number / 10)
    decoder.settle()
    assert (decoder.converted, newest.passed_over) == ([], 10)
    taken: list[float | None] = []
    reader = threading.Thread(target=lambda: taken.append(position(newest.take())))
    reader.start()
    number = 10
    while reader.is_alive():
        decoder.feed(number / 10, number / 10)
        number += 1
        reader.join(0.01)
    assert decoder.converted == taken
    assert newest.passed_over == number - 1
    decoder.end()


def test_of_what_was_stored_up_before_only_the_last_is_taken(decoder: ScriptedDecoder) -> None:
    """While the format was found half a second was stored up: it comes at once, and then what is sent."""
    newest = started(decoder)
    taken: list[float | None] = []
    reader = threading.Thread(target=lambda: taken.append(position(newest.take())))
    reader.start()
    for number in range(16):
        decoder.feed(number / 30, number / 1000)
    number = 16
    while reader.is_alive():
        decoder.feed(number / 30, number / 30)
        number += 1
        reader.join(0.01)
    assert taken[0] is not None
    assert taken[0] >= 15 / 30
    assert decoder.converted == taken


def test_of_one_that_is_always_a_little_behind_some_are_converted() -> None:
    """The decoder alone takes all the time that there is."""
    decoder = ScriptedDecoder(keeps_frames=False)
    newest = started(decoder)
    taken: list[float | None] = []

    def read() -> None:
        while isinstance(item := newest.take(), Newest):
            taken.append(position(item))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        deadline = time.monotonic() + 10
        while not newest._wanted and time.monotonic() < deadline:  # whoever reads has used the one before
            time.sleep(0.001)
        decoder.feed(number / 10, number / 10 + (0.9 if number >= 3 else 0.0))
    decoder.end()
    reader.join(10)
    assert newest.behind_s == pytest.approx(0.9, abs=0.01)
    assert 5 <= len(taken) <= 15


def test_pixels_that_several_threads_ask_for_are_converted_once() -> None:
    begun, converted = threading.Barrier(4), []

    def convert() -> npt.NDArray[np.uint8]:
        converted.append(threading.get_ident())
        return np.full((4, 6, 3), len(converted), np.uint8)

    frame = Frame("net", 0, 0, DeferredImage(4, 6, convert))
    assert (frame.height, frame.width, converted) == (4, 6, [])
    means: list[float] = []

    def look() -> None:
        begun.wait(10)
        means.append(float(frame.image.mean()))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert means == [1.0] * 4


def test_damaged_ones_are_counted() -> None:
    decoder = ScriptedDecoder()
    newest = started(decoder)
    for number in range(6):
        decoder.feed(number / 10, number / 10, damaged=number in (3, 4))
    decoder.settle()
    assert newest.take() == 2
    assert position(newest.take()) == 0.5
    decoder.end()


def test_damage_that_shows_when_it_is_converted_is_counted() -> None:
    decoder = ScriptedDecoder(keeps_frames=False)
    newest = started(decoder)
    taken: list[Newest | int | None] = []
    reader = threading.Thread(target=lambda: taken.append(newest.take()))
    reader.start()
    number = 0
    while reader.is_alive():
        decoder.feed(number / 10, number / 10, damaged=True)
        number += 1
        reader.join(0.01)
    decoder.end()
    assert isinstance(taken[0], int)
    assert taken[0] >= 1
