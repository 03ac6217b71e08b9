"""What an imagezmq sender's text says of its frame: where the stage is, how large a pixel is, whether it is the last.

A text that is no JSON object with one of these names is a text, as it always was. What is of a wrong type is a line for
people, and the frame is as if it were not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamer.records import FARTHEST_UM, SCALES_UM_PER_PX, StagePoint

NAMES = ("x_um", "y_um", "z_um", "error_um", "um_per_px", "number", "end")


@dataclass(frozen=True, slots=True)
class SenderText:
    stage_um: StagePoint | None = None
    stage_error_um: float | None = None
    um_per_px: float | None = None
    number: int | None = None
    """The sender's own count of its frames; None: it does not count."""
    end: bool = False
    """Whether nothing follows this frame."""
    faults: tuple[tuple[str, str], ...] = ()
    """(name, line) of what can't be used."""


def read_text(msg: object) -> SenderText:
    """From the `msg` of a header; never raises for what it holds."""
    said = _object(msg)
    if said is None:
        return SenderText()
    faults: dict[str, str] = {}
    x, y, z = (_number(said, name, -FARTHEST_UM, FARTHEST_UM, faults) for name in ("x_um", "y_um", "z_um"))
    if (x is None) != (y is None) and not {"x_um", "y_um"} & faults.keys():
        missing = "x_um" if x is None else "y_um"
        faults[missing] = f"{missing}: got none, expected both x_um and y_um"
    low, high = SCALES_UM_PER_PX
    number, end = said.get("number"), said.get("end")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        faults["number"], number = f"number: got {_shown(number)}, expected a whole number", None
    if end is not None and not isinstance(end, bool):
        faults["end"], end = f"end: got {_shown(end)}, expected true or false", None
    return SenderText(
        stage_um=None if x is None or y is None else StagePoint(x, y, z),
        stage_error_um=_number(said, "error_um", 0.0, FARTHEST_UM, faults),
        um_per_px=_number(said, "um_per_px", low, high, faults),
        number=number,
        end=bool(end),
        faults=tuple(faults.items()),
    )


def _object(msg: object) -> Mapping[str, Any] | None:
    """None where it says none of `NAMES`."""
    if isinstance(msg, str) and msg.lstrip().startswith("{"):
        try:
            msg = json.loads(msg)  # as Python writes it, NaN too
        except (ValueError, RecursionError):
            return None
    return msg if isinstance(msg, dict) and any(name in msg for name in NAMES) else None


def _number(said: Mapping[str, Any], name: str, low: float, high: float, faults: dict[str, str]) -> float | None:
    value = said.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    faults[name] = f"{name}: got {_shown(value)}, expected a number of {low:g} to {high:g}"
    return None


def _shown(value: object) -> str:
    return repr(value)[:40]
