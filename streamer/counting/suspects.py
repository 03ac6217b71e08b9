"""Cells of a class that flags a slide and not a cell: which they are, and how many are more than errors give.

Of 200 cells of normal blood each may be taken for a blast; even at one in 200 most slides would have one. So cells are
counted by the probability of the class, and flag their slide where a Poisson count of errors would seldom be as high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import pdtrc

from engines.zoo.slide_flags import SlideFlag

FALSE_SLIDES = 0.05
"""Of the slides without such cells, how many errors alone may flag."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """The cells of a slide that may be of one class."""

    whole: int = 0
    """Those that count for the flag and were seen whole."""
    at_edge: int = 0
    """The others that count: only ever seen cut by an edge."""
    confirmed: int = 0
    """Of both, those that a person gave the class."""
    cell_ids: tuple[int, ...] = ()
    """Of both."""
    below: tuple[int, ...] = ()
    """Cells that have the name of the class and do not count: their probability is too low."""

    def flags(self, false_rate: float, cells: int) -> bool:
        """Whether a slide of `cells` white cells, those at edges among them, is flagged."""
        counted = self.whole + self.at_edge
        return self.confirmed > 0 or counted >= cells_needed(false_rate, cells)


@lru_cache(maxsize=4096)
def cells_needed(false_rate: float, cells: int) -> int:
    """The least count that errors alone reach in at most `FALSE_SLIDES` of the slides; 1 or more."""
    needed = 1
    while pdtrc(needed - 1, false_rate * cells) > FALSE_SLIDES:
        needed += 1
    return needed


def suspicion(
    flag: SlideFlag,
    class_names: Sequence[str],
    subclass_names: Sequence[str],
    parents: npt.NDArray[np.intp],
    probabilities: npt.NDArray[np.floating],
    subclass_probabilities: npt.NDArray[np.floating],
) -> npt.NDArray[np.floating]:
    """(n,) probability of a flag's class and its equivalents, of (n, C) class and (n, S) subclass probabilities, those
    of subclasses given their class; `parents` (S,) is the class of each. NaN without looks."""
    total = np.zeros(len(probabilities), probabilities.dtype)
    for name in (flag.name, *flag.equivalents):
        if name in class_names:
            total += probabilities[:, class_names.index(name)]
        else:
            column = subclass_names.index(name)
            total += probabilities[:, parents[column]] * subclass_probabilities[:, column]
    return total
