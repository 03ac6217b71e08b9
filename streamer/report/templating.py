"""What every page of ours has in common: one file, without script, in one style; all text from elsewhere is escaped."""

from __future__ import annotations

from typing import Any

import jinja2
from markupsafe import Markup

from streamer import RESEARCH_USE
from streamer.dashboard.canvas import clean
from streamer.dashboard.palette import class_colour
from streamer.dashboard.words import number
from streamer.report.provenance import utc


def environment(package: str) -> jinja2.Environment:
    """For the templates of `package`, which may include those of the report, style.css among them."""
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name) for name in dict.fromkeys((package, "streamer.report"))]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(capital=_capital, colour=class_colour, number=number, sentence=_sentence, utc=utc)
    templates.globals.update(research_use=RESEARCH_USE)
    return templates


def _shown(value: Any) -> Any:
    """Texts without control characters and what reverses their direction."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return _capital(text) if text.endswith(".") else f"{_capital(text)}."
