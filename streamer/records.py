"""The nouns of the stream: what one stage hands to the next. Read this first.

Times ending in `_ns` are monotonic nanoseconds of this machine. Places ending in `_px` are full-frame
pixels, or slide pixels (frame point + stage position) where a record says so. None means "not measured".

A msgspec.Struct is part of a message as it is (streamer/protocol/messages.py): its docstring is in the schema, and a
new field of it takes a default, so that older journals can still be read. `published_digits` is how many decimals of a
number are published; computed and stored it is exact.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from engines.base import Classifications, Detections

__all__ = [
    "LOW_CONFIDENCE",
    "REVIEWER",
    "UNCLASSIFIED",
    "UNLIKE_TRAINING",
    "AbsoluteCounts",
    "AbsoluteShare",
    "AddedCell",
    "AreaStatus",
    "AttributeValue",
    "Attributes",
    "AuditStatus",
    "Cell",
    "CellId",
    "CellLooks",
    "CellShape",
    "ClassShare",
    "Classifications",
    "DeferredImage",
    "Density",
    "Detections",
    "Differential",
    "EncodedImage",
    "FieldColours",
    "Flag",
    "FlagDirection",
    "Frame",
    "FrameQuality",
    "Health",
    "InferenceServerStatus",
    "InferenceStatus",
    "MeasuredLook",
    "MergedIsland",
    "Mode",
    "ModelHealth",
    "NearestLaboratory",
    "Observation",
    "PositionsState",
    "PositionsStatus",
    "RangeState",
    "ReaderState",
    "Reclassification",
    "RecordingStatus",
    "Review",
    "ReviewState",
    "ShadowStatus",
    "Skip",
    "SlideInfo",
    "SourceProgress",
    "SourceStatus",
    "StagePoint",
    "StagePosition",
    "StreamStatus",
    "Verdict",
    "VerdictReason",
    "VerdictState",
    "WorstLaboratory",
    "usable_error",
    "usable_point",
    "usable_scale",
]

Mode = Literal["live", "analysis"]
VerdictState = Literal["ready for review", "incomplete", "do not use"]
"""What may be done with a differential, the best first; none of them replaces the review by a person."""
ReviewState = Literal["unsigned", "in review", "signed", "amended"]
"""How far people are with a slide. A slide that is signed is open again, "in review", from its amendment until it is
signed anew; "amended" is what it is then."""
ReaderState = Literal["starting", "open", "reopening", "ended", "failed"]
CellId = int

REVIEWER = r"[A-Za-z\u00c0-\u024f][A-Za-z0-9\u00c0-\u024f._-]{0,15}"
"""Initials of a person who reviews: a letter, then at most 15 letters, digits, `.`, `_` and `-`."""

UNCLASSIFIED = "unclassified"
"""The class of a cell whose best probability stays below the classifier's operating threshold, or that is unlike all
cells that the classifier was trained on."""

LOW_CONFIDENCE = "low confidence"
UNLIKE_TRAINING = "unlike the training cells"
"""Why a cell is unclassified: its best class is not sure enough, or all looks at it are beyond the classifier's
threshold of novelty, whatever its class probabilities are."""


def published_digits(count: int) -> msgspec.Meta:
    """For a number, or for the values of a dictionary."""
    return msgspec.Meta(extra={"digits": count})


class AttributeValue(msgspec.Struct, frozen=True):
    """What the classifier says of one thing about a cell's looks."""

    value: str
    confidence: Annotated[float, published_digits(4)]
    """0 to 1, calibrated on the cells that the attributes were learnt from."""


