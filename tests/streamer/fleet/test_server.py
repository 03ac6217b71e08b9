"""The page of the fleet: what it answers, whom it refuses, and how it looks in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

pytest.importorskip("fastapi", reason="the fleet's server needs the package fastapi")
pytest.importorskip("uvicorn", reason="the fleet's server needs the package uvicorn")
pytest.importorskip("httpx", reason="the fleet's server is asked by the package httpx")

import httpx
import uvicorn

from streamer.fleet.microscopes import Microscope
from streamer.fleet.server.app import FleetView, build_app
from streamer.fleet.servers import rows_of
from streamer.review.server.serving import Address, listening
from tests.streamer.fleet.fleet_cases import fleet
from tests.streamer.review.server.conftest import browser

__all__ = ["browser"]

TOKEN = "the-token-of-this-test"
EVIL = "<img src=x onerror=alert(1)>"
VIEW = FleetView(
    [
        Microscope(
            endpoint="tcp://a:5",
            source="left",
            slide=EVIL,
            state="open",
            frames_per_s=9.96,
            white_cells=101,
            verdict="ready for review",
            models="d + c",
            local_share=0.25,
            servers="1 of 2",
        ),
        Microscope(endpoint="tcp://b:5", source=None),
    ],
    rows_of(fleet()),
    None,
)


def app(view: FleetView = VIEW):
    return build_app(lambda: view, token=TOKEN, names=("127.0.0.1",))


def asked(path: str, token: str = TOKEN) -> httpx.Response:
    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://127.0.0.1") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}"})

    return asyncio.run(send())


def test_the_fleet_needs_the_token():
    assert asked("/api/v1/fleet", token="another").status_code == 401
    found = asked("/api/v1/fleet").json()
    assert [one["source"] for one in found["microscopes"]] == ["left", None]
    assert [one["state"] for one in found["servers"]] == ["ready", "silent", "ending", "starting"]
    assert asked("/").text.startswith("<!DOCTYPE html>")


@contextlib.contextmanager
def served(view: FleetView):
    with contextlib.closing(listening(Address("127.0.0.1", 0))) as bound:
        server = uvicorn.Server(uvicorn.Config(app(view), log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/?token={TOKEN}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
def test_the_page_shows_microscopes_and_servers_and_runs_nothing_they_say(browser):
    with served(VIEW) as url:
        page = browser.new_page()
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.goto(url)
        page.get_by_text("1 microscope, 4 servers").wait_for()
        first = page.locator("#rows tr").first.inner_text()
        assert EVIL in first
        assert "10.0" in first
        assert "25 % on its own machine" in first
        assert "no answer" in page.locator("#rows tr").nth(1).inner_text()
        assert "a1b2c3d4" in page.locator("#server-rows tr").first.inner_text()
        assert dialogs == []
        page.close()
    with served(FleetView([], [], "--address auto: got no cluster")) as url:
        page = browser.new_page()
        page.goto(url)
        page.get_by_text("got no cluster").wait_for()
        assert page.locator("#servers").is_hidden()
        page.close()
