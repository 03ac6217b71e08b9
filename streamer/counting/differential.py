"""Counts of unique white cells to a differential: percentages, limits, flags.

Pure functions of the counts; nothing here remembers anything but what it computed before. The limits are those of
sampling only: the errors of the classifier come on top, and the model card gives their rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from scipy.special import betaincinv, betaln

from streamer.config import FIVE_PART_RANGES
from streamer.records import UNCLASSIFIED, ClassShare, Differential

CONFIDENCE = 0.95
CLOPPER_PEARSON = "clopper-pearson"
"""Exact for a count whose end was fixed in advance: the limits of a final differential."""
CONFIDENCE_SEQUENCE = "confidence-sequence"
"""Valid at every look: the limits of a running differential, and of one that was ended by how narrow they are."""

LIMITS_NOTE = "limits are of sampling only; what the classifier gets wrong comes on top"

NOT_LEUKOCYTES = ("erythroblast", "platelet", "artefact", "smudge cell")
"""Classes outside the denominator of a differential."""

KNOWN_CONDITIONS = ("blast", "variant lymphocyte", "smudge cell", "plasma cell")
"""What a differential may have to report and most models are unable to see."""

LEFT_SHIFT = ("promyelocyte", "myelocyte", "metamyelocyte")

METAMYELOCYTE_LIMIT_PERCENT = 2.0

_NEWTON_STEPS = 50
"""Far more than it takes: 4 to 8 at counts of 2 to a million."""
_OUTWARD = 1.0 - 1e-11
"""By so much a limit is moved to the outside, which is more than rounding may have moved it."""


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact limits of a binomial proportion as (low, high) in 0 to 1.

    `count` of `total` with 0 <= count <= total and total > 0, else ValueError. They hold for a total fixed in
    advance. Source: Clopper & Pearson, Biometrika 26 (1934) 404; Ruemke's table prints them rounded outward.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"clopper_pearson: got {count} of {total}, expected 0 <= count <= total and total > 0")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1.0 - tail))
    return low, high


def confidence_sequence(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Limits of a proportion that hold at every `total` at once, as (low, high) in 0 to 1.

    However often one looks, and whatever made one stop, the true proportion p is between them with `confidence`.
    M_n = B(x + 1, n - x + 1) / (p^x (1 - p)^(n - x)), the likelihood of the x of n cells averaged over all proportions
    by that of p, is a martingale of mean 1 when p is true, so that it ever reaches 1 / (1 - confidence) with a
    probability of 1 - confidence at most (Ville's inequality); the limits enclose all p for which it has not. The cells
    are taken for independent draws, each with the class that it has now.

    Arguments as for `clopper_pearson`. Sources: Robbins, Ann. Math. Stat. 41 (1970) 1397, and Lai, Ann. Stat. 4 (1976)
    265, for the mixture; Howard, Ramdas, McAuliffe & Sekhon, Ann. Stat. 49 (2021) 1055, for the use at any look.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"confidence_sequence: got {count} of {total}, expected 0 <= count <= total and total > 0")
    log_refuted = float(betaln(count + 1, total - count + 1)) + math.log(1.0 - confidence)
    return _low(count, total, log_refuted), 1.0 - _low(total - count, total, log_refuted)


def _low(count: int, total: int, log_likelihood: float) -> float:
    """The p below count / total at which `count` of `total` have this log likelihood, rounded to the outside.

    Newton's method on the logit of p, in which the log likelihood is concave: from wherever the normal approximation
    begins it, every step ends at the outside, so that it converges from there.
    """
    if count == 0:
        return 0.0
    if count == total:
        return math.exp(log_likelihood / total) * _OUTWARD
    rest = total - count
    most = count * math.log(count / total) + rest * math.log(rest / total)
    logit = math.log(count / rest) - math.sqrt(2.0 * (most - log_likelihood) * total / (count * rest))
    for _ in range(_NEWTON_STEPS):
        odds = math.exp(logit)
        step = (log_likelihood - count * logit + total * math.log1p(odds)) / (count - total * odds / (1.0 + odds))
        logit += step
        if abs(step) <= 1e-7:  # squared, so much is left
            break
    return _OUTWARD / (1.0 + math.exp(-logit))


LIMITS: Mapping[str, Callable[[int, int], tuple[float, float]]] = {
    CLOPPER_PEARSON: clopper_pearson,
    CONFIDENCE_SEQUENCE: confidence_sequence,
}


@lru_cache(maxsize=4096)
def share(count: int, total: int, method: str = CLOPPER_PEARSON) -> ClassShare:
    """`count` of `total` cells in percent with its 95 % limits; all None where nothing was counted."""
    if total == 0:
        return ClassShare(count=count, percent=None, low=None, high=None)
    low, high = LIMITS[method](count, total)
    return ClassShare(count=count, percent=100.0 * count / total, low=100.0 * low, high=100.0 * high)


def widest(shares: Iterable[ClassShare]) -> float | None:
    """Half the width of the widest limits, in percentage points; None where nothing was counted.

    What `--stop-at-precision` compares: of all classes of the differential, zero counts among them, `unclassified`
    and the subclasses not. Limits valid at every look are what makes stopping on it valid.
    """
    widths = [(one.high - one.low) / 2.0 for one in shares if one.low is not None and one.high is not None]
    return max(widths, default=None)


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted so far on one slide, each physical cell once."""

    classes: Mapping[str, int]
    """White cells by class, `unclassified` and non-leukocytes such as `erythroblast` included."""
    subclasses: Mapping[str, int] = field(default_factory=dict)
    rbc: int = 0
    platelets: int = 0
    frames: int = 0
    frames_accepted: int = 0