Attributes = dict[str, AttributeValue]
"""By attribute, such as "nucleus_shape"."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """The image file that a frame was decoded from, as it was read."""

    data: bytes
    bits: int
    """Significant bits of a sample as stored: 8, 10, 12, 14 or 16."""


def _nobody_waits(kept: bool) -> None:
    pass


class DeferredImage:
    """A decoded frame that becomes (H, W, 3) BGR when somebody asks for it: one dropped before is not converted."""

    __slots__ = ("_convert", "_converted", "_lock", "shape")

    def __init__(self, height: int, width: int, convert: Callable[[], npt.NDArray[np.uint8]]) -> None:
        """`convert` is called once at most, by any thread."""
        self.shape = (height, width, 3)
        self._convert: Callable[[], npt.NDArray[np.uint8]] | None = convert
        self._converted: npt.NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def converted(self) -> npt.NDArray[np.uint8]:
        with self._lock:
            if self._convert is not None:
                self._converted, self._convert = self._convert(), None
            assert self._converted is not None
            return self._converted


# Where a stage, or the file of a slide, says that a frame was taken. Micrometres; the origin is the source's own.
class StagePoint(msgspec.Struct, frozen=True):
    x: Annotated[float, published_digits(3)]
    y: Annotated[float, published_digits(3)]
    z: Annotated[float | None, published_digits(3)] = None
    """None: the source has no focus drive, or does not say."""


FARTHEST_UM = 1e7
"""No slide is 10 m long: what is beyond is no position."""
SCALES_UM_PER_PX = (0.005, 50.0)
"""Of what a microscope's camera can have, far beyond either end."""


def usable_point(point: StagePoint | None) -> StagePoint | None:
    """A position as a source gave it; None where its x or y are no finite numbers of a slide. A z that is none is left
    out."""
    if point is None:
        return None
    x, y, z = (_within(value, -FARTHEST_UM, FARTHEST_UM) for value in (point.x, point.y, point.z))
    return None if x is None or y is None else StagePoint(x, y, z)


def usable_scale(um_per_px: float | None) -> float | None:
    """A scale as a source gave it; None where it is none of a microscope."""
    return _within(um_per_px, *SCALES_UM_PER_PX)


def usable_error(error_um: float | None) -> float | None:
    """The error that a source states; None where it is no distance."""
    return _within(error_um, 0.0, FARTHEST_UM)


def _within(value: object, low: float, high: float) -> float | None:
    """A number of numpy as Python's own; None for what is no number, or beyond the limits. Sources may come from other
    packages."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if low <= number <= high else None  # NaN is not <= either


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image from a source."""

    source: str
    frame_id: int
    """Counts from 0 without gaps in what the source gave; a frame dropped later leaves a gap downstream."""
    captured_ns: int
    """Taken right after the grab returned."""
    pixels: npt.NDArray[np.uint8] | DeferredImage
    """(H, W, 3) BGR, or what makes them. Owned by the frame: nobody writes into it."""
    file: str | None = None
    """Base name, for image files, with `#page=2` of a stack and `#xywh=0,0,1280,1024` for a tile of a large image; None
    for cameras, videos, whole-slide images and the simulated slide."""
    encoded: EncodedImage | None = None
    """What a source read that decodes whole files; None for any other."""
    captured_utc_ns: int | None = None
    """When it was grabbed first, in nanoseconds since 1970, for the frames of a recording and of a film that says when
    it was begun; None: `captured_ns` is."""
    settle: Callable[[bool], None] = _nobody_waits
    """Told what became of it, in analysis mode: True when it is in the journal, or counted where there is none; False
    when it is not and never will be. On any thread; it must not wait."""
    stage_um: StagePoint | None = None
    """Where the source says that it was taken, as it says it, of one fixed point of the frame (of its upper left corner
    where `stage_error_um` is 0). Nobody has checked it. None: the source has no stage, or did not say."""
    stage_error_um: float | None = None
    """How far off x and y of `stage_um` may be, as the source states it; None: it states nothing. 0: they are exact and
    go along the picture, x to the right and y down, so that `um_per_px` alone turns them into pixels."""
    is_tile: bool = False
    """Whether it was cut from one picture with the other frames of its source: then a `stage_um` without error holds
    whatever the frame shows, and nothing is registered."""
    um_per_px: float | None = None
    """Micrometres per pixel of this frame, as the source states it; None: it does not know."""
    exposed_ns: int | None = None
    """The middle of the exposure, on the clock of `captured_ns`; None: only `captured_ns` is known."""
    moving: bool | None = None
    """Whether the stage moved while it was exposed, as the source says; None: it does not say."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits to be told what became of it."""
        return self.settle is not _nobody_waits

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) BGR; a deferred one is converted by the first thread that asks for it."""
        return self.pixels.converted() if isinstance(self.pixels, DeferredImage) else self.pixels

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that a source met and could not give as a frame: a file that is no image, a damaged JPEG."""

    source: str
    what: str
    """Which one: the file's base name, the packet."""
    reason: str
    """Short and countable: "not an image", "too large", "unreadable"."""
    detail: str
    """One line for people."""
    count: int = 1
    """How many they were."""


