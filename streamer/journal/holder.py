"""Which process holds a file, where the system says so (Linux: /proc/locks)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from engines.base import printable

LOCKS = Path("/proc/locks")


def holder_of(path: Path) -> str | None:
    """Number and name of another process that has locked a journal or its log's index; None: nobody knows one."""
    try:
        lines = LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    inodes = set(_inodes((path, path.with_name(f"{path.name}-shm"))))
    for line in lines:
        fields = line.replace("->", "").split()
        if len(fields) >= 6 and fields[5].rpartition(":")[2] in inodes and fields[4].isdecimal():
            number = int(fields[4])
            if number not in (0, os.getpid()):
                return f"process {number}{_name(number)}"
    return None


def _inodes(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            yield str(path.stat().st_ino)
        except OSError:
            continue


def _name(number: int) -> str:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    name = printable(" ".join(word for word in words if word))[:80]
    return f", {name}" if name else ""
