"""How far two counts of one slide agree: whether sampling alone explains where they differ, Bland and Altman's limits
over many slides, and kappa over cells that both named.

Pure functions of counts. Sampling limits are for two samples of cells drawn one by one from the same blood.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from streamer.intervals import CONFIDENCE
from streamer.records import UNCLASSIFIED

_TAIL = (1.0 - CONFIDENCE) / 2.0
_NORMAL = 1.959963984540054
"""Standard deviations within which 95 % of a normal distribution lie."""


def within_sampling(count: int, total: int, other_total: int) -> tuple[int, int]:
    """The least and the greatest count of a class that a second sample of `other_total` cells may give when the first
    gave `count` of `total`, before the two differ by more than sampling.

    Exact: given both counts together, how they fall on the two samples is hypergeometric whatever the true percentage
    is; what has 2.5 % or less in its tail differs. Rümke's tables of differential counts hold the same least
    significant differences. ValueError unless 0 <= count <= total and both totals are above 0.
    Sources: Fisher's exact test; Rümke, Bezemer & Kuik, J. Chronic Dis. 28 (1975) 661.
    """
    if not 0 <= count <= total or total < 1 or other_total < 1:
        raise ValueError(
            f"within_sampling: got {count} of {total} and a sample of {other_total}, expected 0 <= count <= total and"
            " samples of at least one cell"
        )
    from scipy.stats import hypergeom  # here: it takes longer to load than all else that reads a journal

    population = total + other_total

    def not_too_few(other: int) -> bool:
        return bool(hypergeom.cdf(other, population, count + other, other_total) > _TAIL)

    def not_too_many(other: int) -> bool:
        return bool(hypergeom.sf(other - 1, population, count + other, other_total) > _TAIL)

    return _first(not_too_few, 0, other_total), _last(not_too_many, 0, other_total)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first whole number of low … high from which on `holds` is true; it is for `high`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The last whole number of low … high up to which `holds` is true; it is for `low`."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """The differences of two methods over several slides, in percentage points, second minus first."""

    slides: int
    mean: float
    mean_low: float
    """95 % limits of the mean difference, by Student's t."""
    mean_high: float
    low: float
    """Limits of agreement: between them 95 % of the differences of single slides are expected."""
    high: float

    @property
    def biased(self) -> bool:
        """Whether the mean difference is not 0 by its limits."""
        return not self.mean_low <= 0.0 <= self.mean_high


def bland_altman(first_percent: Sequence[float], second_percent: Sequence[float]) -> BlandAltman:
    """Of one class, by slide. ValueError for fewer than two slides, or sequences of different lengths.

    Source: Bland & Altman, Lancet 327 (1986) 307.
    """
    slides = len(first_percent)
    if slides < 2 or len(second_percent) != slides:
        raise ValueError(f"bland_altman: got {slides} and {len(second_percent)} slides, expected as many, two or more")
    differences = np.asarray(second_percent, np.float64) - np.asarray(first_percent, np.float64)
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    of_mean = float(stdtrit(slides - 1, 1.0 - _TAIL)) * deviation / math.sqrt(slides)
    return BlandAltman(
        slides=slides,
        mean=mean,
        mean_low=mean - of_mean,
        mean_high=mean + of_mean,
        low=mean - _NORMAL * deviation,
        high=mean + _NORMAL * deviation,
    )


@dataclass(frozen=True, slots=True)
class Kappa:
    """How often two namings of the same cells agree beyond chance."""

    cells: int
    agreed: int
    kappa: float | None
    """1: always, 0: no more than by chance. None where chance alone would agree always, or of no cells."""
    low: float | None
    """95 % limits of it, by the large-sample variance."""
    high: float | None


Names = Sequence[tuple[str, str]]
"""As two people or programs named the same cells."""


def kappa_of(names: Names) -> tuple[Kappa, int, tuple[tuple[str, str, int], ...]]:
    """Kappa of the cells that both named; how many at least one left unclassified, which are not in it; and the pairs
    of names that differ, the commonest first, with how often."""
    both = [pair for pair in names if UNCLASSIFIED not in pair]
    classes = sorted({name for pair in both for name in pair})
    table: npt.NDArray[np.int64] = np.zeros((len(classes), len(classes)), np.int64)
    for a, b in both:
        table[classes.index(a), classes.index(b)] += 1
    differing = Counter((a, b) for a, b in both if a != b)
    return cohen_kappa(table), len(names) - len(both), tuple((a, b, n) for (a, b), n in differing.most_common())


def cohen_kappa(table: npt.NDArray[np.integer]) -> Kappa:
    """Of a (classes, classes) table of cells: rows as the first named them, columns as the second did.

    Sources: Cohen, Educ. Psychol. Meas. 20 (1960) 37; Fleiss, Cohen & Everitt, Psychol. Bull. 72 (1969) 323.
    """
    cells, agreed = int(table.sum()), int(np.trace(table))
    if not cells:
        return Kappa(0, 0, None, None, None)
    shares = table / cells
    rows, columns = shares.sum(1), shares.sum(0)
    by_chance = float(rows @ columns)
    if by_chance >= 1.0:
        return Kappa(cells, agreed, None, None, None)
    kappa = (agreed / cells - by_chance) / (1.0 - by_chance)
    diagonal = np.diag(shares)
    on = float((diagonal * (1.0 - (rows + columns) * (1.0 - kappa)) ** 2).sum())
    crossed = (columns[:, None] + rows[None, :]) ** 2
    off = (1.0 - kappa) ** 2 * float((shares * crossed).sum() - (diagonal * np.diag(crossed)).sum())
    variance = on + off - (kappa - by_chance * (1.0 - kappa)) ** 2
    width = _NORMAL * math.sqrt(max(0.0, variance) / cells) / (1.0 - by_chance)
    return Kappa(cells, agreed, kappa, max(-1.0, kappa - width), min(1.0, kappa + width))
