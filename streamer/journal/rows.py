"""What the journal's rows hold, and how arrays become columns: little-endian, exactly as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from engines.classifier import Classifier
from engines.detector import Detector
from streamer.naming import Naming
from streamer.placement import Correction, Placement
from streamer.records import Classifications, Detections

_CORRECTION = np.dtype([("anchor", "<i4"), ("island", "<i4"), ("dx_px", "<f8"), ("dy_px", "<f8")])


@dataclass(frozen=True, slots=True, eq=False)
class SeenFrame:
    """One frame as the slide map takes it in, and what people want to know of it."""

    frame_id: int
    width: int
    height: int
    placement: Placement
    detections: Detections
    looks: Classifications | None
    """One row a white detection, in their order; None where the run has no classifier."""
    accepted: bool
    reasons: tuple[str, ...]
    """Why it was not accepted."""
    focus: float | None
    file: str | None
    captured_utc: str


class ModelId(msgspec.Struct, frozen=True, kw_only=True):
    """Which model it was."""

    name: str
    sha256: str | None
    """Of the model's file; None for scripted models, which have none."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how the frames of a session are counted. A session is resumed with the same ones only."""

    detector: ModelId
    classifier: ModelId | None
    """None: every white cell is unclassified."""
    operating_score: float
    """Detections below it are not counted."""
    long_side_px: int
    """Of the detector's input."""
    label_names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of each label."""
    class_names: tuple[str, ...] = ()
    class_threshold: float = 0.0
    """Cells whose best class stays below it are unclassified."""
    subclass_names: tuple[str, ...] = ()
    subclass_parents: tuple[str, ...] = ()


def rules_of(detector: Detector, classifier: Classifier | None) -> Rules:
    card = detector.card
    rules = Rules(
        detector=ModelId(name=card.name, sha256=card.sha256),
        classifier=None,
        operating_score=card.thresholds.operating,
        long_side_px=detector.long_side_px,
        label_names=card.class_names,
        kinds=card.kinds,
    )
    if classifier is None:
        return rules
    naming = Naming.of(classifier)
    return msgspec.structs.replace(
        rules,
        classifier=ModelId(name=classifier.card.name, sha256=classifier.card.sha256),
        class_names=naming.class_names,
        class_threshold=naming.threshold,
        subclass_names=naming.subclass_names,
        subclass_parents=naming.subclass_parents,
    )


def naming_of(rules: Rules) -> Naming | None:
    """None where no classifier ran."""
    if rules.classifier is None:
        return None
    return Naming(rules.class_names, rules.class_threshold, rules.subclass_names, rules.subclass_parents)


def packed(array: npt.NDArray[Any], dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


def unpacked(blob: bytes, dtype: str, columns: int | None = None) -> npt.NDArray[Any]:
    """(n,), or (n, columns); a copy that may be written to."""
    array = np.frombuffer(blob, dtype).copy()
    return array if columns is None else array.reshape(-1, columns)


def packed_corrections(corrections: Sequence[Correction]) -> bytes | None:
    """None for none, as in most frames."""
    if not corrections:
        return None
    rows = [(one.anchor, one.island, one.dx_px, one.dy_px) for one in corrections]
    return np.array(rows, _CORRECTION).tobytes()


def unpacked_corrections(blob: bytes | None) -> tuple[Correction, ...]:
    return tuple(Correction(*row) for row in np.frombuffer(blob or b"", _CORRECTION).tolist())


def unpacked_looks(rules: Rules, rows: Sequence[tuple[bytes, bytes]]) -> Classifications:
    """`rows` of (probabilities, subclass probabilities), one a white detection."""
    classes, subclasses = len(rules.class_names), len(rules.subclass_names)
    return Classifications(
        probabilities=unpacked(b"".join(row[0] for row in rows), "<f4").reshape(len(rows), classes),
        class_names=rules.class_names,
        subclass_probabilities=unpacked(b"".join(row[1] for row in rows), "<f4").reshape(len(rows), subclasses),
        subclass_names=rules.subclass_names,
        subclass_parents=rules.subclass_parents,
    )
