"""The options of the simulated slide, and how a source address gives them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Literal, get_args

from engines.base import UsageError
from streamer.sources.base import SourceError

Pattern = Literal["raster", "pan", "jump", "return", "mixed"]

LOOK_OF = {
    "neutrophil": "segmented neutrophil",
    "segmented neutrophil": "segmented neutrophil",
    "band": "band neutrophil",
    "band neutrophil": "band neutrophil",
    "eosinophil": "eosinophil",
    "basophil": "basophil",
    "lymphocyte": "lymphocyte",
    "monocyte": "monocyte",
    "metamyelocyte": "metamyelocyte",
    "myelocyte": "myelocyte",
    "promyelocyte": "promyelocyte",
}
"""White-cell names that `classes=` accepts -> the look that is painted."""

NORMAL_ADULT = MappingProxyType(
    {
        "segmented neutrophil": 55.0,
        "band neutrophil": 3.0,
        "lymphocyte": 32.0,
        "monocyte": 6.0,
        "eosinophil": 3.0,
        "basophil": 1.0,
    }
)
"""Per cent; inside the usual adult ranges (neutrophils with bands 40–60, lymphocytes 20–40, monocytes 2–8, …)."""
IMMATURE = MappingProxyType({"metamyelocyte": 0.5, "myelocyte": 0.35, "promyelocyte": 0.15})

_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "cells": (0, 100_000),
    "fps": (0.1, 1000),
    "paced": (0, 1),
    "width": (64, 8192),
    "height": (64, 8192),
    "red": (8, 300),
    "density": (0.05, 10),
    "noise": (0, 10),
    "blur": (0, 10),
    "vignette": (0, 4),
    "cast": (0, 4),
    "dwell": (1, 10_000),
    "travel": (1, 1000),
    "returns": (0, 1000),
    "jumps": (0, 1000),
    "immature": (0, 100),
    "erythroblasts": (0, 1000),
    "overlay": (0, 1),
    "overlap": (-4, 0.9),
    "turn": (-360, 360),
    "mirror": (0, 1),
    "backlash": (0, 1000),
}

_ERRORS_UM = (0.0, 1000.0)


class SlideParameterError(SourceError, UsageError):
    """An unknown key or an impossible value for the simulated slide."""


@dataclass(frozen=True)
class SlideParameters:
    """Parameters of a simulated slide; `parse` reads them from `sim:KEY=VALUE,…`.

    All are checked on construction, with a SlideParameterError for a bad one.
    """

    seed: int = 7
    cells: int = 200
    """White cells on the slide (erythroblasts come on top)."""
    fps: float = 30.0
    """Frames a second, when paced."""
    paced: int = 0
    """1: no faster than `fps` where no frame may be lost either; live sources are always paced."""
    pattern: Pattern = "raster"
    width: int = 640
    """Of a frame, pixels."""
    height: int = 480
    red: float = 44.0
    """Usual diameter of a red cell, pixels."""
    density: float = 2.0
    """White cells in an average frame."""
    noise: float = 1.0
    """Sensor noise; 1 is usual, 0 is none. So are the next three."""
    blur: float = 1.0
    """Focus drift and exposure time, that is, motion blur."""
    vignette: float = 1.0
    """Uneven light."""
    cast: float = 1.0
    """How far the lamp is from white."""
    dwell: int = 3
    """Frames the stage rests at each stop."""
    travel: int = 4
    """Frames a move between neighbouring stops takes."""
    returns: int = 3
    """How often pattern `mixed` goes back to a place seen before."""
    jumps: int = 5
    """How often pattern `mixed` continues somewhere else."""
    immature: float = 0.0
    """Per cent of the white cells that are immature granulocytes, on top of what `classes` says."""
    erythroblasts: float = 0.0
    """Per 100 white cells."""
    overlay: int = 0
    """1: a clock, a logo, a crosshair and a scale bar are burnt into every frame."""
    overlap: float = 0.2
    """Share of a frame's width (height) that neighbouring stops have in common; below 0 there is a gap between them."""
    positions: str = "none"
    """What its stage says with each frame: none, exact, or up to how many micrometres each axis is off."""
    turn: float = 0.0
    """Degrees by which the camera sees the stage turned."""
    mirror: int = 0
    """1: the camera sees the stage mirrored too."""
    backlash: float = 0.0
    """Micrometres by which the stage says another place when it comes from the other side."""
    classes: MappingProxyType[str, float] = field(default_factory=lambda: NORMAL_ADULT)
    """What is painted (names of LOOK_OF's values) -> weight."""

    def __post_init__(self) -> None:
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            if not low <= value <= high:
                raise SlideParameterError(f"sim: {key}: got {value:g}, expected {low:g} to {high:g}")
        if self.pattern not in get_args(Pattern):
            names = get_args(Pattern)
            raise SlideParameterError(
                f"sim: pattern: got {self.pattern!r}, expected {_listed(names)}{_near(self.pattern, names)}"
            )
        low, high = _ERRORS_UM
        if not low <= self.position_error_um <= high:
            raise SlideParameterError(
                f"sim: positions: got {self.positions!r}, expected none, exact, or an error of {low:g} to {high:g} "
                "micrometres"
            )
        if min(self.width, self.height) < 4 * self.red:
            raise SlideParameterError(
                f"sim: width, height: got {self.width}x{self.height}, expected at least four red cells "
                f"({4 * self.red:g} px) each way; give larger frames or a smaller red="
            )
        if not self.classes or sum(self.classes.values()) <= 0:
            raise SlideParameterError("sim: classes: got no class with a weight above 0, expected at least one")

    @property
    def position_error_um(self) -> float:
        """The largest, along either axis; 0 where there are no positions too, -1 for what is none."""
        if self.positions in ("none", "exact"):
            return 0.0
        try:
            return float(self.positions)
        except ValueError:
            return -1.0

    @classmethod
    def parse(cls, text: str) -> SlideParameters:
        """From `sim:seed=7,cells=200,…`, with or without `sim:`. Raises SlideParameterError."""
        kinds = {item.name: item.type for item in fields(cls)}
        values: dict[str, object] = {}
        for part in filter(None, (part.strip() for part in text.removeprefix("sim:").split(","))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if key not in kinds:
                raise SlideParameterError(f"sim: unknown key {key!r}, expected {_listed(kinds)}{_near(key, kinds)}")
            if not equals or not value:
                raise SlideParameterError(f"sim: {key}: got no value, expected {key}=VALUE")
            if key in values:
                raise SlideParameterError(f"sim: {key}: got it twice, expected it once")
            values[key] = _read(key, kinds[key], value)
        return cls(**values)  # type: ignore[arg-type]  # _read returns each field's own type

    def white_looks(self) -> list[str]:
        """The look of each white cell, in a fixed order: shares of `cells` by largest remainder.

        Erythroblasts follow the `cells` white ones.
        """
        weights = {look: weight / sum(self.classes.values()) for look, weight in self.classes.items() if weight > 0}
        weights = {look: weight * (1 - self.immature / 100) for look, weight in weights.items()}
        if self.immature > 0:
            for look, share in IMMATURE.items():
                weights[look] = weights.get(look, 0.0) + share * self.immature / 100
        exact = {look: weight * self.cells for look, weight in weights.items()}
        counts = {look: int(share) for look, share in exact.items()}
        by_remainder = sorted(exact, key=lambda look: (counts[look] - exact[look], look))
        for look in by_remainder[: self.cells - sum(counts.values())]:
            counts[look] += 1
        looks = [look for look in sorted(counts) for _ in range(counts[look])]
        return looks + ["erythroblast"] * round(self.cells * self.erythroblasts / 100)


def _read(key: str, kind: object, value: str) -> object:
    if key == "classes":
        return _read_classes(value)
    if kind == "int":
        try:
            return int(value)
        except ValueError:
            raise SlideParameterError(f"sim: {key}: got {value!r}, expected a whole number") from None
    if kind == "float":
        try:
            return float(value)
        except ValueError:
            raise SlideParameterError(f"sim: {key}: got {value!r}, expected a number") from None
    return value


def _read_classes(text: str) -> MappingProxyType[str, float]:
    weights: dict[str, float] = {}
    for part in text.split("+"):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        if name not in LOOK_OF:
            raise SlideParameterError(
                f"sim: classes: unknown class {name!r}, expected {_listed(LOOK_OF)}{_near(name, LOOK_OF)}"
            )
        try:
            number = float(weight)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise SlideParameterError(
                f"sim: classes: got {part!r}, expected CLASS:WEIGHT joined by +, as neutrophil:60+lymphocyte:30"
            )
        weights[LOOK_OF[name]] = weights.get(LOOK_OF[name], 0.0) + number
    return MappingProxyType(weights)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
