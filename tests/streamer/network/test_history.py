"""The bounded window of messages, and what is behind it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.network.history import Batch, Place, ReplayWindow
from streamer.protocol.requests import RequestRefused

TOPICS = (b"frame.cam", b"cell.cam", b"differential.cam")


def message(number: int, size: int = 100) -> list[bytes]:
    return [TOPICS[number % 3], b"%d" % number + b" " * size]


def filled(count: int, *, max_bytes: int = 10**9, first: int = 0) -> ReplayWindow:
    window = ReplayWindow(max_bytes)
    for number in range(first, first + count):
        window.add("slide", number, message(number))
    return window


def numbers(batch: Batch) -> list[int]:
    return [int(parts[1]) for parts in batch.messages]


def read(window: ReplayWindow, after: int, until: int | None = None, topics: Sequence[bytes] = (b"",)) -> Batch:
    return window.read("slide", after, until, topics, max_messages=1000, max_bytes=10**9)


@given(
    count=st.integers(1, 60),
    after=st.integers(-1, 70),
    until=st.none() | st.integers(-1, 70),
    most=st.integers(1, 9),
    topics=st.sets(st.sampled_from([b"", b"frame.", b"cell.cam", b"other."]), min_size=1),
)
def test_reading_on_gives_each_wanted_message_once_in_order(
    count: int, after: int, until: int | None, most: int, topics: set[bytes]
) -> None:
    window = filled(count)
    last = count - 1 if until is None else min(until, count - 1)
    expected = [n for n in range(after + 1, last + 1) if message(n)[0].startswith(tuple(topics))]
    got: list[int] = []
    if after > count - 1:
        with pytest.raises(RequestRefused, match=f"expected at most {count - 1}"):
            read(window, after, until)
        return
    while after < last:
        batch = window.read("slide", after, until, sorted(topics), max_messages=most, max_bytes=10**9)
        assert batch.through > after
        assert len(batch.messages) <= most
        got += numbers(batch)
        after = batch.through
    assert got == expected


def test_the_oldest_go_when_it_is_full_and_asking_for_them_is_refused() -> None:
    window = filled(1000, max_bytes=50_000)
    assert window.bytes_used <= 50_000
    place = window.place("slide")
    assert 999 > place.oldest > 500
    assert place.newest == 999
    assert numbers(read(window, place.oldest - 1)) == list(range(place.oldest, 1000))
    with pytest.raises(RequestRefused, match=rf"expected at least {place.oldest - 1}: .*take a snapshot") as caught:
        read(window, place.oldest - 2)
    assert caught.value.code == "too old"


def test_a_batch_is_bounded_in_bytes_and_has_at_least_one() -> None:
    window = filled(10)
    assert numbers(window.read("slide", -1, None, [b""], max_messages=99, max_bytes=1)) == [0]
    assert len(window.read("slide", -1, None, [b""], max_messages=99, max_bytes=1600).messages) == 3


def test_the_greedy_session_pays() -> None:
    window = ReplayWindow(100_000)
    for number in range(5):
        window.add("small", number, message(number))
    for number in range(2000):
        window.add("large", number, message(number))
    assert window.place("small") == Place(0, 4)


def test_a_resumed_session_begins_where_it_was() -> None:
    window = filled(3, first=50)
    assert window.place("slide") == Place(50, 52)
    assert numbers(read(window, 49)) == [50, 51, 52]
    with pytest.raises(RequestRefused):
        read(window, 48)


def test_a_gap_starts_anew() -> None:
    window = filled(3)
    window.add("slide", 7, message(7))
    assert window.place("slide") == Place(7, 7)
    assert window.bytes_used == filled(1, first=7).bytes_used


def test_sessions_do_not_pile_up() -> None:
    window = ReplayWindow(10**9)
    for number in range(200):
        window.add(f"slide-{number}", 0, message(0))
    assert window.bytes_used == 64 * filled(1).bytes_used
    with pytest.raises(RequestRefused, match="'slide-0'"):
        window.read("slide-0", -1, None, [b""], max_messages=1, max_bytes=1)


class Shelf:
    """A history that has the first messages of one session."""

    def __init__(self, count: int) -> None:
        self.count = count

    def read(
        self, session: str, after: int, until: int, topics: Sequence[bytes], *, max_messages: int, max_bytes: int
    ) -> Batch | None:
        if session != "slide" or after + 1 >= self.count:
            return None
        end = min(until, self.count - 1, after + max_messages)
        return Batch(tuple(message(n) for n in range(after + 1, end + 1)), end)


def test_what_the_window_lost_comes_from_the_history() -> None:
    window = ReplayWindow(10**9, Shelf(60))
    for number in range(50, 80):
        window.add("slide", number, message(number))
    got, after = [], -1
    while after < 79:
        batch = window.read("slide", after, None, [b""], max_messages=16, max_bytes=10**9)
        got += numbers(batch)
        after = batch.through
    assert got == list(range(80))
