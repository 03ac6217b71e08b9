"""Colours of the dashboard, after the look of a Romanowsky stain.

Every colour has a relative luminance of 0.15 to 0.28, so that it keeps a contrast of 3 or more on black and on white.
"""

from __future__ import annotations

from functools import lru_cache

from rich.style import Style

from streamer.records import UNCLASSIFIED

NEUTROPHIL = "#c86fb4"
EOSINOPHIL = "#d9711c"
BASOPHIL = "#8a4fe0"
LYMPHOCYTE = "#3f7fe8"
MONOCYTE = "#6e8ca6"
IMMATURE = "#b0457f"
NUCLEATED_RED = "#b5483a"
RED_CELL = "#c9696b"
PLATELET = "#9a7ab8"
UNCLEAR = "#858585"
WHITE_CELL = "#2e9c8a"

BORDER = "#857b93"
ACCENT = "#a866c9"
GOOD = "#2f9e44"
CAUTION = "#b8860b"
BAD = "#d6453d"

CLASS_COLOURS = {
    "neutrophil": NEUTROPHIL,
    "segmented neutrophil": NEUTROPHIL,
    "band neutrophil": "#d0609a",
    "immature granulocyte": IMMATURE,
    "metamyelocyte": "#c2557c",
    "myelocyte": IMMATURE,
    "promyelocyte": "#a34d9c",
    "lymphocyte": LYMPHOCYTE,
    "monocyte": MONOCYTE,
    "eosinophil": EOSINOPHIL,
    "basophil": BASOPHIL,
    "erythroblast": NUCLEATED_RED,
    "platelet": PLATELET,
    "red blood cell": RED_CELL,
    UNCLASSIFIED: UNCLEAR,
}
"""In the order in which a differential lists its classes."""

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
