"""Who may ask the review's server: everything comes by here before any of it is looked at.

A page is reached by a browser, and browsers send what strange pages tell them to. So, in this order:

* `Host` names this machine as it was bound. A name of somebody else's that resolves to this address (DNS rebinding) is
  refused, whatever its port: a forwarded port has another number.
* `Origin` and `Sec-Fetch-Site`, which scripts can't forge, say whether a page from elsewhere asks. It is refused.
* What is posted is JSON and small. A form of another page can send neither.
* The API needs the token, compared in constant time. Only the page's own files go without: they are the same for
  everyone and say nothing of any slide.

No answer allows another origin to read it (no CORS), to frame it, or to run a script that is not the page's own file.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Collection, Sequence
from urllib.parse import parse_qsl, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/api/"
"""What needs the token."""

BODY_MAX_BYTES = 256 * 1024
"""Of a request: 20 000 cells at once have less."""
QUERY_MAX_BYTES = 4096

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy: nothing inline, nothing from elsewhere, and no text ever becomes markup."""

HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), usb=()"),
)

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:(?P<port>[0-9]{1,5}))?")


class Refusal(Exception):
    """An answer in place of what was asked for."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code = status, code


class Guard:
    """An ASGI application before another one."""

    def __init__(
        self, app: ASGIApp, *, token: str, names: Collection[str], any_address: bool = False, scheme: str = "http"
    ) -> None:
        """`names`: under which this machine may be asked, without ports. `any_address`: and under any IP address, which
        can't be rebound; for a server on all interfaces."""
        self._app = app
        self._token = token.encode()
        self._names = frozenset(name.lower() for name in names)
        self._any_address = any_address
        self._scheme = scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # web sockets: nothing here has any, and the server then refuses the handshake
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _Headers(scope)
        try:
            self._check(scope, headers)
            received = await _body(receive, headers)
        except Refusal as refusal:
            await _refuse(send, refusal)
            return
        await self._app(scope, received, _with_headers(send, scope["path"].startswith(API)))

    def _check(self, scope: Scope, headers: _Headers) -> None:
        host = headers.one("host")
        if not self._is_ours(host):
            raise Refusal(
                421, "wrong host", f"got the host {host[:100]!r}, expected the address that leukostream printed"
            )
        api = scope["path"].startswith(API)
        self._check_origin(headers, host, api or scope["method"] != "GET")
        if len(scope["query_string"]) > QUERY_MAX_BYTES:
            raise Refusal(414, "too long", f"got a query of {len(scope['query_string'])} bytes, expected a short one")
        if api and not self._has_token(scope, headers):
            raise Refusal(
                401, "no token", "got no token or a wrong one, expected that of the address leukostream review printed"
            )
        if scope["method"] == "POST" and headers.one("content-type").split(";")[0].strip() != "application/json":
            raise Refusal(415, "no JSON", "got a body of another type, expected Content-Type: application/json")

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").lower()
        if name in self._names:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_origin(self, headers: _Headers, host: str, strict: bool) -> None:
        """`strict`: not for the page's own files, to which a link from anywhere may lead."""
        site = headers.one("sec-fetch-site")
        if strict and site not in ("", "same-origin", "none"):
            raise Refusal(403, "another page", f"got a request of another page ({site}), expected one of this page")
        origin = headers.one("origin")
        if not origin:
            return
        parts = urlsplit(origin)
        if (parts.scheme, parts.netloc.lower()) != (self._scheme, host.lower()):
            raise Refusal(403, "another page", f"got a request of {origin[:100]!r}, expected one of this page")

    def _has_token(self, scope: Scope, headers: _Headers) -> bool:
        kind, _, given = headers.one("authorization").partition(" ")
        if kind.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode(), self._token)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        return len(tokens) == 1 and hmac.compare_digest(tokens[0].encode(), self._token)


class _Headers:
    """Of a request, each at most once: twice is a trick, and taken for something that nothing allows."""

    def __init__(self, scope: Scope) -> None:
        self._values: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            self._values[key] = f"{self._values[key]}, twice" if key in self._values else value.decode("latin-1")

    def one(self, name: str) -> str:
        """Empty for none."""
        return self._values.get(name, "")


async def _body(receive: Receive, headers: _Headers) -> Receive:
    """The whole body, then whatever else comes; Refusal for one that is too large."""
    too_large = Refusal(413, "too large", f"got a body of more than {BODY_MAX_BYTES} bytes, expected a smaller one")
    stated = headers.one("content-length")
    if stated and (not stated.isdecimal() or int(stated) > BODY_MAX_BYTES):
        raise too_large
    if not stated and "transfer-encoding" not in headers._values:
        return receive
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_MAX_BYTES:
            raise too_large
        more = message.get("more_body", False)
    whole: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

    async def again() -> Message:
        nonlocal whole
        if whole is None:
            return await receive()
        message, whole = whole, None
        return message

    return again


def _with_headers(send: Send, private: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            if not any(name.lower() == b"cache-control" for name, _ in given):
                given.append((b"cache-control", b"no-store" if private else b"no-cache"))
            message = {**message, "headers": [*given, *HEADERS]}
        await send(message)

    return sending


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"code": refusal.code, "detail": str(refusal)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    sending = _with_headers(send, True)
    await sending({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await sending({"type": "http.response.body", "body": body})
