"""What decides on the frames of a run, what may be asked for together, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from engines.base import UsageError, usable_cores
from engines.models.classifier import Classifier
from engines.models.own_classes import OwnClasses
from streamer.analysis.models import SourceModels
from streamer.commands.run.sources import OpenedSource
from streamer.config import Config
from streamer.looking.audit import AUDIT_PERCENT
from streamer.looking.budget import Budget
from streamer.looking.decision import Decider
from streamer.looking.owed import LAG, WHOLE_LAG, OwedLooks
from streamer.records import AreaStatus, AuditStatus


def check_area(config: Config, sources: Sequence[OpenedSource]) -> None:
    """UsageError for a proof of nothing, and for a budget that can't be kept to."""
    for option, value in (("--audit", config.audit), ("--budget", config.budget)):
        if value is not None and config.every_frame:
            raise UsageError(f"{option}: got --every-frame beside it, expected one of the two")
    if config.budget is None:
        return
    for one in sources:
        if one.mode != "live":
            raise UsageError(
                f"--budget: got source {one.name!r} in analysis mode, which loses nothing, expected live mode; "
                "leave out --budget, or add --mode live"
            )


def decider_of(
    config: Config, classifier: Classifier | OwnClasses | None, models: Collection[SourceModels]
) -> Decider | None:
    """What decides on the frames of one slide; None: every frame is looked at. `models`: of all sources, which share
    the budget. A detector that names cells itself needs no other look at them."""
    if config.every_frame:
        return None
    batch = max(one.detector.batch for one in models)
    owed = OwedLooks(LAG * batch, WHOLE_LAG * batch) if isinstance(classifier, Classifier) else None
    budget = None
    if config.budget is not None:
        budget = Budget(usable_cores() * config.budget / 100 / len(models), time.monotonic_ns)
    return Decider(owed, AUDIT_PERCENT if config.audit is None else config.audit, budget)


def area_summary(source: str, area: AreaStatus, audit: AuditStatus | None) -> str:
    """What was looked at, and how the proof went, for people."""
    parts = [f"{source}: looked at {area.looked} of {area.frames} frames, and again at {area.cells_again} known cells"]
    if area.left_out:
        reasons = ", ".join(f"{count} ({reason})" for reason, count in area.left_out.items())
        parts.append(
            f"left out frames with something new: {reasons}, of which {area.left_out_fields:.1f} fields unseen"
        )
    if audit is not None:
        bound = "" if audit.bound is None else f", at most {100 * audit.bound:.1f} % by chance"
        parts.append(f"proof: {audit.missed} of {audit.cells} white cells missed in {audit.frames} frames{bound}")
    return "; ".join(parts)
