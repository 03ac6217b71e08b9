"""Quality control: what the verdict rests on, each measure beside its limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from streamer.config import VerdictConfig
from streamer.counting.verdict import RED_CELL_UM, SlideEvidence, least_stain_distance, losses_of, novelty_above_usual
from streamer.dashboard.words import LEAST_AGREEMENT, MEANINGS, agreement, number
from streamer.protocol.messages import HealthMessage
from streamer.records import Differential

MeasureState = Literal["within", "outside", "not measured"]


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    value: str
    limit: str
    """In words; empty where there is none."""
    state: MeasureState


@dataclass(frozen=True, slots=True)
class FrameCount:
    """Why so many frames were not counted, or never came to be analysed."""

    reason: str
    count: int
    meaning: str
    """In words; empty where the reason says all."""


def frame_counts(counts: Mapping[str, int]) -> list[FrameCount]:
    """The commonest first."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [FrameCount(reason, count, MEANINGS.get(reason, "")) for reason, count in rows if count]


def measures_of(
    found: Differential, evidence: SlideEvidence, config: VerdictConfig, health: HealthMessage | None
) -> list[Measure]:
    """`config` says where the limits lie. What is outside its limit is so by the verdict's own reasons."""
    codes = {reason.code for reason in found.verdict.reasons} if found.verdict is not None else set()
    rows = [*_of_cells(found, evidence, config), *_of_frames(evidence, config), *_of_looks(evidence, config)]
    measures = [_measure(name, value, limit, code in codes) for name, value, limit, code in rows]
    agreed = None if health is None else agreement(health)
    if agreed is not None:
        text = f"{number(100 * agreed, 1)} % of boxes and cells alike"
        limit = f"at least {number(100 * LEAST_AGREEMENT)} %"
        measures.append(_measure("GPU against CPU", text, limit, agreed < LEAST_AGREEMENT))
    return measures


Row = tuple[str, str | None, str, str]
"""Name, value (None: not measured), limit, and the code of the verdict's reason."""


def _measure(name: str, value: str | None, limit: str, outside: bool) -> Measure:
    if value is None:
        return Measure(name, "not measured", limit, "not measured")
    return Measure(name, value, limit, "outside" if outside else "within")


def _of_cells(found: Differential, evidence: SlideEvidence, config: VerdictConfig) -> Iterator[Row]:
    total = found.total
    yield "White cells counted", number(total), f"at least {number(config.least_cells)}", "few_cells"
    limit = f"at most {config.unclassified_percent:g} %"
    yield "Unclassified", _percent(found.unclassified, total), limit, "unclassified"
    limit = f"at most {config.unlike_training_percent:g} %"
    yield (
        "Unlike the cells that trained the classifier",
        _percent(evidence.unlike_training, total),
        limit,
        ("unlike_training"),
    )
    above = novelty_above_usual(evidence)
    yield (
        "How unfamiliar the white cells look, against what is usual",
        None if above is None else f"{above:+.2f}".replace("-", "−"),
        f"at most +{config.novelty_above_usual:g}",
        "unfamiliar",
    )
    limit = f"at most {config.smudge_cells_per_100:g}"
    smudge = found.smudge_per_100_wbc
    if found.smudge is not None:
        yield "Smudge cells per 100 white cells", None if smudge is None else number(smudge, 1), limit, "smudge_cells"


def _of_frames(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[Row]:
    rejected, progress = sum(evidence.rejected.values()), evidence.progress
    limit = f"at most {config.frames_rejected_percent:g} %"
    yield "Frames rejected", _percent(rejected, evidence.frames), limit, "frames_rejected"
    lost = None if progress is None else sum(losses_of(progress).values())
    text = None if lost is None else _percent(lost, evidence.frames + lost)
    yield "Frames lost before they were analysed", text, f"at most {config.frames_lost_percent:g} %", "frames_lost"
    cut_short = None if progress is None else progress.cut_short
    read = None if cut_short is None else "no" if cut_short else "yes"
    yield "Source read to its end", read, "yes, where it has one", "cut_short"
    if evidence.only_extent_px is not None:
        extent = None if not evidence.rbc_px else evidence.only_extent_px / evidence.rbc_px * RED_CELL_UM / 1000
        text = None if extent is None else f"{extent:.2f} mm, one area only"
        limit = f"at least {config.least_extent_um / 1000:g} mm, or several areas"
        yield "Length of film looked at", text, limit, "one_area"


def _of_looks(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[Row]:
    distance = least_stain_distance(evidence)
    yield (
        "Stain and light, distance from the nearest that trained the classifier",
        None if distance is None else f"{distance:.2f} (optical density)",
        f"at most {config.stain_distance:g}",
        "stain",
    )
    widths = [one.rbc_diameter_px for one in evidence.known.appearances] if evidence.known is not None else []
    beyond = config.magnification_beyond
    limit = f"{min(widths) / beyond:.0f} to {max(widths) * beyond:.0f} pixels" if widths else ""
    width = None if evidence.rbc_px is None else f"{evidence.rbc_px:.0f} pixels"
    yield "Magnification, as the width of red cells", width, limit, "magnification"
    light = None if evidence.light_range is None else f"{evidence.light_range:.2f} (optical density)"
    yield "Change of light between frames", light, f"at most {config.light_range:g}", "light_changes"


def _percent(part: int, whole: int) -> str | None:
    return f"{number(100 * part / whole, 1)} % ({number(part)} of {number(whole)})" if whole else None
