"""Boxes, letterbox, suppression and crops: properties over random input, and cases with exact results."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engines.geometry import (
    Letterbox,
    areas,
    clip_boxes,
    crop_squares,
    diameters,
    fit_letterbox,
    halved,
    input_size,
    iou_matrix,
    letterbox,
    nms,
    square_around,
    suggest_long_side,
)

sizes = st.integers(1, 3000)


def boxes_of(seed: int, n: int, extent: float = 200, side: float = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-20, extent, (n, 2))
    return np.hstack([corner, corner + rng.uniform(0, side, (n, 2))]).astype(np.float32)


def plain_nms(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, iou: float) -> list[int]:
    left = [i for i in range(len(boxes)) if (boxes[i, 2:] > boxes[i, :2]).all()]
    left.sort(key=lambda i: -scores[i])
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        overlap = iou_matrix(boxes[best : best + 1].astype(np.float64), boxes.astype(np.float64))[0]  # type: ignore[arg-type]
        rivals = [i for i in left if groups[i] == groups[best]]
        assume((abs(overlap[rivals] - iou) > 1e-6).all())
        left = [i for i in left if groups[i] != groups[best] or overlap[i] <= iou]
    return kept


@given(width=sizes, height=sizes, long_side=st.integers(32, 1500), stride=st.sampled_from([8, 32, 64]))
def test_input_size_is_of_the_stride_and_as_large_as_the_frame_wants(
    width: int, height: int, long_side: int, stride: int
) -> None:
    w, h = input_size(width, height, long_side, stride)
    assert w % stride == h % stride == 0
    assert abs(max(w, h) - max(long_side, stride)) <= stride / 2
    scaled = min(width, height) * max(w, h) / max(width, height)
    assert scaled - 1e-3 <= min(w, h) < max(scaled, 1) + stride


@pytest.mark.parametrize(
    ("frame", "long_side", "expected"),
    [
        ((640, 480), 640, (640, 480)),
        ((1440, 900), 640, (640, 416)),
        ((480, 640), 640, (480, 640)),
        ((1920, 1080), 640, (640, 384)),
        ((224, 224), 224, (224, 224)),
        ((1, 1), 640, (640, 640)),
        ((5000, 3), 640, (640, 32)),
    ],
)
def test_input_sizes_of_usual_cameras(frame: tuple[int, int], long_side: int, expected: tuple[int, int]) -> None:
    assert input_size(*frame, long_side) == expected


@given(width=sizes, height=sizes, long_side=st.integers(32, 1500), seed=st.integers(0, 2**31))
def test_letterbox_round_trip(width: int, height: int, long_side: int, seed: int) -> None:
    fit = fit_letterbox(width, height, *input_size(width, height, long_side))
    boxes = np.random.default_rng(seed).uniform(0, 1, (8, 4)) * [width, height, width, height]
    np.testing.assert_allclose(fit.to_frame(fit.to_input(boxes)), boxes, atol=1e-9 * max(width, height))
    back = fit.to_frame(fit.to_input(boxes.astype(np.float32)))
    assert back.dtype == np.float32
    np.testing.assert_allclose(
        back, boxes, atol=2e-3 * max(width, height) / max(fit.inner_width, fit.inner_height) + 1e-3
    )
    assert fit.left >= 0
    assert fit.top >= 0
    assert fit.left + fit.inner_width <= fit.input_width
    assert fit.top + fit.inner_height <= fit.input_height


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        pytest.param((640, 480), Letterbox(640, 480, 0, 640, 480, 0, 0, 1.0, 1.0), id="as it is"),
        pytest.param((1440, 900), Letterbox(640, 480, 1, 640, 400, 0, 40, 640 / 1440, 400 / 900), id="wide"),
        pytest.param((900, 1440), Letterbox(640, 480, 1, 300, 480, 170, 0, 300 / 900, 480 / 1440), id="high"),
        pytest.param((1441, 901), Letterbox(640, 480, 1, 640, 400, 0, 40, 640 / 1440, 400 / 900), id="odd"),
        pytest.param((1280, 960), Letterbox(640, 480, 1, 640, 480, 0, 0, 0.5, 0.5), id="twice"),
        pytest.param((1279, 959), Letterbox(640, 480, 0, 640, 480, 0, 0, 640 / 1279, 480 / 959), id="not quite twice"),
        pytest.param((5127, 3847), Letterbox(640, 480, 3, 640, 480, 0, 0, 640 / 5120, 480 / 3840), id="eight times"),
        pytest.param((1000, 667), Letterbox(640, 480, 0, 640, 427, 0, 26, 0.64, 427 / 667), id="rounded up, wide"),
        pytest.param((500, 707), Letterbox(640, 480, 0, 339, 480, 150, 0, 339 / 500, 480 / 707), id="rounded, high"),
        pytest.param((501, 707), Letterbox(640, 480, 0, 340, 480, 150, 0, 340 / 501, 480 / 707), id="rounded up, high"),
    ],
)
def test_letterboxes_of_usual_cameras(frame: tuple[int, int], expected: Letterbox) -> None:
    assert fit_letterbox(*frame, 640, 480) == expected


@settings(max_examples=40, deadline=None)
@given(column=st.integers(1, 79), row=st.integers(1, 59), extra_width=st.integers(0, 7), extra_height=st.integers(0, 7))
def test_what_halving_leaves_out_moves_no_edge(column: int, row: int, extra_width: int, extra_height: int) -> None:
    """A frame of 640 x 480 px and some odd columns and rows, halved three times: edges between blocks of eight stay
    sharp, and are where the mapping says to the pixel."""
    image = np.zeros((480 + extra_height, 640 + extra_width, 3), np.uint8)
    image[: 8 * row, : 8 * column] = 200
    fit = fit_letterbox(image.shape[1], image.shape[0], 80, 60)
    assume((fit.inner_width, fit.inner_height) == (80, 60))
    out = np.empty((60, 80, 3), np.uint8)
    letterbox(image, fit, out)
    expected = np.zeros_like(out)
    expected[:row, :column] = 200
    np.testing.assert_array_equal(out, expected)
    assert fit.to_input(np.array([[0, 0, 8.0 * column, 8.0 * row]])).tolist() == [[0, 0, column, row]]


@pytest.mark.parametrize("frame", [(640, 480), (1440, 900), (900, 1440), (1441, 901), (2880, 1800), (100, 100)])
def test_a_half_that_is_given_changes_nothing(frame: tuple[int, int]) -> None:
    width, height = frame
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    fit = fit_letterbox(width, height, *input_size(width, height, 320))
    alone, helped = np.zeros((2, fit.input_height, fit.input_width, 3), np.uint8)
    letterbox(image, fit, alone)
    letterbox(image, fit, helped, half=halved(image, 1))
    np.testing.assert_array_equal(alone, helped)


@pytest.mark.parametrize("frame", [(640, 480), (1440, 900), (900, 1440), (333, 77), (1441, 901), (100, 100)])
def test_letterbox_puts_a_mark_where_the_mapping_says(frame: tuple[int, int]) -> None:
    width, height = frame
    image = np.zeros((height, width, 3), np.uint8)
    mark = np.array([[width * 0.25, height * 0.5, width * 0.5, height * 0.75]]).round().astype(np.float32)
    x1, y1, x2, y2 = mark[0].astype(int)
    image[y1:y2, x1:x2] = 255
    fit = fit_letterbox(width, height, *input_size(width, height, 320))
    out = np.full((fit.input_height, fit.input_width, 3), 7, np.uint8)
    letterbox(image, fit, out, pad_value=114)
    a1, b1, a2, b2 = fit.to_input(mark)[0]
    bright = out[..., 0].astype(float)
    bright[out[..., 0] == 114] = 0
    # The area that a blurred edge adds outside equals what it lacks inside: the weight is the box's area.
    assert bright.sum() / 255 == pytest.approx((a2 - a1) * (b2 - b1), rel=0.02)
    ys, xs = np.mgrid[: out.shape[0], : out.shape[1]] + 0.5
    assert (bright * xs).sum() / bright.sum() == pytest.approx((a1 + a2) / 2, abs=0.6)
    assert (bright * ys).sum() / bright.sum() == pytest.approx((b1 + b2) / 2, abs=0.6)
    assert (out != 7).all()
    inner = out[fit.top : fit.top + fit.inner_height, fit.left : fit.left + fit.inner_width]
    assert (out == 114).sum() - (inner == 114).sum() == out.size - inner.size


def test_letterbox_of_a_frame_of_the_inputs_size_is_the_frame() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    fit = fit_letterbox(640, 480, 640, 480)
    out = np.empty_like(image)
    letterbox(image, fit, out)
    assert (out == image).all()


def test_strong_reduction_averages_what_bilinear_would_skip() -> None:
    image = np.zeros((512, 512, 3), np.uint8)
    image[::2, ::2] = 255
    fit = fit_letterbox(512, 512, 64, 64)
    out = np.empty((64, 64, 3), np.uint8)
    letterbox(image, fit, out)
    assert np.abs(out.astype(int) - 64).max() <= 2


def test_strong_reduction_sees_every_pixel() -> None:
    """One bright pixel of each 8 x 8, wherever it lies, is a 64th of the light; bilinear looks at four pixels only."""
    fit = fit_letterbox(512, 512, 64, 64)
    for offset in ((0, 0), (3, 4), (7, 2)):
        image = np.zeros((512, 512, 3), np.uint8)
        image[offset[0] :: 8, offset[1] :: 8] = 255
        out = np.empty((64, 64, 3), np.uint8)
        letterbox(image, fit, out)
        assert (out == 4).all()
        crop = crop_squares(image, np.array([[0, 0, 512, 512]], np.float32), (64, 64))
        assert (crop == 4).all()
        wide = crop_squares(image, np.array([[0, 0, 512, 512]], np.float32), (64, 128))
        assert np.unique(wide).tolist() == [0, 8]  # halved twice only: once more would cost the wider side its detail


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(0, 60),
    groups=st.integers(1, 4),
    iou=st.sampled_from([0.11, 0.31, 0.51, 0.9]),
    coarse=st.booleans(),
)
def test_nms_is_the_plain_greedy_one(seed: int, n: int, groups: int, iou: float, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    boxes = boxes_of(seed, n)
    scores = rng.uniform(0, 1, n).astype(np.float32)
    if coarse:  # equal scores, equal boxes, boxes without area
        boxes, scores = np.round(boxes / 20) * 20, np.round(scores * 4) / 4
    label = rng.integers(0, groups, n)
    assert nms(boxes, scores, label, iou).tolist() == plain_nms(boxes, scores, label, iou)


def test_nms_follows_a_chain_of_suppressions() -> None:
    # Each box overlaps only its neighbours: the second goes, so the third stays, so the fourth goes.
    boxes = np.array([[10 * i, 0, 10 * i + 20, 10] for i in range(6)], np.float32)
    scores = np.linspace(0.9, 0.4, 6)
    assert nms(boxes, scores, np.zeros(6, int), 0.3).tolist() == [0, 2, 4]


def test_nms_keeps_overlapping_boxes_of_other_groups() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 4, np.float32)
    assert nms(boxes, np.array([0.5, 0.9, 0.8, 0.7]), np.array([0, 0, 1, 1]), 0.5).tolist() == [1, 2]


def test_nms_sets_groups_apart_left_and_above_of_the_frame_too() -> None:
    """Shifted by the frame's extent and 1, as one does to set groups apart, the second box would lie on the first."""
    boxes = np.array([[0, 0, 10, 10], [-11, -11, -1, -1]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8]), np.array([0, 1]), 0.5).tolist() == [0, 1]


