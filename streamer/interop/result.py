"""A slide's result as laboratories are told of it: observations with codes, units and limits, and what must be said
beside them. HL7 and FHIR are written from this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from engines.base import printable
from streamer import RESEARCH_USE
from streamer.counting.absolute import absolute_share
from streamer.counting.differential import share
from streamer.dashboard.palette import in_order
from streamer.dashboard.words import beside, errors_line, flags, not_seen, size_corrected, verdict_lines
from streamer.dashboard.words import with_smudge_cells as smudge_line
from streamer.interop.loinc import CORRECTED_WHITE_CELLS, Loinc, loinc_of, loinc_of_volume
from streamer.interop.sessions import ExportedSession
from streamer.interop.status import Review, review_of
from streamer.protocol.factory import MessageFactory, new_id
from streamer.protocol.messages import DifferentialMessage
from streamer.records import UNCLASSIFIED, AbsoluteCounts, ClassShare, SlideInfo


@dataclass(frozen=True, slots=True)
class Unit:
    ucum: str
    text: str


PERCENT = Unit("%", "percent")
PER_100_WHITE = Unit("/100{WBCs}", "per 100 white blood cells")
CELLS = Unit("{cells}", "cells")
PER_LITRE = Unit("10*9/L", "10^9/L")

Interpretation = Literal["L", "H", "A"]
"""Low, high, abnormal: of HL7 table 0078 and of FHIR's v3-ObservationInterpretation alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    name: str
    """Ours: "neutrophil", "edge"."""
    text: str
    """For people."""
    loinc: Loinc | None = None
    unit: Unit
    value: float | None
    """None: it can't be had, as the percentage of no cells. What the model can't name is no observation at all."""
    count: int | None = None
    of: int | None = None
    """White cells that the percentage is of."""
    low: float | None = None
    """95 % limits of `value`, of sampling only."""
    high: float | None = None
    limits_method: str | None = None
    size_corrected: float | None = None
    """The percentage were small cells no likelier to be seen whole; None where it is not measured."""
    interpretation: Interpretation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideResult:
    slide: str
    """What the laboratory calls it, or its source."""
    subject: UUID
    """A pseudonym."""
    observed: datetime
    """Of the last frame, in UTC."""
    review: Review
    production: bool
    """False: of tests and research, which the receiver is told."""
    program: str
    method: str
    """The program and its models, in a line."""
    observations: tuple[Observation, ...]
    notes: tuple[str, ...] = field(default=())
    """The verdict first, a line each."""
    info: SlideInfo = field(default_factory=SlideInfo)
    """What is said of the slide, as it may leave."""


def result_of(one: ExportedSession) -> SlideResult:
    """JournalError for a session that can't be read."""
    stored = one.stored
    factory = MessageFactory(one.source, session=one.id, run_id=new_id())
    message = factory.differential(one.result.differential)
    review, runs, rules = review_of(one.result), stored.runs(), stored.rules
    program = printable(f"leukostream {runs[-1].program}" if runs else "leukostream")
    models = printable(" + ".join(model.name for model in (rules.detector, rules.classifier) if model is not None))
    return SlideResult(
        slide=one.slide,
        subject=one.pseudonym,
        observed=one.observed(),
        review=review,
        production=one.production,
        program=program,
        method=f"{program}: {models}",
        observations=tuple(_observations(one, message, review)),
        info=stored.slide,
        notes=tuple(printable(note) for note in _notes(one, message, review)),
    )


def _observations(one: ExportedSession, message: DifferentialMessage, review: Review) -> Iterator[Observation]:
    named = _subclasses(one)
    shares = dict(message.classes)
    for name in one.stored.rules.subclass_names:
        shares.setdefault(name, share(named[name], message.total, message.limits_method))
    shares[UNCLASSIFIED] = share(message.unclassified, message.total, message.limits_method)
    for name in in_order(list(shares)):
        yield _of_share(name, shares[name], message, review)
    nucleated_red = "erythroblast"
    if nucleated_red not in message.not_assessed:
        seen = any(flag.class_ == nucleated_red for flag in message.flags)
        yield Observation(
            name=nucleated_red,
            text="Nucleated red cells",
            loinc=loinc_of(nucleated_red, manual=review.every_cell_confirmed),
            unit=PER_100_WHITE,
            value=message.nrbc_per_100_wbc,
            count=message.nrbc,
            of=message.total,
            interpretation="A" if seen else None,
        )
    if message.smudge is not None:
        yield Observation(
            name="smudge cell",
            text="Smudge cells",
            loinc=loinc_of("smudge cell", manual=review.every_cell_confirmed),
            unit=PER_100_WHITE,
            value=message.smudge_per_100_wbc,
            count=message.smudge,
            of=message.total,
        )
    if message.edge is not None:
        yield Observation(
            name="edge", text="White cells only seen cut by an edge of the field", unit=CELLS, value=message.edge
        )
    if message.artefacts is not None:
        yield Observation(name="artefact", text="Artefacts", unit=CELLS, value=message.artefacts)
    if message.wbc is not None and message.wbc.white_cells is not None:
        yield from _absolute(shares, message.wbc, message.limits_method, review)


