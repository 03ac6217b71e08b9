"""What can be asked of slides: GET, which changes nothing."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from engines.base import LeukostreamError
from streamer.protocol.messages import DifferentialMessage
from streamer.review.desk import CellRecord, ReviewRefused
from streamer.review.server.events import EventHub
from streamer.review.server.presented import (
    Json,
    agreement_json,
    cell_json,
    change_json,
    session_json,
    signature_json,
    slide_json,
)
from streamer.review.server.slides import Slides

Session = Annotated[str | None, Query(description="Left out: the newest slide.", max_length=200)]
Reviewer = Annotated[str | None, Query(description="Initials, for whom: one who is blind sees less.", max_length=100)]

JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}


def reading(slides: Slides, hub: EventHub) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["look"])

    @router.get("/sessions", summary="The slides, oldest first")
    def sessions() -> Response:
        return _json([session_json(info) for info in slides.desk.sessions()])

    @router.get("/differential", summary="The newest differential, as published; null before the first")
    def differential(session: Session = None) -> Response:
        return _json(slides.snapshot(slides.session(session)).differential)

    @router.get("/cells", summary="All white and nucleated red cells, those in no count among them")
    def cells(session: Session = None, reviewer: Reviewer = None) -> Response:
        found = slides.session(session)
        snapshot = slides.snapshot(found) if reviewer is None else slides.desk.snapshot(found, reviewer)
        has_frames = slides.fields.has_frames(found)
        return _json([cell_json(cell, has_frames=has_frames) for cell in snapshot.cells])

    @router.get("/slide", summary="All that the page begins with: result in words, cells, classes, history")
    def slide(session: Session = None, reviewer: Reviewer = None) -> Response:
        found, who = slides.session(session), reviewer or slides.reviewer
        snapshot = slides.desk.snapshot(found, who)
        fields = slides.fields
        return _json(
            slide_json(snapshot, slides.choices(found), fields.ranges(found), who, has_frames=fields.has_frames(found))
        )

    @router.get("/cells/{cell_id}/picture", summary="The picture of a cell", responses=JPEG)
    def picture(cell_id: int, session: Session = None) -> Response:
        found = slides.session(session)
        jpeg = slides.desk.picture(found, cell_id) or _cut_out(slides, found, cell_id)
        if jpeg is None:
            raise ReviewRefused("unknown cell", f"got cell {cell_id}, expected one that has a picture")
        return _jpeg(jpeg)

    @router.get("/cells/{cell_id}/field", summary="Where a cell lies in its frame, and the other cells of that frame")
    def field(
        cell_id: int,
        session: Session = None,
        view: Annotated[int | None, Query(description="Of the frames that show it; left out: the best one.")] = None,
    ) -> Response:
        found = slides.session(session)
        cell = _cell(slides, found, cell_id)
        if not cell.views:
            return _json({"why_not": "no frame is known that shows this cell", "views": 0})
        at = best_view(cell) if view is None or not 0 <= view < len(cell.views) else view
        shown = cell.views[at]
        answer: Json = {
            "view": at,
            "views": len(cell.views),
            "frame_id": shown.frame_id,
            "file": shown.file,
            "box_px": shown.box_px,
        }
        try:
            height, width = slides.fields.field(found, shown.frame_id).image.shape[:2]
        except LeukostreamError as error:
            return _json({**answer, "why_not": str(error)})
        boxes = [{"cell_id": number, "box_px": one.box_px} for number, one in slides.in_frame(found, shown.frame_id)]
        return _json({**answer, "why_not": None, "width": width, "height": height, "cells": boxes})

    @router.get("/frames/{frame_id}", summary="The picture of a frame", responses=JPEG)
    def frame(frame_id: int, session: Session = None) -> Response:
        try:
            return _jpeg(slides.fields.field(slides.session(session), frame_id).jpeg)
        except ReviewRefused:
            raise
        except LeukostreamError as error:
            raise ReviewRefused("unknown frame", str(error)) from error

    @router.get("/signatures", summary="Who signed what, oldest first, with what was signed")
    def signatures(session: Session = None) -> Response:
        found = slides.snapshot(slides.session(session)).signatures
        return _json([{**signature_json(one), "signed": msgspec.Raw(one.signed)} for one in found])

    @router.get("/agreement", summary="What two reviewers said blind, of the same cells")
    def agreement(first: str, second: str, session: Session = None) -> Response:
        return _json(agreement_json(slides.desk.agreement(slides.session(session), first, second)))

    @router.get(
        "/events",
        summary="Changes as they come: server-sent events `hello` and `change`",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    def events(session: Session = None, reviewer: Reviewer = None) -> StreamingResponse:
        found = slides.session(session)
        slides.snapshot(found)  # ReviewRefused for an unknown one, while it can still be said
        ranges, has_frames = slides.fields.ranges(found), slides.fields.has_frames(found)
        stream = hub.events(
            found,
            lambda: slides.snapshot(found).version,
            lambda change: change_json(change, ranges, reviewer or slides.reviewer, has_frames=has_frames),
        )
        return StreamingResponse(stream, media_type="text/event-stream")

    return router


def best_view(cell: CellRecord) -> int:
    """Of the frames that show a cell, the one where most of it is seen; of these the one in the middle."""
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (view.box_px for view in cell.views)]
    whole = [place for place, area in enumerate(areas) if area >= 0.9 * max(areas)]
    return whole[len(whole) // 2]


def _cell(slides: Slides, session: str, cell_id: int) -> CellRecord:
    cell = next((one for one in slides.snapshot(session).cells if one.cell_id == cell_id), None)
    if cell is None:
        raise ReviewRefused("unknown cell", f"got cell {cell_id}, expected one of this slide")
    return cell


def _cut_out(slides: Slides, session: str, cell_id: int) -> bytes | None:
    """The picture of a cell from a frame that shows it, for one that was published with none; None: there is none."""
    cell = _cell(slides, session, cell_id)
    if not cell.views:
        return None
    shown = cell.views[best_view(cell)]
    try:
        return slides.fields.field(session, shown.frame_id).picture(shown.box_px)
    except LeukostreamError:
        return None


def _json(value: list[Json] | Json | DifferentialMessage | None) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _jpeg(picture: bytes) -> Response:
    return Response(picture, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})