# Where a frame lies on the slide: slide point = frame point + (x_px, y_px).
class StagePosition(msgspec.Struct, frozen=True):
    island: int
    x_px: Annotated[float, published_digits(2)]
    y_px: Annotated[float, published_digits(2)]
    quality: Annotated[float, published_digits(4)]
    """0 to 1, how sure the registration is; 1 for the first frame of an island."""


class MergedIsland(msgspec.Struct, frozen=True):
    """An island that turned out to be part of another one."""

    island: int
    into: int
    dx_px: Annotated[float, published_digits(2)]
    """A slide point of `island` is this one of `into` when (dx_px, dy_px) is added."""
    dy_px: Annotated[float, published_digits(2)]


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """Whether a frame may be counted. `reasons` is empty when it is accepted."""

    focus: float | None
    accepted: bool
    reasons: tuple[str, ...] = ()
    noise: float = 0.0
    """Its standard deviation in grey levels, in the image reduced to about 640 px; 0: none, or nobody measured it."""


Density = tuple[float, float, float]
"""Optical density of blue, green and red: the negative natural logarithm of (value + 1) / 256."""


class FieldColours(NamedTuple):
    """How much light the plasma and the red cells of one frame hold back."""

    plasma: Density | None
    """None: cells cover nearly all of the frame."""
    red: Density | None
    """Of the red cells, less that of the plasma; None: there are none, or no plasma."""
    red_cells: int
    """How many of them were measured."""


class Observation(NamedTuple):
    """What the slide map made of one detection of one frame."""

    cell_id: CellId | None
    """None where the box was not counted: below the threshold, a rejected or unregistered frame."""
    is_new: bool
    counted: bool


@dataclass(frozen=True, slots=True, eq=False)
class CellLooks:
    """Looks of the classifier at known cells of a frame that the detector did not see."""

    cell_ids: npt.NDArray[np.intp]
    """(n,)"""
    boxes_px: npt.NDArray[np.float32]
    """(n, 4) in the frame, as the slide map has them."""
    looks: Classifications
    """(n,) rows."""


class CellShape(msgspec.Struct, frozen=True):
    """What a segmenter measured on the best look at a cell."""

    frame_id: int
    """Of that look. A measure is None where nothing of that kind was segmented."""
    nucleus_area_px: Annotated[float | None, published_digits(1)]
    """Areas in pixels of the full frame."""
    cytoplasm_area_px: Annotated[float | None, published_digits(1)]
    """Without the nucleus."""
    nucleus_area_um2: Annotated[float | None, published_digits(2)]
    """Areas in µm² are None too where the size of a pixel is not known."""
    cytoplasm_area_um2: Annotated[float | None, published_digits(2)]
    nucleus_to_cytoplasm_ratio: Annotated[float | None, published_digits(4)]
    """Area over area."""
    nuclear_lobes: int | None
    nucleus_circularity: Annotated[float | None, published_digits(4)]
    """4 pi area / perimeter², 1 for a disc."""


@dataclass(frozen=True, slots=True)
class MeasuredLook:
    """One look at a cell that was segmented."""

    cell_id: CellId
    quality: float
    """0 to 1; of a cell's looks the one with most of it holds."""
    shape: CellShape


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One physical white cell, with all the evidence seen of it."""

    cell_id: CellId
    island: int
    x_px: float
    """Centre on the slide."""
    y_px: float
    kind: str
    class_name: str
    """The fused class, or "unclassified"."""
    subclass: str | None
    top_class: str
    """The likeliest class even where `class_name` is "unclassified"."""
    class_probabilities: dict[str, float]
    looks: int
    partial: bool
    """Only ever seen cut by the frame's edge: such a cell is in `edge` and in no percentage."""
    first_frame_id: int
    last_frame_id: int
    counted: bool = True
    """In a count of the differential: seen whole, and no smudge cell or artefact."""
    reclassified: bool = False
    """A person gave it its class, confirmed it or added it; the probabilities stay those of its looks."""
    unclassified_reason: str | None = None
    """`LOW_CONFIDENCE` or `UNLIKE_TRAINING`; None for a classified cell, one without looks, and one that a
    person called unclassified."""
    attributes: Attributes | None = None
    """How it looks, all looks fused; None where the model has no attributes, or none for cells of this class."""
    shape: CellShape | None = None
    """None: no look at it was segmented."""