def test_a_box_turned_inside_out_has_no_area() -> None:
    boxes = np.array([[0, 0, 2, 3], [5, 0, 2, 3], [0, 9, 2, 3], [5, 9, 2, 3]], np.float32)
    assert areas(boxes).tolist() == [6, 0, 0, 0]


@given(seed=st.integers(0, 2**31))
def test_iou_matrix_is_symmetric_and_one_with_itself(seed: int) -> None:
    boxes = boxes_of(seed, 12, side=50) + np.array([0, 0, 1, 1], np.float32)
    matrix = iou_matrix(boxes, boxes)
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
    assert matrix.min() >= 0


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    b = np.array([[1, 0, 3, 2], [0, 0, 1, 1], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(iou_matrix(a, b), [[1 / 3, 1 / 4, 0], [0, 0, 0]])
    assert iou_matrix(np.zeros((0, 4), np.float32), b).shape == (0, 3)


def test_clip_cuts_to_the_frame() -> None:
    boxes = np.array([[-5, -5, 5, 5], [90, 90, 120, 130], [200, 0, 210, 5]], np.float32)
    assert clip_boxes(boxes, 100, 110).tolist() == [[0, 0, 5, 5], [90, 90, 100, 110], [100, 0, 100, 5]]


def test_crop_inside_the_image_is_the_square_around_the_box() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    crop = crop_squares(image, np.array([[40, 30, 60, 40]], np.float32), (20, 20))
    assert (crop[0] == image[25:45, 40:60]).all()
    wide = crop_squares(image, np.array([[40, 30, 60, 40]], np.float32), (26, 26), margin=1.3)
    assert (wide[0] == image[22:48, 37:63]).all()


@given(left=st.integers(20, 60), top=st.integers(20, 60), width=st.integers(1, 20), height=st.integers(1, 20))
def test_a_square_has_the_longer_side_and_the_middle_of_its_box(left: int, top: int, width: int, height: int) -> None:
    box = (left, top, left + 2 * width, top + 2 * height)
    x, y, side = square_around(box)
    assert side == 2 * max(width, height)
    assert (x + side // 2, y + side // 2) == (left + width, top + height)
    assert square_around(box, 1.5)[2] == 3 * max(width, height)


@pytest.mark.parametrize(("border", "outside"), [("replicate", 50), (114, 114), (0, 0)])
def test_crop_across_the_border(border: str | int, outside: int) -> None:
    image = np.full((40, 40, 3), 50, np.uint8)
    crop = crop_squares(image, np.array([[-10, 10, 10, 30]], np.float32), (20, 20), border=border)[0]  # type: ignore[arg-type]
    assert (crop[:, :10] == outside).all()
    assert (crop[:, 10:] == 50).all()


def test_crop_of_a_box_wholly_outside_is_border() -> None:
    image = np.full((40, 40, 3), 50, np.uint8)
    assert (crop_squares(image, np.array([[60, 60, 70, 70]], np.float32), (8, 8), border=3) == 3).all()


@given(seed=st.integers(0, 2**31), margin=st.floats(0.5, 3), border=st.sampled_from(["replicate", 114]))
@settings(deadline=None)
def test_crops_of_any_boxes_have_the_size_asked_for(seed: int, margin: float, border: str | int) -> None:
    image = np.full((70, 90, 3), 9, np.uint8)
    crops = crop_squares(image, boxes_of(seed, 5), (24, 16), margin, border)  # type: ignore[arg-type]
    assert crops.shape == (5, 24, 16, 3)
    assert crops.dtype == np.uint8
    if border == "replicate":
        assert (crops == 9).all()


def test_no_boxes_no_crops() -> None:
    assert crop_squares(np.zeros((5, 5, 3), np.uint8), np.zeros((0, 4), np.float32), (8, 8)).shape == (0, 8, 8, 3)


def test_diameter_of_a_box() -> None:
    assert diameters(np.array([[0, 0, 4, 9]], np.float32)).tolist() == [6]


@pytest.mark.parametrize(("median", "expected"), [(20, 640), (18, 640), (60, 640), (120, 224), (9, 1920), (80, 320)])
def test_long_side_brings_red_cells_into_range(median: float, expected: int) -> None:
    assert suggest_long_side(median, (18, 60), 640) == expected


def test_long_side_needs_a_diameter() -> None:
    with pytest.raises(ValueError, match="got 0, expected more than 0"):
        suggest_long_side(0, (18, 60), 640)
