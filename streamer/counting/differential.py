"""Counts of unique white cells to a differential: percentages and their limits; its flags are in flags.py.

Pure functions of the counts; nothing here remembers anything but what it computed before. The limits are those of
sampling only: the errors of the classifier come on top, and the model card gives their rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import msgspec
from scipy.special import betaln

from engines.zoo.slide_flags import SlideFlag
from streamer.config import FIVE_PART_RANGES
from streamer.counting.flags import (
    IMMATURE_GRANULOCYTE,
    LEFT_SHIFT,
    METAMYELOCYTE,
    SEEN,
    SeenCells,
    find_flags,
    range_state,
)
from streamer.counting.suspects import Suspects
from streamer.intervals import CONFIDENCE, clopper_pearson
from streamer.records import UNCLASSIFIED, ClassShare, Differential, RangeState

CLOPPER_PEARSON = "clopper-pearson"
"""Exact for a count whose end was fixed in advance: the limits of a final differential."""
CONFIDENCE_SEQUENCE = "confidence-sequence"
"""Valid at every look: the limits of a running differential, and of one that was ended by how narrow they are."""

LIMITS_NOTE = "limits are of sampling only; what the classifier gets wrong comes on top"

NOT_CELLS = ("smudge cell", "artefact")
"""Classes of white boxes in which there is no cell to count."""

NOT_LEUKOCYTES = ("erythroblast", "platelet", *NOT_CELLS)
"""Classes outside the denominator of a differential."""

KNOWN_CONDITIONS = ("blast", "variant lymphocyte", "smudge cell", "plasma cell")
"""What a differential may have to report and most models are unable to see."""

SIZE_BIAS_POINTS = 1.0
"""By more than so many points a percentage corrected for size differs from the plain one, before that is said."""

_NEWTON_STEPS = 50
"""Far more than it takes: 4 to 8 at counts of 2 to a million."""
_OUTWARD = 1.0 - 1e-11
"""By so much a limit is moved to the outside, which is more than rounding may have moved it."""


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
    """By class; `unclassified`, erythroblasts, platelets, smudge cells and artefacts included."""
    subclasses: Mapping[str, int] = field(default_factory=dict)
    rbc: int = 0
    platelets: int = 0
    frames: int = 0
    frames_accepted: int = 0
    edge: int = 0
    """White cells only ever seen cut by an edge: in nothing above."""
    edge_seen: Mapping[str, int] = field(default_factory=dict)
    """Of these and of nucleated red cells, by the names of `SEEN`."""
    seen_ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The cells of the names of `SEEN` and of `METAMYELOCYTE`, whole or not."""
    suspects: Mapping[str, Suspects] = field(default_factory=dict)
    """By the names of the flags of the slide."""
    weights: Mapping[str, float] | None = None
    """By class, the sum of what its cells stand for (size_correction.py). None: not measured."""


def differential(
    tally: Tally,
    class_names: Sequence[str],
    *,
    subclass_names: Sequence[str] = (),
    subclass_parents: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
    error_rates: Mapping[str, float] = MappingProxyType({}),
    slide_flags: Sequence[SlideFlag] = (),
    method: str = CLOPPER_PEARSON,
    final: bool = False,
) -> Differential:
    """The differential of a tally; `class_names` and `subclass_names` are what the classifier can name.

    A class that the classifier knows and did not see has count 0 and an upper limit; a class that it doesn't know
    is not in `classes` but, where it matters, in `not_assessed`. `method` is one of LIMITS; flags follow its limits.
    `error_rates`: by class, the share of other cells that the classifier calls so, as far as its card says.
    `slide_flags`: classes of which single cells flag no slide; the tally has their suspects.
    """
    counts = tally.classes
    leukocytes = [name for name in class_names if name not in NOT_LEUKOCYTES]
    unclassified = counts.get(UNCLASSIFIED, 0)
    total = sum(counts.get(name, 0) for name in leukocytes) + unclassified
    shares = {name: share(counts.get(name, 0), total, method) for name in leukocytes}
    named = {name: share(tally.subclasses.get(name, 0), total, method) for name in subclass_names} | shares
    parents = dict(zip(subclass_names, subclass_parents, strict=False))
    states: dict[str, RangeState] = {}
    for name, usual in ranges.items():
        states[name] = "can't be judged"
        if name in named:
            unnamed = unclassified + _without_subclass(tally, parents.get(name), parents)
            at_most = share(named[name].count + unnamed, total, method)
            states[name] = range_state(named[name], at_most, total, usual)
    nrbc = counts.get("erythroblast", 0)
    smudge, artefacts = (counts.get(name, 0 if name in class_names else None) for name in NOT_CELLS)
    corrected = _corrected(tally.weights, [*leukocytes, UNCLASSIFIED])
    return Differential(
        total=total,
        classes={
            name: msgspec.structs.replace(one, percent_size_corrected=corrected.get(name))
            for name, one in shares.items()
        },
        limits_method=method,
        limits_note=LIMITS_NOTE,
        unclassified=unclassified,
        nrbc=nrbc,
        nrbc_per_100_wbc=100.0 * nrbc / total if total else None,
        not_seen={name: one.high for name, one in named.items() if one.count == 0 and one.high is not None},
        flags=tuple(
            find_flags(
                named | {UNCLASSIFIED: share(unclassified, total, method)},
                total,
                _seen(tally, named, total, method, slide_flags),
                states,
                ranges,
                error_rates,
            )
        ),
        not_assessed=_not_assessed({*class_names, *subclass_names}, nrbc, ranges, slide_flags),
        rbc_seen=tally.rbc,
        platelets_seen=tally.platelets,
        frames=tally.frames,
        frames_accepted=tally.frames_accepted,
        final=final,
        edge=tally.edge,
        size_bias=_size_bias(shares, corrected),
        smudge=smudge,
        smudge_per_100_wbc=None if smudge is None or not total else 100.0 * smudge / total,
        artefacts=artefacts,
        ranges=dict(states),
    )


