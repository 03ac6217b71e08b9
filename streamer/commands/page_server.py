"""What commands that serve a page share: their options, the packages they need, and serving it until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from engines.base import LeukostreamError, UsageError
from streamer.commands.options import Group, Parser, flag
from streamer.commands.output import remark, say

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from streamer.review.server.serving import Address, Certificate

PACKAGES = ("fastapi", "uvicorn", "starlette", "pydantic")


class ServerOptions(Protocol):
    @property
    def bind(self) -> str: ...
    @property
    def tls_cert(self) -> str | None: ...
    @property
    def tls_key(self) -> str | None: ...
    @property
    def insecure(self) -> bool | None: ...


def add_server_options(parser: Parser, insecure: str) -> Group:
    """`insecure`: what --insecure allows."""
    server = parser.add_argument_group("server", "where the page is served; its address is the first line of output")
    server.add_argument("--bind", metavar="HOST:PORT", default="127.0.0.1:0", help="port 0: any free one")
    server.add_argument("--tls-cert", metavar="FILE", help="a certificate, PEM; its page is https")
    server.add_argument("--tls-key", metavar="FILE", help="the certificate's key")
    flag(server, "--insecure", insecure)
    return server


@contextlib.contextmanager
def page_packages(command: str) -> Iterator[None]:
    """For a block that imports what serves pages: LeukostreamError that says how to get it where it is not here."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in PACKAGES:
            raise
        raise LeukostreamError(
            f"{command}: got no package {error.name}, expected it for the page: pip install 'leukostream[review]'"
        ) from error


@dataclass(frozen=True, slots=True)
class PageServer:
    address: Address
    certificate: Certificate | None
    bound: socket.socket
    token: str = field(repr=False)

    @property
    def guarding(self) -> dict[str, Any]:
        """The arguments of `Guard` beside the application."""
        return {
            "token": self.token,
            "names": self.address.names(),
            "any_address": self.address.is_everywhere,
            "scheme": "http" if self.certificate is None else "https",
        }

    def serve(self, app: ASGIApp, hint: str) -> None:
        """Until Ctrl-C. The first line of output is the page's address, `hint` follows it."""
        from streamer.review.server import serving

        port = self.bound.getsockname()[1]
        url = serving.page_url(self.address, port, self.token, self.guarding["scheme"])

        def started() -> None:
            say(url)
            remark(hint)

        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            serving.serve(app, self.bound, self.certificate, started)


@contextlib.contextmanager
def page_server(options: ServerOptions, command: str) -> Iterator[PageServer]:
    """Listening at the address that was asked for. UsageError for options that can't be meant or that others could
    listen to, LeukostreamError for an address that can't be had."""
    with page_packages(command):
        from streamer.review.server import serving
    address = serving.address_of(options.bind)
    if (options.tls_cert is None) != (options.tls_key is None):
        given, other = ("--tls-cert", "--tls-key") if options.tls_cert else ("--tls-key", "--tls-cert")
        raise UsageError(f"{given}: got no {other}, expected both")
    certificate = None
    if options.tls_cert is not None and options.tls_key is not None:
        certificate = serving.Certificate(options.tls_cert, options.tls_key)
        serving.check_certificate(certificate)
    serving.check_reach(address, certificate, bool(options.insecure))
    with contextlib.closing(serving.listening(address)) as bound:
        yield PageServer(address, certificate, bound, serving.new_token())
