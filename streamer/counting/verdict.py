"""Whether a differential may be believed: a pure function of what was measured of its slide.

Each reason has a code, a sentence, what was measured and where its limit lies; the configuration says which state it
makes (`[verdict]`, docs/verdict.md). The verdict is the worst of them. It never says that a result is right: "ready for
review" means that nothing which was measured speaks against reviewing it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import msgspec

from engines.zoo.card import Appearance
from streamer.config import VerdictConfig
from streamer.counting.differential import share
from streamer.counting.known import Known
from streamer.records import (
    SUPERSEDED,
    ClassShare,
    Density,
    Differential,
    NearestLaboratory,
    SourceProgress,
    Verdict,
    VerdictReason,
    VerdictState,
)

STATES: tuple[VerdictState, ...] = get_args(VerdictState)
"""The best first."""

LYMPHOCYTE = "lymphocyte"

RED_CELL_UM = 7.5
"""Usual diameter of a red cell on a dried smear: the ruler where nobody said how large a pixel is."""


@dataclass(frozen=True, kw_only=True)
class SlideEvidence:
    """What a verdict rests on. None: not measured, which is a reason of its own where it would have decided."""

    white_cells: int
    """Those of the differential."""
    unclassified: int
    unlike_training: int
    """Of the unclassified."""
    mean_novelty: float | None
    """Of the white cells; None: there are none, or the classifier does not measure it."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Cells by class and subclass, nucleated red ones among them."""
    suspects: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By class of which single cells flag no slide, the cells that may be of it or are named so."""
    too_few: Collection[str] = ()
    """Of these classes, those that did not flag the slide."""
    smudge_cells: int | None
    """None: the classifier has no name for them, and `not_assessed` says so."""
    frames: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Frames that were not counted, by reason: those not accepted, and those without a place on the slide."""
    progress: SourceProgress | None
    slides: Mapping[str, int] = field(default_factory=dict)
    """Frames by what their files' names begin with, of names none of which shares an island with another; empty where
    frames have no names."""
    rbc_px: float | None
    """Usual diameter of the red cells in full-frame pixels."""
    plasma: Density | None
    red: Density | None
    light_range: float | None
    """Optical density between which nine tenths of the frames' plasma vary, of the colour that varies most."""
    only_extent_px: float | None
    """Longer side of what was looked at, where that is one island; None where it is more, or none."""
    has_colours: bool
    """Whether colours were looked for: older journals don't have them."""
    known: Known | None
    """None: of an older journal, or no classifier ran."""

    @cached_property
    def stain_distances(self) -> tuple[float, ...]:
        """From each of the known pictures' colours, in their order; empty where the slide's were not measured, or none
        are known."""
        plasma, red, known = self.plasma, self.red, self.known
        if plasma is None or red is None or known is None:
            return ()
        return tuple(stain_distance((plasma, red), (one.plasma, one.red)) for one in known.appearances)


def judge(evidence: SlideEvidence, config: VerdictConfig) -> Verdict:
    """The verdict on a slide, `with_smudge_cells` left open."""
    reasons = list(_reasons(evidence, config))
    reasons.sort(key=lambda reason: -STATES.index(config.state_of(reason.code)))
    worst = max((STATES.index(config.state_of(reason.code)) for reason in reasons), default=0)
    return Verdict(
        state=STATES[worst],
        reasons=tuple(reasons),
        worst_unseen=None if evidence.known is None else evidence.known.worst_unseen,
        nearest=_nearest_laboratory(evidence),
    )


def _nearest_laboratory(evidence: SlideEvidence) -> NearestLaboratory | None:
    nearest = nearest_appearance(evidence)
    if nearest is None or evidence.known is None:
        return None
    name = nearest[0].laboratory
    return NearestLaboratory(name, nearest[1], evidence.known.wrong_percent.get(name))


def with_smudge_cells(verdict: Verdict, found: Differential) -> dict[str, ClassShare] | None:
    """The shares of a differential with its smudge cells counted as lymphocytes; None where there are not too many of
    them.

    Counted so, films of chronic lymphocytic leukaemia agreed with their albumin smears, which have none.
    """
    smudge = found.smudge
    if smudge is None or not any(reason.code == "smudge_cells" for reason in verdict.reasons):
        return None
    added = {name: smudge if name == LYMPHOCYTE else 0 for name in found.classes}
    return {
        name: share(one.count + added[name], found.total + smudge, found.limits_method)
        for name, one in found.classes.items()
    }


