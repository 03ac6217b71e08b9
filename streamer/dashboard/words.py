"""Numbers and phrases for people, the same on the screen and in plain lines."""

from __future__ import annotations

import math
from collections.abc import Mapping

from streamer.counting.differential import CLOPPER_PEARSON, CONFIDENCE_SEQUENCE, LIMITS, share
from streamer.dashboard.palette import in_order
from streamer.dashboard.state import SourceView
from streamer.protocol import messages
from streamer.records import (
    UNCLASSIFIED,
    AbsoluteShare,
    Attributes,
    Cell,
    CellShape,
    ClassShare,
    SlideInfo,
    SourceStatus,
    WorstLaboratory,
)

NOT_A_DEVICE = "research use only - not a medical device"
SAMPLING_ONLY = "limits are of sampling only"
METHODS = {CLOPPER_PEARSON: CLOPPER_PEARSON, CONFIDENCE_SEQUENCE: "confidence sequence, valid at every look"}
"""Methods of the limits, in words."""

VERDICT_MEANINGS = {
    "ready for review": "Nothing that was measured speaks against reviewing this result. That does not make it right.",
    "incomplete": "Something is missing or limits this result. Read the reasons before you use any of its numbers.",
    "do not use": "Something that was measured speaks against this result. Do not report from it.",
}
"""What each state of a verdict means for who reads it."""

VERDICT_MARKS = {"ready for review": "✓", "incomplete": "!", "do not use": "✕"}
VERDICT_TONES = {"ready for review": "good", "incomplete": "caution", "do not use": "bad"}

RANGE_WORDS = {
    "outside low": "▼ below the usual range",
    "outside high": "▲ above the usual range",
    "not outside": "not outside the usual range",
    "can't be judged": "range can't be judged",
}

FLAG_WORDS = {"low": "▼ Low", "high": "▲ High", "seen": "● Seen"}

MEANINGS: Mapping[str, str] = {
    "out of focus": "the picture is not sharp enough",
    "motion blur": "the stage moved while the picture was taken",
    "stage moving": "the stage moved by more than cells bear while the picture was taken, as it says itself",
    "lost on the way": "numbered by the camera, and never came to this computer",
    "passed over": "a newer picture was there already",
    "empty field": "nothing to see but background",
    "too dense": "cells lie too close together to be told apart",
    "overexposed": "more than half of the picture is white",
    "underexposed": "more than half of the picture is black",
    "stale": "too old when its turn came; the computer could not keep up",
    "queue full": "the computer could not keep up",
    "paused": "given while the count was paused",
    "not an image": "a file that is no picture",
    "unreadable": "a file that could not be read",
    "damaged frame": "a picture that could not be decoded",
    "truncated": "the file is cut off",
}
"""What reasons of frames that were not used mean."""

LEAST_CONFIDENCE = 0.6
"""What the classifier is less sure of is not said of a cell's looks, where only some of them are listed."""


def number(value: float | int | None, decimals: int = 0) -> str:
    """With thousands separated, "–" if not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{decimals}f}".replace(",", " ")


def limits(low: float | None, high: float | None) -> str:
    """95 % limits in whole percent, rounded outward; "–" if nothing was counted."""
    if low is None or high is None:
        return "–"
    return f"{math.floor(low)}–{math.ceil(high)}"


def absolute_limits(one: AbsoluteShare) -> str:
    """95 % limits in 10^9/L, rounded outward; "–" if nothing was counted."""
    if one.low is None or one.high is None:
        return "–"
    return f"{number(math.floor(100 * one.low) / 100, 2)}–{number(math.ceil(100 * one.high) / 100, 2)}"


def slide_rows(slide: SlideInfo | None) -> list[tuple[str, str]]:
    """What is known of a slide as labels and values, but for the white-cell count; empty where nothing is."""
    if slide is None:
        return []
    rows = [
        ("Name", slide.name),
        ("Accession", slide.accession),
        ("Operator", slide.operator),
        ("Instrument", slide.instrument),
        ("Stain", slide.stain),
        ("Magnification", slide.magnification),
        ("Micrometres a pixel", None if slide.um_per_px is None else f"{slide.um_per_px:g}"),
        *slide.fields.items(),
    ]
    return [(label, value) for label, value in rows if value is not None]


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def times(count: int) -> str:
    """How often something happened."""
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def progress(view: SourceView, length: int | None) -> str:
    """Which frame of how many it is, and how long the rest takes at today's rate; empty before the first frame."""
    if view.frame is None:
        return ""
    place = view.frame.frame_id + 1
    if length is None or place > length:
        return f"frame {number(place)}"
    text = f"frame {number(place)} of {number(length)}"
    rate = None if view.status is None or view.status.state == "ended" else view.status.fps
    left_s = (length - place) / rate if rate else 0.0
    return f"{text}, {duration(math.ceil(left_s)).removeprefix('0:').removeprefix('0')} left" if left_s else text


def tally(counts: dict[str, int]) -> str:
    """Reasons with their counts, without those of 0; empty for none."""
    return ", ".join(f"{number(count)} {reason}" for reason, count in counts.items() if count)


