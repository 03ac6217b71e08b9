"""Counts of unique white cells to a differential: percentages, limits, flags.

Pure functions of the counts; nothing here remembers anything. The limits are those of sampling only: what the
classifier gets wrong comes on top, and the model card says how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import betaincinv, betaln, xlog1py, xlogy

from streamer.config import FIVE_PART_RANGES
from streamer.records import UNCLASSIFIED, Differential, Share

CONFIDENCE = 0.95
CLOPPER_PEARSON = "clopper-pearson"
"""Exact for a count fixed in advance: the limits of the final differential."""
CONFIDENCE_SEQUENCE = "confidence sequence"
"""Valid at every look: the limits of a running differential, and of a rule that stops when they are narrow enough."""

NOT_LEUKOCYTES = ("erythroblast", "platelet", "artefact", "smudge cell")
"""Classes outside the denominator of a differential."""

KNOWN_CONDITIONS = ("blast", "atypical lymphocyte", "smudge cell", "plasma cell")
"""What a differential may have to report and a model may be unable to see."""

METAMYELOCYTE_LIMIT_PERCENT = 2.0


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

    However often one looks, and whatever made one stop, the true proportion is between them with `confidence`. They
    are the p that a betting on the cells so far, with a uniform mixture over the proportion, has not refuted: the
    mixture's likelihood stays below 1 / (1 - confidence) times that of p. Arguments as for `clopper_pearson`.
    Source: Robbins, Ann. Math. Stat. 41 (1970) 1397, by Ville's inequality; Howard et al., Ann. Stat. 49 (2021) 1055.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"confidence_sequence: got {count} of {total}, expected 0 <= count <= total and total > 0")
    threshold = float(betaln(count + 1, total - count + 1)) - math.log(1 / (1 - confidence))

    def refuted(p: float) -> bool:
        return float(xlogy(count, p) + xlog1py(total - count, -p)) < threshold

    estimate = count / total
    low = 0.0 if count == 0 else _boundary(refuted, 0.0, estimate)
    high = 1.0 if count == total else _boundary(refuted, 1.0, estimate)
    return low, high


def _boundary(refuted: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where `refuted` changes between a point outside and one inside, by bisection, rounded to the outside."""
    for _ in range(48):
        middle = (outside + inside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


LIMITS: Mapping[str, Callable[[int, int], tuple[float, float]]] = {
    CLOPPER_PEARSON: clopper_pearson,
    CONFIDENCE_SEQUENCE: confidence_sequence,
}


def share(count: int, total: int, method: str = CLOPPER_PEARSON) -> Share:
    """`count` of `total` cells in percent with its 95 % limits; all None where nothing was counted."""
    if total == 0:
        return Share(count=count, percent=None, low=None, high=None)
    low, high = LIMITS[method](count, total)
    return Share(count=count, percent=100.0 * count / total, low=100.0 * low, high=100.0 * high)


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
    final: bool = False,
) -> Differential:
    """The differential of a tally; `class_names` are the classes that the classifier can name.

    A class that the classifier knows and did not see has count 0 and an upper limit; a class that it doesn't know
    is not in `classes` but, where it matters, in `not_assessed`.
    """
    leukocytes = [name for name in class_names if name not in NOT_LEUKOCYTES]
    unclassified = tally.classes.get(UNCLASSIFIED, 0)
    total = sum(tally.classes.get(name, 0) for name in leukocytes) + unclassified
    shares = {name: share(tally.classes.get(name, 0), total) for name in leukocytes}
    nrbc = tally.classes.get("erythroblast", 0)
    known = {*class_names, *subclass_names}
    return Differential(
        total=total,
        classes=shares,
        limits_method=CLOPPER_PEARSON,
        unclassified=unclassified,
        nrbc=nrbc,
        nrbc_per_100_wbc=100.0 * nrbc / total if total else None,
        flags=tuple(_flags(shares, tally.subclasses, nrbc, total, ranges)),
        not_assessed=tuple(name for name in KNOWN_CONDITIONS if name not in known),
        rbc_seen=tally.rbc,
        platelets_seen=tally.platelets,
        frames=tally.frames,
        frames_accepted=tally.frames_accepted,
        final=final,
    )


def _flags(
    shares: Mapping[str, Share],
    subclasses: Mapping[str, int],
    nrbc: int,
    total: int,
    ranges: Mapping[str, tuple[float, float]],
) -> list[str]:
    """What a laboratory wants to be told; a range is left only when the whole interval lies outside it."""
    flags = []
    if shares.get("blast", Share(0, None, None, None)).count:
        flags.append("blasts seen")
    flags += [f"{name}s seen" for name in ("promyelocyte", "myelocyte") if subclasses.get(name, 0)]
    metamyelocytes = share(subclasses.get("metamyelocyte", 0), total)
    if metamyelocytes.low is not None and metamyelocytes.low > METAMYELOCYTE_LIMIT_PERCENT:
        flags.append(f"metamyelocytes above {METAMYELOCYTE_LIMIT_PERCENT:g} %")
    if nrbc:
        flags.append("nucleated red cells seen")
    for name, (usual_low, usual_high) in ranges.items():
        measured = shares.get(name)
        if measured is None or measured.low is None or measured.high is None:
            continue
        side = "high" if measured.low > usual_high else "low" if measured.high < usual_low else None
        if side:
            found = f"{measured.low:.1f}-{measured.high:.1f} %"
            flags.append(f"{name} {side}: {found} (usual {usual_low:g}-{usual_high:g} %)")
    return flags
