"""Two counts over several slides: by class the percentages of both, and Bland and Altman's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamer.counting.agreement import BlandAltman, bland_altman
from streamer.dashboard.palette import in_order
from streamer.qc.counts import CountedSlide, folded


@dataclass(frozen=True, slots=True)
class ClassOverSlides:
    """A class in the slides in which both sides counted it."""

    name: str
    first: tuple[float, ...]
    """Percent, by slide."""
    second: tuple[float, ...]

    @property
    def agreement(self) -> BlandAltman | None:
        """None for fewer than two slides."""
        return bland_altman(self.first, self.second) if len(self.first) > 1 else None


def over_slides(pairs: Sequence[tuple[CountedSlide, CountedSlide]]) -> list[ClassOverSlides]:
    """In the order of a differential. Slides without a white cell on one side are left out."""
    percent: dict[str, list[tuple[float, float]]] = {}
    for one, other in pairs:
        first, second, _ = folded(one, other)
        if first.total and second.total:
            for name in first.counts.keys() & second.counts.keys():
                shares = [100.0 * side.counts[name] / side.total for side in (first, second)]
                percent.setdefault(name, []).append((shares[0], shares[1]))
    return [
        ClassOverSlides(name, *(tuple(side) for side in zip(*percent[name], strict=True)))
        for name in in_order(list(percent))
    ]
