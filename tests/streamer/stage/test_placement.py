"""Islands that turn out to be parts of others are told once, with where they lie."""

from __future__ import annotations

from streamer.protocol.messages import CellMessage, FrameMessage
from streamer.records import StagePosition
from streamer.stage.placement import Correction, IslandBook, MergedIsland, Placement
from tests.streamer.journal.journal_cases import PLACES, analysed, session_of


def placed(island: int, anchor: int, corrections: tuple[Correction, ...] = ()) -> Placement:
    return Placement(StagePosition(island, 0.0, 0.0, 1.0), anchor, None, corrections)


def test_a_correction_within_an_island_merges_nothing():
    book = IslandBook()
    assert book.update(placed(0, 0)) == ()
    assert book.update(placed(0, 1, (Correction(0, 0, 3.0, -1.0),))) == ()


def test_two_islands_that_become_parts_of_a_third_are_told_with_their_own_shifts():
    book = IslandBook()
    for island, anchor in ((0, 0), (1, 1), (1, 2), (2, 3)):
        assert book.update(placed(island, anchor)) == ()
    moves = (Correction(1, 0, 500.0, 0.0), Correction(2, 0, 501.0, 0.0), Correction(3, 0, -40.0, 90.0))
    told = book.update(Placement(None, None, "blurred", moves))
    assert told == (MergedIsland(1, 0, 500.0, 0.0), MergedIsland(2, 0, -40.0, 90.0))
    assert book.update(placed(0, 0, (Correction(1, 0, 1.0, 1.0),))) == ()


def test_the_messages_of_a_walk_tell_where_its_second_island_lies_in_the_first():
    session = session_of(None)
    messages = [message for one in analysed() for message, _ in session.update(one)]
    frames = [message for message in messages if isinstance(message, FrameMessage)]
    assert {one.stage.island for one in frames if one.stage} == {0, 1}
    (told,) = [one for one in frames if one.merged_islands]
    (merged,) = told.merged_islands
    assert (merged.island, merged.into) == (1, 0)
    # The second island begins at the third frame, 1000 px left of where the first one does.
    assert abs(merged.dx_px - (PLACES[2] - PLACES[0])) < 1
    assert abs(merged.dy_px) < 1
    assert all(one.stage.island == 0 for one in frames[frames.index(told) :] if one.stage)
    after = messages[messages.index(told) :]
    assert {one.island for one in after if isinstance(one, CellMessage)} == {0}
