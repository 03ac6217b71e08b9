"""Tiles: boxes stay on their cells through scale, crop, turn and mirror; unlabelled places are marked as such."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.detection_cases import disc_field, disc_maker
from tools.data import field_appearance as appearance
from tools.data.fields import WBC, FieldPool, typical_rbc_diameter
from tools.data.tiles import TileMaker, TileOptions, turn_boxes


@given(
    turns=st.integers(0, 3),
    mirrored=st.booleans(),
    x=st.integers(0, 20),
    y=st.integers(0, 10),
    w=st.integers(1, 10),
    h=st.integers(1, 10),
)
def test_boxes_turn_with_the_picture(turns: int, mirrored: bool, x: int, y: int, w: int, h: int) -> None:
    picture = np.zeros((20, 30), np.uint8)
    picture[y : y + h, x : x + w] = 1
    turned = np.rot90(picture, turns)
    turned = turned[:, ::-1] if mirrored else turned
    rows, columns = np.nonzero(turned)
    box = turn_boxes(np.array([[x, y, x + w, y + h]], float), 30, 20, turns, mirrored)[0]
    assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_white_cells_are_dark_where_the_targets_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for vary in ("vary_colour", "vary_stain", "vary_light", "vary_haze", "vary_optics", "vary_sensor"):
        monkeypatch.setattr(appearance, vary, lambda _rng, picture, *_: picture)
    maker = disc_maker(side_px=256, rbc_px=(10, 40))
    seen = 0
    for number in range(20):
        tile = maker.make(3, number)
        for label, x, y, w, h in tile.targets:
            assert w / 2 <= x + 1e-3 <= 256 - w / 2 + 2e-3
            assert h / 2 <= y + 1e-3 <= 256 - h / 2 + 2e-3
            if label == WBC and min(w, h) > 0.8 * max(w, h):
                seen += 1
                assert tile.image[int(y), int(x), 2] < 110, (number, x, y)
    assert seen > 40


def test_a_tile_follows_from_seed_and_number_alone() -> None:
    maker = disc_maker()
    first = maker.make(1, 5)
    maker.make(1, 6)
    again = disc_maker().make(1, 5)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.targets, again.targets)
    assert not np.array_equal(first.image, maker.make(2, 5).image)


def test_another_stain_leaves_the_glass_as_it_is() -> None:
    rng = np.random.default_rng(2)
    picture = disc_field(1).load()
    glass, cell = picture[60, 25].astype(int), picture[60, 60].astype(int)
    stained = [appearance.vary_stain(rng, picture) for _ in range(30)]
    changed = np.array([one[60, 60].astype(int) - cell for one in stained])
    assert all(np.abs(one[60, 25].astype(int) - glass).max() <= 2 for one in stained)
    assert (np.abs(changed).max(1) > 8).mean() > 0.7


def test_haze_lowers_contrast() -> None:
    rng = np.random.default_rng(2)
    picture = disc_field(1).load()
    for _ in range(10):
        assert appearance.vary_haze(rng, picture).std() < 0.95 * picture.std()


def test_red_cells_get_the_wanted_diameter() -> None:
    maker = disc_maker(side_px=256, rbc_px=(30, 30.001))
    sizes = np.concatenate([maker.make(1, n).targets for n in range(20)])
    red = sizes[(sizes[:, 0] == 1) & (abs(sizes[:, 3] - sizes[:, 4]) < 2)]
    assert 25 < np.median(red[:, 3]) < 35


def test_complete_fields_are_known_but_where_cells_are_cut() -> None:
    tile = disc_maker(side_px=256).make(1, 1)
    assert tile.known.shape == (3, 32, 32)
    assert tile.known.mean() > 0.8


def test_partly_labelled_fields_are_known_only_inside_labelled_boxes() -> None:
    maker = disc_maker(side_px=256, complete=(False, False, False), rbc_px=(20, 24))
    tile = maker.make(1, 1)
    inside = np.zeros((32, 32), bool)
    for _, x, y, w, h in tile.targets:
        x1, y1, x2, y2 = (int(v) for v in np.round(np.array((x - w / 2, y - h / 2, x + w / 2, y + h / 2)) / 8))
        inside[y1 : y2 + 1, x1 : x2 + 1] = True
    covered = tile.image.std(2) < 200  # every cell of the canvas; the padding alone is known outside boxes
    assert covered.any()
    assert tile.known.any()
    wrongly = tile.known.all(0) & ~inside
    padded = (np.abs(tile.image.astype(int) - 114).max(2) < 60)[4::8, 4::8]
    assert not (wrongly & ~padded).any()


def test_a_class_that_a_set_leaves_out_is_unknown_alone() -> None:
    maker = disc_maker(side_px=128, complete=(True, True, False), rbc_px=(40, 41))
    known = maker.make(1, 2).known
    assert known[0].mean() > 0.7
    assert known[2].mean() < 0.6


def test_unclear_places_are_unknown() -> None:
    item = replace(disc_field(1), ignore_px=np.array([[0, 0, 120, 120]], np.float32))
    maker = TileMaker({"a": FieldPool([item], 80)}, {"a": 1}, 3, TileOptions(side_px=128, rbc_diameter_px=(40, 41)))
    tile = maker.make(1, 1)
    assert not tile.known.all(0).any()
    assert len(tile.targets) > 0


def test_shares_must_name_pools() -> None:
    with pytest.raises(ValueError, match="shares: got \\['b'\\]"):
        TileMaker({}, {"b": 1.0}, 3, TileOptions())
    with pytest.raises(ValueError, match="got no pool with fields"):
        TileMaker({"a": FieldPool([], 80)}, {"a": 1.0}, 3, TileOptions())


def test_pools_hold_pictures_at_training_scale() -> None:
    pool = FieldPool([disc_field(1)], largest_rbc_px=10)
    assert pool.picture(0).shape == (60, 60, 3)
    assert pool.fields[0].rbc_diameter_px == 10
    np.testing.assert_allclose(pool.fields[0].boxes_px, disc_field(1).boxes_px / 2)
    assert pool.nbytes == 60 * 60 * 3


def test_typical_diameter_leaves_out_cut_and_white_cells() -> None:
    boxes = np.array([[10, 10, 30, 30], [40, 10, 60, 30], [10, 40, 30, 62], [0, 0, 9, 9], [50, 50, 95, 95]], np.float32)
    classes = np.array([1, 1, 1, 1, 0])
    assert typical_rbc_diameter(boxes, classes, 100, 100, 7.0) == pytest.approx(20)
    assert typical_rbc_diameter(boxes[:2], classes[:2], 100, 100, 7.0) == 7.0
