"""Quality control as one HTML file: the reference beside its accepted result, and the charts of every instrument.
Nothing is loaded from anywhere, no script runs, and it prints on A4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import jinja2

from streamer.qc.charts import drawn
from streamer.qc.levey_jennings import InstrumentHistory
from streamer.qc.reference import ReferenceCheck
from streamer.qc.westgard import MEANINGS
from streamer.report.templating import environment


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is said first."""

    state: Literal["pass", "fail", "not judged"]
    reasons: Sequence[str]
    """Why, or what it rests on."""


def page(
    outcome: Outcome, check: ReferenceCheck | None, instruments: Sequence[InstrumentHistory], *, made_utc: str
) -> str:
    """`check`: None where no reference was counted. `made_utc`: ISO 8601 with Z."""
    template = _templates().get_template("qc.html.j2")
    return template.render(outcome=outcome, check=check, instruments=instruments, made_utc=made_utc)


@cache
def _templates() -> jinja2.Environment:
    templates = environment("streamer.qc")
    templates.globals.update(drawn=drawn, rule_meanings=MEANINGS)
    return templates
