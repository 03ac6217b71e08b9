"""int8: which frames calibrate, which choose, and which say what the result is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import ModelProto

from engines.backends import conversion
from engines.backends.conversion import Converted, convert
from engines.base import Array
from engines.graphs.parity import Parity, ParityError
from engines.graphs.quantization import Calibration, CalibrationError, calibrate
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from tests.engines.small_detector import detector, pictures

CARD = Card(
    "small",
    "detector",
    DetectorInput(long_side_px=96),
    (ClassEntry("WBC", "white"), ClassEntry("RBC", "red"), ClassEntry("platelet", "platelet")),
    Thresholds(0.3, 0.5),
    "small.onnx",
)
FRAMES = list(pictures(16))


def parity(matched: float) -> Parity:
    return Parity(4, 100, matched, 1.0, 0.0)


@dataclass
class Script:
    """Stands for the comparison with fp32: finds what it is told, and notes which of FRAMES were looked at."""

    found: list[float]
    compared: list[list[int]] = field(default_factory=list)
    calibrated: list[int] = field(default_factory=list)

    def compare(self, card: Card, model: ModelProto, other: ModelProto, frames: Sequence[Array]) -> Parity:
        self.compared.append(numbers(frames))
        return parity(self.found.pop(0))

    def calibrate(self, model: ModelProto, batches: Iterable[Array]) -> Calibration:
        given = list(batches)
        self.calibrated += numbers([frame for batch in given for frame in batch])
        return calibrate(model, given)


def numbers(frames: Sequence[Array]) -> list[int]:
    return [next(n for n, one in enumerate(FRAMES) if np.array_equal(one, frame)) for frame in frames]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script([])
    monkeypatch.setattr(conversion, "_compare", made.compare)
    monkeypatch.setattr(conversion, "calibrate", made.calibrate)
    return made


def converted(script: Script, *found: float, accept: bool = False) -> Converted:
    script.found[:] = found
    return convert(CARD, detector(), "int8", FRAMES, accept_parity_loss=accept)


def test_parity_is_of_frames_that_neither_calibrated_nor_chose(script: Script) -> None:
    result = converted(script, 0.9, 0.98, 0.975)
    assert script.calibrated == [0, 2, 4, 6, 8, 10, 12, 14]
    assert script.compared == [[1, 5, 9, 13], [1, 5, 9, 13], [3, 7, 11, 15]]
    assert result.parity == parity(0.975)
    assert len(result.left) == round(0.1 * 5)


def test_what_looked_good_where_it_was_chosen_is_refused_where_it_was_not(script: Script) -> None:
    with pytest.raises(ParityError, match=r"precision int8: got 96\.00 % of 100 boxes"):
        converted(script, 0.99, 0.96)


def test_where_no_share_is_enough_the_best_is_measured(script: Script) -> None:
    result = converted(script, 0.5, 0.6, 0.9, 0.8, 0.7, 0.85, accept=True)
    assert len(result.left) == round(0.2 * 5)
    assert result.parity == parity(0.85)


def test_frames_that_fill_no_batch_to_measure_on_are_too_few() -> None:
    with pytest.raises(CalibrationError, match="got 8 pictures, expected at least 16 for a file of batch 4"):
        convert(CARD, detector(4), "int8", FRAMES[:8], accept_parity_loss=True)
    assert convert(CARD, detector(4), "int8", FRAMES, accept_parity_loss=True).parity is not None