@dataclass(frozen=True, slots=True)
class Reclassification:
    """The class that a person gives a counted cell."""

    cell_id: CellId
    class_name: str | None
    """None: take back what a person gave it before; the looks decide again."""
    subclass: str | None = None
    confirmed: bool = False
    """The person says that it is right as it is: `class_name` and `subclass` are what it has."""
    by: str | None = None
    """Initials, or the name of a key; None: not known."""
    at: str | None = None
    """UTC, ISO 8601; None: not known."""


@dataclass(frozen=True, slots=True)
class AddedCell:
    """A white cell, seen whole, that no model found and a person added."""

    frame_id: int
    """That shows it."""
    island: int
    box_px: tuple[float, float, float, float]
    """x1, y1, x2, y2 on the slide."""
    class_name: str
    subclass: str | None = None


# One class of a differential; `low` and `high` are 95 % limits of `percent`, all 0 to 100.
class ClassShare(msgspec.Struct, frozen=True):
    count: int
    percent: float | None
    """None while nothing was counted: 0 of 0 is no percentage."""
    low: float | None
    high: float | None
    percent_size_corrected: float | None = None
    """The percentage that it would be were small cells no likelier to be seen whole (Miles and Lantuéjoul). None while
    nothing was counted, and before 2.0."""


RangeState = Literal["outside low", "outside high", "not outside", "can't be judged"]
FlagDirection = Literal["low", "high", "seen"]


# What a laboratory must be told of a differential.
class Flag(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    code: str
    """For programs: "range", "seen", "left shift", "unclassified"; "1.x" for a flag of an older streamer, which has
    nothing but a text."""
    text: str
    """For people, with value, count, limits and range."""
    class_: str | None = None
    direction: str | None = None
    """A FlagDirection."""
    count: int | None = None
    """Cells of that class seen whole."""
    of: int | None = None
    """White cells."""
    percent: float | None = None
    low: float | None = None
    """95 % limits of `percent`."""
    high: float | None = None
    range: tuple[float, float] | None = None
    """Usual percentages."""
    expected_by_error: float | None = None
    """So many of `count` would be there by the classifier's errors alone. None where its card has no figure for it."""
    cell_ids: tuple[int, ...] = ()
    """The cells that are the reason, those cut by an edge too; empty for ranges."""
    note: str | None = None
    """For people: how surely slides are flagged so, and what that was never tested on. None where nothing is known."""


# Why a differential has its verdict.
class VerdictReason(msgspec.Struct, frozen=True):
    code: str
    """For programs; the key of its state in the configuration's `[verdict.states]`."""
    text: str
    value: float | None
    """What was measured, in the unit that `text` gives; None: it was not, and that is the reason."""
    limit: float | None
    """Where the verdict begins to change; None: there is none."""
    cell_ids: tuple[int, ...] = ()
    """The cells to look at, where a few may be of a class that flags a slide only by several; else empty."""


# Of the laboratories whose cells the classifier never saw in training, the one where it does worst.
class WorstLaboratory(msgspec.Struct, frozen=True):
    name: str
    wrong_percent: float
    """Of the cells that it names there."""


# Of the laboratories that trained the classifier, the one whose red cells and plasma look most like the slide's. No
# promise for this slide.
class NearestLaboratory(msgspec.Struct, frozen=True):
    name: str
    distance: Annotated[float, published_digits(3)]
    """Of the colours, in optical density."""
    wrong_percent: float | None
    """Of the cells that the classifier names there; None: the card does not say."""


# Whether a differential may be believed.
class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    state: str
    """A VerdictState: the worst of those of its reasons. Readers take any text, for those that a later version adds."""
    reasons: tuple[VerdictReason, ...]
    """The gravest first; empty where nothing speaks against review. Those of a verdict "ready for review" say what to
    look at."""
    worst_unseen: WorstLaboratory | None = None
    """None: the model's card has no figure of a laboratory that it never saw."""
    nearest: NearestLaboratory | None = None
    """None: the colours were not measured, or the model's card does not say how its laboratories look."""
    with_smudge_cells: dict[str, ClassShare] | None = None
    """The differential with smudge cells counted as lymphocytes, where there are too many to leave them out; else None.
    """


LEAST_WBC, MOST_WBC = 0.01, 2000.0
"""White cells in 10^9/L that a laboratory may count."""

SlideText = Annotated[str, Meta(min_length=1, max_length=80)]
"""Printable, without spaces at its ends."""


# What people say of a slide. None: nobody said. Whose blood it is has no place here.
class SlideInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: SlideText | None = None
    """The laboratory's own for the slide."""
    accession: SlideText | None = None
    """The laboratory's number of the order or specimen that the slide was made for."""
    operator: SlideText | None = None
    """Who is at the microscope, as the laboratory abbreviates it."""
    instrument: SlideText | None = None
    stain: SlideText | None = None
    magnification: SlideText | None = None
    um_per_px: Annotated[float, Meta(gt=0.0, lt=100.0)] | None = None
    """Micrometres a pixel of the frames, as given."""
    fields: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=40)], SlideText], Meta(max_length=16)] = {}
    """Whatever else the laboratory keeps of a slide, by its own names."""
    wbc: Annotated[float, Meta(ge=LEAST_WBC, le=MOST_WBC)] | None = None
    """White cells in 10^9/L, counted elsewhere."""
    wbc_includes_nrbc: bool = False
    """That count has nucleated red cells among its white ones."""

    def __post_init__(self) -> None:
        texts = (self.name, self.accession, self.operator, self.instrument, self.stain, self.magnification)
        for text in (*filter(None, texts), *self.fields, *self.fields.values()):
            if not text.isprintable() or text != text.strip():
                raise ValueError(f"got {text!r}, expected printable text without spaces at its ends")
        for number in filter(None, (self.um_per_px, self.wbc)):
            if not math.isfinite(number):
                raise ValueError(f"got {number}, expected a finite number")

    def or_none(self) -> SlideInfo | None:
        """None where nothing was said."""
        return None if self == SlideInfo() else self


