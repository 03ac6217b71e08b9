"""What whole cells stand for: exact on single fields, 1 where the stage moved over them, and unbiased."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.counting.matching import Field
from streamer.counting.size_correction import POINTS, AcceptedArea
from streamer.records import MergedIsland

WIDTH, HEIGHT = 640.0, 480.0


def field(x=0.0, y=0.0, *, island=0, size=(WIDTH, HEIGHT)):
    return Field(island, 0, 0, np.array([x, y]), np.array(size))


def area(*fields):
    made = AcceptedArea()
    for one in fields:
        made.add(one)
    return made


def weight(made, width, height, island=0):
    [found] = made.weights(np.array([island]), np.array([[10.0, 20.0, 10.0 + width, 20.0 + height]]))
    return found


@pytest.mark.parametrize(("width", "height"), [(80, 80), (130, 130), (60, 110), (1, 1), (500, 400)])
def test_on_a_single_field_the_weight_is_that_of_miles_and_lantuejoul(width, height):
    expected = WIDTH * HEIGHT / ((WIDTH - width) * (HEIGHT - height))
    assert weight(area(field(123.4, -56.7)), width, height) == pytest.approx(expected)


def test_the_two_sizes_of_the_issue():
    made = area(field())
    assert (1 / weight(made, 80, 80), 1 / weight(made, 130, 130)) == pytest.approx((0.73, 0.58), abs=0.005)


def test_each_island_has_its_own_fields():
    made = area(field(island=2), field(island=5, size=(1440.0, 900.0)))
    found = made.weights(np.array([5, 2, 5]), np.array([[0, 0, 90, 90]] * 3, np.float64))
    large, small = 1440 * 900 / (1350 * 810), WIDTH * HEIGHT / ((WIDTH - 90) * (HEIGHT - 90))
    assert found == pytest.approx([large, small, large])
    assert len(made.weights(np.zeros(0, np.intp), np.zeros((0, 4)))) == 0


def test_the_same_field_again_and_fields_that_have_nothing_in_common_change_nothing():
    expected = weight(area(field()), 100, 90)
    assert weight(area(field(), field(), field(3, 2)), 100, 90) == pytest.approx(expected)
    apart = area(field(), field(-2000, 900), field(2 * WIDTH, 0), field(0, -HEIGHT))
    assert weight(apart, 100, 90) == pytest.approx(expected)


def share_by_hand(corners, side, step=2.0):
    """1 / weight of a square box, by every point of the area on a fine grid."""
    corners = np.array(corners)
    low, high = corners.min(0), np.add(corners.max(0), (WIDTH, HEIGHT))
    x, y = np.meshgrid(np.arange(low[0] + step / 2, high[0], step), np.arange(low[1] + step / 2, high[1], step))
    inside = np.zeros(x.shape, bool)
    whole = np.zeros(x.shape, bool)
    for left, top in corners:
        depth = np.minimum.reduce([x - left, left + WIDTH - x, y - top, top + HEIGHT - y])
        inside |= depth > 0
        whole |= depth > side / 2
    return whole.sum() / inside.sum()


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("side", [40, 90, 150])
def test_on_an_island_the_weight_is_the_share_of_its_area_in_which_the_box_lies_whole(overlap, side):
    corners = [(c * WIDTH * (1 - overlap), r * HEIGHT * (1 - overlap)) for r in range(4) for c in range(5)]
    made = area(*(field(x, y) for x, y in corners))
    assert 1 / weight(made, side, side) == pytest.approx(share_by_hand(corners, side), abs=0.02)


def test_where_the_stage_moved_over_the_cells_only_the_rim_of_the_island_counts():
    path = area(*(field(x, 0) for x in range(0, 6400, 40)))
    across, alone = weight(path, 100, 100), weight(area(field()), 100, 100)
    assert across == pytest.approx(1 / (1 - 100 / 480), rel=0.03)  # only the upper and the lower edge cut cells
    assert across < alone


def test_islands_that_turn_out_to_be_one_are_one_area():
    corners = [(0, 0), (480, 0), (960, 120), (0, 360)]
    whole = area(*(field(x, y) for x, y in corners))
    parts = area(*(field(x, y) for x, y in corners[:2]), *(field(x - 300, y - 60, island=1) for x, y in corners[2:]))
    parts.merge(MergedIsland(1, 0, 300.0, 60.0))
    assert weight(parts, 90, 90) == pytest.approx(weight(whole, 90, 90), rel=0.01)
    parts.merge(MergedIsland(7, 0, 0.0, 0.0))  # of which no frame was accepted
    late = area(field())
    late.merge(MergedIsland(0, 3, 20.0, 0.0))
    assert weight(late, 90, 90, island=3) == pytest.approx(weight(area(field()), 90, 90))


def test_an_area_goes_on_from_its_state():
    made = area(field(), field(300, -200), field(10, 10, island=4, size=(1000.0, 700.0)))
    again = AcceptedArea()
    again.restore(made.state())
    for one in (made, again):
        one.add(field(600, 0))
    assert again.state() == made.state()
    boxes = np.array([[0, 0, 90, 80], [0, 0, 70, 120]], np.float64)
    assert (again.weights(np.array([0, 4]), boxes) == made.weights(np.array([0, 4]), boxes)).all()


def test_a_box_as_large_as_the_field_has_a_weight_too():
    assert 1 < weight(area(field()), WIDTH, HEIGHT) < float("inf")
    assert POINTS % 2 == 0


def sample_of(rng, diameters_um, shares, fields, px_per_um=6.25):
    """(counts, sums of weights) by class of the cells that lie whole in random fields: as many as fall on a film."""
    made = AcceptedArea()
    counts, weights = np.zeros(len(shares)), np.zeros(len(shares))
    reach = 25 * px_per_um
    density = 8 / (WIDTH * HEIGHT)
    for island in range(fields):
        made.add(field(island=island))
        total = rng.poisson(density * (WIDTH + 2 * reach) * (HEIGHT + 2 * reach))
        classes = rng.choice(len(shares), total, p=shares)
        sides = rng.normal(1, 0.06, total)[:, None] * rng.uniform(0.92, 1.08, (total, 2))
        sides *= px_per_um * np.asarray(diameters_um)[classes][:, None]
        centres = rng.uniform((-reach, -reach), (WIDTH + reach, HEIGHT + reach), (total, 2))
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        whole = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2:] <= (WIDTH, HEIGHT)).all(1)
        found = made.weights(np.full(whole.sum(), island), boxes[whole])
        counts += np.bincount(classes[whole], minlength=len(shares))
        weights += np.bincount(classes[whole], found, minlength=len(shares))
    return counts, weights


def test_cells_of_8_to_25_um_on_single_fields_have_unbiased_corrected_percentages_and_biased_plain_ones():
    """30 slides of 150 fields of 640 x 480 at 6.25 px/µm, a red cell being 45 px: lymphocytes of 8 µm, neutrophils of
    13, monocytes of 18, and blasts of 25."""
    rng = np.random.default_rng(17)
    shares = np.array([0.3, 0.5, 0.15, 0.05])
    plain, corrected = [], []
    for _ in range(30):
        counts, weights = sample_of(rng, (8, 13, 18, 25), shares, 150)
        plain.append(100 * counts / counts.sum())
        corrected.append(100 * weights / weights.sum())
    error = np.mean(corrected, 0) - 100 * shares
    standard_error = np.std(corrected, 0, ddof=1) / np.sqrt(len(corrected))
    assert (np.abs(error) < 3 * standard_error).all()
    assert (np.abs(error) < 0.5).all()
    bias = np.mean(plain, 0) - 100 * shares
    assert bias[0] > 2  # points: small cells are favoured
    assert (bias[2] < -1, bias[3] < -1) == (True, True)
