"""CURVE keys on disk: one's own pair, and the public keys of those who may come in.

A key folder is what `leukostream keys new DIR` makes:

    DIR/leukostream.key           the public key: give it to the other side
    DIR/leukostream.key_secret    the secret key, for the owner alone (mode 0600)
    DIR/authorised/NAME.key       public keys of subscribers who may read
    DIR/authorised/control/NAME.key   … who may also give commands

Key files are TOML: `public-key = "40 characters"`, in the secret one `secret-key = "…"` too, Z85 as ZeroMQ writes it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from engines.base import InvalidTomlError, LeukostreamError, UsageError, parse_toml

PUBLIC_NAME = "leukostream.key"
SECRET_NAME = "leukostream.key_secret"
AUTHORISED = "authorised"
CONTROL = "control"

_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_FILE_MAX_BYTES = 4096
_AUTHORISED_MAX = 1000


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Z85 text, 40 bytes each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=…)"


@dataclass(frozen=True, slots=True)
class Authorised:
    """Whose a public key is."""

    name: str
    may_control: bool


def write_key_folder(folder: Path, pair: KeyPair) -> None:
    """Make a key folder, nobody else's to read. UsageError where keys lie there already: they are never replaced."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / AUTHORISED / CONTROL).mkdir(mode=0o700, parents=True, exist_ok=True)
        public, secret = pair.public.decode(), pair.secret.decode()
        _write_new(folder / SECRET_NAME, f'public-key = "{public}"\nsecret-key = "{secret}"\n', 0o600)
        _write_new(folder / PUBLIC_NAME, f'public-key = "{public}"\n', 0o644)
    except FileExistsError as error:
        raise UsageError(
            f"keys new {folder}: got {error.filename}, which exists, expected a folder without keys: "
            "choose another one, or move the old keys away"
        ) from None
    except OSError as error:
        raise LeukostreamError(
            f"keys new {folder}: got {error.strerror}, expected a folder that can be made"
        ) from error


def read_key_pair(folder: str | Path) -> KeyPair:
    """The own pair in a key folder.

    UsageError where it is missing, malformed, or can be read by others than its owner.
    """
    path = Path(folder) / SECRET_NAME
    values = _read(path, f"leukostream keys new {folder}", secret=True)
    return KeyPair(_key(values, "public-key", path), _key(values, "secret-key", path))


def read_public_key(path: str | Path) -> bytes:
    """The public key in a file, Z85. UsageError where it is missing or malformed."""
    path = Path(path)
    return _key(_read(path, f"a file {PUBLIC_NAME} that `leukostream keys new` made"), "public-key", path)


class AuthorisedKeys:
    """The public keys in DIR/authorised; `look_up` sees files that were added or removed since."""

    def __init__(self, folder: str | Path) -> None:
        """UsageError where the folder is missing, others may write to it, or a key file in it is malformed."""
        self._folder = Path(folder) / AUTHORISED
        self._stamp: tuple[object, ...] = ()
        self._keys: dict[bytes, Authorised] = {}
        if not self._folder.is_dir():
            raise UsageError(
                f"keys {self._folder}: got no such folder, expected one with the public keys of subscribers: "
                f"make it with leukostream keys new {folder}"
            )
        self._load()

    def look_up(self, public: bytes) -> Authorised | None:
        """Whose key this is (Z85); None for nobody's, and for everybody's while the folder can't be read."""
        try:
            if self._stamps() != self._stamp:
                self._load()
        except (OSError, UsageError):
            self._stamp, self._keys = (), {}
            return None
        return self._keys.get(public)

    def _folders(self) -> tuple[Path, Path]:
        return self._folder, self._folder / CONTROL

    def _stamps(self) -> tuple[object, ...]:
        """Changes whenever a file is added, replaced or removed."""
        there = [folder.stat() for folder in self._folders() if folder == self._folder or folder.is_dir()]
        return tuple((status.st_mtime_ns, status.st_mode) for status in there)

    def _load(self) -> None:
        stamp = self._stamps()
        keys: dict[bytes, Authorised] = {}
        for folder in self._folders():
            if not folder.is_dir():
                continue
            if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise UsageError(
                    f"keys {folder}: got one that others may write to, expected its owner only: chmod go-w {folder}"
                )
            files = sorted(folder.glob("*.key"))
            if len(files) > _AUTHORISED_MAX:
                raise UsageError(f"keys {folder}: got {len(files)} keys, expected at most {_AUTHORISED_MAX}")
            for path in files:
                keys[read_public_key(path)] = Authorised(path.stem, folder.name == CONTROL)
        self._stamp, self._keys = stamp, keys


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _read(path: Path, hint: str, *, secret: bool = False) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_FILE_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"key {path}: got {error.strerror}, expected a key file: {hint}") from error
    if secret and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"key {path}: got permissions {stat.S_IMODE(mode):04o}, expected 0600: others could read the secret key; "
            f"chmod 600 {path}, and make new keys if others had access"
        )
    try:
        return parse_toml(data)
    except InvalidTomlError:
        raise UsageError(f'key {path}: got what is no key file, expected public-key = "…" in TOML: {hint}') from None


def _key(values: dict[str, object], name: str, path: Path) -> bytes:
    value = values.get(name)
    if not isinstance(value, str) or not _Z85.fullmatch(value):
        kind = "nothing" if value is None else "something else"
        raise UsageError(f"key {path}: got {kind} as {name}, expected 40 characters of Z85")
    return value.encode("ascii")