def nearest_appearance(evidence: SlideEvidence) -> tuple[Appearance, float] | None:
    """Of the known pictures those that look most like the slide's, by colours and magnification, and how far their
    colours are, in optical density. None where the slide's were not measured, or none are known."""
    rbc_px, known = evidence.rbc_px, evidence.known
    if known is None or not evidence.stain_distances:
        return None

    def apart(one: tuple[Appearance, float]) -> float:
        appearance, distance = one
        larger = 0.0 if rbc_px is None else math.log(rbc_px / appearance.rbc_diameter_px)
        return math.hypot(distance, larger)

    return min(zip(known.appearances, evidence.stain_distances, strict=True), key=apart)


def least_stain_distance(evidence: SlideEvidence) -> float | None:
    """From the colours of the known pictures, whatever their magnification."""
    return min(evidence.stain_distances, default=None)


def novelty_above_usual(evidence: SlideEvidence) -> float | None:
    """By how much the white cells are more novel than is usual in the nearest laboratory. Laboratories that trained a
    classifier differ in this by more than a foreign one does from them: novelty by itself tells little."""
    nearest = nearest_appearance(evidence)
    if nearest is None or nearest[0].novelty is None or evidence.mean_novelty is None:
        return None
    return evidence.mean_novelty - nearest[0].novelty


def stain_distance(one: tuple[Density, Density], other: tuple[Density, Density]) -> float:
    """Between two looks (plasma, red): how far the red cells' colours and the plasma's tint are apart, in optical
    density. The plasma's brightness, which is the exposure's, does not count."""
    (plasma, red), (other_plasma, other_red) = one, other
    apart = [a - b for a, b in zip(plasma, other_plasma, strict=True)]
    brighter = sum(apart) / len(apart)
    return math.hypot(math.dist(red, other_red), *(difference - brighter for difference in apart))


