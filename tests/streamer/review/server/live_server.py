"""The review's server on a port of its own, in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from streamer.review.desk import Desk
from streamer.review.server.app import build_app
from streamer.review.server.frames import FieldSource
from streamer.review.server.serving import Address, listening

TOKEN = "the-token-of-this-test"


@dataclass(frozen=True, slots=True)
class Served:
    base: str
    """http://127.0.0.1:PORT"""
    client: httpx.Client
    """With the token."""

    @property
    def page(self) -> str:
        return f"{self.base}/?token={TOKEN}"

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.contextmanager
def served(desk: Desk, fields: FieldSource, reviewer: str | None = "AB") -> Iterator[Served]:
    bound = listening(Address("127.0.0.1", 0))
    app = build_app(desk, fields, token=TOKEN, names=("127.0.0.1", "localhost"), reviewer=reviewer)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    base = f"http://127.0.0.1:{bound.getsockname()[1]}"
    try:
        with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            yield Served(base, client)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
