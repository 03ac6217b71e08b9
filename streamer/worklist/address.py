"""Where a list is kept: `--to DIR|sqlite:///FILE|postgresql://…`.

The address may hold a password: no text of it is ever repeated, only `shown`, which is made of the parts that are none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from engines.base import UsageError, printable

FILE = "worklist.sqlite"
"""In a folder that is given."""

EXPECTED = "expected a folder, sqlite:///FILE or postgresql://[USER@]HOST[:PORT]/DATABASE"
DRIVER = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Address:
    url: URL = field(repr=False)
    shown: str
    """For people, without a password."""
    file: Path | None
    """None: on a server."""

    def without_secrets(self, text: str) -> str:
        """What a driver said, in one line, should it repeat the password."""
        secrets = [self.url.password, *_all(self.url, "password"), *_all(self.url, "sslpassword")]
        for secret in filter(None, secrets):
            text = text.replace(str(secret), "***")
        return printable(" ".join(text.split()))


def address_of(text: str) -> Address:
    """UsageError for anything but one of the three forms."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text:
            raise UsageError(f"--to: got nothing, {EXPECTED}")
        if Path(text).is_file():
            raise UsageError(f"--to {printable(text)}: got a file, expected a folder, or sqlite:///{printable(text)}")
        return _of_file(Path(text) / FILE)
    if scheme == "sqlite":
        if not rest.startswith("/") or not rest[1:] or "?" in rest:
            raise UsageError("--to: got another address than sqlite:///FILE, with three slashes before a path")
        return _of_file(Path(rest[1:]))
    if scheme not in ("postgresql", "postgres"):
        raise UsageError(f"--to: got an address of another kind ({printable(scheme[:20])}://), {EXPECTED}")
    try:
        url = make_url(f"{DRIVER}://{rest}")
        if "@" in f"{url.host}{url.database}":  # the end of a password
            raise ValueError
    except (SQLAlchemyError, ValueError):  # whose texts repeat parts of the address
        raise UsageError(
            "--to postgresql://: got an address that can't be read, expected postgresql://[USER@]HOST[:PORT]/DATABASE;"
            " write special characters of a password as %XX, or leave it to PGPASSWORD or ~/.pgpass"
        ) from None
    if not url.database:
        raise UsageError("--to postgresql://: got no database, expected postgresql://[USER@]HOST[:PORT]/DATABASE")
    return Address(url, _shown(url), None)


def _of_file(path: Path) -> Address:
    return Address(URL.create("sqlite", database=str(path)), printable(str(path)), path)


def _shown(url: URL) -> str:
    user = "" if url.username is None else f"{url.username}@"
    host = "" if url.host is None else f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port is None else f":{url.port}"
    return printable(f"postgresql://{user}{host}{port}/{url.database}")


def _all(url: URL, name: str) -> tuple[str, ...]:
    value = url.query.get(name, ())
    return (value,) if isinstance(value, str) else tuple(value)
