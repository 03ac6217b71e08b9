from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.records import Frame, Skip
from streamer.sources import SourceError, images, open_source, parse_source
from streamer.sources.images import ImagesSource, natural_key
from tests.streamer.sources.pictures import encoded, field


def source(where: Path | str) -> ImagesSource:
    clock = itertools.count(1000)
    return ImagesSource("slide", str(where), lambda: next(clock))


def read_all(opened: ImagesSource) -> list[Frame | Skip]:
    opened.open()
    return list(iter(opened.read, None))


def test_good_and_bad_files_in_natural_order(tmp_path: Path) -> None:
    good, jpeg = encoded(field()), encoded(field(), ".jpg")
    for name in ("f10.png", "f2.png", "F1.png"):
        (tmp_path / name).write_bytes(good)
    (tmp_path / "f3.txt").write_text("notes")
    (tmp_path / "f4.jpg").write_bytes(jpeg[:-50])
    (tmp_path / ".hidden.png").write_bytes(good)
    (tmp_path / "f5").mkdir()
    (tmp_path / "f5" / "inner.png").write_bytes(good)
    (tmp_path / "f6.png").symlink_to(tmp_path / "f5" / "inner.png")
    (tmp_path / "f7.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "f8.png")
    got = read_all(source(tmp_path))
    assert [(item.frame_id, item.file) for item in got if isinstance(item, Frame)] == [
        (0, "F1.png"), (1, "f2.png"), (2, "f6.png"), (3, "f10.png"),
    ]  # fmt: skip
    assert [(item.what, item.reason) for item in got if isinstance(item, Skip)] == [
        ("f3.txt", "not an image"), ("f4.jpg", "truncated"), ("f7.png", "unreadable"),
    ]  # fmt: skip
    times = [item.captured_ns for item in got if isinstance(item, Frame)]
    assert times == sorted(times)
    assert all(item.source == "slide" for item in got)


def test_glob_and_single_file(tmp_path: Path) -> None:
    for name in ("a1.png", "b1.png", "a[2].png"):
        (tmp_path / name).write_bytes(encoded(field()))
    files = [item.file for item in read_all(source(tmp_path / "a*.png")) if isinstance(item, Frame)]
    assert files == ["a1.png", "a[2].png"]
    files = [item.file for item in read_all(source(tmp_path / "a[2].png")) if isinstance(item, Frame)]
    assert files == ["a[2].png"]


def test_a_name_that_is_no_text_still_gives_one(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"f\xff.png")
    with open(path, "wb") as file:
        file.write(encoded(field()))
    (frame,) = read_all(source(tmp_path))
    assert isinstance(frame, Frame)
    assert frame.file == "f�.png"


def test_one_depth_for_a_whole_series(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(field().astype(np.uint16) << 4))
    (tmp_path / "2.png").write_bytes(encoded(np.full((40, 60), 160, np.uint16)))
    frames = [item for item in read_all(source(tmp_path)) if isinstance(item, Frame)]
    assert frames[1].image.max() == 10


def test_opening_again_starts_again(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(field()))
    slide = source(tmp_path)
    assert len(read_all(slide)) == 1
    slide.close()
    slide.close()
    assert [item.frame_id for item in read_all(slide) if isinstance(item, Frame)] == [0]


def test_headers_are_read_once_for_the_remark_and_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for files that came meanwhile."""
    asked: list[str] = []
    read = images.header_of
    monkeypatch.setattr(images, "header_of", lambda path: asked.append(path.name) or read(path))
    for name in ("1.png", "2.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"words" if name == "notes.txt" else encoded(field()))
    slide = source(tmp_path)
    assert slide.remarks == ()
    (tmp_path / "3.png").write_bytes(encoded(field()))
    slide.open()
    assert sorted(asked) == ["1.png", "2.png", "3.png", "notes.txt"]
    assert slide.length == 4
    slide.open()
    assert len(asked) == 8


@pytest.mark.parametrize(
    ("made", "asked", "says"),
    [
        ([], "", "got an empty folder"),
        (["notes.txt"], "", "got 1 files, none of them an image"),
        (["notes.txt"], "*.png", "got nothing that matches"),
        ([], "gone", "got no such file or folder"),
    ],
)
def test_nothing_to_read(tmp_path: Path, made: list[str], asked: str, says: str) -> None:
    for name in made:
        (tmp_path / name).write_text("words")
    with pytest.raises(SourceError, match=says) as caught:
        open_source(parse_source(str(tmp_path / asked))).open()
    assert "\n" not in str(caught.value)


def test_numbers_are_ordered_as_numbers() -> None:
    names = ["B-53_10", "a2", "b-53_9", "A10", "a1b10", "a1b9"]
    assert sorted(names, key=natural_key) == ["a1b9", "a1b10", "a2", "A10", "b-53_9", "B-53_10"]


@given(st.lists(st.text(alphabet="aB1٣²0-", max_size=6)))
def test_natural_order_is_an_order(names: list[str]) -> None:
    turned = names[::-1]
    assert sorted(names, key=natural_key) == sorted(turned, key=natural_key)
