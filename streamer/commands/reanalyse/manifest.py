"""OUT/manifest.json: what a folder of results was made of, so that a second call goes on with it or refuses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engines.base import LeukostreamError, UsageError
from streamer import __version__
from streamer.commands.output import reporting, writing


class ShardRecord(msgspec.Struct, kw_only=True):
    address: str
    listing: str
    """Of its files (Files.listing), when it was begun or last found whole."""
    sha256: str | None = None
    """Of its files (Files.sha256); None: not done yet."""
    done: bool = False
    """Journal and tables are whole."""


class Manifest(msgspec.Struct, kw_only=True):
    program: str = __version__
    options: dict[str, Any]
    """Fields of Config that are not as usual."""
    models: dict[str, str | None]
    """SHA-256 by name; None for one that has no file."""
    shards: dict[str, ShardRecord] = {}
    """By name."""

    @property
    def names(self) -> dict[str, str]:
        """Of the shards, by address."""
        return {record.address: name for name, record in self.shards.items()}

    def check(self, wanted: Manifest, where: Path) -> None:
        """UsageError where results of `wanted` would not belong beside these."""
        for what, was, now in (
            ("version", {"leukostream": self.program}, {"leukostream": wanted.program}),
            ("option", self.options, wanted.options),
            ("model", self.models, wanted.models),
        ):
            for name in sorted({*was, *now}):
                if was.get(name) != now.get(name):
                    raise UsageError(
                        f"-o {where}: got the {what} {name} {_short(now.get(name))}, expected {_short(was.get(name))},"
                        " which its results were begun with; give the same, or another folder"
                    )

    def write(self, out: Path) -> None:
        """Whole or not at all."""
        with writing(str(_file(out))) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read_manifest(out: Path) -> Manifest | None:
    """None: the folder has none yet."""
    path = _file(out)
    if not path.exists():
        return None
    with reporting("-o", path, "a file that can be read"):
        data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise LeukostreamError(
            f"-o {path}: got no manifest of leukostream reanalyse ({error}), expected one; give another folder"
        ) from error


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """LeukostreamError where another process works on the same folder. Without locks (Windows) nobody is refused; the
    journals still are."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    with reporting("-o", out, "a folder that can be written"):
        lock = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeukostreamError(
                f"-o {out}: got a folder that another reanalyse works on, expected one alone; wait for it, or give"
                " another folder"
            ) from None
        yield
    finally:
        os.close(lock)


def _file(out: Path) -> Path:
    return out / "manifest.json"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
