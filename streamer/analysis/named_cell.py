"""The name of a single cell: what `leukostream classify` writes of a picture."""

from __future__ import annotations

import msgspec
import numpy as np

from engines.geometry import Boxes
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import attribute_messages
from streamer.records import AttributeValue, Classifications


class NamedCell(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """What one cell is, by the classifier."""

    class_: str
    """"unclassified" where `unclassified_reason` says why."""
    subclass: str | None
    """None: the class has none, or none is sure enough."""
    top_class: str
    """The likeliest class even where `class` is "unclassified"."""
    class_probabilities: dict[str, float]
    """All classes; they sum to 1."""
    unclassified_reason: str | None
    """"low confidence" or "unlike the training cells"; None for a classified one."""
    attributes: dict[str, AttributeValue] | None
    """How it looks, by name; None for models and classes without."""
    box_px: tuple[float, float, float, float] | None
    """x1, y1, x2, y2 where the cell was found in a picture of a field; None where the whole picture was taken for the
    cell."""


def named_cell(looks: Classifications, box: Boxes | None, naming: ClassDecision) -> NamedCell:
    """The cell of the looks (one row) at it in `box` (1,4), None: the whole picture."""
    values = looks.probabilities[0].astype(float)
    probabilities = (values / values.sum()).tolist()
    novelty = None if looks.novelty is None else float(looks.novelty[0])
    class_name = naming.class_name(probabilities, novelty)
    described = looks.attribute_probabilities
    x1, y1, x2, y2 = (0.0,) * 4 if box is None else np.round(box[0].astype(float), 1).tolist()
    return NamedCell(
        class_=class_name,
        subclass=naming.subclass(class_name, looks.subclass_probabilities[0]),
        top_class=naming.top_class(probabilities),
        class_probabilities=dict(zip(naming.class_names, probabilities, strict=True)),
        unclassified_reason=naming.reason(probabilities, novelty),
        attributes=None if described is None else attribute_messages(naming.described(class_name, described[0])),
        box_px=None if box is None else (x1, y1, x2, y2),
    )