def differential(
    tally: Tally,
    class_names: Sequence[str],
    *,
    subclass_names: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
    method: str = CLOPPER_PEARSON,
    final: bool = False,
) -> Differential:
    """The differential of a tally; `class_names` and `subclass_names` are what the classifier can name.

    A class that the classifier knows and did not see has count 0 and an upper limit; a class that it doesn't know
    is not in `classes` but, where it matters, in `not_assessed`. `method` is one of LIMITS; flags follow its limits.
    """
    leukocytes = [name for name in class_names if name not in NOT_LEUKOCYTES]
    unclassified = tally.classes.get(UNCLASSIFIED, 0)
    total = sum(tally.classes.get(name, 0) for name in leukocytes) + unclassified
    shares = {name: share(tally.classes.get(name, 0), total, method) for name in leukocytes}
    named = {name: share(tally.subclasses.get(name, 0), total, method) for name in subclass_names} | shares
    nrbc = tally.classes.get("erythroblast", 0)
    return Differential(
        total=total,
        classes=shares,
        limits_method=method,
        limits_note=LIMITS_NOTE,
        unclassified=unclassified,
        nrbc=nrbc,
        nrbc_per_100_wbc=100.0 * nrbc / total if total else None,
        not_seen={name: one.high for name, one in named.items() if one.count == 0 and one.high is not None},
        flags=tuple(_flags(named, nrbc, ranges)),
        not_assessed=_not_assessed({*class_names, *subclass_names}, nrbc, ranges),
        rbc_seen=tally.rbc,
        platelets_seen=tally.platelets,
        frames=tally.frames,
        frames_accepted=tally.frames_accepted,
        final=final,
    )


def _flags(named: Mapping[str, ClassShare], nrbc: int, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Findings among the classes and subclasses `named` that a laboratory must see; a range is left only when the whole
    interval lies outside it."""
    flags = [f"{name}s seen" for name in ("blast", "promyelocyte", "myelocyte") if name in named and named[name].count]
    metamyelocytes = named.get("metamyelocyte")
    if metamyelocytes and metamyelocytes.low is not None and metamyelocytes.low > METAMYELOCYTE_LIMIT_PERCENT:
        flags.append(f"metamyelocytes above {METAMYELOCYTE_LIMIT_PERCENT:g} %")
    if nrbc:
        flags.append("nucleated red cells seen")
    for name, (usual_low, usual_high) in ranges.items():
        measured = named.get(name)
        if measured is None or measured.low is None or measured.high is None:
            continue
        side = "high" if measured.low > usual_high else "low" if measured.high < usual_low else None
        if side:
            interval = f"{measured.low:.1f}-{measured.high:.1f} %"
            flags.append(f"{name} {side}: {interval} (usual {usual_low:g}-{usual_high:g} %)")
    return flags


def _not_assessed(known: set[str], nrbc: int, ranges: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """What there are flags or ranges for, and what else may matter, that the model has no name for."""
    nucleated_red = () if nrbc else ("erythroblast",)  # a detector may know them where the classifier does not
    asked = dict.fromkeys((*KNOWN_CONDITIONS, *LEFT_SHIFT, *nucleated_red, *ranges))
    return tuple(name for name in asked if name not in known)
