"""Where the files of models are: in the package, in a clone alone, or, once pulled, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import BinaryIO, Literal

from engines.base import CardError, ModelNotFoundError, UsageError
from engines.zoo.card import Card

Place = Literal["shipped", "in the clone", "in the cache folder", "not here"]

PUBLISHED = "published"
"""Folder of the zoo for the models of the publications: a clone has their files, the wheel their cards alone."""

_TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_FOLDERS = ("", f"engines/zoo/{PUBLISHED}/", "engines/zoo/")
"""Below what --from names: a folder of models itself, or a clone."""


def cache_folder(name: str = "models") -> Path:
    """Where pulled and rebuilt models are kept, or plans: below LEUKOSTREAM_CACHE, else in the user's cache folder."""
    chosen = os.environ.get("LEUKOSTREAM_CACHE")
    if chosen:
        return Path(chosen) / name
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "leukostream" / name


def _files(card: Card, zoo: Traversable) -> dict[Place, Traversable]:
    """Where the file of a model of the zoo may be, in the order in which it is looked for."""
    return {
        "shipped": zoo / card.file,
        "in the clone": zoo / PUBLISHED / card.file,
        "in the cache folder": cache_folder() / card.file,
    }


def place_of(card: Card, zoo: Traversable) -> Place:
    """Where the file of a model of the zoo is."""
    return next((place for place, file in _files(card, zoo).items() if file.is_file()), "not here")


def file_of(card: Card, zoo: Traversable) -> Traversable:
    """The file of a model of the zoo. ModelNotFoundError says how to get a missing one."""
    place = place_of(card, zoo)
    if place == "not here":
        raise ModelNotFoundError(f"{card.name}: got its card but not {card.file}; {how_to_get(card)}")
    return _files(card, zoo)[place]


def read_model(card: Card, zoo: Traversable) -> bytes:
    """The file of a model of the zoo, checked against its card. ModelNotFoundError says how to get a missing one."""
    file = file_of(card, zoo)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"{card.name}: {file} can't be read ({error.strerror}); {how_to_get(card)}") from error
    card.check_file(data, card.name if place_of(card, zoo) == "shipped" else str(file))
    return data


def how_to_get(card: Card) -> str:
    """What to do for a model whose file is not here, in one line."""
    fetch = f"fetch it with: leukostream models pull {card.name} --from CLONE|URL (of leukostream's repository)"
    return f"{fetch}, or make it with the commands under `build` of its card" if card.build else fetch


def pull(card: Card, source: str) -> Path:
    """Bring a model's file into the cache folder: from a clone, a folder, a file, or an http(s) address of any of them;
    its path there.

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
        with _answer(card, source) as response:
            yield response
        return
    if "://" in source:
        raise UsageError(f"--from: got {source!r}, expected a clone, a folder, a file or an http(s) address")
    path = Path(source).expanduser()
    choices = [path / folder / card.file for folder in _FOLDERS] if path.is_dir() else [path]
    file = next((choice for choice in choices if choice.is_file()), None)
    if file is None:
        raise ModelNotFoundError(f"{choices[0]}: got no file, expected {card.file}; give another --from")
    with open(file, "rb") as given:
        yield given


def _answer(card: Card, source: str) -> BinaryIO:
    """The file at an address: of the file itself, of its folder, or of what a clone holds."""
    base = source.rstrip("/")
    exact = source.endswith(".onnx")
    addresses = [source] if exact else [f"{base}/{folder}{card.file}" for folder in _FOLDERS]
    reason: object = None
    for address in addresses:
        try:
            opened: BinaryIO = urllib.request.urlopen(address, timeout=_TIMEOUT_S)
            return opened
        except urllib.error.HTTPError as error:
            reason = reason or error.reason
            if error.code != HTTPStatus.NOT_FOUND:
                break
        except (urllib.error.URLError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            break
    raise ModelNotFoundError(f"{addresses[0]}: got {reason}, expected {card.file}; give another --from")
