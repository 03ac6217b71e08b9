"""Counts of unique white cells to a differential: percentages, limits, flags.

Pure functions of the counts; nothing here remembers anything. The limits are those of sampling only: what the
classifier gets wrong comes on top, and the model card says how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import betaincinv

from streamer.records import UNCLASSIFIED, Differential, Share

CONFIDENCE = 0.95
CLOPPER_PEARSON = "clopper-pearson"

FIVE_PART_RANGES: Mapping[str, tuple[float, float]] = {
    "neutrophil": (40.0, 60.0),
    "lymphocyte": (20.0, 40.0),
    "monocyte": (2.0, 8.0),
    "eosinophil": (1.0, 4.0),
    "basophil": (0.5, 1.0),
}
"""Usual adult percentages; laboratories have their own and set them in the configuration."""

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


def share(count: int, total: int) -> Share:
    """`count` of `total` cells in percent with its 95 % limits; all None where nothing was counted."""
    if total == 0:
        return Share(count=count, percent=None, low=None, high=None)
    low, high = clopper_pearson(count, total)
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