def _reasons(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[VerdictReason]:
    yield from _of_amount(evidence, config)
    yield from _of_classes(evidence, config)
    yield from _of_frames(evidence, config)
    yield from _of_looks(evidence, config)
    yield from _of_place(evidence, config)


def _of_amount(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[VerdictReason]:
    cells, progress = evidence.white_cells, evidence.progress
    if cells < config.least_cells:
        yield _reason("few_cells", f"too few cells: {cells} of {config.least_cells}", cells, config.least_cells)
    if progress is not None and progress.cut_short:
        of = "" if progress.length is None else f" of {progress.length}"
        text = f"stopped before the end of the source: {evidence.frames}{of} frames"
        yield _reason("cut_short", text, evidence.frames, progress.length)


def _of_classes(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[VerdictReason]:
    cells = evidence.white_cells
    unlike, unclassified = _percent(evidence.unlike_training, cells), _percent(evidence.unclassified, cells)
    if unlike is not None and unlike > config.unlike_training_percent:
        text = f"{_share(evidence.unlike_training, cells)} of the white cells are unlike the training cells"
        yield _over("unlike_training", text, unlike, config.unlike_training_percent, "%")
    above = novelty_above_usual(evidence)
    if above is not None and above > config.novelty_above_usual:
        text = f"the white cells look less like the training cells than usual: mean novelty higher by {above:.2f}"
        yield _over("unfamiliar", text, above, config.novelty_above_usual)
    if unclassified is not None and unclassified > config.unclassified_percent:
        text = f"{_share(evidence.unclassified, cells)} of the white cells are unclassified"
        yield _over("unclassified", text, unclassified, config.unclassified_percent, "%")
    smudge = None if evidence.smudge_cells is None or not cells else 100.0 * evidence.smudge_cells / cells
    if smudge is not None and smudge > config.smudge_cells_per_100:
        text = (
            f"{evidence.smudge_cells} smudge cells, {smudge:.0f} per 100 white cells: lymphocytes may be missing from "
            "the count; make an albumin smear and count again"
        )
        yield _over("smudge_cells", text, smudge, config.smudge_cells_per_100, "per 100")
    for name in config.person_classes:
        if name in evidence.suspects:
            yield from _of_suspects(name, evidence)
        elif evidence.seen.get(name):
            text = f"{name} {evidence.seen[name]}: a person has to see each"
            yield _reason("person_needed", text, evidence.seen[name], 0)
    limit = config.person_unclassified_percent
    if unclassified is not None and unclassified > limit:
        text = f"unclassified {_share(evidence.unclassified, cells)}: a person has to name them"
        yield _over("person_needed", text, unclassified, limit, "%")


def _of_suspects(name: str, evidence: SlideEvidence) -> Iterator[VerdictReason]:
    cell_ids = evidence.suspects[name]
    if cell_ids:
        few = "? {}, too few for a flag" if name in evidence.too_few else " {}"
        text = f"{name}{few.format(len(cell_ids))}: a person has to see each"
        reason = _reason("person_needed", text, len(cell_ids), 0)
        yield msgspec.structs.replace(reason, cell_ids=cell_ids)


def losses_of(progress: SourceProgress) -> dict[str, int]:
    """Frames and files that were not analysed though they should have been, by reason. Of a live source the newest
    frame is analysed: those in whose place it came are no losses."""
    lost = {reason: count for reason, count in progress.lost.items() if reason not in SUPERSEDED}
    return lost | {f"{reason} (file)": count for reason, count in progress.skipped.items()}


def _of_frames(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[VerdictReason]:
    rejected, progress = sum(evidence.rejected.values()), evidence.progress
    share = _percent(rejected, evidence.frames)
    if share is not None and share > config.frames_rejected_percent:
        text = f"{_share(rejected, evidence.frames)} of the frames were rejected ({_counts(evidence.rejected)})"
        yield _over("frames_rejected", text, share, config.frames_rejected_percent, "%")
    if progress is None:
        yield _reason("not_measured", "losses between the source and the count were not noted", None, None)
        return
    losses = losses_of(progress)
    lost = sum(losses.values())
    share = _percent(lost, evidence.frames + lost)
    if share is not None and share > config.frames_lost_percent:
        text = f"{_share(lost, evidence.frames + lost)} of the frames were lost ({_counts(losses)})"
        yield _over("frames_lost", text, share, config.frames_lost_percent, "%")


def _of_looks(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[VerdictReason]:
    """Magnification, stain and light."""
    known = evidence.known
    if known is not None and not known.appearances:
        text = "the model's card does not say which stains and magnifications it was trained on"
        yield _reason("not_measured", text, None, None)
    elif known is not None:
        yield from _of_known(evidence, known, config)
    if not evidence.has_colours:
        yield _reason("not_measured", "colours were not measured when this was counted", None, None)
    elif evidence.light_range is not None and evidence.light_range > config.light_range:
        text = f"the light changes between frames by {evidence.light_range:.2f} (optical density of the plasma)"
        yield _over("light_changes", text, evidence.light_range, config.light_range)


def _of_known(evidence: SlideEvidence, known: Known, config: VerdictConfig) -> Iterator[VerdictReason]:
    if evidence.rbc_px is None:
        text = "too few red cells were seen to tell the magnification"
        yield _reason("not_measured", text, None, None)
    else:
        widths = [one.rbc_diameter_px for one in known.appearances]
        smallest, largest = min(widths) / config.magnification_beyond, max(widths) * config.magnification_beyond
        if not smallest <= evidence.rbc_px <= largest:
            text = (
                f"red cells are {evidence.rbc_px:.0f} px wide: outside the magnifications that the classifier knows "
                f"({smallest:.0f} to {largest:.0f} px)"
            )
            limit = smallest if evidence.rbc_px < smallest else largest
            yield _reason("magnification", text, evidence.rbc_px, limit)
    distance = least_stain_distance(evidence)
    if distance is None:
        if evidence.has_colours:
            yield _reason("not_measured", "too few red cells were seen to tell the stain", None, None)
    elif distance > config.stain_distance:
        text = f"stain or light is {distance:.2f} (optical density) from the nearest that trained the classifier"
        yield _over("stain", text, distance, config.stain_distance)


def _of_place(evidence: SlideEvidence, config: VerdictConfig) -> Iterator[VerdictReason]:
    slides = {name: n for name, n in evidence.slides.items() if n >= config.least_frames_of_slide}
    if len(slides) > 1:
        shown = ", ".join(f"{name or 'no name'} {n}" for name, n in list(slides.items())[:4])
        more = "" if len(slides) <= 4 else f" and {len(slides) - 4} more"
        text = f"{len(slides)} slides in one source, by the names of its files, which share no area: {shown}{more}"
        yield _reason("several_slides", text, len(slides), 1)
    if evidence.only_extent_px is not None and evidence.rbc_px:
        extent_um = evidence.only_extent_px / evidence.rbc_px * RED_CELL_UM
        if extent_um < config.least_extent_um:
            text = (
                f"one area of the film only, {extent_um / 1000:.2f} mm long (limit {config.least_extent_um / 1000:g} "
                "mm): large cells gather elsewhere"
            )
            yield _reason("one_area", text, extent_um, config.least_extent_um)


def _reason(code: str, text: str, value: float | None, limit: float | None) -> VerdictReason:
    """Counts as floats, as a reader of the message has them."""
    return VerdictReason(code, text, None if value is None else float(value), None if limit is None else float(limit))


def _over(code: str, text: str, value: float, limit: float, unit: str = "") -> VerdictReason:
    return _reason(code, f"{text} (limit {limit:g}{' ' + unit if unit else ''})", value, limit)


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _share(part: int, whole: int) -> str:
    return f"{100.0 * part / whole:.0f} % ({part} of {whole})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))
