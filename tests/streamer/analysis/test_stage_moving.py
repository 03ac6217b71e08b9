"""A frame whose stage moved, as its source says, is rejected however good it looks."""

from __future__ import annotations

import pytest

from streamer.analysis.analyser import Analyser
from streamer.records import Frame
from tests.streamer.journal.journal_cases import classifier, detector
from tests.streamer.stage.stage_cases import view


@pytest.mark.parametrize(
    ("moving", "reasons"), [(True, ("stage moving",)), (False, ()), (None, ())], ids=["moving", "still", "not said"]
)
def test_the_gate(moving: bool | None, reasons: tuple[str, ...]) -> None:
    (analysed,) = Analyser(detector(), classifier()).analyse([Frame("slide", 0, 0, view(500, 400), moving=moving)])
    assert analysed.quality.accepted is not bool(reasons)
    assert analysed.quality.reasons == reasons
    assert analysed.quality.focus is not None