def in_words(counts: Mapping[str, int], *, short: bool = False) -> str:
    """Reasons with their counts; where there is one, also what it means, unless it has to be `short`."""
    given = {reason: count for reason, count in counts.items() if count}
    if len(given) == 1 and not short and (meaning := MEANINGS.get(next(iter(given)))):
        return f"{tally(given)}: {meaning}"
    return tally(given)


def not_seen(message: messages.DifferentialMessage) -> str:
    """Upper limits of the classes that no cell has, in words; empty if there are none."""
    if not message.not_seen:
        return ""
    at_most = math.ceil(10.0 * max(message.not_seen.values())) / 10.0
    cells = "1 cell" if message.total == 1 else f"{number(message.total)} cells"
    each = "" if len(message.not_seen) == 1 else " each"
    return f"0 in {cells}, at most {number(at_most, 1)} %{each}: {', '.join(in_order(list(message.not_seen)))}"


def verdict_lines(message: messages.DifferentialMessage) -> list[str]:
    """The verdict, then a line a reason, the gravest first; empty where the streamer gives none."""
    verdict = message.verdict
    if verdict is None:
        return []
    so_far = "" if message.final else " so far"
    head = f"verdict on {message.source}{so_far}: {verdict.state}{':' if verdict.reasons else ''}"
    return [head, *(f"  {reason.text}" for reason in verdict.reasons)]


def errors_line(message: messages.DifferentialMessage, note: str | None) -> str | None:
    """What the classifier gets wrong: in the worst laboratory that it never saw, and in the one that this slide looks
    most like. `note`: what the model's card says, for streamers that give no verdict; None where nobody knows."""
    verdict = message.verdict
    if verdict is None or (verdict.worst_unseen is None and verdict.nearest is None):
        return note
    parts = []
    worst, nearest = verdict.worst_unseen, verdict.nearest
    if worst is not None:
        parts.append(worst_unseen(worst))
    if nearest is not None:
        wrong = "" if nearest.wrong_percent is None else f", {number(nearest.wrong_percent)} % there"
        parts.append(f"this slide looks most like {nearest.name}{wrong}: no promise for this slide")
    return "; ".join(parts)


def worst_unseen(worst: WorstLaboratory) -> str:
    """What a classifier gets wrong there."""
    return (
        f"classifier errors {number(worst.wrong_percent)} % of the named cells in {worst.name}, the worst laboratory"
        " that it never saw"
    )


def with_smudge_cells(message: messages.DifferentialMessage) -> str | None:
    """The differential with smudge cells counted as lymphocytes, in a line; None where the verdict has none."""
    shares = None if message.verdict is None else message.verdict.with_smudge_cells
    if shares is None:
        return None
    parts = [f"{name} {number(shares[name].percent, 1)} %" for name in in_order(list(shares)) if shares[name].count]
    return f"with smudge cells as lymphocytes: {', '.join(parts)}"


def flags(message: messages.DifferentialMessage) -> str:
    """The flags in a line, with what is known of how surely they are raised. That there is none is only said where all
    ranges could be judged; empty before 2.0, which did not say that."""
    return ". ".join(filter(None, (raised(message), unjudged(message))))


def raised(message: messages.DifferentialMessage, *, notes: bool = True) -> str:
    """The flags alone, without `notes` no more than what they are; empty where there are none."""
    texts = [flag.text if flag.note is None or not notes else f"{flag.text} [{flag.note}]" for flag in message.flags]
    return f"flags: {'; '.join(texts)}" if texts else ""


def unjudged(message: messages.DifferentialMessage) -> str:
    """The classes whose range could not be judged; that there is no flag where all were; empty else."""
    names = [name for name, state in message.ranges.items() if state == "can't be judged"]
    if names:
        return f"can't be judged: {', '.join(names)}"
    return "no flag" if message.ranges and not message.flags else ""


def beside(message: messages.DifferentialMessage) -> str:
    """What was seen and is in no percentage; empty where there is nothing, or nothing was assessed."""
    counts = {
        "cut by an edge": message.edge or 0,
        "smudge cells": message.smudge or 0,
        "artefacts": message.artefacts or 0,
    }
    found = tally(counts)
    per_100 = message.smudge_per_100_wbc
    smudged = f" ({number(per_100, 1)} smudge cells per 100 white cells)" if message.smudge and per_100 else ""
    return f"in no percentage: {found}{smudged}" if found else ""


def size_corrected(message: messages.DifferentialMessage) -> str:
    """The classes whose percentage moves when it is corrected for the size of the cells; empty where none does."""
    moved = [
        f"{name} {number(message.classes[name].percent_size_corrected, 1)} % ({points:+.1f})"
        for name, points in message.size_bias.items()
        if name in message.classes
    ]
    return f"corrected for size, as edges cut large cells more often: {', '.join(moved)}" if moved else ""


LEAST_AGREEMENT = 0.97
"""Below this the GPU no longer gives the results of the CPU."""


