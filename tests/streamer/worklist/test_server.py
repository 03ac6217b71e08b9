"""The page of a list: what it answers, whom it refuses, and how it looks in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
pytest.importorskip("fastapi", reason="the list's server needs the package fastapi")
pytest.importorskip("uvicorn", reason="the list's server needs the package uvicorn")
pytest.importorskip("httpx", reason="the list's server is asked by the package httpx")

import httpx
import uvicorn

from streamer.review.server.guard import POLICY
from streamer.review.server.serving import Address, listening
from streamer.worklist.address import address_of
from streamer.worklist.book import Worklist
from streamer.worklist.server.app import build_app
from tests.streamer.review.server.conftest import browser
from tests.streamer.review.server.page_cases import CONTRASTS, PHONE, WIDE
from tests.streamer.worklist.entry_cases import entry, flag, reading, sending, signed

__all__ = ["browser"]

TOKEN = "the-token-of-this-test"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def worklist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    journal = folder / "it's one.db"
    journal.touch()
    with Worklist(address_of(str(folder)), make=True) as worklist:
        worklist.put(
            reading(
                journal,
                signed("1", slide="B-17", accession="2026-4711", flags=(flag(),), sendings=(sending(),)),
                entry("2", slide=EVIL, verdict="do not use", verdict_reason=EVIL, begun_utc="2026-11-29T08:00:00.0Z"),
                signed("3", review="in review", signature_fault=EVIL, begun_utc="2026-11-28T08:00:00.0Z"),
                entry("4", ended=False, begun_utc="2026-11-27T08:00:00.0Z"),
            )
        )
        worklist.put(reading(folder / "gone.db", entry("5", begun_utc="2026-11-26T08:00:00.0Z")))
        worklist.put(reading("/data/far.db", entry("6", begun_utc="2026-11-25T08:00:00.0Z"), host="scope-2"))
        worklist.could_not_read(reading(folder / "runs.db").place, f"in use {EVIL}")
        yield worklist


@pytest.fixture(scope="module")
def ask(worklist):
    app = build_app(worklist, token=TOKEN, names=("127.0.0.1", "localhost"))

    def asked(path, *, token=TOKEN, method="GET", headers=(), **query):
        async def send():
            bearer = [] if token is None else [("Authorization", f"Bearer {token}")]
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(method, path, headers=[*bearer, *headers], params=query or None)

        return asyncio.run(send())

    return asked


def sessions(answer):
    assert answer.status_code == 200, answer.text
    return [one["entry"] and one["entry"]["session"] for one in answer.json()["slides"]]


def test_the_list(ask, worklist):
    answer = ask("/api/v1/slides").json()
    assert (answer["list"], answer["more"]) == (worklist.address.shown, False)
    assert [(one["state"], one["place"], one["review_command"] is not None) for one in answer["slides"]] == [
        ("running", "vanished", False),
        ("sent", "there", True),
        ("preliminary", "there", True),
        ("preliminary", "there", True),
        ("running", "there", False),
        ("preliminary", "vanished", False),
        ("preliminary", "elsewhere", True),
    ]
    folder = worklist.address.file.parent
    assert answer["slides"][1]["review_command"] == f"leukostream review '{folder}/it'\"'\"'s one.db'"
    assert answer["slides"][6]["review_command"] == "leukostream review /data/far.db"


def test_filters(ask):
    assert sessions(ask("/api/v1/slides", state="sent")) == ["1"]
    assert sessions(ask("/api/v1/slides", verdict="do not use")) == ["2"]
    assert sessions(ask("/api/v1/slides", flag="neutrophil")) == ["1"]
    assert sessions(ask("/api/v1/slides", text="b-17 4711")) == ["1"]
    assert sessions(ask("/api/v1/slides", since="2026-11-29T08:00:00Z")) == [None, "1", "2"]
    limited = ask("/api/v1/slides", limit=2)
    assert (sessions(limited), limited.json()["more"]) == ([None, "1"], True)


@pytest.mark.parametrize("query", [{"state": "odd"}, {"since": "soon"}, {"limit": 0}, {"limit": 10**6}])
def test_a_question_that_can_not_be_meant_is_refused(ask, query):
    answer = ask("/api/v1/slides", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad request")


def test_who_is_refused(ask):
    for token in (None, "", "wrong"):
        assert ask("/api/v1/slides", token=token).status_code == 401
    assert ask("/api/v1/slides", headers=[("Origin", "http://evil.example")]).status_code == 403
    assert ask("/api/v1/slides", headers=[("Sec-Fetch-Site", "cross-site")]).status_code == 403
    assert ask("/api/v1/slides", headers=[("Host", "evil.example")]).status_code == 421
    json = [("Content-Type", "application/json")]
    assert ask("/api/v1/slides", method="POST", headers=json).status_code == 405
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/main.js", "/docs", "/etc/passwd"):
        assert ask(path).status_code == 404
    page = ask("/", token=None)
    assert (page.status_code, page.headers["content-security-policy"]) == (200, POLICY)
    assert ask("/api/v1/slides").headers["cache-control"] == "no-store"


@contextlib.contextmanager
def served(worklist):
    bound = listening(Address("127.0.0.1", 0))
    app = build_app(worklist, token=TOKEN, names=("127.0.0.1", "localhost"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.mark.lengthy
def test_the_page_in_a_browser(browser, worklist):
    from playwright.sync_api import expect

    with served(worklist) as base:
        for size, dark in ((WIDE, False), (PHONE, True)):
            context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light")
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=base)
            page = context.new_page()
            page.set_default_timeout(120_000)
            faults = []
            page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            page.on("console", lambda said, faults=faults: faults.append(said.text) if said.type == "error" else None)
            page.goto(f"{base}/?token={TOKEN}")
            page.wait_for_selector("#rows tr")
            assert TOKEN not in page.url
            rows = page.locator("#rows tr")
            assert rows.count() == 7
            assert page.locator("#rows img").count() == 0
            assert page.get_by_text(EVIL, exact=True).count() == 2  # a name, and why the verdict
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            low = [one for one in page.evaluate(CONTRASTS) if one["ratio"] < one["least"]]
            assert low == []
            page.get_by_role("button", name="Copy the command that opens the review of B-17").click()
            expect(page.locator("#said")).to_contain_text("Copied", timeout=60_000)
            assert page.evaluate("navigator.clipboard.readText()").endswith("s one.db'")
            page.get_by_label("State").select_option("sent")
            expect(rows).to_have_count(1, timeout=60_000)
            page.get_by_label("Words").fill("nothing like it")
            page.wait_for_selector("#empty:not([hidden])")
            page.get_by_role("button", name="All slides").click()
            expect(rows).to_have_count(7, timeout=60_000)
            assert faults == []
            context.close()
