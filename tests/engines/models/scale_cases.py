"""A scripted detector that knows red cells of some sizes only, as a trained one does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engines.backends.scripted import ScriptedEngine, candidates, detector_specs
from engines.base import Array, Engine
from engines.models.detector import Detector, Engines
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds

FRAME = np.zeros((480, 640, 3), np.uint8)
CARD = Card(
    name="test",
    task="detector",
    input=DetectorInput(long_side_px=640, rbc_diameter_px=(18, 60)),
    classes=(ClassEntry("WBC", "white"), ClassEntry("RBC", "red")),
    thresholds=Thresholds(0.35, 0.5),
    file="test.onnx",
)


def looking_at(
    true_diameter_px: float, *, cells: int = 8, label: int = 1, blind_above: float = 200, **more: object
) -> Detector:
    """A detector before frames of 640x480 in which `cells` red cells have a diameter, in full-frame pixels."""

    def load(height: int, width: int) -> Engine:
        seen = true_diameter_px * width / 640
        reported = float(np.clip(seen, 18, 60))

        def script(feeds: Mapping[str, Array]) -> dict[str, Array]:
            if not 10 <= seen <= blind_above:
                return candidates([[] for _ in feeds["images"]])
            columns = int((width - 4) // reported)
            corners = [(2 + reported * (i % columns), 20 + reported * (i // columns)) for i in range(cells)]
            rows = [((x, y, x + reported, y + reported), 0.8, label) for x, y in corners]
            return candidates([rows for _ in feeds["images"]])

        return ScriptedEngine(*detector_specs(height, width), script)

    return Detector(CARD, Engines(load), **more)  # type: ignore[arg-type]