def _without_subclass(tally: Tally, parent: str | None, parents: Mapping[str, str]) -> int:
    """Cells of a class that are of none of its subclasses; 0 for no class."""
    if parent is None:
        return 0
    own = sum(count for name, count in tally.subclasses.items() if parents.get(name) == parent)
    return tally.classes.get(parent, 0) - own


def _seen(
    tally: Tally, named: Mapping[str, ClassShare], total: int, method: str, slide_flags: Sequence[SlideFlag]
) -> dict[str, SeenCells]:
    """What is flagged for being seen, or for as many as errors seldom give, and the metamyelocytes."""
    whole = {name: one for name, one in named.items() if name in SEEN or name == METAMYELOCYTE}
    whole["erythroblast"] = ClassShare(tally.classes.get("erythroblast", 0), None, None, None)
    if IMMATURE_GRANULOCYTE in whole:
        staged = sum(tally.subclasses.get(name, 0) for name in LEFT_SHIFT)
        whole[IMMATURE_GRANULOCYTE] = share(max(0, whole[IMMATURE_GRANULOCYTE].count - staged), total, method)
    seen = {
        name: SeenCells(one, tally.edge_seen.get(name, 0), tally.seen_ids.get(name, ())) for name, one in whole.items()
    }
    for flag in slide_flags:
        found = tally.suspects.get(flag.name, Suspects())
        if found.flags(flag.false_rate, total + tally.edge):
            shares = share(found.whole, total, method)
            seen[flag.name] = SeenCells(shares, found.at_edge, found.cell_ids, flag, found.confirmed)
        else:
            seen.pop(flag.name, None)
    return seen


def _corrected(weights: Mapping[str, float] | None, names: Iterable[str]) -> dict[str, float]:
    """Percentages of the cells that those seen stand for; empty where nothing was counted or measured."""
    stand_for = {name: (weights or {}).get(name, 0.0) for name in names}
    total = sum(stand_for.values())
    return {name: 100.0 * weight / total for name, weight in stand_for.items()} if total else {}


def _size_bias(shares: Mapping[str, ClassShare], corrected: Mapping[str, float]) -> dict[str, float]:
    moved = {
        name: corrected[name] - one.percent
        for name, one in shares.items()
        if one.percent is not None and name in corrected
    }
    return {name: points for name, points in moved.items() if abs(points) > SIZE_BIAS_POINTS}


def _not_assessed(
    known: set[str], nrbc: int, ranges: Mapping[str, tuple[float, float]], slide_flags: Sequence[SlideFlag]
) -> tuple[str, ...]:
    """What there are flags or ranges for, and what else may matter, that the model has no name for, or was never
    tested on."""
    nucleated_red = () if nrbc else ("erythroblast",)  # a detector may know them where the classifier does not
    untested = [name for flag in slide_flags for name in flag.untested]
    asked = dict.fromkeys((*KNOWN_CONDITIONS, *untested, *LEFT_SHIFT, *nucleated_red, *ranges))
    return tuple(name for name in asked if name not in known)
