"""Two counts of one slide, by class: whether sampling alone explains where they differ."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.counting.agreement import within_sampling
from streamer.dashboard.palette import in_order
from streamer.qc.counts import CountedSlide


@dataclass(frozen=True, slots=True)
class ClassComparison:
    name: str
    first: int | None
    """Cells in the first count; None: it does not tell this class apart."""
    second: int | None
    expected: tuple[int, int] | None
    """The least and the greatest count of the second that sampling explains; None: not judged, as one side has none."""

    @property
    def differs(self) -> bool:
        if self.expected is None or self.second is None:
            return False
        return not self.expected[0] <= self.second <= self.expected[1]


def compared_classes(first: CountedSlide, second: CountedSlide) -> list[ClassComparison]:
    """In the order of a differential. Both are `folded` and have white cells."""
    rows = []
    for name in in_order([*{**first.counts, **second.counts}]):
        a, b = first.counts.get(name), second.counts.get(name)
        expected = None if a is None or b is None else within_sampling(a, first.total, second.total)
        rows.append(ClassComparison(name, a, b, expected))
    return rows
