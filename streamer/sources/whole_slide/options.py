"""What stands behind `wsi:`, parsed: `FILE[,mpp=0.25,overlap=0.2]`."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from engines.base import UsageError, near
from streamer.sources.address import split_options

DEFAULT_UM_PER_PX = 0.25
"""That of a 40x scan; red cells are 30 px wide."""

LARGEST_UM_PER_PX = 1.0
"""Red cells are 8 px wide then, less than any detector was trained for."""

DEFAULT_OVERLAP = 0.2
"""Of a tile's sides: 26 µm or more, so that each cell lies whole in a tile; the largest white cells are 25 µm wide."""

_KEYS = ("mpp", "overlap")
_MOST_OVERLAP = 0.9


@dataclass(frozen=True, slots=True)
class SlideOptions:
    path: str
    um_per_px: float | None
    """At which tiles are read, and that of the file itself where it states none. None: DEFAULT_UM_PER_PX, or the file's
    own where that is coarser."""
    overlap: float

    @classmethod
    def parse(cls, target: str) -> SlideOptions:
        """UsageError for what can't be meant."""
        path, text = split_options(target)
        if not path.strip():
            raise UsageError(f"wsi:{target}: got no file, expected wsi:FILE[,mpp=0.25,overlap=0.2]")
        values: dict[str, float] = {}
        for part in filter(None, re.split("[,&]", text)):
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in _KEYS:
                raise UsageError(f"wsi: got the option {key!r}, expected {' or '.join(_KEYS)}{near(key, _KEYS)}")
            if key in values:
                raise UsageError(f"wsi: {key}: got it twice, expected it once")
            values[key] = _number(key, value)
        um_per_px, overlap = values.get("mpp"), values.get("overlap", DEFAULT_OVERLAP)
        if um_per_px is not None and not 0 < um_per_px <= LARGEST_UM_PER_PX:
            raise UsageError(
                f"wsi: mpp: got {um_per_px:g}, expected micrometres per pixel above 0, such as 0.25, and at most"
                f" {LARGEST_UM_PER_PX:g}: cells can't be told apart in larger pixels"
            )
        if not 0 <= overlap <= _MOST_OVERLAP:
            raise UsageError(
                f"wsi: overlap: got {overlap:g}, expected a share of the tile's side from 0 to {_MOST_OVERLAP:g}"
            )
        return cls(os.path.expanduser(path), um_per_px, overlap)


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"wsi: {key}: got {value!r}, expected a number")
    return number
