"""What can be done to slides: POST, each whole when it is answered."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from engines.base import LeukostreamError
from streamer.review.server.bodies import (
    AmendBody,
    BeginBody,
    Body,
    CellsBody,
    CellsClassBody,
    ClassBody,
    CommentBody,
    NewCellBody,
    SettleAgreedBody,
    SettleBody,
    SignBody,
)
from streamer.review.server.presented import signature_json
from streamer.review.server.slides import Slides

Session = Annotated[str | None, Query(description="Left out: the newest slide.", max_length=200)]
Answer = dict[str, Any]

DONE: Answer = {"done": True}


def changing(slides: Slides) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["change"])
    desk = slides.desk

    @router.post("/cells/{cell_id}/class", summary="Give a cell a class; null: the models decide again")
    def classify(cell_id: int, body: ClassBody, session: Session = None) -> Answer:
        desk.classify(slides.session(session), [cell_id], body.class_, body.subclass, slides.initials(body.reviewer))
        return DONE

    @router.post("/cells/class", summary="Give several cells a class")
    def classify_several(body: CellsClassBody, session: Session = None) -> Answer:
        reviewer = slides.initials(body.reviewer)
        desk.classify(slides.session(session), body.cell_ids, body.class_, body.subclass, reviewer)
        return DONE

    @router.post("/cells/confirm", summary="Say that cells are right as they are")
    def confirm(body: CellsBody, session: Session = None) -> Answer:
        desk.confirm(slides.session(session), body.cell_ids, slides.initials(body.reviewer))
        return DONE

    @router.post("/cells", summary="Add a white cell that was missed")
    def add_cell(body: NewCellBody, session: Session = None) -> Answer:
        found = slides.session(session)
        size = body.width_px, body.height_px
        cell_id = desk.add_cell(
            found,
            body.frame_id,
            body.x_px,
            body.y_px,
            body.class_,
            slides.initials(body.reviewer),
            subclass=body.subclass,
            width_px=body.width_px,
            height_px=body.height_px,
            picture=_picture(slides, found, body, size),
        )
        return {"done": True, "cell_id": cell_id}

    @router.post("/comments", summary="Say something of a cell, or of the slide")
    def comment(body: CommentBody, session: Session = None) -> Answer:
        desk.comment(slides.session(session), body.text, slides.initials(body.reviewer), cell_id=body.cell_id)
        return DONE

    @router.post("/undo", summary="Take back the last change of this reviewer")
    def undo(body: Body, session: Session = None) -> Answer:
        desk.undo(slides.session(session), slides.initials(body.reviewer))
        return DONE

    @router.post("/sign", summary="Freeze the slide as it stands")
    def sign(body: SignBody, session: Session = None) -> Answer:
        found = slides.session(session)
        signature = desk.sign(found, slides.initials(body.reviewer), despite=body.despite, version=body.version)
        return {"done": True, "signature": None if signature is None else signature_json(signature)}

    @router.post("/amend", summary="Open a signed slide again; what was signed is kept")
    def amend(body: AmendBody, session: Session = None) -> Answer:
        desk.amend(slides.session(session), slides.initials(body.reviewer), body.reason)
        return DONE

    @router.post("/begin", summary="Begin a review, blind or not")
    def begin(body: BeginBody, session: Session = None) -> Answer:
        desk.begin(slides.session(session), slides.initials(body.reviewer), blind=body.blind)
        return DONE

    @router.post("/settle", summary="Say what cells are of which blind reviewers said something")
    def settle(body: SettleBody, session: Session = None) -> Answer:
        reviewer = slides.initials(body.reviewer)
        desk.settle(slides.session(session), body.cell_ids, body.class_, body.subclass, reviewer)
        return DONE

    @router.post("/settle-agreed", summary="Settle all cells of which two blind reviewers said the same")
    def settle_agreed(body: SettleAgreedBody, session: Session = None) -> Answer:
        reviewer = slides.initials(body.reviewer)
        return {
            "done": True,
            "settled": desk.settle_agreed(slides.session(session), body.first, body.second, reviewer),
        }

    @router.post("/verify", summary="Count all signed results again from the journal's frames")
    def verify(body: Body, session: Session = None) -> Answer:
        return {"signatures": [signature_json(one) for one in desk.verify(slides.session(session))]}

    return router


def _picture(slides: Slides, session: str, body: NewCellBody, size: tuple[float | None, float | None]) -> bytes | None:
    """Of a cell that is added, where its frame can be had and it was given a size."""
    width, height = size
    if width is None or height is None:
        return None
    try:
        field = slides.fields.field(session, body.frame_id)
    except LeukostreamError:
        return None
    return field.picture((body.x_px - width / 2, body.y_px - height / 2, body.x_px + width / 2, body.y_px + height / 2))