def agreement(message: messages.HealthMessage) -> float | None:
    """The share of boxes and crops on which GPU and CPU agree, the lower one of detector and classifier. Boxes of only
    one of the two count as disagreement. None if nothing was compared."""
    shares = [
        one.agreed / (one.compared + one.extra) for one in (message.shadow or {}).values() if one.compared + one.extra
    ]
    return min(shares, default=None)


def described(cell: messages.CellMessage | Cell) -> str:
    """A cell in words: first its measures, then its nucleus; empty if nothing is known. Absent parts, and those that
    follow from others, are left out."""
    parts = shape_words(cell.shape) if cell.shape is not None else []
    return ", ".join([*parts, *_attribute_parts(cell.attributes or {})])


def attribute_words(attributes: Attributes) -> str:
    """The same of a cell's attributes alone."""
    return ", ".join(_attribute_parts(attributes))


def _attribute_parts(attributes: Attributes) -> list[str]:
    values = {name: one.value.replace("-", " ") for name, one in attributes.items()}
    parts = []
    if "nucleus_shape" in values:
        parts.append(f"nucleus {values['nucleus_shape'].removeprefix('unsegmented ')}")
    if values.get("granule_type", "nil") != "nil" and values.get("granularity", "yes") != "no":
        colour = values.get("granule_colour", "nil")
        parts.append(f"granules {values['granule_type']}{'' if colour == 'nil' else f' {colour}'}")
    elif values.get("granularity") == "no":
        parts.append("no granules")
    if "nuclear_cytoplasmic_ratio" in values:
        parts.append(f"N:C ratio {values['nuclear_cytoplasmic_ratio']}")
    cytoplasm = [values[name] for name in ("cytoplasm_colour", "cytoplasm_texture") if name in values]
    if cytoplasm:
        parts.append(f"cytoplasm {' '.join(cytoplasm)}")
    if values.get("cytoplasm_vacuole") == "yes":
        parts.append("vacuoles")
    if "chromatin_density" in values:
        parts.append(f"chromatin {values['chromatin_density'].removesuffix('ly')}")
    if "cell_size" in values or "cell_shape" in values:
        parts.append(" ".join([*(values[name] for name in ("cell_size", "cell_shape") if name in values), "cell"]))
    known = {
        *("nucleus_shape", "granule_type", "granule_colour", "granularity", "nuclear_cytoplasmic_ratio"),
        *("cytoplasm_colour", "cytoplasm_texture", "cytoplasm_vacuole", "chromatin_density", "cell_size", "cell_shape"),
    }
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in values.items() if name not in known]
    return parts


def class_rows(message: messages.DifferentialMessage) -> list[tuple[str, ClassShare]]:
    """The classes in the order of the list. `unclassified` is always there, last and with limits."""
    shares = dict(message.classes)
    if UNCLASSIFIED not in shares:
        method = message.limits_method if message.limits_method in LIMITS else CLOPPER_PEARSON
        left = share(message.unclassified, message.total, method)
        shares[UNCLASSIFIED] = ClassShare(count=left.count, percent=left.percent, low=left.low, high=left.high)
    return [(name, shares[name]) for name in in_order(list(shares))]


def shape_words(shape: CellShape) -> list[str]:
    """The measures of a cell, each in a few words: nucleus-to-cytoplasm ratio, lobes, area of the nucleus."""
    parts = []
    if shape.nucleus_to_cytoplasm_ratio is not None:
        parts.append(f"N:C {number(shape.nucleus_to_cytoplasm_ratio, 2)}")
    if shape.nuclear_lobes is not None:
        parts.append("1 lobe" if shape.nuclear_lobes == 1 else f"{shape.nuclear_lobes} lobes")
    if shape.nucleus_area_um2 is not None:
        parts.append(f"nucleus {number(shape.nucleus_area_um2)} µm²")
    elif shape.nucleus_area_px is not None:
        parts.append(f"nucleus {number(shape.nucleus_area_px)} px²")
    return parts


SHOWN_BEHIND_S = 0.5
"""From here on it is said that a stream is behind."""


TURN_SHOWN_DEG = 0.5
"""A camera is never quite straight."""


def behind_in_words(status: SourceStatus) -> str | None:
    """How far a stream is behind what its camera sends; None where it keeps up, or that can't be said."""
    behind_s = status.behind_s
    return None if behind_s is None or behind_s < SHOWN_BEHIND_S else f"{number(behind_s, 1)} s behind"


def positions_in_words(status: SourceStatus) -> str | None:
    """What was made of what a stage reports; None where nothing came with a position, or too little is known yet."""
    positions = status.positions
    if positions is None:
        return None
    if positions.note is not None:
        return positions.note
    if positions.state != "used" or positions.um_per_px is None:
        return None
    parts = [f"{positions.um_per_px:.4g} µm a pixel"]
    if positions.turn_deg is not None and abs(positions.turn_deg) >= TURN_SHOWN_DEG:
        parts.append(f"turned by {positions.turn_deg:.0f} degrees")
    if positions.mirrored:
        parts.append("mirrored")
    if positions.disagreed:
        parts.append(f"the picture disagreed in {number(positions.disagreed)} of {number(positions.frames)} frames")
    return f"positions are used: {', '.join(parts)}"
