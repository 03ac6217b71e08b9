"""The addresses: the page's own files, and the list under /api/v1."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import Query, Response
from starlette.types import ASGIApp

from engines.base import UsageError
from streamer.review.server.guard import Guard
from streamer.review.server.pages import add_files, answer, page_app, static_files
from streamer.worklist.book import Worklist
from streamer.worklist.entries import ListedSlide, SlideState
from streamer.worklist.finding import Filter, since_utc

SHARED = ("style.css", "api.js", "dom.js", "icon.svg")
"""Files of the review's page that this one has too."""

MOST = 1000
"""Slides in one answer."""


def build_app(
    worklist: Worklist, *, token: str, names: Collection[str], any_address: bool = False, scheme: str = "http"
) -> ASGIApp:
    """The whole server; `token`, `names`, `any_address` and `scheme` as of `Guard`. The list isn't closed by it."""
    app = page_app("leukostream worklist")
    shared = static_files("streamer.review.server")
    own = static_files(__package__)
    add_files(app, {**{name: shared[name] for name in SHARED}, **own}, {"/": "list.html"})

    @app.get("/api/v1/slides", summary="The list, the newest slide first, journals that nobody could read before them")
    def slides(
        state: SlideState | None = None,
        verdict: Annotated[str | None, Query(max_length=40)] = None,
        flag: Annotated[str | None, Query(max_length=100, description="Code or class of a flag; any")] = None,
        since: Annotated[str | None, Query(max_length=40, description="ISO 8601, or days: 7d")] = None,
        text: Annotated[str | None, Query(max_length=200, description="Words that all stand somewhere")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 200,
    ) -> Response:
        try:
            begun = None if since is None else since_utc(since, datetime.now(UTC))
        except UsageError as error:
            return answer(422, "bad request", str(error))
        what = Filter(
            state=state,
            verdict=verdict,
            flag=flag,
            since_utc=begun,
            words=tuple((text or "").split()),
            limit=limit + 1,
        )
        found = worklist.find(what)
        body = {
            "list": worklist.address.shown,
            "slides": [_shown(one) for one in found[:limit]],
            "more": len(found) > limit,
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    return Guard(app, token=token, names=names, any_address=any_address, scheme=scheme)


def _shown(one: ListedSlide) -> dict[str, Any]:
    """With the line that opens its review, on the machine where its journal is; None where there is nothing to open, as
    of a slide whose run goes on."""
    can_open = one.entry is not None and one.entry.ended and one.place in ("there", "elsewhere")
    line = f"leukostream review {shlex.quote(one.journal)}" if can_open else None
    return {**msgspec.to_builtins(one), "review_command": line}
