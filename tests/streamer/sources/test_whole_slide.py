"""Small slides whose cells are known exactly, in every format: the same tiles and cells; one line for each fault."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import Detections, LeukostreamError, UsageError
from streamer.analysis import models
from streamer.cli import main
from streamer.counting.slide_map import SlideConfig, SlideMap
from streamer.records import Frame, Skip, StagePoint
from streamer.run.slide_stage import STAGE
from streamer.sources import SourceError, open_source, parse_source
from streamer.sources.tiles import serpentine, starts
from streamer.sources.whole_slide import WholeSlideSource, plan
from streamer.sources.whole_slide.options import SlideOptions
from streamer.sources.whole_slide.plan import ReadingPlan, plan_reading, read_tile
from streamer.sources.whole_slide.slide_image import Level, SlideError, levels_of, stated, to_bgr
from streamer.sources.whole_slide.tissue import find_tissue
from streamer.stage.readings import Reading
from streamer.stage.tracker import StageTracker
from tests.streamer.journal.journal_cases import classifier, detector
from tests.streamer.sources import slides

for package in ("openslide", "tifffile", "imagecodecs", "zarr", "wsidicom"):
    pytest.importorskip(package, reason=f"needs {package}, of the extra wsi")

WIDTH, HEIGHT = 2900, 1700
SMEARS = 1000, 1900
"""The first ends and the second begins here, across."""
TILE_PX = (640, 512)
"""Of tiles at 0.25 µm/px."""
CELL_PX = 52
GLASS, WHITE_CELL, RED_CELL = (236, 231, 224), (110, 60, 150), (225, 165, 175)
"""RGB"""


def two_smears() -> tuple[slides.Picture, list[tuple[int, int]]]:
    """A slide with two smears and clear glass between them, and the centres of its white cells: spread over all of
    both, so that some lie on the edges and in the corners of tiles."""
    rng = np.random.default_rng(4)
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = GLASS
    centres = []
    for row in range(60, HEIGHT - 60, 180):
        for column in range(60, WIDTH - 60, 200):
            x, y = column + int(rng.integers(0, 60)), row + int(rng.integers(0, 50))
            if SMEARS[0] < x < SMEARS[1] or x > WIDTH - 40 or y > HEIGHT - 40:
                continue
            centres.append((x, y))
            cv2.circle(picture, (x, y), CELL_PX // 2, WHITE_CELL, -1)
            if SMEARS[0] > x + 160 or SMEARS[1] < x < WIDTH - 160:
                cv2.circle(picture, (x + 100, y + int(rng.integers(-60, 60))), 14, RED_CELL, -1)
    return picture, centres


PICTURE, CENTRES = two_smears()


def source(target: str, **options: Any) -> WholeSlideSource:
    clock = itertools.count(1000)
    return WholeSlideSource("slide", target, lambda: next(clock), **options)


def read_all(opened: WholeSlideSource) -> list[Frame | Skip]:
    opened.open()
    return list(iter(opened.read, None))


def frames_of(target: str) -> list[Frame]:
    items = read_all(source(target))
    assert all(isinstance(item, Frame) for item in items)
    return [item for item in items if isinstance(item, Frame)]


def place_px(frame: Frame) -> tuple[float, float]:
    assert frame.stage_um is not None
    assert frame.um_per_px is not None
    return frame.stage_um.x / frame.um_per_px, frame.stage_um.y / frame.um_per_px


def white_cells(image: np.ndarray) -> Detections:
    """Whatever is as dark as a white cell, also where an edge cuts it."""
    dark = (image[..., 1] < 110).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(dark)
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, area in stats[1:count] if area > 30], np.float32)
    return Detections(
        boxes_px=boxes.reshape(-1, 4),
        scores=np.full(len(boxes), 0.9, np.float32),
        labels=np.zeros(len(boxes), np.intp),
        label_names=("WBC",),
        kinds=("white",),
        truncated=False,
    )


def count(frames: list[Frame]) -> tuple[list[tuple[float, float]], int]:
    """Centres of the white cells that are counted, in pixels of the frames; and how many islands there are."""
    tracker, slide_map = StageTracker(STAGE), SlideMap(SlideConfig(min_score=0.5))
    for frame in frames:
        placement = tracker.update(tracker.prepare(frame.image), reading=Reading.of(frame))
        slide_map.update(placement, white_cells(frame.image), (frame.width, frame.height), frame.frame_id)
    slide_map.finish(tracker.finish().corrections)
    left, top = place_px(frames[0])
    cells = [cell for cell in slide_map.cells() if cell.kind == "white" and not cell.partial]
    return [(cell.x_px + left, cell.y_px + top) for cell in cells], len({cell.island for cell in cells})


@pytest.mark.parametrize(("name", "write"), slides.WRITERS, ids=[name for name, _ in slides.WRITERS])
def test_each_format_gives_the_slides_own_pixels_and_each_cell_once(
    tmp_path: Path, name: str, write: Callable[..., None]
) -> None:
    write(tmp_path / name, PICTURE, 0.25)
    frames = frames_of(f"{tmp_path / name}")
    for frame in frames:
        left, top = place_px(frame)
        assert (left, top) == (round(left), round(top))
        part = PICTURE[int(top) : int(top) + TILE_PX[1], int(left) : int(left) + TILE_PX[0]]
        assert np.array_equal(frame.image, part[..., ::-1])
        assert (frame.stage_error_um, frame.um_per_px, frame.file) == (0.0, 0.25, None)
    assert [frame.frame_id for frame in frames] == list(range(len(frames)))
    found, islands = count(frames)
    assert islands == 1
    assert len(found) == len(CENTRES)
    assert sorted((round(x / 4), round(y / 4)) for x, y in found) == sorted(
        (round((x + 0.5) / 4), round((y + 0.5) / 4)) for x, y in CENTRES
    )


def test_neighbours_follow_one_another_and_glass_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    slides.write_tiff(path, PICTURE, 0.25)
    opened = source(f"{path},overlap=0.5")
    places = [place_px(item) for item in read_all(opened) if isinstance(item, Frame)]
    assert opened.length == len(places)
    rows = sorted({y for _, y in places})
    for number, row in enumerate(rows):
        across = [x for x, y in places if y == row]
        assert across == sorted(across, reverse=number % 2 == 1)
    assert not [x for x, _ in places if x > SMEARS[0] + 30 and x + TILE_PX[0] < SMEARS[1] - 30]
    everything = len(starts(WIDTH, TILE_PX[0], 0.5)) * len(starts(HEIGHT, TILE_PX[1], 0.5))
    assert len(places) < everything


@pytest.mark.parametrize("mpp", [0.3, 0.4, 0.5, 1.0])
def test_tiles_are_shrunk_by_area_and_their_places_stay_exact(mpp: float) -> None:
    picture = cv2.resize(PICTURE, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    slide = DrawnSlide(np.asarray(picture, np.uint8), (0.2, 0.2))
    items = read_all(source(f"f,mpp={mpp}", open_slide=lambda path: slide))
    frames = [item for item in items if isinstance(item, Frame)]
    um, tile_px = frames[0].um_per_px, (frames[0].width, frames[0].height)
    assert um == pytest.approx(mpp, rel=0.01)
    checked = 0
    for frame in frames:
        left, top = place_px(frame)
        for x, y in CENTRES:
            # The centre of a disc on the slide, in pixels of the tile.
            at = (2 * x + 1) * 0.2 / um - left, (2 * y + 1) * 0.2 / um - top
            reach = CELL_PX * 0.2 / um + 3
            if not (reach < at[0] < tile_px[0] - reach and reach < at[1] < tile_px[1] - reach):
                continue
            part = frame.image[round(at[1] - reach) : round(at[1] + reach), round(at[0] - reach) : round(at[0] + reach)]
            weight = np.clip(200.0 - part[..., 1], 0, None)
            rows, columns = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
            seen = (
                (columns * weight).sum() / weight.sum() + round(at[0] - reach),
                (rows * weight).sum() / weight.sum() + round(at[1] - reach),
            )
            assert np.hypot(seen[0] - at[0], seen[1] - at[1]) < 0.35
            checked += 1
    assert checked > 30


def test_the_nearest_level_above_is_read(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    slides.write_tiff(path, np.zeros((2200, 3000, 3), np.uint8), 0.1, levels=2)
    chosen = {}
    for mpp in (0.1, 0.2, 0.39, 0.4):
        slide = source(f"{path},mpp={mpp}")
        chosen[mpp] = slide._plan.level, slide._plan.ratio_x
    assert chosen == {0.1: (0, 1.0), 0.2: (0, 2.0), 0.39: (0, pytest.approx(3.9, abs=0.01)), 0.4: (1, 1.0)}


def test_without_mpp_a_slide_is_read_at_a_quarter_of_a_micrometre_or_its_own_scale(tmp_path: Path) -> None:
    for own, read in ((0.1, 0.25), (0.25, 0.25), (0.5, 0.5)):
        path = tmp_path / f"slide{own}.tif"
        slides.write_tiff(path, np.zeros((1400, 1700, 3), np.uint8), own)
        assert source(str(path))._plan.um_per_px == pytest.approx(read, rel=0.01)


class DrawnSlide:
    """A slide of one level in memory."""

    format = "drawn"

    def __init__(self, rgb: slides.Picture, um_per_px: tuple[float, float] | None = (0.25, 0.25)) -> None:
        self._rgb = rgb
        self.levels = levels_of([(rgb.shape[1], rgb.shape[0])])
        self.um_per_px = um_per_px
        self.largest_px = 0

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Any:
        assert 0 <= left <= left + width <= self.levels[0].width_px
        assert 0 <= top <= top + height <= self.levels[0].height_px
        self.largest_px = max(self.largest_px, width * height)
        return to_bgr(self._rgb[top : top + height, left : left + width])

    def close(self) -> None: ...


def test_much_that_is_read_for_a_tile_is_read_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    slide = DrawnSlide(rng.integers(0, 255, (1400, 1800, 3)).astype(np.uint8))
    reading = plan_reading(slide, SlideOptions("f", 0.63, 0.2))
    whole = read_tile(slide, reading, (11, 7))
    before = slide.largest_px
    monkeypatch.setattr(plan, "_MOST_AT_ONCE_PX", 1000)
    slide.largest_px = 0
    banded = read_tile(slide, reading, (11, 7))
    assert np.abs(whole.astype(int) - banded).max() <= 1
    assert slide.largest_px < before / 2


def test_pixels_that_are_not_square_become_so() -> None:
    picture = cv2.resize(PICTURE, None, fx=1, fy=2, interpolation=cv2.INTER_NEAREST)
    slide = DrawnSlide(np.asarray(picture, np.uint8), (0.25, 0.125))
    reading = plan_reading(slide, SlideOptions("f", None, 0.2))
    assert (reading.ratio_x, reading.ratio_y) == (1.0, 2.0)
    tile = read_tile(slide, reading, (100, 200))
    assert np.array_equal(tile, PICTURE[100 : 100 + TILE_PX[1], 100 : 100 + TILE_PX[0], ::-1])
    assert reading.place_px((100, 200)) == (100, 100)


def test_tissue_is_what_is_stained_and_not_what_was_not_scanned() -> None:
    picture = np.full((4000, 4000, 3), 232, np.uint8)
    picture[:, :400] = 0  # as scanners fill what they leave out
    picture[:, 400:800] = 255
    picture[2000:2400, 2000:2400] = (225, 165, 175)
    tissue = find_tissue(DrawnSlide(picture), (0.25, 0.25))
    assert tissue.area_um2(0, 0, 4000, 4000) == pytest.approx(100 * 100, rel=0.05)
    assert tissue.area_um2(1990, 1990, 2410, 2410) == tissue.area_um2(0, 0, 4000, 4000)
    assert tissue.area_um2(0, 0, 1900, 4000) == 0


def test_a_single_pale_red_cell_is_enough_for_a_tile() -> None:
    picture = np.full((1100, 1400, 3), 232, np.uint8)
    cv2.circle(picture, (300, 250), 15, (226, 172, 186), -1)
    opened = source("f", open_slide=lambda path: DrawnSlide(picture))
    opened.open()
    assert opened.length == 1


@given(length=st.integers(1, 20_000), tile=st.integers(64, 2000), overlap=st.floats(0, 0.9))
def test_tiles_cover_all_and_what_is_no_larger_than_their_overlap_lies_whole_in_one(
    length: int, tile: int, overlap: float
) -> None:
    places = starts(length, tile, overlap)
    assert places[0] == 0
    assert places == sorted(set(places))
    assert places[-1] + tile == max(length, tile)
    step = max(1, round(tile * (1 - overlap)))
    assert len(places) == 1 or len(places) == -(-(length - tile) // step) + 1
    assert all(after - before <= step for before, after in itertools.pairwise(places))


def test_a_serpentine_turns_at_the_end_of_a_row() -> None:
    assert list(serpentine([0, 5, 9], [0, 4])) == [(0, 0), (5, 0), (9, 0), (9, 4), (5, 4), (0, 4)]


# Faults


def fault(target: str, **options: Any) -> tuple[type[LeukostreamError], str]:
    """The kind and the one line of an error that opening a slide raises."""
    with pytest.raises(LeukostreamError) as raised:
        source(target, **options).open()
    line = str(raised.value)
    assert "\n" not in line
    return raised.type, line


def test_what_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "words.svs").write_text("words " * 100)
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(300))
    for name, got in {
        "nothing.svs": "got no such file or folder",
        "words.svs": "got a file of another kind",
        "empty.tif": "got an empty file",
        "folder": "got a folder with neither DICOM nor OME-Zarr",
        "film.mp4": "got a file of another kind",
    }.items():
        kind, line = fault(str(tmp_path / name))
        assert kind is SourceError
        assert line.startswith(f"source wsi:{tmp_path / name}: {got}, expected a whole-slide image")


@pytest.mark.parametrize("name", ["slide.svs", "slide.ome.tif", "slide.tif"])
def test_a_file_cut_off_before_its_directory_is_damaged(tmp_path: Path, name: str) -> None:
    dict(slides.WRITERS)[name](tmp_path / name, PICTURE, 0.25)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:1000])
    kind, line = fault(str(tmp_path / name))
    assert kind is SourceError
    assert "got a file cut off after 1000 bytes, expected all of it" in line or "got a damaged file" in line


def test_zarr_without_an_image_and_dicom_without_a_slide(tmp_path: Path) -> None:
    import zarr

    zarr.open_group(tmp_path / "plain.zarr", mode="w").create_array("a", shape=(4, 4), dtype="uint8")
    assert "got Zarr without a multiscale image" in fault(str(tmp_path / "plain.zarr"))[1]
    (tmp_path / "other.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    assert str(tmp_path / "other.dcm") in fault(str(tmp_path / "other.dcm"))[1]


def test_a_slide_that_states_no_scale_wants_mpp(tmp_path: Path) -> None:
    plain, printed, given = tmp_path / "plain.ome.tif", tmp_path / "printed.tif", tmp_path / "given.svs"
    slides.write_ome_tiff(plain, PICTURE, None)
    slides.write_tiff(printed, PICTURE, None, resolution=(72, 72), resolutionunit="INCH")
    slides.write_aperio(given, PICTURE, None)
    for path in (plain, printed, given):
        kind, line = fault(str(path))
        assert kind is SourceError
        assert (
            f"got a slide that states no scale, expected micrometres per pixel; give those of its full size, as"
            f" wsi:{path},mpp=0.25" in line
        )
        opened = source(f"{path},mpp=0.21")
        assert (opened._plan.level, opened._plan.um_per_px) == (0, 0.21)
        assert "of a scale that it does not state" in opened.remarks[0]


def test_scales_that_do_not_fit_the_slide(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    slides.write_tiff(path, PICTURE, 0.25)
    kind, line = fault(f"{path},mpp=0.1")
    assert kind is UsageError
    assert line == (
        f"wsi: mpp: got 0.1, expected at least the 0.25 µm/px of {path}: nothing finer is in it;"
        " leave mpp out to read it as it is"
    )
    kind, line = fault("f,mpp=0.5", open_slide=lambda path: DrawnSlide(PICTURE[:900, :600]))
    assert kind is UsageError
    assert line == (
        "wsi:f: got a slide of 300 x 450 px at 0.5 µm/px, expected at least a tile of 320 x 256 px; is its scale right?"
        " A single field is given without wsi:"
    )


def test_a_slide_without_tissue() -> None:
    picture = np.full((2000, 2000, 3), 230, np.uint8)
    kind, line = fault("f", open_slide=lambda path: DrawnSlide(picture))
    assert kind is SourceError
    assert line == "source wsi:f: got a slide on which nothing is stained, expected a stained smear"


def test_levels_without_area_or_larger_than_the_slide() -> None:
    with pytest.raises(SlideError, match="got 0 x 40 px at level 1, expected pixels"):
        levels_of([(100, 100), (0, 40)])
    with pytest.raises(SlideError, match="got 200 x 40 px at level 1, expected at most the 100 x 100 px of level 0"):
        levels_of([(100, 100), (200, 40)])


def test_rounded_levels_have_whole_ratios() -> None:
    assert levels_of([(4001, 3003), (1600, 1201), (1000, 750), (250, 188)])[1:] == (
        Level(1600, 1201, 4001 / 1600, 3003 / 1201), Level(1000, 750, 4.0, 4.0), Level(250, 188, 16.0, 16.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "got no file"),
        ("f,mp=1", "got the option 'mp', expected mpp or overlap"),
        ("f,mpp=x", "mpp: got 'x', expected a number"),
        ("f,mpp=nan", "mpp: got 'nan', expected a number"),
        ("f,mpp=0", "mpp: got 0, expected micrometres per pixel above 0"),
        ("f,mpp=1.5", "mpp: got 1.5, expected .* at most 1: cells can't be told apart in larger pixels"),
        ("f,mpp=1,mpp=2", "mpp: got it twice"),
        ("f,overlap=0.95", "overlap: got 0.95, expected a share of the tile's side from 0 to 0.9"),
        ("f,overlap=-0.1", "overlap: got -0.1"),
    ],
)
def test_options_that_can_not_be_meant(target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source(target)


def test_a_scale_is_one_of_a_microscope() -> None:
    assert stated(0.25, 0.26) == (0.25, 0.26)
    assert stated(352.8, 352.8) is stated(None, 0.25) is stated(0.0, 0.25) is stated(float("nan"), 0.25) is None


def test_samples_that_are_no_colours() -> None:
    assert to_bgr(np.full((2, 3), 7, np.uint8)).shape == (2, 3, 3)
    assert to_bgr(np.zeros((1, 1, 4), np.uint8)).tolist() == [[[255, 255, 255]]]
    assert to_bgr(np.array([[[1, 2, 3]]], np.uint8)).tolist() == [[[3, 2, 1]]]
    with pytest.raises(SlideError, match="got samples of uint16, expected 8 bits"):
        to_bgr(np.zeros((2, 2, 3), np.uint16))
    with pytest.raises(SlideError, match="got 5 channels"):
        to_bgr(np.zeros((2, 2, 5), np.uint8))


def damaged_place(path: Path) -> tuple[Path, int]:
    """The file and the byte where the tile in row 4, column 9 of the full size begins."""
    import tifffile

    if path.is_dir():
        return path / "0" / "c" / "0" / "4" / "9", 0
    with tifffile.TiffFile(path) as file:
        page = file.series[0].levels[0].keyframe
        return path, page.dataoffsets[4 * -(-WIDTH // slides.TILE) + 9]


@pytest.mark.parametrize("name", ["slide.svs", "slide.tif", "slide.ome.zarr"])
def test_damaged_data_costs_its_tiles_and_no_more(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    dict(slides.WRITERS)[name](path, PICTURE, 0.25)
    whole = frames_of(str(path))
    file, place = damaged_place(path)
    data = bytearray(file.read_bytes())
    data[place : place + 40] = bytes(40)
    file.write_bytes(data)
    items = read_all(source(str(path)))
    skips = [item for item in items if isinstance(item, Skip)]
    frames = [item for item in items if isinstance(item, Frame)]
    assert 1 <= len(skips) <= 6
    assert all(skip.reason == "unreadable" and f"of {path}: got " in skip.detail for skip in skips)
    assert len(frames) + len(skips) == len(whole)
    same = {frame.frame_id: frame for frame in whole}
    assert all(np.array_equal(frame.image, same[frame.frame_id].image) for frame in frames)


def test_a_picture_in_one_compressed_piece_is_refused_and_an_uncompressed_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import streamer.sources.whole_slide.tiff as tiff

    monkeypatch.setattr(tiff, "MOST_BYTES_AT_ONCE", 1 << 20)
    packed, plain = tmp_path / "packed.tif", tmp_path / "plain.tif"
    slides.write_tiff(packed, PICTURE, 0.25, 1, tile=None, rowsperstrip=HEIGHT)
    slides.write_tiff(plain, PICTURE, 0.25, 1, tile=None, rowsperstrip=HEIGHT, compression=None)
    assert (
        "got a picture stored in pieces of 14 MB, expected tiles; write it again as a tiled TIFF"
        in fault(str(packed))[1]
    )
    frame = frames_of(str(plain))[0]
    assert np.array_equal(frame.image, PICTURE[: TILE_PX[1], : TILE_PX[0], ::-1])


def test_zarr_of_version_0_4(tmp_path: Path) -> None:
    slides.write_ome_zarr(tmp_path / "old.zarr", PICTURE, 0.25, version="0.4")
    frame = frames_of(str(tmp_path / "old.zarr"))[0]
    assert np.array_equal(frame.image, PICTURE[: TILE_PX[1], : TILE_PX[0], ::-1])


@pytest.mark.parametrize("package", ["openslide", "tifffile", "zarr", "wsidicom"])
def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    name, module = {
        "openslide": ("slide.svs", "openslide"),
        "tifffile": ("slide.tif", "tiff"),
        "zarr": ("slide.ome.zarr", "ome_zarr"),
        "wsidicom": ("slide.dicom", "dicom"),
    }[package]
    dict(slides.WRITERS)[name](tmp_path / name, PICTURE, 0.25)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"streamer.sources.whole_slide.{module}", raising=False)
    kind, line = fault(str(tmp_path / name))
    assert kind is SourceError
    assert line == f"source wsi:…: got no package '{package}', expected it here: pip install 'leukostream[wsi]'"


# The source


def test_a_slide_can_be_read_from_the_middle_and_again(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    slides.write_tiff(path, PICTURE, 0.25)
    opened = source(str(path))
    whole = [item for item in read_all(opened) if isinstance(item, Frame)]
    opened.close()
    opened.close()
    opened.open()
    opened.seek(3)
    frame = opened.read()
    assert isinstance(frame, Frame)
    assert frame.frame_id == 3
    assert np.array_equal(frame.image, whole[3].image)
    assert frame.stage_um == whole[3].stage_um
    opened.seek(len(whole))
    assert opened.read() is None


def test_how_a_slide_is_read_is_said_and_that_cells_may_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    slides.write_ome_tiff(path, PICTURE, 0.2)
    assert source(f"{path},mpp=0.25").remarks == (
        "slide: OME-TIFF, 2900 x 1700 px of 0.2 µm/px; level 0 of 2 is read shrunk 1.25 times, in tiles of"
        " 640 x 512 px of 0.25 µm",
    )
    assert source(f"{path},overlap=0.05").remarks[1] == (
        "slide: neighbouring tiles share 6.4 µm: larger cells may lie whole in none, and are counted as cut by an"
        " edge; give a larger overlap or mpp"
    )


def test_its_address(tmp_path: Path) -> None:
    address = parse_source(f"wsi:{tmp_path}/a slide.svs,mpp=0.25,overlap=0.1")
    assert (address.kind, address.name) == ("wsi", "a-slide")
    assert address.target == f"{tmp_path}/a slide.svs,mpp=0.25,overlap=0.1"
    with pytest.raises(SourceError, match="got no such file or folder"):
        open_source(address)


def test_a_slide_without_its_prefix_is_told_how(tmp_path: Path) -> None:
    (tmp_path / "slide.ome.zarr").mkdir()
    (tmp_path / "slide.SVS").write_bytes(b"II*\0")
    for name in ("slide.ome.zarr", "slide.SVS"):
        with pytest.raises(UsageError, match=f"got a whole-slide image, expected it as wsi:{tmp_path / name}"):
            open_source(parse_source(str(tmp_path / name)))


def test_a_run_over_a_slide_and_its_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: classifier())
    monkeypatch.chdir(tmp_path)
    slides.write_tiff(Path("slide.tif"), PICTURE, 0.25)
    words = ["run", "--source", "wsi:slide.tif,overlap=0.1", "--journal", "one.db", "--jsonl", "lines.jsonl"]
    assert main(words) == 0
    frames = [
        message
        for line in Path("lines.jsonl").read_text().splitlines()
        if (message := json.loads(line))["type"] == "frame"
    ]
    assert [frame["frame_id"] for frame in frames] == list(range(len(frames)))
    assert {(frame["stage"]["island"], frame["file"], frame["um_per_px"]) for frame in frames} == {(0, None, 0.25)}
    first = frames[0]["stage_um"]
    for frame in frames:
        away = frame["stage_um"]["x"] - first["x"], frame["stage_um"]["y"] - first["y"]
        assert (frame["stage"]["x_px"], frame["stage"]["y_px"]) == pytest.approx(
            (away[0] / 0.25, away[1] / 0.25), abs=0.01
        )
    assert "in tiles of 640 x 512 px of 0.25 µm" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert main(["run", "--source", "wsi:slide.tif,mpp=7"]) == 2
    assert main(["run", "--source", "wsi:nothing.tif"]) == 1


def test_a_plan_keeps_places_exact() -> None:
    reading = ReadingPlan(0, 94 / 64, 94 / 64, 0.25, TILE_PX, (940, 752))
    assert reading.place_px((94 * 7, 94)) == (64 * 7, 64)
    assert StagePoint(*reading.place_px((0, 0))) == StagePoint(0, 0)
