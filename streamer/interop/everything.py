"""JSON of everything that a journal holds but pictures and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

import msgspec

from streamer.interop.sessions import ExportedSession
from streamer.journal import SeenFrame
from streamer.journal.reader import StoredRun
from streamer.protocol.factory import attribute_messages


def write(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    file.write('{"sessions":[')
    for number, one in enumerate(sessions):
        stored = one.stored
        head = {
            "session": one.id,
            "source": one.source,
            "slide": stored.slide.or_none(),
            "address": None if one.pseudonymised else stored.address,
            "created_utc": stored.created_utc,
            "ended": stored.ended,
            "rules": stored.rules,
            "runs": [] if one.pseudonymised else [_run(run) for run in stored.runs()],
            "differential": one.result.differential,
            "cells": [
                {
                    **asdict(cell),
                    "attributes": attribute_messages(cell.attributes),
                    "picture": one.pictures.get(cell.cell_id),
                    "island_um": _um(one.micrometres.on_island(cell)),
                    "stage_um": _um(one.micrometres.on_stage(cell)),
                }
                for cell in one.cells()
            ],
        }
        file.write("," if number else "")
        file.write(msgspec.json.encode(head).decode()[:-1] + ',"frames":[')
        for place, seen in enumerate(stored.frames()):  # one at a time: a session may have a hundred thousand
            file.write(("," if place else "") + "\n")
            file.write(msgspec.json.encode(_frame(one, seen)).decode())
        file.write("]}")
    file.write("]}\n")


def _run(run: StoredRun) -> dict[str, Any]:
    return {**asdict(run), "configuration": msgspec.Raw(run.configuration.encode())}


def _um(place: tuple[float, float] | None) -> dict[str, float] | None:
    return None if place is None else {"x": place[0], "y": place[1]}


def _frame(one: ExportedSession, seen: SeenFrame) -> dict[str, Any]:
    return {
        "frame_id": seen.frame_id,
        "captured_utc": seen.captured_utc,
        "file": one.file(seen),
        "width": seen.width,
        "height": seen.height,
        "stage": seen.placement.position,
        "stage_um": seen.stage_um,
        "um_per_px": seen.um_per_px,
        "lost": seen.placement.reason,
        "accepted": seen.accepted,
        "reasons": seen.reasons,
        "focus": seen.focus,
        "truncated": seen.detections.truncated,
        "looked": seen.looked,
        "detections": [box for box, _ in one.boxes(seen)],
    }
