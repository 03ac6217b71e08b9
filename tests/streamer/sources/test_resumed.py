"""A source that a run goes on with: where it goes on, and what it shows of before."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.records import Frame
from streamer.sources import SourceError
from streamer.sources.resumed import FIRST_FRAMES, ReadOnSource

LENGTH = 20


class Film:
    """Frames that are read one after the other."""

    name = "film"
    default_mode = "analysis"

    def __init__(self) -> None:
        self.next_id = 0
        self.read_ids: list[int] = []

    @property
    def length(self) -> int:
        return LENGTH

    def open(self) -> None:
        self.next_id = 0

    def read(self) -> Frame | None:
        if self.next_id >= LENGTH:
            return None
        self.read_ids.append(self.next_id)
        frame = Frame(self.name, self.next_id, 0, np.zeros((2, 2, 3), np.uint8))
        self.next_id += 1
        return frame

    def close(self) -> None:
        pass


class Recorded(Film):
    def seek(self, frame_id: int) -> None:
        self.next_id = frame_id


@pytest.mark.parametrize("last", [0, 3, FIRST_FRAMES - 1, FIRST_FRAMES, 12])
@pytest.mark.parametrize("kind", [Film, Recorded])
def test_the_first_frames_are_shown_again_and_then_it_goes_on(kind, last):
    film, passed = kind(), []
    source = ReadOnSource(film, last, lambda frame: frame.frame_id == last, lambda frame: passed.append(frame.frame_id))
    source.open()
    frame = source.read()
    assert frame is not None
    assert frame.frame_id == last + 1
    assert passed[:FIRST_FRAMES] == list(range(last + 1))[:FIRST_FRAMES]
    assert passed == sorted(set(passed)), "each once, in order"
    assert passed[-1] == last
    if kind is Recorded:
        assert len(film.read_ids) <= FIRST_FRAMES + 2, "it need not read all"


def test_another_slide_is_refused():
    with pytest.raises(SourceError, match="got another picture at frame 3"):
        ReadOnSource(Film(), 3, lambda frame: False)
    with pytest.raises(SourceError, match="got fewer frames at frame 30"):
        ReadOnSource(Film(), 30, lambda frame: True)
