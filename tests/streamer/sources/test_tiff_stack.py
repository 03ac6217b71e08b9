"""Stacks page by page, with the places that OME-TIFF states, and large images as tiles."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.records import Frame, Skip, StagePoint
from streamer.sources.images import ImagesSource
from streamer.sources.ome_xml import ome_images
from tests.streamer.sources.pictures import encoded, field

tifffile = pytest.importorskip("tifffile", reason="needs tifffile, of the extra wsi")


def source(where: Path, **options: Any) -> ImagesSource:
    clock = itertools.count(1000)
    return ImagesSource("slide", str(where), lambda: next(clock), **options)


def read_all(opened: ImagesSource) -> list[Frame | Skip]:
    opened.open()
    return list(iter(opened.read, None))


def frames_of(where: Path, **options: Any) -> list[Frame]:
    items = read_all(source(where, **options))
    assert [item for item in items if isinstance(item, Skip)] == []
    return [item for item in items if isinstance(item, Frame)]


def pages(count: int) -> np.ndarray:
    """(count, 48, 64, 3) RGB, each page of another colour."""
    return np.stack([np.full((48, 64, 3), (40 * n, 100, 200 - 20 * n), np.uint8) for n in range(count)])


def plane_positions(count: int, unit: str) -> dict[str, Any]:
    return {
        "PositionX": [10.0 * n for n in range(count)],
        "PositionY": [-5.5 * n for n in range(count)],
        "PositionZ": [0.5 * n for n in range(count)],
        **{f"Position{axis}Unit": [unit] * count for axis in "XYZ"},
    }


def test_each_page_of_a_plain_stack_is_a_frame(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", pages(3), photometric="rgb", metadata=None)
    (tmp_path / "zz.png").write_bytes(encoded(field()))
    frames = frames_of(tmp_path)
    assert [(frame.frame_id, frame.file) for frame in frames] == [
        (0, "stack.tif#page=1"), (1, "stack.tif#page=2"), (2, "stack.tif#page=3"), (3, "zz.png"),
    ]  # fmt: skip
    assert [frame.image[0, 0].tolist() for frame in frames[:3]] == [[200, 100, 0], [180, 100, 40], [160, 100, 80]]
    assert [frame.encoded is None for frame in frames] == [True, True, True, False]
    assert {(frame.stage_um, frame.um_per_px) for frame in frames} == {(None, None)}
    opened = source(tmp_path)
    opened.open()
    assert opened.length is None


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("mm", 1000), ("nm", 0.001)])
def test_an_ome_stack_gives_the_places_of_its_planes(tmp_path: Path, unit: str, factor: float) -> None:
    path = tmp_path / "stack.ome.tif"
    metadata = {"axes": "TYXS", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2, "Plane": plane_positions(4, unit)}
    tifffile.imwrite(path, pages(4), photometric="rgb", metadata=metadata, ome=True)
    frames = frames_of(path)
    assert [frame.stage_um for frame in frames] == [
        StagePoint(10.0 * n * factor, -5.5 * n * factor, 0.5 * n * factor) for n in range(4)
    ]
    assert {(frame.um_per_px, frame.stage_error_um) for frame in frames} == {(0.2, None)}


def test_each_image_of_an_ome_file_has_its_own_planes(tmp_path: Path) -> None:
    path = tmp_path / "mosaic.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for n, page in enumerate(pages(3)):
            plane = {"PositionX": 7.0 * n, "PositionXUnit": "µm", "PositionY": 1.0, "PositionYUnit": "µm"}
            file.write(page, photometric="rgb", metadata={"axes": "YXS", "Plane": plane})
    assert [frame.stage_um for frame in frames_of(path)] == [StagePoint(7.0 * n, 1.0) for n in range(3)]


def test_places_in_no_known_unit_are_none() -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels PhysicalSizeX="1.5"'
        ' PhysicalSizeXUnit="nm" PhysicalSizeY="0.1"><Plane TheC="0" TheZ="2" TheT="1" PositionX="3" PositionY="4"/>'
        '<Plane TheZ="1" PositionX="3" PositionXUnit="mm" PositionY="4" PositionYUnit="&#181;m"/>'
        "</Pixels></Image></OME>"
    )
    (image,) = ome_images(xml)
    assert image.um_per_px == (0.0015, 0.1)
    assert image.positions == {(0, 1, 0): StagePoint(3000.0, 4.0, None)}
    assert ome_images("<OME>") == ome_images("") == []


def test_a_damaged_page_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, pages(3), photometric="rgb", metadata=None, compression="adobe_deflate")
    with tifffile.TiffFile(path) as file:
        place = file.pages[1].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[place : place + 8] = bytes(8)
    path.write_bytes(data)
    first, skip, last = read_all(source(path))
    assert isinstance(first, Frame)
    assert isinstance(last, Frame)
    assert (first.file, last.file, last.frame_id) == ("stack.tif#page=1", "stack.tif#page=3", 1)
    assert isinstance(skip, Skip)
    assert skip.reason == "unreadable"
    assert skip.detail.startswith("stack.tif: got ")
    assert skip.detail.endswith("expected a sound page")


def test_grey_pages_of_sixteen_bits(tmp_path: Path) -> None:
    stack = np.stack([np.full((40, 40), 4000, np.uint16), np.full((40, 40), 160, np.uint16)])
    tifffile.imwrite(tmp_path / "stack.tif", stack, metadata=None)
    assert [frame.image[0, 0].tolist() for frame in frames_of(tmp_path)] == [[250] * 3, [10] * 3]


@pytest.mark.parametrize(
    ("data", "options", "reason", "detail"),
    [
        (
            np.zeros((2, 3, 40, 40), np.uint8),
            {"metadata": {"axes": "TCYX"}, "ome": True},
            "unsupported",
            "got channels",
        ),
        (np.zeros((2, 40, 40), np.float32), {"metadata": None}, "unsupported", "got MINISBLACK of float32"),
        (np.zeros((2, 40, 20), np.uint8), {"metadata": None}, "too small", "got 20 x 40 px, expected at least 32 px"),
    ],
)
def test_pages_that_are_no_fields(
    tmp_path: Path, data: np.ndarray, options: dict[str, Any], reason: str, detail: str
) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, data, photometric="minisblack", **options)
    items = read_all(source(path))
    assert all(isinstance(item, Skip) for item in items)
    assert {(item.reason, item.detail.partition(detail)[0]) for item in items if isinstance(item, Skip)} == {
        (reason, "stack.tif: ")
    }


def test_a_large_image_is_read_in_tiles_and_a_line_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    large = rng.integers(0, 255, (1500, 2700, 3)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(field()))
    (tmp_path / "large.png").write_bytes(encoded(large))
    frames = frames_of(tmp_path, large_megapixels=4)
    assert [frame.file for frame in frames] == [
        "a.png",
        *(f"large.png#xywh={x},0,1280,1024" for x in (0, 710, 1420)),
        *(f"large.png#xywh={x},476,1280,1024" for x in (1420, 710, 0)),
    ]
    assert np.array_equal(frames[5].image, large[476:1500, 710:1990])
    assert frames[5].image.flags.c_contiguous
    assert frames[5].encoded is None
    opened = source(tmp_path, large_megapixels=4)
    assert opened.remarks == (
        "slide: 1 of 2 images have 4 megapixels or more, the first is large.png: read in tiles of 1280 x 1024 px that"
        " share 25%, not shrunk",
    )
    assert source(tmp_path).remarks == ()
    opened.open()
    assert opened.length is None


@pytest.mark.lengthy
def test_forty_megapixels_are_large(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((5000, 8000), np.uint8))
    cv2.imwrite(str(tmp_path / "usual.png"), np.zeros((5000, 7999), np.uint8))
    frames = frames_of(tmp_path)
    assert (frames[-1].width, frames[-1].height, frames[-1].file) == (7999, 5000, "usual.png")
    assert {(frame.width, frame.height) for frame in frames[:-1]} == {(1280, 1024)}


def test_a_large_page_of_a_stack_is_read_in_tiles(tmp_path: Path) -> None:
    stack = np.zeros((2, 1100, 1400, 3), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="rgb", metadata=None)
    files = [frame.file for frame in frames_of(tmp_path, large_megapixels=1.5)]
    assert files[:2] == ["stack.tif#page=1&xywh=0,0,1280,1024", "stack.tif#page=1&xywh=120,0,1280,1024"]
    assert len(files) == 8
