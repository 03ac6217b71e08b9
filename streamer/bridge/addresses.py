"""Where a bridge delivers, and what it shows there: addresses from the command line, secrets from anywhere else."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from engines.base import UsageError
from streamer.network.endpoints import is_local

PORTS: Mapping[str, int] = {
    "mqtt": 1883,
    "mqtts": 8883,
    "http": 80,
    "https": 443,
    "nats": 4222,
    "natss": 4222,
    "kafka": 9092,
    "kafkas": 9093,
}
"""By scheme, those of the field; the schemes that end in s are encrypted."""

USER, SECRET = "LEUKOSTREAM_BRIDGE_USER", "LEUKOSTREAM_BRIDGE_SECRET"
SECRET_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Address:
    scheme: str
    host: str
    port: int
    path: str = ""
    """Of a webhook: path and query."""

    @property
    def is_encrypted(self) -> bool:
        return self.scheme.endswith("s") and self.scheme != "nats"

    @property
    def host_port(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """Without the query, which may hold a secret."""
        return f"{self.scheme}://{self.host_port}{self.path.partition('?')[0]}"


def address_of(text: str, *, insecure: bool) -> Address:
    """UsageError for what is no address, for a secret in it, and for one beyond this machine without encryption."""
    expected = "expected mqtt://HOST[:PORT], nats://…, kafka://…, or https://HOST/PATH; mqtts, natss, kafkas encrypt"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"bridge: got {_without_secret(text)!r}, {expected}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"bridge {_without_secret(text)}: got a user in the address, which every user of this machine can read;"
            f" expected it in {USER}, and the password in {SECRET} or --secret-file"
        )
    is_webhook = parts.scheme in ("http", "https")
    if (
        parts.scheme not in PORTS
        or not host
        or port == 0
        or (not is_webhook and (parts.path.strip("/") or parts.query))
    ):
        raise UsageError(f"bridge: got {text!r}, {expected}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "") if is_webhook else ""
    address = Address(parts.scheme, host, port or PORTS[parts.scheme], path)
    if not address.is_encrypted and not insecure and not is_local(f"tcp://{address.host_port}"):
        secure = {"http": "https", "mqtt": "mqtts", "nats": "natss", "kafka": "kafkas"}[address.scheme]
        raise UsageError(
            f"bridge {address}: got an address beyond this machine, where anyone on the way could read along; expected"
            f" {secure}://…, or --insecure to allow it"
        )
    return address


def _without_secret(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", text)


@dataclass(frozen=True, slots=True)
class Secrets:
    user: str | None = None
    secret: str | None = None
    """A password, or what webhooks are signed with."""
    ca: str | None = None
    """A file of certificates, PEM, that the receiver's must come from; None: those of this machine."""

    def __repr__(self) -> str:
        return "Secrets()"

    def tls(self) -> ssl.SSLContext:
        """UsageError for a file that has no certificates."""
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"--ca {self.ca}: got '{error}', expected a file of certificates, PEM") from error


def read_secrets(secret_file: str | None, ca: str | None, environment: Mapping[str, str] = os.environ) -> Secrets:
    """UsageError for a file that can't be read."""
    secret = environment.get(SECRET) or None
    if secret_file is not None:
        try:
            with open(secret_file, encoding="utf-8") as file:
                secret = file.read(SECRET_MAX_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "what is no text"
            raise UsageError(f"--secret-file {secret_file}: got '{reason}', expected a file with the secret") from error
        if not secret:
            raise UsageError(f"--secret-file {secret_file}: got nothing in it, expected the secret")
    return Secrets(environment.get(USER) or None, secret, ca)
