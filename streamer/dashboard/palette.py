"""Colours and letters of the dashboard.

The colours of the classes lie apart for the colour-blind too: any two of DIFFERENTIAL_CLASSES by 11 or more in
CAM02-UCS, those of the five-part differential by 15, as everyone sees them and as with deuteranopia, protanopia and
tritanopia (tests/streamer/dashboard/test_palette.py, which measures it). Every colour has a relative luminance of 0.10
to 0.30, so that its contrast is 3 or more on black and on white. A letter goes with each, for 16 colours and for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from rich.color import Color
from rich.style import Style

from streamer.records import UNCLASSIFIED

NEUTROPHIL = "#c675a4"
EOSINOPHIL = "#8d671b"
BASOPHIL = "#004dff"
LYMPHOCYTE = "#1b97fb"
MONOCYTE = "#4c6075"
IMMATURE = "#c536a2"
BLAST = "#fd4854"
NUCLEATED_RED = "#9a4149"
RED_CELL = "#c9696b"
PLATELET = "#659971"
UNCLEAR = "#757575"
WHITE_CELL = "#2e9c8a"

BORDER = "#857b93"
ACCENT = "#a866c9"
GOOD = "#2f9e44"
CAUTION = "#b8860b"
BAD = "#d6453d"

DIFFERENTIAL_CLASSES = (
    *("neutrophil", "immature granulocyte", "lymphocyte", "monocyte", "eosinophil", "basophil", "blast"),
    *("erythroblast", "platelet", UNCLASSIFIED),
)
"""What one differential may list beside one another, with a colour of its own each."""

CLASS_COLOURS = {
    "neutrophil": NEUTROPHIL,
    "segmented neutrophil": NEUTROPHIL,
    "band neutrophil": NEUTROPHIL,
    "immature granulocyte": IMMATURE,
    "metamyelocyte": IMMATURE,
    "myelocyte": IMMATURE,
    "promyelocyte": IMMATURE,
    "lymphocyte": LYMPHOCYTE,
    "monocyte": MONOCYTE,
    "eosinophil": EOSINOPHIL,
    "basophil": BASOPHIL,
    "blast": BLAST,
    "erythroblast": NUCLEATED_RED,
    "platelet": PLATELET,
    "red blood cell": RED_CELL,
    UNCLASSIFIED: UNCLEAR,
}
"""In the order in which a differential lists its classes. Members of a family differ in their letter only."""

CLASS_LETTERS = {
    **{"neutrophil": "N", "segmented neutrophil": "S", "band neutrophil": "D", "immature granulocyte": "I"},
    **{"metamyelocyte": "T", "myelocyte": "Y", "promyelocyte": "P", "lymphocyte": "L", "monocyte": "M"},
    **{"eosinophil": "E", "basophil": "B", "blast": "X", "erythroblast": "R", "platelet": "O"},
    **{"red blood cell": "C", UNCLASSIFIED: "U"},
}

SIXTEEN_COLOURS = {
    **{NEUTROPHIL: "bright_magenta", EOSINOPHIL: "yellow", BASOPHIL: "blue", LYMPHOCYTE: "bright_blue"},
    **{MONOCYTE: "cyan", IMMATURE: "magenta", BLAST: "bright_red", NUCLEATED_RED: "red", RED_CELL: "bright_red"},
    **{PLATELET: "green", UNCLEAR: "bright_black", WHITE_CELL: "bright_cyan"},
}
"""Where a terminal has no more: the nearest of them would be the same for several classes."""

KIND_COLOURS = {"white": WHITE_CELL, "red": RED_CELL, "platelet": PLATELET, "nucleated red": NUCLEATED_RED}

_SPARE = ("#2e9c8a", "#7d8f2c", "#c0703f", "#5a86c9", "#a05fc0", "#b55a86", "#4f9a5c", "#9a8150")
_ORDER = {name: place for place, name in enumerate(CLASS_COLOURS)}
_STEMS = tuple(name for name in CLASS_COLOURS if " " not in name)


@lru_cache(maxsize=256)
def class_colour(name: str) -> str:
    """`#rrggbb` of a class: its own, else that of the family its name contains, else one that its letters choose."""
    plain = name.lower()
    if plain in CLASS_COLOURS:
        return CLASS_COLOURS[plain]
    for stem in _STEMS:
        if stem in plain:
            return CLASS_COLOURS[stem]
    return _SPARE[sum(plain.encode()) % len(_SPARE)]


def class_letters(names: Iterable[str]) -> dict[str, str]:
    """A capital letter for each class, no two the same: its own, else the first of its letters that is free. None is
    Q, which quits."""
    letters: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name not in CLASS_LETTERS, name)):
        own = (CLASS_LETTERS.get(name, ""), *filter(str.isalpha, name.upper()), *map(chr, range(65, 91)))
        taken = letters.values()
        free = (letter for letter in own if letter and letter.isascii() and letter != "Q" and letter not in taken)
        letters[name] = next(free, "?")
    return letters


@lru_cache(maxsize=512)
def in_sixteen(style: Style) -> Style:
    """A style for a terminal of 16 colours."""

    def chosen(colour: Color | None) -> str | Color | None:
        return None if colour is None else SIXTEEN_COLOURS.get(colour.name, colour)

    return Style(color=chosen(style.color), bgcolor=chosen(style.bgcolor), bold=style.bold)


def box_colour(kind: str, class_name: str | None) -> str:
    """`#rrggbb` of a detection's box: of its class for a white cell that has one, else of its kind."""
    if class_name and kind not in ("red", "platelet", "nucleated red"):
        return class_colour(class_name)
    return KIND_COLOURS.get(kind, UNCLEAR)


def in_order(names: list[str]) -> list[str]:
    """Class names as a differential lists them: granulocytes and their young forms first, `unclassified` last."""
    unknown = len(_ORDER) - 1
    return sorted(names, key=lambda name: (len(_ORDER) if name == UNCLASSIFIED else _ORDER.get(name, unknown), name))


@lru_cache(maxsize=512)
def ink(colour: str | None = None, *, on: str | None = None, bold: bool = False) -> Style:
    """The one Style object of these attributes; lines that hold the same objects compare fast."""
    return Style(color=colour, bgcolor=on, bold=bold or None)


PLAIN = ink()
STRONG = ink(bold=True)
FAINT = ink(BORDER)
"""Secondary text: a mid grey of its own, since terminals disagree on what `dim` does."""


def letter_mark(letters: Mapping[str, str], name: str) -> tuple[str, Style]:
    """The letter of a class on its colour."""
    return letters.get(name, "?"), ink("#ffffff", on=class_colour(name), bold=True)
