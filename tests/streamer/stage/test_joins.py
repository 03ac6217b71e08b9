"""Islands that are published as parts of others."""

from __future__ import annotations

from streamer.stage.joins import Joins


def joined(*puts: tuple[int, int, float, float]) -> Joins:
    joins = Joins()
    for put in puts:
        joins.put(*put)
    return joins


def test_an_island_alone_is_published_as_it_is() -> None:
    assert Joins().published(3, 10, 20) == (3, 10, 20)


def test_what_was_put_under_an_island_goes_with_it() -> None:
    joins = joined((3, 2, 100, 0), (4, 2, 0, 50))
    assert joins.put(2, 0, 1000, 1000) == [2, 3, 4]
    assert [joins.published(island, 1, 1) for island in (0, 2, 3, 4)] == [
        (0, 1, 1),
        (0, 1001, 1001),
        (0, 1101, 1001),
        (0, 1001, 1051),
    ]
    assert sorted(joins.together(0)) == [0, 2, 3, 4]


def test_an_island_that_is_parted_is_one_by_itself() -> None:
    joins = joined((1, 0, 5, 5), (2, 0, 9, 9))
    joins.part(1)
    assert joins.offsets == {2: (0, 9, 9)}


def test_pictures_that_match_end_a_join() -> None:
    joins = joined((1, 0, 500, 0), (2, 0, 900, 0))
    assert joins.merge(2, 1, 410, 0) == []
    assert joins.offsets == {1: (0, 500, 0)}


def test_islands_under_one_that_is_merged_go_with_it() -> None:
    joins = joined((3, 2, 100, 0), (1, 0, 1000, 0))
    assert joins.merge(2, 1, 10, 20) == [3]
    assert joins.offsets == {1: (0, 1000, 0), 3: (0, 1110, 20)}