def _absolute(
    shares: Mapping[str, ClassShare], wbc: AbsoluteCounts, limits_method: str, review: Review
) -> Iterator[Observation]:
    """Per volume of blood. The white-cell count that was given is another's result, and is not sent as ours."""
    if wbc.white_cells is None:
        return
    for name in in_order(list(shares)):
        absolute = absolute_share(shares[name], wbc.white_cells)
        yield Observation(
            name=f"{printable(name)} per volume",
            text=f"{_plural(name)}, absolute",
            loinc=loinc_of_volume(name, manual=review.every_cell_confirmed),
            unit=PER_LITRE,
            value=absolute.value,
            low=absolute.low,
            high=absolute.high,
            limits_method=limits_method,
        )
    if wbc.corrected:
        yield Observation(
            name="white cells corrected",
            text="White cells, corrected for nucleated red cells",
            loinc=CORRECTED_WHITE_CELLS,
            unit=PER_LITRE,
            value=wbc.white_cells,
        )


def _plural(name: str) -> str:
    shown = printable(name) or "unnamed class"
    return "Unclassified white cells" if name == UNCLASSIFIED else f"{shown[0].upper()}{shown[1:]}s"


def _subclasses(one: ExportedSession) -> Counter[str]:
    """Counted cells by subclass, as far as they have one."""
    cells = one.result.count.cells()
    return Counter(cell.subclass for cell in cells if cell.counted and cell.subclass is not None)


def _without_subclass(one: ExportedSession, message: DifferentialMessage) -> Iterator[str]:
    """Of the classes that the model divides, how many cells it did not: the percentages of their subclasses are those
    of the others."""
    rules, named = one.stored.rules, _subclasses(one)
    for parent in dict.fromkeys(rules.subclass_parents):
        own = sum(
            named[name] for name, of in zip(rules.subclass_names, rules.subclass_parents, strict=True) if of == parent
        )
        count = message.classes[parent].count if parent in message.classes else 0
        if count > own:
            yield f"{parent}: {count - own} of {count} have no subclass: its subclasses may be more than is said"


def _of_share(name: str, one: ClassShare, message: DifferentialMessage, review: Review) -> Observation:
    interpretation: Interpretation | None = None
    if any(flag.class_ == name and flag.direction == "seen" for flag in message.flags):
        interpretation = "A"
    elif message.ranges.get(name) == "outside low":
        interpretation = "L"
    elif message.ranges.get(name) == "outside high":
        interpretation = "H"
    return Observation(
        name=printable(name) or "unnamed class",
        text=_plural(name),
        loinc=loinc_of(name, manual=review.every_cell_confirmed),
        unit=PERCENT,
        value=one.percent,
        count=one.count,
        of=message.total,
        low=one.low,
        high=one.high,
        limits_method=message.limits_method,
        size_corrected=one.percent_size_corrected,
        interpretation=interpretation,
    )


def _notes(one: ExportedSession, message: DifferentialMessage, review: Review) -> Iterator[str]:
    """What must be said beside the numbers."""
    if not one.production:
        yield RESEARCH_USE
    yield from (line.strip() for line in verdict_lines(message))
    if not message.final:
        yield "the session has not ended: this is what was counted so far"
    named = sum(cell.reclassified for cell in one.cells())
    if named:
        yield f"{named} cell{'' if named == 1 else 's'} named or confirmed by a person"
    if review.fault is not None:
        yield f"the signature does not hold: {review.fault}"
    for line in (flags(message), beside(message), smudge_line(message), size_corrected(message), not_seen(message)):
        if line:
            yield line
    yield from _without_subclass(one, message)
    if message.wbc is not None:
        yield f"{message.wbc.note}; limits of absolute counts leave out what that count may err by"
    if message.not_assessed:
        yield f"not assessed: {', '.join(message.not_assessed)}"
    errors = errors_line(message, None)
    yield f"{message.limits_note}{f': {errors}' if errors else ''}"
