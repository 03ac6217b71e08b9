"""What a desk gives, as JSON for the page and for other programs.

Cells have the names that their messages have (docs/protocol.md); `result_view` is a differential in words, the same as
in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamer.dashboard.canvas import clean
from streamer.dashboard.palette import class_colour, in_order
from streamer.dashboard.words import (
    FLAG_WORDS,
    LEAST_CONFIDENCE,
    METHODS,
    RANGE_WORDS,
    VERDICT_MARKS,
    VERDICT_MEANINGS,
    VERDICT_TONES,
    attribute_words,
    beside,
    class_rows,
    errors_line,
    limits,
    not_seen,
    number,
    size_corrected,
    slide_rows,
    with_smudge_cells,
)
from streamer.protocol.messages import DifferentialMessage
from streamer.records import Flag
from streamer.review.desk import (
    Agreement,
    CellRecord,
    Change,
    Comment,
    HistoryEntry,
    SessionInfo,
    Signature,
    Snapshot,
)
from streamer.review.server.keys import Choice

Json = dict[str, Any]
Ranges = Mapping[str, tuple[float, float]]


def session_json(info: SessionInfo) -> Json:
    return {"session": info.id, "source": clean(info.source), "is_live": info.is_live, "review": _builtin(info.review)}


def cell_json(cell: CellRecord, *, has_frames: bool) -> Json:
    attributes = {name: one for name, one in (cell.attributes or {}).items() if one.confidence >= LEAST_CONFIDENCE}
    return {
        "cell_id": cell.cell_id,
        "class": cell.class_name,
        "subclass": cell.subclass,
        "top_class": cell.top_class,
        "class_probabilities": {name: round(value, 4) for name, value in cell.probabilities.items()},
        "attributes": None if cell.attributes is None else _builtin(dict(cell.attributes)),
        "described": attribute_words(attributes),
        "unclassified_reason": cell.unclassified_reason,
        "looks": cell.looks,
        "partial": cell.partial,
        "counted": cell.counted,
        "kind": cell.kind,
        "island": cell.island,
        "x_px": round(cell.x_px, 1),
        "y_px": round(cell.y_px, 1),
        "views": len(cell.views),
        "has_picture": cell.has_picture or (has_frames and bool(cell.views)),
        "added": cell.added,
        "word": _builtin(cell.word),
        "own": None if cell.own is None else list(cell.own),
        "comments": [comment_json(one) for one in cell.comments],
    }


def comment_json(comment: Comment) -> Json:
    return {"by": comment.by, "at": comment.at, "text": comment.text, "cell_id": comment.cell_id}


def history_json(entry: HistoryEntry) -> Json:
    plain: Json = _builtin(entry)
    return plain


def signature_json(signature: Signature) -> Json:
    """Without what was signed: `signed_result` has that."""
    return {
        "number": signature.number,
        "by": signature.by,
        "at": signature.at,
        "sha256": signature.sha256,
        "despite": signature.despite,
        "fault": signature.fault,
    }


def agreement_json(agreement: Agreement) -> Json:
    plain: Json = _builtin(agreement)
    return plain


def choice_json(choice: Choice) -> Json:
    name = choice.name
    return {
        "key": choice.key,
        "class": choice.class_name,
        "subclass": choice.subclass,
        "name": name,
        "colour": class_colour(name),
    }


def slide_json(
    snapshot: Snapshot, choices: Sequence[Choice], ranges: Ranges | None, reviewer: str | None, *, has_frames: bool
) -> Json:
    """All that the page needs to begin with."""
    names = in_order(list({choice.class_name for choice in choices} | {cell.class_name for cell in snapshot.cells}))
    return {
        **session_json(snapshot.info),
        "version": snapshot.version,
        "reviewer": reviewer,
        "result": None if snapshot.differential is None else result_view(snapshot.differential, ranges),
        "cells": [cell_json(cell, has_frames=has_frames) for cell in snapshot.cells],
        "choices": [choice_json(choice) for choice in choices],
        "order": names,
        "colours": {name: class_colour(name) for name in names},
        "history": [history_json(entry) for entry in snapshot.history],
        "comments": [comment_json(one) for one in snapshot.comments],
        "signatures": [signature_json(one) for one in snapshot.signatures],
        "to_review": snapshot.to_review,
        "reviewed": snapshot.reviewed,
        "blind": list(snapshot.blind),
    }


def change_json(change: Change, ranges: Ranges | None, reviewer: str | None, *, has_frames: bool) -> Json:
    """One or more changes for the page of one reviewer: what another one does blind stays with that one."""
    seen = [entry for entry in change.history if not entry.blind or entry.by == reviewer]
    return {
        "session": change.session,
        "version": change.version,
        "cells": [cell_json(cell, has_frames=has_frames) for cell in change.cells],
        "removed": list(change.removed),
        "result": None if change.differential is None else result_view(change.differential, ranges),
        "history": [history_json(entry) for entry in seen],
    }


def result_view(found: DifferentialMessage, ranges: Ranges | None) -> Json:
    """A differential in words. `ranges`: usual percentages by class; None: not known here."""
    verdict = found.verdict
    absolute = {} if found.wbc is None else found.wbc.classes
    return {
        "name": None if found.slide is None else found.slide.name,
        "about": [[clean(label), clean(value)] for label, value in slide_rows(found.slide)],
        "absolute": None if found.wbc is None else _sentence(found.wbc.note),
        "total": found.total,
        "final": found.final,
        "frames": found.frames,
        "review": _builtin(found.review),
        "reviewed_cells": found.reviewed_cells,
        "verdict": None
        if verdict is None
        else {
            "state": verdict.state,
            "mark": VERDICT_MARKS.get(verdict.state, "?"),
            "tone": VERDICT_TONES.get(verdict.state, "caution"),
            "meaning": VERDICT_MEANINGS.get(verdict.state, ""),
            "reasons": [
                {"text": _sentence(reason.text), "cell_ids": list(reason.cell_ids)} for reason in verdict.reasons
            ],
        },
        "rows": [
            {
                "name": clean(name),
                "colour": class_colour(name),
                "count": share.count,
                "percent": number(share.percent, 1),
                "share": share.percent,
                "low": share.low,
                "high": share.high,
                "limits": limits(share.low, share.high),
                "range": None if ranges is None or name not in ranges else list(ranges[name]),
                "absolute": "" if absolute.get(name) is None else number(absolute[name].value, 2),
                "usual": "–" if ranges is None or name not in ranges else "{:g}–{:g}".format(*ranges[name]),
                "state": found.ranges.get(name),
                "judged": RANGE_WORDS.get(found.ranges.get(name, ""), ""),
            }
            for name, share in class_rows(found)
        ],
        "flags": [_flag(flag) for flag in found.flags],
        "notes": _notes(found),
        "not_assessed": [clean(name) for name in found.not_assessed],
    }


def _flag(flag: Flag) -> Json:
    return {
        "word": FLAG_WORDS.get(flag.direction or "", "Flag"),
        "direction": flag.direction,
        "class": flag.class_,
        "text": clean(flag.text),
        "cell_ids": list(flag.cell_ids),
    }


def _notes(found: DifferentialMessage) -> list[str]:
    per_100 = found.nrbc_per_100_wbc
    nucleated = "" if per_100 is None else f" ({number(per_100, 1)} per 100 white cells)"
    unseen, errors = not_seen(found), errors_line(found, None)
    wrong = f": {errors}" if errors else ""
    method = METHODS.get(found.limits_method, found.limits_method)
    notes = [
        f"nucleated red cells: {number(found.nrbc)}{nucleated}",
        beside(found),
        size_corrected(found),
        with_smudge_cells(found),
        f"not seen: {unseen}" if unseen else "",
        f"the limits are those of sampling only ({method}); what the classifier gets wrong comes on top{wrong}",
    ]
    return [_sentence(note) for note in notes if note]


def _sentence(text: str) -> str:
    whole = clean(text[:1].upper() + text[1:])
    return whole if whole.endswith(".") else f"{whole}."


def _builtin(value: Any) -> Any:
    return msgspec.to_builtins(value)
