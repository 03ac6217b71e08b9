"""The addresses of the review's server: the page's own files, and the API under /api/v1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from streamer.review.desk import Desk, RefusalCode, ReviewRefused
from streamer.review.server.changing import changing
from streamer.review.server.events import EventHub
from streamer.review.server.frames import FieldSource
from streamer.review.server.guard import Guard
from streamer.review.server.pages import add_files, answer, page_app, static_files
from streamer.review.server.reading import reading
from streamer.review.server.slides import Slides

STATUSES: Mapping[RefusalCode, int] = {
    "unknown cell": 404,
    "unknown frame": 404,
    "unknown session": 404,
    "bad class": 422,
    "bad reviewer": 422,
    "bad text": 422,
    "no answer": 503,
    "closed": 503,
    "not written": 507,
}
"""Of HTTP, by the code of a refusal; any other is 409: not as the slide stands now."""


def build_app(
    desk: Desk,
    fields: FieldSource,
    *,
    token: str,
    names: Collection[str],
    any_address: bool = False,
    scheme: str = "http",
    reviewer: str | None = None,
) -> ASGIApp:
    """The whole server; `names`, `any_address` and `scheme` as of `Guard`. Neither desk nor fields are closed by it."""
    slides, hub = Slides(desk, fields, reviewer), EventHub()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hub.start(desk)
        yield
        hub.stop()

    app = page_app("leukostream review", lifespan)
    app.add_exception_handler(ReviewRefused, _refused)
    app.include_router(reading(slides, hub))
    app.include_router(changing(slides))
    add_files(app, static_files(__package__), {"/": "index.html", "/api": "api.html"})
    return Guard(app, token=token, names=names, any_address=any_address, scheme=scheme)


async def _refused(request: Request, error: Any) -> Response:
    return answer(STATUSES.get(error.code, 409), error.code, error.reason)
