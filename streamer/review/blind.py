"""What two reviewers said of the same cells without knowing of each other. Pure functions."""

from __future__ import annotations

from streamer.counting.agreement import kappa_of
from streamer.counting.corrections import Corrections
from streamer.counting.review_events import Naming
from streamer.review.desk import Agreement, Disagreement


def agreement_of(corrections: Corrections, first: str, second: str) -> Agreement:
    """Kappa and disagreements of two reviewers who said something blind."""
    one, other = corrections.said_blind(first), corrections.said_blind(second)
    both = [cell for cell in one if cell in other]
    kappa, unnamed, _ = kappa_of([(_name(one[cell]), _name(other[cell])) for cell in both])
    return Agreement(
        kappa=kappa,
        both=len(both),
        unnamed=unnamed,
        only_first=len(one) - len(both),
        only_second=len(other) - len(both),
        disagreements=tuple(
            Disagreement(cell, one[cell], other[cell], corrections.is_settled(cell, (first, second)))
            for cell in both
            if one[cell] != other[cell]
        ),
    )


def agreed(corrections: Corrections, first: str, second: str) -> tuple[Naming, ...]:
    """What settles the cells of which two blind reviewers said the same, and nobody what they are since."""
    one, other = corrections.said_blind(first), corrections.said_blind(second)
    return tuple(
        corrections.naming(cell, name)
        for cell, name in one.items()
        if other.get(cell) == name
        and corrections.count.is_counted(cell)
        and not corrections.is_settled(cell, (first, second))
    )


def _name(named: tuple[str, str | None]) -> str:
    return named[1] or named[0]
