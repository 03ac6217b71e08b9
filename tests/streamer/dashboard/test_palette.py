"""The colours of the classes, as everyone sees them and as the colour-blind do."""

from __future__ import annotations

from itertools import combinations

import colorspacious
import numpy as np
import pytest
from rich.color import Color
from rich.style import Style

from streamer.dashboard.palette import (
    CLASS_COLOURS,
    CLASS_LETTERS,
    DIFFERENTIAL_CLASSES,
    KIND_COLOURS,
    SIXTEEN_COLOURS,
    class_colour,
    class_letters,
    in_sixteen,
)

LEAST_APART = 11.0
"""Distance in CAM02-UCS between any two classes that one differential may list."""
LEAST_APART_OF_FIVE = 15.0
FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
BLINDNESS = {"deuteranopia": "deuteranomaly", "protanopia": "protanomaly", "tritanopia": "tritanomaly"}
"""As colorspacious calls the simulation of Machado, Oliveira and Fernandes (2009), total at a severity of 100."""


def rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


@pytest.mark.parametrize("sight", ["usual", *BLINDNESS])
def test_any_two_classes_are_told_apart(sight: str) -> None:
    seen = {"name": "sRGB1"}
    if sight != "usual":
        seen = {"name": "sRGB1+CVD", "cvd_type": BLINDNESS[sight], "severity": 100}
    as_seen = {
        name: np.clip(colorspacious.cspace_convert(rgb(class_colour(name)), seen, "sRGB1"), 0, 1)
        for name in DIFFERENTIAL_CLASSES
    }
    for one, other in combinations(DIFFERENTIAL_CLASSES, 2):
        least = LEAST_APART_OF_FIVE if {one, other} <= set(FIVE) else LEAST_APART
        apart = colorspacious.deltaE(as_seen[one], as_seen[other], input_space="sRGB1", uniform_space="CAM02-UCS")
        assert apart >= least, (one, other)


def test_sixteen_colours_are_enough_for_the_classes_of_a_differential() -> None:
    drawn = {in_sixteen(Style(color=class_colour(name))).color for name in DIFFERENTIAL_CLASSES}
    assert len(drawn) == len(DIFFERENTIAL_CLASSES)
    assert all(colour is not None and colour.number is not None and colour.number < 16 for colour in drawn)
    assert in_sixteen(Style(color="#123456", bold=True)) == Style(color="#123456", bold=True)
    assert set(SIXTEEN_COLOURS) <= {*CLASS_COLOURS.values(), *KIND_COLOURS.values()}
    assert all(Color.parse(name) for name in SIXTEEN_COLOURS.values())


def test_every_class_has_a_letter_of_its_own() -> None:
    assert set(CLASS_LETTERS) == set(CLASS_COLOURS)
    assert class_letters(CLASS_LETTERS) == CLASS_LETTERS
    assert len(set(CLASS_LETTERS.values())) == len(CLASS_LETTERS)
    others = class_letters(["neutrophil", "nucleus", "normal", "42", "ß", *(f"class {n}" for n in range(30))])
    assert others["neutrophil"] == "N"
    named = [letter for letter in others.values() if letter != "?"]
    assert len(named) == len(set(named)) == 25
    assert "Q" not in named
