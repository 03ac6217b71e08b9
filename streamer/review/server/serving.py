"""The review's server at an address: who can reach it, encryption, and uvicorn."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from engines.base import LeukostreamError, UsageError
from streamer.review.server.guard import LOOPBACK_NAMES

GRACE_S = 1
"""For answers that are under way when the server ends; event streams never end by themselves."""


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT to listen at."""

    host: str
    port: int
    """0: any free one."""

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        ip = _ip(self.host)
        return ip is not None and ip.is_loopback

    @property
    def is_everywhere(self) -> bool:
        """On all interfaces."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified

    def names(self) -> tuple[str, ...]:
        """Under which a browser may ask for it."""
        if self.is_loopback:
            return (*LOOPBACK_NAMES, self.host)
        return (*LOOPBACK_NAMES, self.host, socket.gethostname(), socket.getfqdn())


@dataclass(frozen=True, slots=True)
class Certificate:
    cert: str
    key: str
    """Files, PEM."""


def address_of(text: str) -> Address:
    """HOST:PORT, `[…]` around an IPv6 address; UsageError for anything else."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not colon or not bare or bracketed != (":" in bare) or not (port.isascii() and port.isdecimal()):
        raise UsageError(f"--bind: got {text!r}, expected HOST:PORT, such as 127.0.0.1:8080; port 0 is any free one")
    if int(port) > 65535:
        raise UsageError(f"--bind: got the port {port}, expected one up to 65535")
    return Address(bare, int(port))


def check_reach(address: Address, certificate: Certificate | None, insecure: bool) -> None:
    """UsageError for an address that others can reach and that nothing encrypts."""
    if not (address.is_loopback or certificate or insecure):
        raise UsageError(
            f"--bind {address.host}: got an address that other machines can reach, where anyone on the way could read"
            " the token; expected --tls-cert and --tls-key, a loopback address such as 127.0.0.1:0, or --insecure to"
            " allow it"
        )


def check_certificate(certificate: Certificate) -> None:
    """UsageError for files that are none, or do not belong together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate.cert, certificate.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        what = error.strerror or str(error)
        raise UsageError(
            f"--tls-cert {certificate.cert}, --tls-key {certificate.key}: got '{what}', expected a certificate and its"
            " key, without a password, as PEM files"
        ) from error


def listening(address: Address) -> socket.socket:
    """LeukostreamError for an address that can't be had."""
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((address.host, address.port))
            found.listen(64)
        except BaseException:
            found.close()
            raise
    except OSError as error:
        raise LeukostreamError(
            f"--bind {address.host}:{address.port}: got '{error.strerror}', expected an address of this machine that is"
            " free; try another port, or 0 for any free one"
        ) from error
    return found


def new_token() -> str:
    return secrets.token_urlsafe(32)


def page_url(address: Address, port: int, token: str, scheme: str) -> str:
    host = socket.gethostname() if address.is_everywhere else address.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"


def serve(app: ASGIApp, bound: socket.socket, certificate: Certificate | None, started: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM. `started` is called once requests are answered."""
    _Server(server_config(app, certificate), started).run([bound])


def server_config(app: ASGIApp, certificate: Certificate | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,  # it would hold the token
        lifespan="on",
        ssl_certfile=None if certificate is None else certificate.cert,
        ssl_keyfile=None if certificate is None else certificate.key,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        proxy_headers=False,
        ws="none",
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
