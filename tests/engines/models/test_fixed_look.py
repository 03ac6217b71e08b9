"""The second look at a cell: of a fixed physical size where the magnification is known, else mirrored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends.scripted import ScriptedEngine, classifier_specs
from engines.base import CardError
from engines.geometry import centred_squares
from engines.models.classifier import Classifier
from engines.zoo.card import Card, ClassEntry, Thresholds, parse_card
from engines.zoo.crops import CropInput

PX = 8
BOX = np.array([[40, 30, 60, 46]], np.float32)
KEYS = "crop_margin = 1.3\nmirrored_margin = 1.6\nfixed_look_rbc = 3.2\n"
CARD = f"""
task = "classifier"
[input]
height_px = {PX}
width_px = {PX}
{KEYS}
[[classes]]
name = "neutrophil"
kind = "white"
"""


def classifier(**crop: float) -> Classifier:
    card = Card(
        name="test",
        task="classifier",
        input=CropInput(PX, PX, **crop),  # type: ignore[arg-type]
        classes=(ClassEntry("a", "white"), ClassEntry("b", "white")),
        thresholds=Thresholds(0.5),
        file="test.onnx",
    )
    return Classifier(card, ScriptedEngine(*classifier_specs(PX, PX, 2), []))


def frame() -> np.ndarray:
    """The cell of `BOX`, its right half darker; grey rises to the right around it, so that mirroring shows."""
    image = np.tile(np.linspace(60, 220, 160).astype(np.uint8)[None, :, None], (100, 1, 3))
    image[30:46, 40:60] = 30
    image[30:46, 50:60] = 0
    return image


@given(
    st.lists(st.tuples(*[st.floats(-50, 500, width=32)] * 2, *[st.floats(0, 90, width=32)] * 2), max_size=5),
    st.floats(0, 200),
)
def test_centred_squares_share_the_boxes_centres_and_never_cut_a_box(
    rows: list[tuple[float, float, float, float]], side: float
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32).reshape(-1, 4)
    squares = centred_squares(boxes, side)
    assert squares.dtype == np.float32
    assert squares.shape == boxes.shape
    sides = squares[:, 2:] - squares[:, :2]
    longer = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    np.testing.assert_allclose(sides, np.maximum(longer, side)[:, None].repeat(2, 1), atol=1e-3)
    np.testing.assert_allclose(squares[:, :2] + squares[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-3)
    assert (squares[:, :2] <= boxes[:, :2] + 1e-3).all()
    assert (squares[:, 2:] >= boxes[:, 2:] - 1e-3).all()


BOTH = {"crop_margin": 1.3, "mirrored_margin": 1.6, "fixed_look_rbc": 3.2}
LOOKS = {  # settings, look, red cells' diameter: square or box, margin, mirrored, fixed
    "first": (BOTH, 0, 25.0, (40, 30, 60, 46), 1.3, False, False),
    "fixed": (BOTH, 1, 25.0, (10, -2, 90, 78), 1.0, False, True),
    "magnification unknown": (BOTH, 1, None, (40, 30, 60, 46), 1.6, True, False),
    "fixed, smaller than the cell": (BOTH, 1, 2.0, (40, 28, 60, 48), 1.0, False, True),
    "no fixed look": ({"mirrored_margin": 1.6}, 1, 25.0, (40, 30, 60, 46), 1.6, True, False),
    "one look": ({}, 0, 25.0, (40, 30, 60, 46), 1.3, False, False),
    "a single cell's middle, of a model of one look a cell": ({}, 1, None, (40, 30, 60, 46), 1.3, False, False),
}


@pytest.mark.parametrize(
    ("settings", "look", "rbc_px", "square", "margin", "mirrored", "fixed"), LOOKS.values(), ids=list(LOOKS)
)
def test_what_is_looked_at(
    settings: dict[str, float],
    look: int,
    rbc_px: float | None,
    square: tuple[float, ...],
    margin: float,
    mirrored: bool,
    fixed: bool,
) -> None:
    crop = CropInput(PX, PX, **settings)  # type: ignore[arg-type]
    boxes, times = crop.looked_at(look, BOX, rbc_px)
    np.testing.assert_allclose(boxes, [square], atol=1e-4)
    assert times == margin
    assert crop.is_mirrored(look, rbc_px) is mirrored
    assert crop.is_fixed(look, rbc_px) is fixed


def test_a_fixed_look_is_not_mirrored_and_does_not_follow_the_box() -> None:
    model = classifier(**BOTH)
    fixed = model.crop(frame(), BOX, 25.0)
    assert fixed.shape == (1, 2, PX, PX, 3)
    grey = fixed[0, 1, -1, :, 0].astype(int)
    assert (np.diff(grey) > 0).all()  # as in the frame: lighter to the right
    wider = BOX + np.float32([-5, -5, 5, 5])
    np.testing.assert_array_equal(model.crop(frame(), wider, 25.0)[0, 1], fixed[0, 1])
    assert not np.array_equal(model.crop(frame(), wider, 25.0)[0, 0], fixed[0, 0])
    assert not np.array_equal(model.crop(frame(), BOX, 20.0)[0, 1], fixed[0, 1])


def test_without_a_magnification_the_second_look_is_the_mirrored_one() -> None:
    with_both, mirrored = classifier(**BOTH), classifier(crop_margin=1.3, mirrored_margin=1.6)
    np.testing.assert_array_equal(with_both.crop(frame(), BOX), mirrored.crop(frame(), BOX, 25.0))
    second = with_both.crop(frame(), BOX, None)[0, 1, -1, :, 0].astype(int)
    assert (np.diff(second) <= 0).all()


def test_a_model_without_a_fixed_look_does_not_heed_the_magnification() -> None:
    for settings in ({}, {"mirrored_margin": 1.6}):
        model = classifier(**settings)
        np.testing.assert_array_equal(model.crop(frame(), BOX, 25.0), model.crop(frame(), BOX))


def test_no_boxes_give_no_crops() -> None:
    nothing = np.zeros((0, 4), np.float32)
    for rbc_px in (None, 25.0):
        assert classifier(**BOTH).crop(frame(), nothing, rbc_px).shape == (0, 2, PX, PX, 3)


def test_a_card_says_how_large_the_fixed_look_is() -> None:
    crop = parse_card(CARD, "x.toml", stem="x").input
    assert isinstance(crop, CropInput)
    assert (crop.crop_margin, crop.mirrored_margin, crop.fixed_look_rbc, crop.looks) == (1.3, 1.6, 3.2, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mirrored_margin = 1.6\n", "", "got fixed_look_rbc without mirrored_margin, expected both"),
        ("fixed_look_rbc = 3.2", "fixed_look_rbc = 0.1", r"fixed_look_rbc: got 0.1, expected 0.5 to 20"),
        ("fixed_look_rbc = 3.2", "fixed_look_rbc = 50", r"fixed_look_rbc: got 50.*, expected 0.5 to 20"),
        ("fixed_look_rbc = 3.2", 'fixed_look_rbc = "wide"', r"fixed_look_rbc: got 'wide', expected a number"),
        ("fixed_look_rbc", "fixed_look_rcb", "unknown key 'fixed_look_rcb'; did you mean 'fixed_look_rbc'"),
    ],
)
def test_a_fixed_look_that_is_none(old: str, new: str, message: str) -> None:
    assert old in CARD
    with pytest.raises(CardError, match=message):
        parse_card(CARD.replace(old, new), "x.toml", stem="x")
