"""Of a classifier's card: classes of which single cells are no finding yet, and how many of a slide's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.base import CardError, near
from engines.zoo.table import Table


@dataclass(frozen=True, slots=True)
class MeasuredSlides:
    """Which share of slides, mixed of single cells, is judged rightly: 0 to 1 with its 95 % limits."""

    share: float
    low: float
    high: float
    units: int
    """Patients, or laboratories, by which the limits are; the cells of none chose the threshold that judged them."""


@dataclass(frozen=True, slots=True)
class SlideFlag:
    """Cells of a class flag a slide where errors alone would seldom give so many (streamer/counting/suspects.py)."""

    name: str
    """Of the class or subclass."""
    above: float
    """A cell counts whose probability is this or more, whatever it is named."""
    false_rate: float
    """The share of other cells that count, where laboratories differ as those do that it was measured on."""
    equivalents: tuple[str, ...] = ()
    """Classes and subclasses whose probabilities are added: promyelocytes, where blasts may look like them."""
    untested: tuple[str, ...] = ()
    """What belongs to the class and no measured cell was."""
    cells: int = 200
    percent: float = 5.0
    """What the slides of the figures below had: white cells, and how many of a hundred were of the class."""
    sensitivity: MeasuredSlides | None = None
    """Slides with cells of the class that are flagged, by patients; None: not measured."""
    specificity: MeasuredSlides | None = None
    """Slides without that are not flagged, by laboratories; None: not measured."""


def read_slide_flags(top: Table, class_names: Sequence[str], parents: Mapping[str, str]) -> tuple[SlideFlag, ...]:
    """`[[slide_flags]]` of a card with these classes; `parents`: of each subclass its class. CardError."""
    read = tuple(_read(row, class_names, parents) for row in top.entries("slide_flags"))
    names = [one.name for one in read]
    if len(set(names)) < len(names):
        raise CardError(f"{top.where}: slide_flags: got the classes {names}, expected different ones")
    return read


def _read(row: Table, class_names: Sequence[str], parents: Mapping[str, str]) -> SlideFlag:
    known = (*class_names, *parents)
    name, equivalents = row.text("class"), row.texts("equivalents")
    for one in (name, *equivalents):
        if one not in known:
            raise CardError(f"{row.where}: got {one!r}, expected classes or subclasses of this card{near(one, known)}")
    summed = [name, *equivalents]
    for one in summed:
        if summed.count(one) > 1 or parents.get(one) in summed:
            raise CardError(f"{row.where}: equivalents: got {one!r}, expected what {name!r} does not hold already")
    read = SlideFlag(
        name=name,
        above=row.number("above", low=0, high=1),
        false_rate=row.number("false_rate", low=0, high=1),
        equivalents=equivalents,
        untested=row.texts("untested"),
        cells=row.whole("cells", 200, low=1),
        percent=row.number("percent", 5.0, low=0, high=100),
        sensitivity=_measured(row, "sensitivity", "patients"),
        specificity=_measured(row, "specificity", "laboratories"),
    )
    row.done()
    return read


def _measured(row: Table, key: str, units: str) -> MeasuredSlides | None:
    shares = row.numbers(key, 3)
    count = row.whole(units, 0, low=0)
    if shares is None:
        return None
    share, low, high = shares
    if not 0 <= low <= share <= high <= 1:
        raise CardError(
            f"{row.where}: {key}: got {shares}, expected [share, low, high], 0 <= low <= share <= high <= 1"
        )
    return MeasuredSlides(share, low, high, count)
