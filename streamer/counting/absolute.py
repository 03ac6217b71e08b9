"""Cells per volume of blood: the percentages of a differential, times a white-cell count from elsewhere."""

from __future__ import annotations

import msgspec

from streamer.counting.differential import share
from streamer.records import UNCLASSIFIED, AbsoluteCounts, AbsoluteShare, ClassShare, Differential, SlideInfo

NUCLEATED_RED = "erythroblast"


def described(differential: Differential, slide: SlideInfo) -> Differential:
    """With what people say of its slide, and the absolute counts that follow from it."""
    return msgspec.structs.replace(
        differential,
        slide=slide.or_none(),
        wbc=None if slide.wbc is None else _absolute(differential, slide.wbc, slide.wbc_includes_nrbc),
    )


def absolute_share(one: ClassShare, white_cells: float) -> AbsoluteShare:
    """`white_cells` in 10^9/L."""
    parts = (None if percent is None else white_cells * percent / 100.0 for percent in (one.percent, one.low, one.high))
    return AbsoluteShare(*parts)


def _absolute(found: Differential, given: float, includes_nrbc: bool) -> AbsoluteCounts:
    count = f"white-cell count from elsewhere, {given:g} x 10^9/L"
    if not includes_nrbc:
        return _counts(found, given, False, f"{count}, not corrected for nucleated red cells")
    per_100 = found.nrbc_per_100_wbc
    if NUCLEATED_RED in found.not_assessed:
        why = "the models have no class for them"
    elif per_100 is None:
        why = "no white cell was counted yet"
    else:
        # As a laboratory does it by hand: white cells x 100 / (100 + nucleated red cells per 100 white cells).
        corrected = given * 100.0 / (100.0 + per_100)
        said = f"corrected to {corrected:.3g} for {per_100:.1f} nucleated red cells per 100 white cells"
        return _counts(found, corrected, True, f"{count}, {said}")
    note = f"{count}, which includes nucleated red cells and can't be corrected: {why}; so there are no absolute counts"
    return AbsoluteCounts(None, False, note, {})


def _counts(found: Differential, white_cells: float, corrected: bool, note: str) -> AbsoluteCounts:
    shares = dict(found.classes)
    shares[UNCLASSIFIED] = share(found.unclassified, found.total, found.limits_method)
    classes = {name: absolute_share(one, white_cells) for name, one in shares.items()}
    return AbsoluteCounts(white_cells, corrected, note, classes)
