"""The addresses of the review's server: the page's own files, and the API under /api/v1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from engines.base import LeukostreamError, printable
from streamer import RESEARCH_USE, __version__
from streamer.review.desk import Desk, RefusalCode, ReviewRefused
from streamer.review.server.changing import changing
from streamer.review.server.events import EventHub
from streamer.review.server.frames import FieldSource
from streamer.review.server.guard import Guard
from streamer.review.server.reading import reading
from streamer.review.server.slides import Slides

TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

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
        forget = desk.listen(slides.tell)  # before the pages are told, so that they find what they are told of
        hub.start(desk)
        yield
        hub.stop()
        forget()

    app = FastAPI(
        title="leukostream review",
        version=__version__,
        description=f"{RESEARCH_USE} Every request needs the token, as `?token=` or `Authorization: Bearer`.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_exception_handler(ReviewRefused, _refused)
    app.add_exception_handler(LeukostreamError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.include_router(reading(slides, hub))
    app.include_router(changing(slides))
    _add_files(app)
    return Guard(app, token=token, names=names, any_address=any_address, scheme=scheme)


def _add_files(app: FastAPI) -> None:
    """Each file of static/ by its own name: no path is ever made of what was asked for."""
    static = {one.name: one.read_bytes() for one in files(__package__).joinpath("static").iterdir() if one.is_file()}

    def add(path: str, name: str) -> None:
        kind = TYPES[name.rpartition(".")[2]]

        def file() -> Response:
            return Response(static[name], media_type=kind)

        app.add_api_route(path, file, methods=["GET"], include_in_schema=False)

    for name in static:
        add(f"/static/{name}", name)
    add("/", "index.html")
    add("/api", "api.html")


def _answer(status: int, code: str, detail: str) -> JSONResponse:
    return JSONResponse({"code": code, "detail": printable(detail)}, status)


async def _refused(request: Request, error: Any) -> Response:
    return _answer(STATUSES.get(error.code, 409), error.code, error.reason)


async def _failed(request: Request, error: Any) -> Response:
    return _answer(500, "failed", str(error))


async def _invalid(request: Request, error: Any) -> Response:
    """What was sent is not sent back."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _answer(422, "bad request", f"{place}: {first['msg']}")


async def _http(request: Request, error: Any) -> Response:
    return _answer(error.status_code, "not found" if error.status_code == 404 else "refused", str(error.detail))
