"""The newest image of a camera whose library hands over one buffer after the other."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from streamer.sources.driver import RawImage
from streamer.sources.newest_image import Grabbed, NewestImage, lost_between


@pytest.mark.parametrize(
    ("before", "number", "lost"),
    [
        (None, 7, 0),
        (7, None, 0),
        (7, 8, 0),
        (7, 11, 3),
        (7, 7, 0),
        (7, 0, 0),  # it counts anew
        (65535, 1, 0),  # GigE Vision 1.x: 0 is no number
        (65534, 3, 3),
        (65536, 2, 0),  # more than 16 bits do not begin again there
        (30000, 1, 0),
    ],
)
def test_losses_by_the_numbers_of_the_camera(before: int | None, number: int | None, lost: int) -> None:
    assert lost_between(before, number) == lost


class Library:
    """Hands over what a test puts in; knows which buffers it got back."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[Grabbed | Exception | None] = queue.Queue()
        self.released: list[int] = []
        self.taken = threading.Semaphore(0)

    def grab(self) -> Grabbed | None:
        item = self.waiting.get()
        self.taken.release()
        if isinstance(item, Exception):
            raise item
        return item

    def send(self, number: int, *, whole: bool = True) -> None:
        buffer = np.full(4, number, np.uint8)

        def image() -> RawImage:
            return RawImage(buffer, 2, 2, "Mono8", number)

        def release() -> None:
            self.released.append(number)
            buffer[:] = 0

        self.waiting.put(Grabbed(number, image if whole else None, release, number))

    def settle(self, count: int) -> None:
        """Until so many were added: the thread asks for one more."""
        self.waiting.put(None)
        for _ in range(count + 1):
            assert self.taken.acquire(timeout=5)
        self.waiting.put(None)
        assert self.taken.acquire(timeout=5)


@pytest.fixture
def library() -> Library:
    return Library()


def test_the_newest_is_given_and_every_other_one_counted(library: Library) -> None:
    newest = NewestImage(library.grab)
    newest.start()
    for number in (1, 2, 5, 6):
        library.send(number)
    library.send(7, whole=False)
    library.settle(5)
    image = newest.take(5.0)
    assert image is not None
    assert image.data.tolist() == [6] * 4  # its own: the buffer was given back, and filled again
    assert (image.lost, image.damaged, image.passed_over) == (2, 1, 3)
    assert sorted(library.released) == [1, 2, 5, 6, 7]
    library.send(8)
    library.settle(1)
    image = newest.take(5.0)
    assert image is not None
    assert (image.lost, image.damaged, image.passed_over) == (0, 0, 0)
    assert newest.take(0.0) is None
    library.send(9)
    library.settle(1)
    library.waiting.put(None)
    newest.stop()
    assert library.released[-1] == 9


def test_what_the_library_raises_comes_after_what_it_gave(library: Library) -> None:
    newest = NewestImage(library.grab)
    newest.start()
    library.send(1)
    library.waiting.put(RuntimeError("gone"))
    for _ in range(2):
        assert library.taken.acquire(timeout=5)
    assert newest.take(5.0) is not None
    with pytest.raises(RuntimeError, match="gone"):
        newest.take(5.0)
    newest.stop()
