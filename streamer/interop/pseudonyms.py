"""What stands for the names in a journal where they may not leave it."""

from __future__ import annotations

import hashlib
import hmac
import uuid

import msgspec

from streamer.records import SlideInfo

_PSEUDONYMS = uuid.UUID("5b6ad1f2-97a4-4c7e-8f0e-3f1c2a6f5d11")
"""Of our own, so that no other program's identifiers are met."""

IDENTIFYING = ("name", "accession", "operator", "instrument")
"""Of SlideInfo, beside the laboratory's own fields."""


def pseudonym_of(session: str) -> uuid.UUID:
    """What stands for the person behind a session: the same for the same session, and nothing but chance without it,
    as the id of a session is random."""
    return uuid.uuid5(_PSEUDONYMS, session)


def pseudonymous(slide: SlideInfo, key: str) -> SlideInfo:
    """With other texts for whatever identifies; the same text has the same one under the same key. `key`: random and
    known to those only who have the names too, or a list of names would tell which is which."""
    said = {name: text for name in IDENTIFYING if (text := getattr(slide, name)) is not None}
    texts = {name: _standing_for("slide" if name == "name" else name, text, key) for name, text in said.items()}
    fields = {
        _standing_for("field", name, key): _standing_for("text", text, key) for name, text in slide.fields.items()
    }
    return msgspec.structs.replace(slide, fields=fields, **texts)


def _standing_for(what: str, text: str, key: str) -> str:
    digest = hmac.new(key.encode(), f"{what} {text}".encode(), hashlib.sha256).hexdigest()
    return f"{what}-{digest[:12]}"