# A class of a differential per volume of blood, in 10^9/L.
class AbsoluteShare(msgspec.Struct, frozen=True):
    value: float | None
    """None where the percentage is."""
    low: float | None
    """The 95 % limits of the percentage, scaled: what the white-cell count itself may err by is not in them."""
    high: float | None


# A differential per volume of blood, by a white-cell count from elsewhere.
class AbsoluteCounts(msgspec.Struct, frozen=True):
    white_cells: float | None
    """In 10^9/L, what the classes are shares of. None: it should be corrected for nucleated red cells, and can't be."""
    corrected: bool
    """For nucleated red cells: given x 100 / (100 + nucleated red cells per 100 white cells)."""
    note: str
    """For people: which count, and whether it was corrected, and why not."""
    classes: dict[str, AbsoluteShare]
    """By class, `unclassified` among them; empty where `white_cells` is None."""


# How far people have looked at a result.
class Review(msgspec.Struct, frozen=True):
    state: str = "unsigned"
    """A ReviewState. Readers take any text, for those that a later version adds."""
    by: str | None = None
    """Initials of who signed it, or else of who said something of it last; of a command to a run without them the name
    of its key. None: unsigned."""
    at: str | None = None
    """When, UTC, ISO 8601. None: unsigned."""


# Counts of unique white cells. Zero counts are counts; what can't be seen is in `not_assessed`.
class Differential(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    """White cells seen whole, `unclassified` included; erythroblasts, platelets, smudge cells and artefacts excluded.
    All percentages are of them."""
    classes: dict[str, ClassShare]
    limits_method: str
    limits_note: str = ""
    """What the limits leave out, in a sentence for people."""
    unclassified: int
    nrbc: int
    nrbc_per_100_wbc: float | None
    not_seen: dict[str, float] = {}
    """Classes and subclasses that the classifier can name and no cell has: upper limit of the percentage. Empty while
    nothing was counted."""
    flags: tuple[Flag, ...]
    not_assessed: tuple[str, ...]
    rbc_seen: int
    platelets_seen: int
    frames: int
    frames_accepted: int
    final: bool
    edge: int | None = None
    """White cells only ever seen cut by an edge of a frame; in no percentage. None before 2.0, when they were counted
    at the end."""
    size_bias: dict[str, float] = {}
    """Classes whose corrected percentage lies more than a point from the plain one: corrected minus plain."""
    smudge: int | None = None
    """Smudge cells, which are outside `total`. None: the model can't name them."""
    smudge_per_100_wbc: float | None = None
    """None too while `total` is 0."""
    artefacts: int | None = None
    """Outside `total`. None: the model can't name them."""
    ranges: dict[str, str] = {}
    """By class with a usual range a RangeState. Empty before 2.0."""
    verdict: Verdict | None = None
    """None: of an older streamer."""
    slide: SlideInfo | None = None
    """None: nobody said anything of it."""
    wbc: AbsoluteCounts | None = None
    """None: no white-cell count was given."""
    review: Review | None = None
    """None: of an older streamer."""
    reviewed_cells: int | None = None
    """White and nucleated red cells, those in no count too, that a person named, confirmed or added. None: of an older
    streamer."""


PositionsState = Literal["learning", "used", "ignored"]


# What was made of the positions that a source's stage reports.
class PositionsStatus(msgspec.Struct, frozen=True, kw_only=True):
    state: str
    """A PositionsState. learning: how the camera sees the stage is not known yet; ignored: `note` says why."""
    frames: int
    """Frames that came with a position."""
    unusable: int
    """Frames whose position was no number, or on no slide."""
    disagreed: int
    """Frames that the picture places elsewhere than the stage, by more than their errors allow; the picture holds."""
    um_per_px: Annotated[float | None, published_digits(5)] = None
    """How the camera sees the stage, as fitted or as the source states it; None while it is not known."""
    turn_deg: Annotated[float | None, published_digits(2)] = None
    mirrored: bool | None = None
    error_um: Annotated[float | None, published_digits(2)] = None
    """Standard deviation of a reading from the picture, along one axis."""
    joined: int = 0
    """Islands that the stage alone has put beside others."""
    note: str | None = None
    """For people."""


QUEUE_FULL = "queue full"
"""The reason under which the frames are counted that made room for newer ones."""

PASSED_OVER = "passed over"
"""The reason under which frames are counted that a live source did not give, because a newer one was there."""

SUPERSEDED = (QUEUE_FULL, PASSED_OVER)
"""Reasons of frames in whose place a newer one was analysed, as a live source is meant to be."""


class SourceProgress(msgspec.Struct, frozen=True):
    """How far a source was read, and what was lost on the way, over all runs of a session."""

    length: int | None
    """Frames that the source holds, those that can't be read among them; None: a camera, or nobody knows."""
    lost: dict[str, int] = {}
    """Frames that were not analysed though they should have been, by reason."""
    skipped: dict[str, int] = {}
    """What the source could not give as a frame, by reason."""
    cut_short: bool | None = None
    """Whether a source that has an end was left before it; None while it is being read."""


# How the proof goes that nothing is lost by looking only at what is new, in this run.
class AuditStatus(msgspec.Struct, frozen=True):
    frames: int
    """Frames of which all was known that were looked at whole all the same."""
    missed: int
    """Of the white cells that these looks showed whole, those that the slide map did not have."""
    added: int
    """White cells that it had within these frames and the looks did not show."""
    bound: Annotated[float | None, published_digits(4)]
    """Upper 95 % limit of the share of such cells that it does not have; None while none was seen."""
    cells: int = 0
    """White cells that these looks showed whole."""
    every_frame: bool = False
    """More were missed than may be, so that every frame has been looked at since."""


# What was looked at of a source that is looked at only where something is new, in this run.
class AreaStatus(msgspec.Struct, frozen=True):
    frames: int
    """Placed and counted."""
    looked: int
    """Of these, the ones that the detector saw; proofs are not among them."""
    cells_again: int
    """Looks of the classifier alone, at known cells."""
    left_out: dict[str, int]
    """Frames that showed something new and were not looked at, by reason: "budget"."""
    left_out_fields: Annotated[float, published_digits(2)]
    """The area of these that nobody has looked at since, in fields of view; what was left out long ago is not in it."""


class SourceStatus(msgspec.Struct, frozen=True):
    state: str
    """A ReaderState. Readers take any text, for those that a later minor version adds."""
    mode: str
    """A Mode."""
    fps: Annotated[float | None, published_digits(2)]
    """Frames published a second over the last seconds; None before there are two."""
    captured: int
    published: int
    dropped: dict[str, int]
    """Frames lost, by reason."""
    skipped: dict[str, int]
    """What the source could not give as a frame, by reason."""
    queue: int
    reopened: int
    latency_ms: Annotated[dict[str, float] | None, published_digits(3)]
    """p50, p95, p99 from grab to publish over the last frames; None before the first."""
    detail: str | None = None
    """The last fault, in words."""
    hidden_px: tuple[tuple[int, int, int, int], ...] = ()
    """x1, y1, x2, y2 around each part of its frames that shows no slide; empty: none is known."""
    behind_s: Annotated[float | None, published_digits(3)] = None
    """How far a live stream is behind what its camera sends, in seconds; None: no stream, or one without a clock."""
    positions: PositionsStatus | None = None
    """None: none of its frames came with a position."""
    settings: dict[str, str] = {}
    """What its camera has, read back when it was opened: exposure, gain, pixel format. Empty: it can't be asked."""
    audit: AuditStatus | None = None
    """None: every frame is looked at, or none is a proof."""
    area: AreaStatus | None = None
    """None: every frame is looked at."""


# How the publishing sockets do; all counts since the start.
class StreamStatus(msgspec.Struct, frozen=True):
    connections: int | None
    """Peers connected now, over all sockets; None where that is not measured."""
    lost: dict[str, int]
    """Messages that found a subscriber's queue full, by type."""
    requests: int
    refused: dict[str, int]
    """Connections, requests and replies, by reason."""
    window_bytes: int
    """What the messages kept for replay take."""


# How far a GPU's results agree with the CPU's, on the images that ran on both.
class ShadowStatus(msgspec.Struct, frozen=True):
    checked: int
    """Images."""
    compared: int
    """Boxes or crops that the CPU found in them."""
    agreed: int
    """Of these, those that the GPU gave the same class, boxes at the same place."""
    extra: int
    """Boxes that only the GPU found."""
    failed: int
    """Checks that gave nothing to compare: an image without cells, or a fault of the CPU's engine."""


# An inference server, as the run that uses it sees it; all counts since the start of the run.
class InferenceServerStatus(msgspec.Struct, frozen=True):
    state: str
    """ready; connecting: not there, or not yet; silent: there and says nothing; resting: its answers do not come, and
    it is asked less; draining: it ends; "other version" and "refused": it can't be used. Readers take any text."""
    release: str | None
    """Of leukostream; None before it said so, and of other servers."""
    requests: int
    """Asked of it, questions that were asked elsewhere before among them."""
    answered: int
    """Of these, those whose answer was used."""
    outstanding: int
    faults: dict[str, int]
    """Requests that came to nothing, by reason."""
    latency_ms: Annotated[dict[str, float] | None, published_digits(3)]
    """p50 and p99 from question to answer, of the last ones; None before the first."""
    detail: str | None = None
    """The last fault, in words; None while nothing is wrong."""


# Where the models of a run run, when that is on other machines; all counts since the start of the run.
class InferenceStatus(msgspec.Struct, frozen=True):
    servers: dict[str, InferenceServerStatus]
    """By address."""
    remote: int
    """Questions (a batch of one model each) that a server answered."""
    local: int
    """Questions that this machine answered itself."""
    local_share: Annotated[float | None, published_digits(4)]
    """Of all questions; None before the first."""
    resent: int
    """Questions asked of another server too, because an answer was overdue or did not come."""
    late: int
    """Answers to what was answered already; they change nothing."""
    sent_bytes: int
    received_bytes: int


# What analyses a source. HealthMessage has these fields among its own: the message is flat.
class ModelHealth(msgspec.Struct, frozen=True):
    backend: str = ""
    """For people; empty before anything runs."""
    detector: str = ""
    classifier: str | None = None
    segmenter: str | None = None
    shadow: dict[str, ShadowStatus] | None = None
    """By "detector" and "classifier"; None where nothing was compared, as on the CPU itself."""
    inference: InferenceStatus | None = None
    """None where everything runs on this machine."""


# How the recording of a run does; all counts since the start.
class RecordingStatus(msgspec.Struct, frozen=True):
    frames: int
    messages: int
    file_bytes: int
    frames_lost: dict[str, int]
    """Frames that could not be kept, by reason: "queue full", "not written"."""
    messages_lost: dict[str, int]


@dataclass(frozen=True, slots=True)
class Health:
    """How a run does; published of one source at a time."""

    models: ModelHealth
    uptime_s: float
    sources: Mapping[str, SourceStatus] = field(default_factory=dict)
    stream: StreamStatus | None = None
    """None where nothing is published over sockets."""
    recording: RecordingStatus | None = None
    """None where nothing is recorded."""
    jsonl_lost: int | None = None
    """Lines of --jsonl that could not be written; None without it."""
