"""What OME-XML says of the scale of an image and of where its planes were taken.

The OME model (Open Microscopy Environment, schema 2016-06): Pixels has PhysicalSizeX and Y with their units, Plane has
PositionX, Y and Z with theirs, and TheC, TheZ, TheT.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

from streamer.records import StagePoint

UM_PER_UNIT: Mapping[str, float] = {
    "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6,
    "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip
"""Names and signs of lengths in OME-XML, OME-Zarr and ImageJ. "reference frame" and "pixel" are of no known length."""

Plane = tuple[int, int, int]
"""Of channel, depth and time, from 0."""


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of a file."""

    um_per_px: tuple[float, float] | None
    """Across and down; None: not stated."""
    positions: Mapping[Plane, StagePoint]
    """Of the planes that state one."""


def ome_images(xml: str) -> list[OmeImage]:
    """The images of an OME-XML text, in its order; none of what can't be parsed."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    return [_image(pixels) for pixels in root.iter() if _name(pixels) == "Pixels"]


def _image(pixels: ElementTree.Element) -> OmeImage:
    sizes = _um(pixels, "PhysicalSizeX", "µm"), _um(pixels, "PhysicalSizeY", "µm")
    positions = {}
    for plane in pixels:
        point = _position(plane) if _name(plane) == "Plane" else None
        if point is not None:
            positions[_index(plane, "TheC"), _index(plane, "TheZ"), _index(plane, "TheT")] = point
    return OmeImage(None if sizes[0] is None or sizes[1] is None else (sizes[0], sizes[1]), positions)


def _position(plane: ElementTree.Element) -> StagePoint | None:
    x, y = _um(plane, "PositionX", None), _um(plane, "PositionY", None)
    return None if x is None or y is None else StagePoint(x, y, _um(plane, "PositionZ", None))


def _um(element: ElementTree.Element, name: str, usual: str | None) -> float | None:
    """A length of an element in µm; `usual`: its unit where it names none. None: not stated, or of no known length."""
    try:
        value = float(element.get(name, ""))
    except ValueError:
        return None
    factor = UM_PER_UNIT.get(element.get(f"{name}Unit") or usual or "")
    return None if factor is None else value * factor


def _index(plane: ElementTree.Element, name: str) -> int:
    text = plane.get(name, "0")
    return int(text) if text.isdecimal() else 0


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
