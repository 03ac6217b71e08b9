"""Which requests run together."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.inference.waiting import NotYet, Waiting

MS = 1_000_000


@dataclass(frozen=True)
class Item:
    name: str
    asker: bytes = b"a"
    group: str = "g"
    rows: int = 1
    size_bytes: int = 100
    arrived_ns: int = 0


def names(step: list[Item] | NotYet) -> list[str]:
    assert isinstance(step, list)
    return [item.name for item in step]


def filled(*items: Item, rows: int = 4, **settings: int) -> Waiting[Item]:
    waiting: Waiting[Item] = Waiting(lambda group: rows, max_wait_ms=2.0, **settings)
    for item in items:
        assert waiting.add(item)
    return waiting


def test_a_run_waits_until_it_is_full_or_due() -> None:
    waiting = filled(Item("1"), Item("2", arrived_ns=MS))
    assert waiting.take(0) == NotYet(2 * MS)
    assert names(waiting.take(2 * MS)) == ["1", "2"]
    assert waiting.take(2 * MS) == NotYet(None)
    waiting = filled(*(Item(str(number)) for number in range(5)))
    assert names(waiting.take(0)) == ["0", "1", "2", "3"]
    assert waiting.take(0) == NotYet(2 * MS)


def test_a_request_runs_alone_and_at_once_where_nothing_is_joined() -> None:
    waiting = filled(Item("1", rows=8), Item("2"), rows=1)
    assert names(waiting.take(0)) == ["1"]
    assert names(waiting.take(0)) == ["2"]


def test_askers_take_turns() -> None:
    waiting = filled(*(Item(f"a{number}") for number in range(6)), Item("b0", asker=b"b"), Item("c0", asker=b"c"))
    assert names(waiting.take(0)) == ["a0", "b0", "c0", "a1"]
    assert names(waiting.take(0)) == ["a2", "a3", "a4", "a5"]


def test_a_request_is_never_cut_and_the_order_of_an_asker_stays() -> None:
    waiting = filled(Item("1", rows=3), Item("2", rows=2), Item("3", rows=1))
    assert names(waiting.take(0)) == ["1"]
    assert names(waiting.take(9 * MS)) == ["2", "3"]


def test_groups_run_apart_and_the_oldest_first() -> None:
    waiting = filled(Item("new", group="h", arrived_ns=2), Item("old", group="g", arrived_ns=1), rows=1)
    assert waiting.oldest_ns() == 1
    assert names(waiting.take(2)) == ["old"]
    assert names(waiting.take(2)) == ["new"]


def test_what_waits_is_bounded() -> None:
    waiting = filled(Item("1"), Item("2"), requests_max=2)
    assert not waiting.add(Item("3"))
    waiting.take(9 * MS)
    assert waiting.add(Item("3"))
    large = filled(Item("1", size_bytes=900), bytes_max=1000)
    assert not large.add(Item("2", size_bytes=101))
    assert large.add(Item("2"))
    assert (len(large), large.bytes_used) == (2, 1000)
