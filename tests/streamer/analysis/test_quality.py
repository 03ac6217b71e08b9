import cv2
import numpy as np
import pytest

from engines.base import LeukostreamError
from streamer.analysis.quality import QualityConfig, assess
from streamer.looking.decision import NOISY
from streamer.sources import open_source, parse_source
from tests.streamer.stage.stage_cases import smeared, view

FIELD = view(500, 400)


def crowd():
    """Cells on cells: hardly any ground between them."""
    rng = np.random.default_rng(0)
    picture = np.full((480, 640, 3), (170, 150, 200), np.float32)
    for _ in range(60):
        centre = int(rng.uniform(0, 640)), int(rng.uniform(0, 480))
        cv2.circle(picture, centre, 9, (235, 235, 235), -1)
    noise = rng.normal(0, 3, picture.shape)
    return (cv2.GaussianBlur(picture, (0, 0), 1) + noise).clip(0, 255).astype(np.uint8)


def test_a_good_field_is_accepted():
    quality = assess(FIELD)
    assert (quality.accepted, quality.reasons) == (True, ())
    assert 0.4 < quality.focus < 2


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        pytest.param(cv2.GaussianBlur(FIELD, (0, 0), 6), "out of focus", id="out of focus"),
        pytest.param(smeared(500, 400, 40), "motion blur", id="motion blur"),
        pytest.param(np.full((300, 400, 3), 180, np.uint8), "empty field", id="one colour"),
        pytest.param(
            np.random.default_rng(1).normal(200, 3, (300, 400, 3)).astype(np.uint8), "empty field", id="only noise"
        ),
        pytest.param((FIELD.astype(int) + 140).clip(0, 255).astype(np.uint8), "overexposed", id="overexposed"),
        pytest.param((FIELD * 0.03).astype(np.uint8), "underexposed", id="underexposed"),
        pytest.param(crowd(), "too dense", id="too dense"),
    ],
)
def test_a_bad_field_is_rejected_and_says_why(image, reason):
    quality = assess(image)
    assert not quality.accepted
    assert reason in quality.reasons


def test_focus_falls_with_blur():
    focus = [assess(cv2.GaussianBlur(FIELD, (0, 0), sigma)).focus for sigma in (0.5, 1, 2, 4)]
    assert focus == sorted(focus, reverse=True)


@pytest.mark.parametrize("gain", [0.5, 0.8, 1.1])
def test_exposure_changes_neither_verdict_nor_focus(gain):
    quality = assess(cv2.convertScaleAbs(FIELD, alpha=gain))
    assert quality.accepted
    assert quality.focus == pytest.approx(assess(FIELD).focus, rel=0.15)


def test_a_blank_frame_has_no_focus():
    assert assess(np.zeros((100, 100, 3), np.uint8)).focus is None


def test_thresholds_are_the_configuration():
    assert assess(FIELD, QualityConfig(min_focus=5)).reasons == ("out of focus",)


@pytest.mark.parametrize("size", [(64, 64), (65, 101), (2160, 3840), (31, 2000)])
def test_any_size_is_judged(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert isinstance(assess(image).accepted, bool)


@pytest.mark.parametrize(
    "image", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3), float), np.zeros((0, 9, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(LeukostreamError, match="expected uint8"):
        assess(image)


@pytest.mark.data
@pytest.mark.parametrize("name", ["chula_wbc", "bccd", "txl_pbc", "bcd"])
def test_real_fields_are_accepted(name):
    from tools.data.readers import DataSetMissing, data_root

    try:
        images = sorted((data_root() / name / "images").iterdir())[::9]
    except (DataSetMissing, FileNotFoundError) as missing:
        pytest.skip(str(missing))
    rejected = {
        path.name: quality.reasons for path in images if not (quality := assess(cv2.imread(str(path)))).accepted
    }
    assert len(rejected) <= max(1, 0.01 * len(images)), rejected


SMOOTH = cv2.GaussianBlur(FIELD, (0, 0), 1.5)
"""The field itself is noisy."""


@pytest.mark.parametrize("picture", [np.full((480, 640, 3), 180, np.uint8), SMOOTH], ids=["one colour", "cells"])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 6.0])
def test_noise_is_told_in_grey_levels_whatever_lies_under_it(picture, sigma):
    grey = np.random.default_rng(3).normal(0, sigma, picture.shape[:2])
    noisy = np.rint(picture + grey[:, :, None]).clip(0, 255).astype(np.uint8)
    assert assess(noisy).noise == pytest.approx(sigma, abs=0.25)


def test_what_a_reduction_averages_away_is_no_noise():
    grey = np.random.default_rng(3).normal(0, 4.0, (960, 1280, 1))
    large = np.rint(np.full((960, 1280, 3), 180) + grey).astype(np.uint8)
    assert assess(large).noise == pytest.approx(2.0, abs=0.25)


def test_cells_are_no_noise():
    assert assess(SMOOTH).noise <= 0.25


@pytest.mark.parametrize(("address", "is_noisy"), [("sim:cells=20", False), ("sim:cells=20,noise=3,blur=3", True)])
def test_a_simulated_slide_is_noisy_at_three_times_its_usual_noise(address, is_noisy):
    source = open_source(parse_source(address), mode="analysis")
    source.open()
    frames = [source.read() for _ in range(40)][::8]
    assert [assess(frame.image).noise > NOISY for frame in frames] == [is_noisy] * 5


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["all_idb2", "bccd", "bcd", "chula_wbc", "deepapl", "krd", "marrow", "pbc", "txl_pbc", "wbc_masks"]
)
def test_real_pictures_have_half_the_noise_that_makes_a_frame_noisy(name):
    from tools.data.readers import DataSetMissing, data_root

    try:
        root = data_root() / name
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    pictures = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".bmp"))
    if not pictures:
        pytest.skip(f"{name} is not here")
    images = [cv2.imread(str(path)) for path in pictures[:: -(-len(pictures) // 400)]]
    assert max(assess(image).noise for image in images) <= NOISY / 2
