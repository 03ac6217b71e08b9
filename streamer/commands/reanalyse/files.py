"""The files that a shard is read from, and whether they are still those."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from engines.base import LeukostreamError
from streamer.sources import parse_source
from streamer.sources.address import split_options
from streamer.sources.images import list_images


@dataclass(frozen=True, slots=True)
class Files:
    """The files that a shard is read from."""

    root: str
    paths: tuple[str, ...]
    """Absolute; none of the simulated slide."""

    @classmethod
    def of(cls, address: str) -> Files:
        """LeukostreamError where they are gone."""
        parsed = parse_source(address)
        if parsed.kind == "sim":
            return cls("", ())
        path = os.path.expanduser(parsed.target if parsed.kind == "path" else split_options(parsed.target)[0])
        if parsed.kind == "path":
            return cls(os.path.dirname(path), tuple(map(str, list_images(path))))
        roots = [path, os.path.splitext(path)[0]] if parsed.kind == "wsi" else [path]  # MRXS has a folder beside it
        files = [file for root in roots for file in _below(root)]
        if not files:
            raise LeukostreamError(f"{address}: got no such file or folder, expected one; check the path")
        return cls(os.path.dirname(path), tuple(files))

    def listing(self) -> str:
        """A hash of names, sizes and times of change: while it is the same, so are the contents."""
        digest = hashlib.sha256()
        for path in self.paths:
            found = os.stat(path)
            digest.update(f"{os.path.relpath(path, self.root)}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def sha256(self) -> str:
        """Of names and contents."""
        digest = hashlib.sha256()
        for path in self.paths:
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{os.path.relpath(path, self.root)}\0{content}\0".encode())
        return digest.hexdigest()


def _below(root: str) -> list[str]:
    if os.path.isfile(root):
        return [root]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
