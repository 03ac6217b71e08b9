"""The slide that the bench makes: its pixels, sizes and scale; and what is said of cells that are found on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.bench.wsi import SHRINK, TILE, UM_PER_PX, SimulatedScan, _compared, write_slide
from tools.commands import start

tifffile = pytest.importorskip("tifffile", reason="needs tifffile, of the extra wsi")


@pytest.fixture(scope="module")
def scan() -> SimulatedScan:
    return SimulatedScan(2100, 2060, 3)


def test_the_slide_is_a_pyramid_of_what_the_scan_shows(scan: SimulatedScan, tmp_path: Path) -> None:
    write_slide(scan, tmp_path / "slide.ome.tif")
    assert list(tmp_path.iterdir()) == [tmp_path / "slide.ome.tif"]
    with tifffile.TiffFile(tmp_path / "slide.ome.tif") as file:
        levels = [level.asarray() for level in file.series[0].levels]
        assert f'PhysicalSizeX="{UM_PER_PX}"' in file.ome_metadata
    assert [level.shape for level in levels] == [(2060, 2100, 3), (515, 525, 3), (128, 131, 3)]
    tile = scan.tile(TILE, TILE)[..., ::-1]
    assert np.abs(levels[0][TILE : 2 * TILE, TILE : 2 * TILE].astype(int) - tile).mean() < 2
    small = cv2.resize(tile, (TILE // SHRINK, TILE // SHRINK), interpolation=cv2.INTER_AREA)
    assert np.abs(levels[1][128:256, 128:256].astype(int) - small).mean() < 5


def test_cells_lie_where_the_truth_has_them(scan: SimulatedScan) -> None:
    cells = scan.white_cells()
    assert len(cells) > 20
    x1, y1, x2, y2 = (round(value) for value in cells[0].box_px)
    left, top = (x1 + scan.border) // TILE * TILE, (y1 + scan.border) // TILE * TILE
    shown = scan.tile(left, top)
    inside = shown[
        max(0, y1 + scan.border - top) : y2 + scan.border - top,
        max(0, x1 + scan.border - left) : x2 + scan.border - left,
    ]
    assert inside[..., 1].min() < 110


def test_missed_doubled_and_false_cells(scan: SimulatedScan) -> None:
    truth = scan.white_cells()
    um_per_px, corner = 0.25, {"x": 20.0, "y": 30.0}
    places = []
    for cell in truth:
        x1, y1, x2, y2 = cell.box_px
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) + scan.border
        places.append(centre * UM_PER_PX / um_per_px - np.array([20.0, 30.0]) / um_per_px)
    found = [*places[1:], places[1], np.array([-1e4, 0.0])]
    first = {"um_per_px": um_per_px, "stage_um": corner}
    compared = _compared(first, [{"x_px": x, "y_px": y} for x, y in found], scan)
    assert (compared.missed, compared.doubled, compared.false, compared.place_error_um) == (1, 1, 1, 0.0)


def test_a_size_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:

    assert start("tools.bench", "wsi", ["--size", "100x100"]) == 1
    assert "--size: got '100x100', expected WxH of 2048 px or more" in capsys.readouterr().err
