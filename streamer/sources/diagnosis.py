"""Why a stream did not open, in words: asked of the server itself, since FFmpeg and OpenCV say little."""

from __future__ import annotations

import base64
import email.message
import hashlib
import http.client
import re
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from streamer.sources.address import without_credentials

TIMEOUT_S = 3.0

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}
_ADDRESS = "check the address, and that the camera is on"
_FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What there is instead of a stream."""

    got: str
    remedy: str
    is_absent: bool = False
    """Whether nothing answers: it may not be on yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says to a request."""

    status: int
    content_type: str = ""
    length: int | None = None
    """In bytes; None: it goes on, or does not say."""


def is_film(url: str) -> bool:
    """Whether a web server holds a film there, which has an end, rather than sends what a camera sees. It is asked
    where the name does not tell; one that does not answer has none."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        return False
    if parts.path.lower().endswith(_FILMS):
        return True
    try:
        answer = _ask_http(url)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return answer.length is not None and answer.content_type.startswith("video/")


def why_not(url: str) -> Diagnosis:
    """A stream that could not be opened."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if parts.hostname is None or scheme not in _PORTS:
        return Diagnosis("no answer", _ADDRESS, is_absent=True)
    where = f"{parts.hostname}:{parts.port or _PORTS[scheme]}"
    try:
        socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), timeout=TIMEOUT_S).close()
    except OSError as error:
        return Diagnosis(f"'{error.strerror or error}' from {where}", _ADDRESS, is_absent=True)
    try:
        if scheme in ("http", "https"):
            return _in_words(_ask_http(url), parts, where)
        if scheme == "rtsp":
            return _in_words(Answer(_ask_rtsp(parts)[0]), parts, where)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            return Diagnosis(f"no answer from {where} in {TIMEOUT_S:g} s", _ADDRESS, is_absent=True)
        # else it speaks something else
    return Diagnosis(f"an answer from {where}, but no video", "check that the address is that of a stream")


def _in_words(answer: Answer, parts: SplitResult, where: str) -> Diagnosis:
    path = parts.path or "/"
    if answer.status in (401, 403):
        given = "a wrong user or password" if parts.username else "no user and password, where it wants them,"
        remedy = f"write them as {parts.scheme}://USER:PASSWORD@{parts.hostname}…, special characters as %40 for @"
        return Diagnosis(f"{given} for {where} ({answer.status})", remedy)
    if answer.status in (404, 454):
        return Diagnosis(
            f"no such path {path!r} on {where} ({answer.status})", "look for the stream's path in the camera's manual"
        )
    if answer.content_type.startswith(("text/html", "application/xhtml")):
        return Diagnosis(
            f"a web page at {path!r} of {where}",
            "give the address of the stream itself, not of the page that shows it",
        )
    if answer.status >= 400:
        return Diagnosis(f"the status {answer.status} from {where}", _ADDRESS)
    what = f" ({answer.content_type})" if answer.content_type else ""
    return Diagnosis(f"an answer from {where}, but no video{what}", "check that the address is that of a stream")


def _ask_http(url: str) -> Answer:
    bare = without_credentials(url)
    parts = urlsplit(url)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username:
        passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""))
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    )
    try:
        with opener.open(bare, timeout=TIMEOUT_S) as response:
            return _answer(response.status, response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers)


def _answer(status: int, headers: email.message.Message) -> Answer:
    length = headers.get("Content-Length", "")
    return Answer(status, headers.get_content_type(), int(length) if length.isdigit() else None)


def described(url: str) -> str | None:
    """What a camera says of its stream (SDP, RFC 8866) where it is asked over RTSP; None: it does not say."""
    parts = urlsplit(url)
    if parts.scheme.lower() != "rtsp":
        return None
    try:
        status, description = _ask_rtsp(parts)
    except (OSError, ValueError):
        return None
    return description if status == 200 else None


def _ask_rtsp(parts: SplitResult) -> tuple[int, str]:
    """Status and text of the server's answer to DESCRIBE (RFC 2326), with user and password where it asks for them."""
    url = without_credentials(parts.geturl())
    with socket.create_connection((parts.hostname or "", parts.port or _PORTS["rtsp"]), timeout=TIMEOUT_S) as server:
        status, head, text = _describe(server, url, 1, "")
        challenge = re.search(r"^WWW-Authenticate: *(Digest|Basic) (.*)$", head, re.IGNORECASE | re.MULTILINE)
        if status == 401 and challenge and parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
            authorization = _authorization(challenge[1], challenge[2], url, user, password)
            status, _, text = _describe(server, url, 2, authorization)
    return status, text


def _describe(server: socket.socket, url: str, number: int, authorization: str) -> tuple[int, str, str]:
    """Status, head and body of the answer."""
    lines = [f"DESCRIBE {url} RTSP/1.0", f"CSeq: {number}", "Accept: application/sdp"]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    server.sendall("\r\n".join([*lines, "", ""]).encode())
    data = b""
    while b"\r\n\r\n" not in data and len(data) < 65_536 and (part := server.recv(4096)):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1").replace("\r", "")
    first = re.match(r"RTSP/\d\.\d (\d{3})", text)
    if first is None:
        raise ValueError("no RTSP")
    length = re.search(r"^Content-Length: *(\d+)$", text, re.IGNORECASE | re.MULTILINE)
    while length and len(body) < min(int(length[1]), 65_536) and (part := server.recv(4096)):
        body += part  # so that the next answer begins at its beginning
    return int(first[1]), text, body.decode("latin-1")


def _authorization(scheme: str, challenge: str, url: str, user: str, password: str) -> str:
    """The header's value for one of the two schemes; digests as RFC 2069 has them, which is what RTSP servers use."""
    if scheme.lower() == "basic":
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    values = urllib.request.parse_keqv_list(urllib.request.parse_http_list(challenge))
    realm, nonce = values.get("realm", ""), values.get("nonce", "")
    secret, request = _md5(f"{user}:{realm}:{password}"), _md5(f"DESCRIBE:{url}")
    response = _md5(f"{secret}:{nonce}:{request}")
    return f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{url}", response="{response}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
