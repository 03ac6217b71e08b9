"""A journal's slides as one HTML file: nothing in it is loaded from anywhere, no script runs, and it prints on A4.

What a journal says is text from elsewhere: all of it is escaped, without control characters, and pictures were encoded
anew. The page's own policy forbids whatever else.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

import jinja2
from markupsafe import Markup

from streamer.counting.flags import LEAST_CELLS
from streamer.dashboard.palette import in_order
from streamer.dashboard.words import (
    FLAG_WORDS,
    LEAST_CONFIDENCE,
    METHODS,
    RANGE_WORDS,
    VERDICT_MARKS,
    VERDICT_MEANINGS,
    VERDICT_TONES,
    absolute_limits,
    beside,
    errors_line,
    limits,
    not_seen,
    size_corrected,
    with_smudge_cells,
)
from streamer.records import ClassShare
from streamer.report.charts import bar_chart, growth_curves
from streamer.report.film import CellMark
from streamer.report.gallery import LEAST_PROBABILITY, CellGroup
from streamer.report.slide import ClassRow, ShownSlide
from streamer.report.templating import environment


def page(slides: Sequence[ShownSlide], *, made_utc: str) -> str:
    """One slide as a report, several as a worklist with the report of each behind it. `made_utc`: ISO 8601 with Z."""
    states = dict.fromkeys(one.review.state for one in slides)
    review = next(iter(states)) if len(states) == 1 else "see at each slide how far it was reviewed"
    return _templates().get_template("page.html.j2").render(slides=slides, made_utc=made_utc, review=review)


@cache
def _templates() -> jinja2.Environment:
    templates = environment("streamer.report")
    templates.filters.update(
        data=_data,
        has_evidence=_has_evidence,
        mark=VERDICT_MARKS.__getitem__,
        mark_counts=_mark_counts,
        percent=_percent,
        shares=_shares,
        tone=VERDICT_TONES.__getitem__,
        without=_without,
    )
    templates.globals.update(
        absolute_limits=absolute_limits,
        bar_chart=bar_chart,
        beside=beside,
        errors_line=errors_line,
        flag_words=FLAG_WORDS,
        growth_curves=growth_curves,
        least_cells=LEAST_CELLS,
        least_confidence=LEAST_CONFIDENCE,
        least_probability=LEAST_PROBABILITY,
        limits=limits,
        methods=METHODS,
        not_seen=not_seen,
        range_words=RANGE_WORDS,
        size_corrected=size_corrected,
        verdict_meanings=VERDICT_MEANINGS,
        with_smudge_cells=with_smudge_cells,
    )
    return templates


def _without(subclass: str, class_name: str) -> str:
    """ "band" of the neutrophils."""
    return subclass.removesuffix(f" {class_name}")


def _has_evidence(gallery: Sequence[CellGroup]) -> bool:
    return any(one.picture is not None and one.picture.evidence_png for group in gallery for one in group.cells)


def _mark_counts(marks: Sequence[CellMark]) -> list[tuple[str, int]]:
    counts = Counter(mark.class_name for mark in marks)
    return [(name, counts[name]) for name in in_order(list(counts))]


def _shares(rows: Sequence[ClassRow]) -> list[tuple[str, ClassShare]]:
    return [(row.name, row.share) for row in rows]


def _percent(share: float) -> Markup:
    """A probability, on one line, never rounded up to certainty."""
    return Markup(f"{min(99, math.floor(100 * share + 0.5)) if share < 1 else 100}&nbsp;%")


def _data(picture: bytes, kind: str) -> Markup:
    """A data URI of a picture that was encoded here."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}")
