"""How large a pixel of a session's slide is, by whatever knows it best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engines.base import UsageError
from streamer.analysis.magnification import is_explained
from streamer.analysis.models import choose_scales
from streamer.counting.verdict import RED_CELL_UM
from streamer.journal import StoredOptions, StoredSession
from streamer.sources.address import split_name

Ruler = Literal["given", "source", "stage", "red cells"]


@dataclass(frozen=True, slots=True)
class Scale:
    um_per_px: float
    ruler: Ruler
    """Whether somebody gave it (`--um-per-px`), the source states it, it follows from how the picture moves with a
    stage, or it is by red cells of 7.5 µm."""


def scale_of(session: StoredSession, rbc_px: float | None) -> Scale | None:
    """`rbc_px`: usual diameter of the red cells in frame pixels; what the source states and they contradict is not
    believed. None where nothing is known."""
    given = _given(options_of(session), session.source)
    if given is not None:
        return Scale(given, "given")
    said = session.stage.said_um_per_px()
    if said is not None and (rbc_px is None or is_explained(said, rbc_px)):
        return Scale(said, "source")
    known = session.stage.positions()
    if known is not None and known.affine is not None and not known.exact:  # else it is what the source states
        return Scale(known.affine.um_per_px, "stage")
    return Scale(RED_CELL_UM / rbc_px, "red cells") if rbc_px else None


def options_of(session: StoredSession) -> StoredOptions:
    """Those of its last run."""
    runs = session.runs()
    return runs[-1].options if runs else StoredOptions()


def _given(options: StoredOptions, source: str) -> float | None:
    given = options.um_per_px
    values = (str(given),) if isinstance(given, str | float) else given or ()
    try:
        others = [name for value in values if (name := split_name(value, "um_per_px")[0]) is not None]
        return choose_scales(values, list(dict.fromkeys([source, *others]))).get(source)
    except UsageError:  # nothing that a run takes
        return None
