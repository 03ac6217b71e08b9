"""Who is refused by the review's server: each trick by itself, against the whole application."""

import asyncio
import re

import httpx
import pytest

pytest.importorskip("fastapi", reason="the review's server needs the package fastapi")

from streamer.review.server.app import build_app
from streamer.review.server.guard import BODY_MAX_BYTES, POLICY
from tests.streamer.review.server.fake_desk import FakeDesk, FakeFields, make_cells

TOKEN = "right-token"
HOST = "127.0.0.1:8000"
READ = "/api/v1/differential"
CHANGE = "/api/v1/cells/3/class"
MONOCYTE = {"class": "monocyte", "reviewer": "AB"}


@pytest.fixture(scope="module")
def desk():
    """None of these tests may change it, so that one serves them all."""
    desk = FakeDesk(make_cells(30))
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def ask(desk):
    return asking(desk)


def asking(desk: FakeDesk):
    app = build_app(desk, FakeFields(), token=TOKEN, names=("127.0.0.1", "localhost"))

    def asked(method: str, path: str, *, token: str | None = TOKEN, headers=(), **given) -> httpx.Response:
        async def send() -> httpx.Response:
            bearer = [] if token is None else [("Authorization", f"Bearer {token}")]
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
                return await client.request(method, path, headers=[*bearer, *headers], **given)

        return asyncio.run(send())

    return asked


def unchanged(desk: FakeDesk) -> bool:
    return not desk.snapshot("slide-1").history


@pytest.mark.parametrize("token", [None, "", "wrong", "right-toke", "right-token2", "RIGHT-TOKEN", "rïght"])
@pytest.mark.parametrize(("method", "path"), [("GET", READ), ("POST", CHANGE), ("GET", "/api/v1/openapi.json")])
def test_without_the_right_token_nothing_is_said_or_done(ask, desk, method, path, token):
    given = {"json": MONOCYTE} if method == "POST" else {}
    answer = ask(
        method, path, token=None, headers=[("Authorization", f"Bearer {token}".encode())] if token else [], **given
    )
    assert answer.status_code == 401
    assert answer.json()["code"] == "no token"
    assert unchanged(desk)


def test_the_token_may_stand_in_the_query_once(ask):
    assert ask("GET", f"{READ}?token={TOKEN}", token=None).status_code == 200
    assert ask("GET", f"{READ}?token=wrong", token=None).status_code == 401
    assert ask("GET", f"{READ}?token=wrong&token={TOKEN}", token=None).status_code == 401
    assert ask("GET", f"{READ}?token={TOKEN}", token="wrong").status_code == 401


def test_tokens_are_compared_in_constant_time(ask, monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    ask("GET", READ, token="wrong")
    ask("GET", f"{READ}?token=wrong2", token=None)
    assert compared == [(b"wrong", TOKEN.encode()), (b"wrong2", TOKEN.encode())]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example:8000",
        "192.168.0.7:8000",
        "localhost.evil.example",
        "127.0.0.1:8000@evil.example",
        "127.0.0.1:8000, evil.example",
        "0.0.0.0:8000",
        "[::ffff:7f00:1]:8000",
        "",
    ],
)
def test_a_host_that_is_not_this_machine_is_refused(ask, desk, host):
    """DNS rebinding: a page of evil.example, which now resolves to this machine, has the token of nobody, but need not
    even try."""
    for method, path, given in (("GET", READ, {}), ("POST", CHANGE, {"json": MONOCYTE}), ("GET", "/", {})):
        assert ask(method, path, headers=[("Host", host)], **given).status_code == 421
    assert unchanged(desk)


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:1", "LOCALHOST:8000"])
def test_a_forwarded_port_is_this_machine(ask, host):
    assert ask("GET", READ, headers=[("Host", host)]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "http://127.0.0.1:8000.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_a_page_from_elsewhere_can_neither_read_nor_command(ask, desk, headers):
    """Though it knew the token."""
    assert ask("GET", READ, headers=list(headers.items())).status_code == 403
    assert ask("POST", CHANGE, headers=list(headers.items()), json=MONOCYTE).status_code == 403
    assert unchanged(desk)


def test_the_page_itself_may():
    desk = FakeDesk(make_cells(5))
    own = [("Origin", f"http://{HOST}"), ("Sec-Fetch-Site", "same-origin")]
    assert asking(desk)("POST", CHANGE, headers=own, json=MONOCYTE).status_code == 200
    assert desk.snapshot("slide-1").cells[3].class_name == "monocyte"
    desk.close()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_no_command(ask, desk, kind):
    answer = ask("POST", CHANGE, headers=[("Content-Type", kind)], content=b'{"class": "monocyte", "reviewer": "AB"}')
    assert answer.status_code == 415
    assert unchanged(desk)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_no_other_method_does_anything(ask, desk, method):
    answer = ask(method, CHANGE, headers=[("Origin", f"http://{HOST}"), ("Access-Control-Request-Method", "POST")])
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/static/main.js/",
        "/static/main.js%00.css",
        "/static/",
        "/static/..\\app.py",
        "//evil.example/%2f..",
        "/api/v1/frames/..%2f..%2fetc%2fpasswd",
        "/api/v1/cells/1%2f..%2f2/picture",
        "/../../etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(ask, path):
    answer = ask("GET", path)
    assert answer.status_code in (404, 422), path
    assert "root:" not in answer.text
    assert "def " not in answer.text


def test_a_huge_body_is_refused_before_it_is_read(ask, desk):
    assert ask("POST", CHANGE, json={**MONOCYTE, "subclass": "x" * BODY_MAX_BYTES}).status_code == 413

    async def endless():
        for _ in range(1000):
            yield b" " * 1024

    headers = [("Content-Type", "application/json")]
    assert ask("POST", CHANGE, content=endless(), headers=headers).status_code == 413
    assert ask("GET", f"{READ}?session={'x' * 5000}").status_code == 414
    assert unchanged(desk)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"monocyte"',
        b'{"class": 3}',
        b'{"class": "monocyte", "reviewer": "AB", "more": 1}',
        b'{"class": "' + b"x" * 101 + b'"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=range(9),
)
def test_what_is_no_command_is_one_line(ask, desk, body):
    answer = ask("POST", CHANGE, content=body, headers=[("Content-Type", "application/json")])
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("bad request", "refused")
    assert "\n" not in answer.json()["detail"]
    assert unchanged(desk)


def test_every_answer_forbids_what_is_not_the_pages_own(ask):
    paths = ["/", "/static/main.js", "/api", READ, "/nothing", "/api/v1/nothing"]
    answers = [*(ask("GET", path) for path in paths), ask("GET", READ, token=None)]
    for answer in answers:
        headers = answer.headers
        assert headers["content-security-policy"] == POLICY
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")]
        assert "set-cookie" not in headers
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


def test_the_pages_own_files_hold_nothing_inline_and_nothing_from_elsewhere(ask):
    for path in ("/", "/api"):
        text = ask("GET", path, token=None).text
        assert text.count("<script") == text.count('<script type="module" src="/static/')
        assert "style=" not in text
        assert not re.search(r"\son\w+=", text)
        assert not re.search(r"(src|href)=\"(?!/|#)", text)


def test_they_say_nothing_of_any_slide(ask):
    assert ask("GET", "/", token=None).content == ask("GET", "/?token=wrong", token=None).content
