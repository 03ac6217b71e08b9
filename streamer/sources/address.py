"""What a person writes after `--source`, parsed: `[NAME=]SRC`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from engines.base import UsageError
from streamer.sources.packages import prefixes

Kind = Literal[
    "camera", "stream", "path", "sim", "replay", "imagezmq", "wsi", "mm", "genicam", "pylon", "openflexure", "package"
]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LIKE_A_NAME = re.compile(r"[^/\\:.*?\[\]~]*")
_DEVICE = re.compile(r"/dev/video(\d+)")
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")
_PREFIXES: dict[str, Kind] = {
    "sim:": "sim",
    "replay:": "replay",
    "imagezmq:": "imagezmq",
    "camera:": "camera",
    "wsi:": "wsi",
    "mm:": "mm",
    "genicam:": "genicam",
    "pylon:": "pylon",
    "openflexure:": "openflexure",
}
_MAX_NAME = 32


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """One source as asked for; nothing has been looked at yet."""

    name: str
    """The `source` of the messages."""
    kind: Kind
    """`path` is a video file, an image, a folder or a glob: which one shows when it is opened. `package` is a source
    that another package brings."""
    target: str
    """What stands behind the prefix: the camera's index or device and its settings, the whole URL, the path, the
    simulator's options. Of a `package` the prefix too."""
    named: bool
    """Whether the person gave the name."""

    @property
    def shown(self) -> str:
        """The target without user and password, for people and messages."""
        if self.kind == "package":
            prefix, _, target = self.target.partition(":")
            return f"{prefix}:{without_credentials(target) if '://' in target else target}"
        return without_credentials(self.target) if self.kind == "stream" else self.target


def is_name(text: str) -> bool:
    """Whether a source can be called so."""
    return _NAME.fullmatch(text) is not None


def split_name(text: str, option: str) -> tuple[str | None, str]:
    """`[NAME=]REST` of an option's value -> (name or None, rest); UsageError for a name that can't be one."""
    head, equals, rest = text.partition("=")
    if not equals or not _LIKE_A_NAME.fullmatch(head):
        return None, text.strip()
    name = head.strip()
    if not is_name(name):
        raise UsageError(
            f"{option} {text!r}: got the name {name!r}, expected letters, digits, '_' and '-', a letter first;"
            " write a path that has a '=' as ./PATH"
        )
    return name, rest.strip()


def parse_source(text: str) -> SourceAddress:
    """`[NAME=]SRC`; UsageError for a name that can't be one and for an empty or unknown SRC.

    What stands before the first `=` is a name when it looks like one, so that `sim:seed=7` and a URL's query keep
    theirs; a path that has a `=` is written with a `/`: `./a=b.mp4`.
    """
    name, source = split_name(text, "--source")
    if not source:
        raise UsageError(
            f"--source {text!r}: got no source, expected [NAME=]SRC, such as 0, rtsp://HOST/PATH or DIRECTORY"
        )
    kind, target = _kind(source)
    return SourceAddress(name or _short_name(kind, target), kind, target, named=name is not None)


def unique_names(addresses: Iterable[SourceAddress]) -> tuple[SourceAddress, ...]:
    """The same with different names: made ones get `-2`, `-3` …; UsageError where a person gave one twice."""
    addresses = tuple(addresses)
    taken: set[str] = set()
    for address in addresses:
        if address.named:
            if address.name in taken:
                raise UsageError(
                    f"--source {address.name}=…: got the name {address.name!r} twice, expected different ones"
                )
            taken.add(address.name)
    unique = []
    for address in addresses:
        name, number = address.name, 2
        if not address.named:
            while name in taken:
                name, number = f"{address.name}-{number}", number + 1
            taken.add(name)
        unique.append(replace(address, name=name))
    return tuple(unique)


def split_options(target: str) -> tuple[str, str]:
    """(path, options) of a recording or a slide: `FILE,speed=2,source=left`, or `FILE?speed=2&source=left`."""
    match = re.search(r"[,?](?=\w+=[^/\\]*$)", target)
    return (target[: match.start()], target[match.end() :]) if match else (target, "")


def named_track(target: str) -> str | None:
    """The source of a recording that the options name."""
    match = re.search(r"(?:^|[,&])source=([^,&]+)", split_options(target)[1])
    return match[1].strip() if match else None


def without_credentials(url: str) -> str:
    """The URL without `user:password@`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
        return parts.hostname or ""
    except ValueError:  # brackets that are no IPv6 address, a port that is no number
        return ""


def _kind(source: str) -> tuple[Kind, str]:
    for prefix, kind in _PREFIXES.items():
        if source.lower().startswith(prefix):
            return kind, source[len(prefix) :]
    if source.isascii() and source.isdigit():
        return "camera", source
    if _DEVICE.fullmatch(source):
        return "camera", source
    if source.lower().startswith(_STREAMS):
        if not _host(source):
            raise UsageError(
                f"--source {source!r}: got no host and port that can be used, expected an address such as rtsp://HOST:554/PATH"
            )
        return "stream", source
    prefix, colon, _ = source.partition(":")
    if colon and prefix in prefixes():
        return "package", source
    scheme, slashes, rest = source.partition("://")
    if slashes and scheme.lower() == "file":
        return "path", rest
    if slashes and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        own = [f"{prefix}:" for prefix in prefixes()]
        known = ", ".join([*(stream.removesuffix("://") for stream in _STREAMS), *_PREFIXES, *own])
        raise UsageError(f"--source {source!r}: got the scheme {scheme!r}, expected one of {known}, or a path")
    return "path", source


def _short_name(kind: Kind, target: str) -> str:
    if kind == "camera":
        number = re.match(r"(?:/dev/video)?(\d+)", target, re.ASCII)
        return f"camera{int(number[1])}" if number else "camera"
    if kind == "stream":
        text = _host(target)
    elif kind == "openflexure":
        text = _host(f"http://{target.partition(',')[0]}")
    elif kind in ("genicam", "pylon"):
        parts = [part.strip() for part in target.split(",")]
        text = next((part for part in parts if part and part != "aravis" and not part.lower().endswith(".cti")), "")
    elif kind == "mm":
        text = PurePath(target.partition(",")[0]).stem
    elif kind in ("path", "replay", "wsi"):
        if kind != "path":
            target = named_track(target) or split_options(target)[0]
        # A glob is named after the folder that it looks into.
        parts = [part for part in PurePath(target).parts if not re.search(r"[*?\[]", part)]
        text = PurePath(parts[-1]).stem if parts else ""
    elif kind == "package":
        text = target.partition(":")[0]
    else:
        text = ""
    text = re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:_MAX_NAME].rstrip("-")
    fallback = {"path": "images"}.get(kind, kind)
    if not text:
        return fallback
    return text if text[0].isalpha() else f"{fallback}-{text}"
