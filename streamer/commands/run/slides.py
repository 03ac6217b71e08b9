"""What people say of the slides of a run: by source, and of the one that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from engines.base import UsageError, near
from streamer.analysis.label import LabelReader, label_reader
from streamer.analysis.models import choose_scales
from streamer.commands.slide_info import ELSEWHERE, FIELDS, SCANNED, said_of_slide, scanned, slide_info_of
from streamer.config import Config
from streamer.records import SlideInfo
from streamer.sources.address import is_name

LABEL = "barcode"
"""The value that stands for the code in the first frame."""


@dataclass(frozen=True, slots=True)
class SlideOfSource:
    """What the options say of the slides of one source."""

    source: str
    said: Mapping[str, Any]
    """Fields of SlideInfo, of the first slide."""
    scanned: tuple[str, ...] = ()
    """Options whose value a scanner types at the start."""
    on_label: tuple[str, ...] = ()
    """Fields that are read from the label of each slide."""

    def first(self, stored: SlideInfo, say: Callable[[str], None]) -> SlideInfo:
        """Of the slide that the source starts or goes on with: what was said before (`stored`) and what is said now."""
        said = dict(self.said)
        for option in self.scanned:
            if getattr(stored, FIELDS[option]) is None:
                said[FIELDS[option]] = scanned(f"--{option}", f"the slide of {self.source}")
        slide = slide_info_of({**msgspec.to_builtins(stored), **said}, f"source {self.source}")
        for name in said:
            before, now = getattr(stored, name), getattr(slide, name)
            if before and before != now:
                say(f"{self.source}: {name} of the slide was {before!r} in the journal, and is {now!r} now")
        return slide

    def reader(self, slide: SlideInfo) -> LabelReader | None:
        """What reads the label of a slide; None where nothing that it could say is asked for."""
        wanted = [field for field in self.on_label if getattr(slide, field) is None]
        return label_reader(wanted) if wanted else None


def slides_of(
    config: Config, sources: Sequence[str], known: Mapping[str, SlideInfo] | None = None
) -> dict[str, SlideOfSource]:
    """By source; `known` is what was said before, elsewhere. UsageError for a source that there is not, for texts and
    counts that can't be, and for files."""
    given = {option: values_by_source(option, getattr(config, option), sources) for option in (*FIELDS, "slide_info")}
    wbc = values_by_source("wbc", config.wbc, sources)
    scales = choose_scales(config.um_per_px, sources)
    slides = {}
    for source in sources:
        own = {option: values.get(source) for option, values in given.items()}
        elsewhere = {option: own[option] for option in ELSEWHERE if own[option] in (SCANNED, LABEL)}
        own |= dict.fromkeys(elsewhere)
        before = {} if known is None or source not in known else _said(known[source])
        said = {**before, **said_of_slide(own, wbc.get(source), config.wbc_includes_nrbc)}
        slides[source] = SlideOfSource(
            source,
            said if scales[source] is None else {**said, "um_per_px": scales[source]},
            tuple(option for option, value in elsewhere.items() if value == SCANNED),
            tuple(FIELDS[option] for option, value in elsewhere.items() if value == LABEL),
        )
    if config.wbc_includes_nrbc and not any("wbc" in one.said for one in slides.values()):
        raise UsageError("--wbc-includes-nrbc: got no white-cell count, expected --wbc N too")
    return slides


def _said(slide: SlideInfo) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(slide).items() if value}


def values_by_source(option: str, given: str | float | Sequence[str] | None, sources: Sequence[str]) -> dict[str, str]:
    """The value of each source from `[SOURCE=]TEXT`, for those that have one: its own, else the one without a name.

    A text may hold a `=`: what stands before it is a source only if it could be one. UsageError for a source that there
    is not, and for two values of one.
    """
    name_of = f"--{option.replace('_', '-')}"
    chosen: dict[str | None, str] = {}
    for value in () if given is None else (str(given),) if isinstance(given, str | float) else given:
        head, equals, rest = value.partition("=")
        name = head if equals and is_name(head) else None
        if name is not None and name not in sources:
            hint = near(name, list(sources)) or ";"
            raise UsageError(
                f"{name_of} {value!r}: got the source {name!r}, which this run has not{hint}"
                f" expected one of: {', '.join(sources)}; a text with a '=' needs its source before it"
            )
        if name in chosen:
            whose = f"source {name!r}" if name else "all sources"
            raise UsageError(f"{name_of}: got {chosen[name]!r} and {value!r} for {whose}, expected one of them")
        chosen[name] = value if name is None else rest
    return {source: text for source in sources if (text := chosen.get(source, chosen.get(None))) is not None}
