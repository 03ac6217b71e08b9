"""What a signature signs: the result, its cells, where they come from and how they were reviewed, in one canonical form
with one hash (docs/review.md).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import numpy as np

from streamer.counting.absolute import described
from streamer.counting.cell_names import NamedCell
from streamer.counting.corrections import Corrections
from streamer.journal.reader import StoredSession
from streamer.records import Differential

FORM = 1
"""Of what is signed."""

_DIGITS = 6
"""Decimals of the numbers that are signed: what a machine's rounding changes is beyond them."""

SignedForm = dict[str, Any]


def signed_form(stored: StoredSession, corrections: Corrections, by: str, at: str, despite: str | None) -> SignedForm:
    """What `by` signs at a moment, as plain data: the state before the event that signs it."""
    count = corrections.count
    found = described(count.differential(final=True), stored.slide)
    events = msgspec.json.encode(corrections.events)
    form: SignedForm = {
        "form": FORM,
        "signed_by": by,
        "signed_utc": at,
        "despite": despite,
        "slide": {
            "session": stored.id,
            "source": stored.source,
            "address": stored.address,
            "begun_utc": stored.created_utc,
        },
        "differential": _differential(found),
        "cells": [_cell(cell, corrections) for cell in count.named_cells()],
        "provenance": {
            "rules": _plain(stored.rules),
            "runs": [[run.run_id, run.started_utc, run.program, run.configuration] for run in stored.runs()],
        },
        "events": len(corrections.events),
        "events_sha256": hashlib.sha256(events).hexdigest(),
    }
    return form


def canonical(form: SignedForm) -> bytes:
    """UTF-8 JSON with sorted keys, without spaces, all numbers finite."""
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_of(signed: bytes) -> str:
    return hashlib.sha256(signed).hexdigest()


def fault_of(signed: bytes, sha256: str, again: SignedForm) -> str | None:
    """Why a signature does not hold, in words: another text than was signed, or another result than the journal gives
    now, `again`. None: it holds."""
    if sha256_of(signed) != sha256:
        return "what stands there as signed is not what was: its SHA-256 is another one"
    try:
        form = json.loads(signed)
    except (ValueError, RecursionError):
        return "what was signed is no JSON"
    if not isinstance(form, dict) or form.get("form") != FORM:
        return f"what was signed has another form than {FORM}; use the version of leukostream that signed it"
    was = form.get("differential")
    if isinstance(was, dict):  # a later version may tell more of the same result
        now = {name: value for name, value in again["differential"].items() if name in was}
        again = {**again, "differential": now}
    # Through JSON, as what was signed went.
    changed = [name for name, value in json.loads(canonical(again)).items() if form.get(name) != value]
    if form.keys() - again.keys():
        changed += sorted(form.keys() - again.keys())
    if not changed:
        return None
    names = ", ".join(_PARTS.get(name, name) for name in changed)
    return f"the journal gives another result than was signed ({names}): it was changed, or another version counts it"


_PARTS = {
    "slide": "the slide",
    "differential": "the differential",
    "cells": "the cells",
    "provenance": "where they come from",
    "events_sha256": "the events of the review",
    "events": "the number of events",
    "signed_by": "who signed",
    "signed_utc": "when",
    "despite": "the reason to sign despite the verdict",
}


def _differential(found: Differential) -> dict[str, Any]:
    plain = _plain(found)
    del plain["review"]  # the signature itself
    return dict(plain)


def _cell(cell: NamedCell, corrections: Corrections) -> list[Any]:
    word = corrections.word(cell.cell_id)
    return [*cell, None if word is None else [word.kind, word.by, word.at]]


def _plain(value: Any) -> Any:
    """As JSON has it, numbers rounded."""
    return _rounded(msgspec.to_builtins(value, enc_hook=_of_numpy, str_keys=True))


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(type(value).__name__)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
