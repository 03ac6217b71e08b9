"""JSON Lines that a terminal may show: what JSON leaves as it is and a terminal would obey is escaped."""

from __future__ import annotations

import re

_OBEYED = re.compile(rb"\x7f|\xc2[\x80-\x9f]")
"""DEL and the C1 controls, in UTF-8; JSON itself escapes the others."""


def json_line(value: bytes) -> bytes:
    r"""A line of the JSON value in UTF-8, which has no line breaks; equal to it as JSON, `\n` behind it."""
    if value.isascii() and b"\x7f" not in value:
        return value + b"\n"
    return _OBEYED.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), value) + b"\n"
