"""All that a session of a journal shows, as plain data: no markup, no template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer.config import FIVE_PART_RANGES, VerdictConfig
from streamer.dashboard.words import class_rows, slide_rows
from streamer.journal import SeenFrame, StoredSession, decoded, published
from streamer.mosaic.compose import pictures_of
from streamer.mosaic.scale import options_of, scale_of
from streamer.mosaic.visited import look_over
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, EndMessage, HealthMessage
from streamer.records import ClassShare
from streamer.report.film import Film, film_of
from streamer.report.gallery import CellGroup, PictureFinder, groups, subclass_counts
from streamer.report.growth import Growth, growth_of
from streamer.report.provenance import Provenance, provenance_of
from streamer.report.quality import FrameCount, Measure, frame_counts, measures_of
from streamer.report.review import ShownReview, review_of


@dataclass(frozen=True, slots=True)
class ClassRow:
    name: str
    share: ClassShare
    usual: tuple[float, float] | None
    state: str | None
    """A RangeState; None for a class without a usual range."""
    subclasses: Sequence[tuple[str, int]]
    """Cells by subclass, the commonest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSlide:
    name: str
    """What people call it, or its source."""
    about: Sequence[tuple[str, str]]
    """What else people say of it, as labels and values."""
    session: str
    begun_utc: str
    ended: bool
    end: EndMessage | None
    """None: it has not ended, or by an older version."""
    differential: DifferentialMessage
    """Counted again from the journal."""
    ranges: Mapping[str, tuple[float, float]]
    classes: Sequence[ClassRow]
    gallery: Sequence[CellGroup]
    reclassified: int
    """Cells that a person gave their class, confirmed or added."""
    review: ShownReview
    film: Film | None
    """None: no frame has a place on the slide."""
    growth: Growth
    rejected: Sequence[FrameCount]
    """Frames that were not counted, by reason."""
    lost: Sequence[FrameCount] | None
    """What never came to be analysed, by reason; None: nobody noted it."""
    quality: Sequence[Measure]
    provenance: Provenance


def show(
    session: StoredSession, *, made_utc: str, recording: str | None = None, with_picture: bool = True
) -> ShownSlide:
    """Count a session again and gather what it shows. `recording`: that of the same run, for the picture of the film;
    None: the run's own, or its source. `made_utc`: now, as ISO 8601 with Z.

    JournalError for what can't be read or counted.
    """
    finder = PictureFinder(session)
    times: list[str] = []

    def each(seen: SeenFrame) -> None:
        finder.see(seen)
        times[1:] = [seen.captured_utc]  # the first stays

    visited = look_over(session, each)
    again = visited.counted
    count, found = again.count, again.differential
    options = options_of(session)
    ranges = FIVE_PART_RANGES if options.reference_ranges is None else options.reference_ranges
    evidence = count.evidence(final=session.ended)
    end, health = _end(session), _health(session)
    cells = [*count.cells(), *count.uncounted_cells()]
    frames = (lambda: pictures_of(session, recording)) if with_picture else None
    gallery = groups(cells, finder.pictures(cells, count.cell, frames))
    message = MessageFactory(session.source, session=session.id, run_id="").differential(found)
    progress = evidence.progress
    lost = None if progress is None else dict(Counter(progress.lost) + Counter(progress.skipped))
    scale = scale_of(session, evidence.rbc_px)
    captured = (times[0], times[-1]) if times else None
    return ShownSlide(
        name=session.name,
        about=[(label, value) for label, value in slide_rows(session.slide) if label != "Name"],
        session=session.id,
        begun_utc=session.created_utc,
        ended=session.ended,
        end=end,
        differential=message,
        ranges=ranges,
        classes=_class_rows(message, ranges, gallery),
        gallery=gallery,
        reclassified=sum(one.cell.reclassified for group in gallery for one in group.cells),
        review=review_of(again),
        film=film_of(session, visited, scale, recording, with_picture=with_picture),
        growth=growth_of(published(session)),
        rejected=frame_counts(evidence.rejected),
        lost=None if lost is None else frame_counts(lost),
        quality=measures_of(found, evidence, options.verdict or VerdictConfig(), health),
        provenance=provenance_of(session, again, captured, end, health, ranges, made_utc),
    )


def _class_rows(
    message: DifferentialMessage, ranges: Mapping[str, tuple[float, float]], gallery: Sequence[CellGroup]
) -> list[ClassRow]:
    subclasses = {group.name: subclass_counts(group) for group in gallery if group.in_percentages}
    return [
        ClassRow(name, share, ranges.get(name), message.ranges.get(name), subclasses.get(name, ()))
        for name, share in class_rows(message)
    ]


def _end(session: StoredSession) -> EndMessage | None:
    header = session.last_message("end") if session.ended else None
    message = None if header is None else decoded(session, header)
    return message if isinstance(message, EndMessage) else None


def _health(session: StoredSession) -> HealthMessage | None:
    header = session.last_message("health")
    message = None if header is None else decoded(session, header)
    return message if isinstance(message, HealthMessage) else None
