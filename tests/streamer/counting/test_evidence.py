"""What frames say about their slide, gathered one by one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streamer.counting.evidence import EvidenceBook, EvidenceState, slide_name
from streamer.counting.slide_count import SeenFrame
from streamer.records import Detections, FieldColours, MergedIsland, SourceProgress, StagePosition
from streamer.stage.placement import Placement

PLASMA, RED = (0.1, 0.2, 0.3), (0.4, 0.6, 0.3)


def seen(
    island: int | None = 0,
    x_px: float = 0.0,
    *,
    file: str | None = None,
    plasma: tuple[float, float, float] = PLASMA,
    accepted: bool = True,
    progress: SourceProgress | None = None,
    colours: bool = True,
) -> SeenFrame:
    """A frame with ten whole red cells 30 px wide, one cut by the edge and one white cell."""
    boxes = [(5 + 30 * i, 10, 35 + 30 * i, 40) for i in range(10)] + [(0, 50, 90, 140), (200, 60, 290, 150)]
    return SeenFrame(
        frame_id=0,
        width=400,
        height=200,
        placement=Placement(None if island is None else StagePosition(island, x_px, 0.0, 1.0), reason=None),
        detections=Detections(
            np.array(boxes, np.float32),
            np.full(len(boxes), 0.9, np.float32),
            np.array([1] * 11 + [0]),
            ("WBC", "RBC"),
            ("white", "red"),
            False,
        ),
        looks=None,
        accepted=accepted,
        reasons=() if accepted else ("out of focus",),
        focus=1.0,
        file=file,
        captured_utc="",
        colours=FieldColours(plasma, RED, 11) if colours else None,
        progress=progress,
    )


def book_of(*frames: SeenFrame) -> EvidenceBook:
    book = EvidenceBook(0.5)
    for frame in frames:
        book.add(frame, ())
    return book


def test_colours_and_magnification_are_medians_over_the_frames():
    book = book_of(seen(), seen(), seen(plasma=(0.9, 0.9, 0.9)))
    assert book.plasma == pytest.approx(PLASMA, abs=0.01)
    assert book.red == pytest.approx(RED, abs=0.01)
    assert book.rbc_px == pytest.approx(30, rel=0.03)
    assert book.state.has_colours


def test_nothing_seen_is_not_measured():
    book = EvidenceBook(0.5)
    assert (book.plasma, book.red, book.rbc_px, book.light_range, book.only_extent_px) == (None,) * 5


def test_a_frame_without_colours_is_one_of_before_they_were_measured():
    assert not book_of(seen(), seen(colours=False)).state.has_colours


def test_frames_that_are_not_counted_give_their_reason_and_nothing_else():
    book = book_of(seen(accepted=False), seen(island=None))
    assert book.state.rejected == {"out of focus": 1, "no place on the slide": 1}
    assert (book.plasma, book.rbc_px, book.only_extent_px) == (None, None, None)


def test_a_change_of_light_shows_in_the_range():
    same = [seen(plasma=(0.1 + 0.001 * i, 0.2, 0.3)) for i in range(20)]
    assert book_of(*same).light_range < 0.05
    darker = [seen(plasma=(0.6, 0.7, 0.8)) for _ in range(5)]
    assert book_of(*same, *darker).light_range == pytest.approx(0.5, abs=0.03)


def test_the_area_of_one_island_has_an_extent_and_that_of_several_has_none():
    book = book_of(seen(0, 0), seen(0, 1000), seen(1, 0))
    assert book.only_extent_px is None
    book.finish([MergedIsland(1, 0, 5000, 0)], None)
    assert book.only_extent_px == 5400


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("B-57_0103.jpg", "B-57"),
        ("E-14_0586.png", "E-14"),
        ("slide7_x12_y3.tif", "slide7"),
        ("slide7_row1_col22.tif", "slide7"),
        ("BloodImage_00001.jpg", "BloodImage"),
        ("IMG (12).jpg", "IMG"),
        ("0007.png", ""),
        ("patient.b.12.png", "patient.b"),
    ],
)
def test_the_names_of_one_slides_files_begin_alike(file, name):
    assert slide_name(file) == name


def test_files_of_other_names_are_other_slides_unless_they_share_an_island():
    frames = [seen(i, file=f"{name}_{i:03}.png") for i, name in enumerate(["A"] * 5 + ["B"] * 3)]
    book = book_of(*frames)
    assert book.slides == {"A": 5, "B": 3}
    book.add(seen(2, 100, file="B_009.png"), ())
    assert book.slides in ({"A": 9}, {"B": 9})


def test_islands_that_turn_out_to_be_one_make_one_slide_of_their_names():
    book = book_of(seen(0, file="A_1.png"), seen(1, file="B_1.png"))
    book.add(seen(0, 10, file="A_2.png"), [MergedIsland(1, 0, 300.0, 0.0)])
    assert list(book.slides.values()) == [3]


def test_a_book_goes_on_from_its_state_as_if_it_had_never_stopped():
    frames = [seen(i // 3, 90 * i, file=f"A_{i}.png", progress=SourceProgress(9, {"stale": i})) for i in range(9)]
    whole, first = book_of(*frames), book_of(*frames[:5])
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=EvidenceState)
    rest = EvidenceBook(0.5, state)
    for frame in frames[5:]:
        rest.add(frame, ())
    assert rest.state == whole.state
    assert rest.state.progress == SourceProgress(9, {"stale": 8})
