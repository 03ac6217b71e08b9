"""The addresses: the page's own files, and the fleet under /api/v1."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec
from fastapi import Response
from starlette.types import ASGIApp

from streamer.fleet.microscopes import Microscope
from streamer.fleet.servers import ServerRow
from streamer.review.server.guard import Guard
from streamer.review.server.pages import add_files, page_app, static_files

SHARED = ("style.css", "api.js", "dom.js", "icon.svg")
"""Files of the review's page that this one has too."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the page shows."""

    microscopes: Sequence[Microscope]
    servers: Sequence[ServerRow]
    remark: str | None
    """Why no servers are shown, or none as of now; None: they are."""


def build_app(
    look: Callable[[], FleetView],
    *,
    token: str,
    names: Collection[str],
    any_address: bool = False,
    scheme: str = "http",
) -> ASGIApp:
    """The whole server; `look` is called on threads of the server. The rest as of `Guard`."""
    app = page_app("leukostream fleet")
    shared = static_files("streamer.review.server")
    add_files(app, {**{name: shared[name] for name in SHARED}, **static_files(__package__)}, {"/": "fleet.html"})

    @app.get("/api/v1/fleet", summary="Microscopes and inference servers, as they were heard of last")
    def fleet() -> Response:
        return Response(msgspec.json.encode(look()), media_type="application/json")

    return Guard(app, token=token, names=names, any_address=any_address, scheme=scheme)
