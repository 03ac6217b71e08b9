"""What every page that is served has: its own files, faults as JSON, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engines.base import LeukostreamError, printable
from streamer import RESEARCH_USE, __version__

TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@asynccontextmanager
async def _nothing(app: FastAPI) -> AsyncIterator[None]:
    yield


def page_app(title: str, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] = _nothing) -> FastAPI:
    app = FastAPI(
        title=title,
        version=__version__,
        description=f"{RESEARCH_USE} Every request needs the token, as `?token=` or `Authorization: Bearer`.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_exception_handler(LeukostreamError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    return app


def static_files(package: str) -> dict[str, bytes]:
    """Those of a package's static/, by name."""
    return {one.name: one.read_bytes() for one in files(package).joinpath("static").iterdir() if one.is_file()}


def add_files(app: FastAPI, static: Mapping[str, bytes], pages: Mapping[str, str]) -> None:
    """Each file at /static/ by its own name, and the `pages`, names by path: no path is ever made of what was asked
    for."""

    def add(path: str, name: str) -> None:
        kind = TYPES[name.rpartition(".")[2]]

        def file() -> Response:
            return Response(static[name], media_type=kind)

        app.add_api_route(path, file, methods=["GET"], include_in_schema=False)

    for name in static:
        add(f"/static/{name}", name)
    for path, name in pages.items():
        add(path, name)


def answer(status: int, code: str, detail: str) -> JSONResponse:
    """A refusal or a fault."""
    return JSONResponse({"code": code, "detail": printable(detail)}, status)


async def _failed(request: Request, error: Any) -> Response:
    return answer(500, "failed", str(error))


async def _invalid(request: Request, error: Any) -> Response:
    """What was sent is not sent back."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return answer(422, "bad request", f"{place}: {first['msg']}")


async def _http(request: Request, error: Any) -> Response:
    return answer(error.status_code, "not found" if error.status_code == 404 else "refused", str(error.detail))
