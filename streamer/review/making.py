"""The events that a reviewer's wishes become on a slide as it stands. CorrectionFault for a wish that can't be."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.counting.corrections import Corrections
from streamer.counting.review_events import AddCell, CorrectionFault, Naming, Settle, Withdraw, check_text
from streamer.review.blind import agreed
from streamer.review.slide import ReviewedSlide

PART_OF_FRAME = 0.1
"""Of the frame's shorter side: how large a cell is that was added without a size to a slide without white cells."""


def namings(
    slide: ReviewedSlide, cell_ids: Sequence[int], name: tuple[str | None, str | None] | None
) -> tuple[Naming, ...]:
    """Of each cell once, by its present number; `name` None: it is what it is."""
    found = {one.cell_id: one for one in (slide.corrections.naming(cell_id, name) for cell_id in cell_ids)}
    if not found:
        raise CorrectionFault("unknown cell", "got no cell, expected one or more")
    return tuple(found.values())


def withdrawal(slide: ReviewedSlide, reviewer: str) -> Withdraw:
    number = slide.corrections.last_undone(reviewer)
    if number is None:
        raise CorrectionFault("nothing to undo", f"got an undo of {reviewer}, who has said nothing that holds")
    return Withdraw(number=number)


def addition(
    slide: ReviewedSlide,
    frame_id: int,
    centre_px: tuple[float, float],
    size_px: tuple[float | None, float | None],
    name: tuple[str, str | None],
) -> AddCell:
    """A cell at `centre_px` of a frame. `size_px`: its width and height; None: as of the slide's usual white cell."""
    count, frame = slide.corrections.count, slide.frame(frame_id)
    if not slide.has_frame(frame_id):
        raise CorrectionFault("unknown frame", f"got frame {frame_id}, expected one of this slide")
    if frame is None or not frame.accepted:
        raise CorrectionFault("no place", f"got frame {frame_id}, which was not counted, expected one that was")
    (x, y), part = centre_px, PART_OF_FRAME * min(frame.width, frame.height)
    if not (0 <= x <= frame.width and 0 <= y <= frame.height):
        raise CorrectionFault(
            "no place", f"got the point {x:g}, {y:g} px, expected one within {frame.width} x {frame.height} px"
        )
    usual = count.usual_size_px() or (part, part)
    width, height = (own if given is None else given for own, given in zip(usual, size_px, strict=True))
    if not (1 <= width <= frame.width and 1 <= height <= frame.height):
        raise CorrectionFault("no place", f"got a cell of {width:g} x {height:g} px, expected one within the frame")
    there = count.white_at(frame.island, x + frame.x_px, y + frame.y_px)
    if there is not None:
        raise CorrectionFault("already counted", f"got a place where cell {there} is counted, expected one without")
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return AddCell(
        cell_id=count.next_cell_id,
        frame_id=frame_id,
        island=frame.island,
        box_px=(left + frame.x_px, top + frame.y_px, right + frame.x_px, bottom + frame.y_px),
        frame_box_px=(left, top, right, bottom),
        class_name=name[0],
        subclass=name[1],
    )


def settlement(slide: ReviewedSlide, first: str, second: str) -> Settle:
    cells = agreed(slide.corrections, first, second)
    if not cells:
        raise CorrectionFault(
            "nothing to settle", f"got {first} and {second}, expected two who said the same of a cell blind"
        )
    return Settle(cells=cells)


def reason_to_sign(corrections: Corrections, despite: str | None) -> str | None:
    """Why a slide is signed despite its verdict; None where that does not forbid it. CorrectionFault where it does and
    there is no reason, and where what blind reviewers said was not settled."""
    if despite is not None:
        check_text(despite, "reason")
    unsettled = corrections.unsettled()
    if unsettled:
        raise CorrectionFault(
            "not settled",
            f"got {len(unsettled)} cells, such as {unsettled[0]}, that blind reviewers named and nobody has settled;"
            " settle them first",
        )
    verdict = corrections.count.differential(final=True).verdict
    if verdict is None or verdict.state != "do not use":
        return None
    if despite is None:
        raise CorrectionFault(
            "do not use",
            f"got the verdict 'do not use' ({verdict.reasons[0].text}), expected a reason to sign despite it",
        )
    return despite
