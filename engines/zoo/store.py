"""Where the files of models are: in the package, or, of those too large to ship, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import BinaryIO, Literal

from engines.base import CardError, ModelNotFoundError, UsageError
from engines.zoo.card import Card

Place = Literal["shipped", "in the cache folder", "not here"]

_TIMEOUT_S = 30.0
_CHUNK = 1 << 20


def cache_folder(name: str = "models") -> Path:
    """Where pulled and rebuilt models are kept, or plans: below LEUKOSTREAM_CACHE, else in the user's cache folder."""
    chosen = os.environ.get("LEUKOSTREAM_CACHE")
    if chosen:
        return Path(chosen) / name
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "leukostream" / name


def place_of(card: Card, zoo: Traversable) -> Place:
    """Where the file of a model of the zoo is."""
    if (zoo / card.file).is_file():
        return "shipped"
    return "in the cache folder" if (cache_folder() / card.file).is_file() else "not here"


def read_model(card: Card, zoo: Traversable) -> bytes:
    """The file of a model of the zoo, checked against its card. ModelNotFoundError says how to get a missing one."""
    place = place_of(card, zoo)
    if place == "not here":
        raise ModelNotFoundError(f"{card.name}: got its card but not {card.file}; {how_to_get(card)}")
    file: Traversable = zoo / card.file if place == "shipped" else cache_folder() / card.file
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"{card.name}: {file} can't be read ({error.strerror}); {how_to_get(card)}") from error
    card.check_file(data, card.name if place == "shipped" else str(file))
    return data


def how_to_get(card: Card) -> str:
    """What to do for a model whose file is not here, in one line."""
    first = f"make it with: {' && '.join(card.build)};" if card.build else "install leukostream again,"
    return f"{first} or fetch it with: leukostream models pull {card.name} --from URL|DIR"


def pull(card: Card, source: str) -> Path:
    """Bring a model's file from a folder, a file or an http(s) address into the cache folder; its path there.

    CardError where it is not the file of the card, or the card can't tell; nothing is kept then. UsageError for a
    source that is none, ModelNotFoundError where it has no such file.
    """
    if card.sha256 is None:
        raise CardError(f"{card.name}: got a card without sha256, expected one: what is pulled has to be checked")
    target = cache_folder() / card.file
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        digest = hashlib.sha256()
        with _opened(card, source) as given, open(part, "wb") as out:
            while chunk := given.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != card.sha256:
            raise CardError(
                f"{source}: got sha256 {digest.hexdigest()[:12]}…, expected {card.sha256[:12]}… by the card of "
                f"{card.name!r}; nothing was kept: give the file that belongs to this version of leukostream"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


@contextmanager
def _opened(card: Card, source: str) -> Iterator[BinaryIO]:
    scheme = urllib.parse.urlsplit(source).scheme
    if scheme in ("http", "https"):
        address = source if source.endswith(".onnx") else f"{source.rstrip('/')}/{card.file}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as response:
                yield response
        except (urllib.error.URLError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise ModelNotFoundError(f"{address}: got {reason}, expected {card.file}; give another --from") from error
        return
    if "://" in source:
        raise UsageError(f"--from: got {source!r}, expected an http or https address, a folder or a file")
    path = Path(source).expanduser()
    file = path / card.file if path.is_dir() else path
    if not file.is_file():
        raise ModelNotFoundError(f"{file}: got no file, expected {card.file}; give another --from")
    with open(file, "rb") as given:
        yield given
