"""The configuration of a run: frozen, validated on load, from a TOML file and the command line.

Every option of `leukostream run` is a field of the same name here; the command line wins over the file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from engines.base import InvalidTomlError, UsageError, near, parse_toml
from streamer.records import Mode, VerdictState

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=1)]
Backend = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
Keep = Literal["got", "jpeg"]

AUTO = "auto"
DEFAULT_CLASSIFIER = "efficientnet-lite0"
DEFAULT_DETECTOR = "yolov5n-blood"

THE_COMMAND_LINE = "the command line"

FILE_MAX_BYTES = 1 << 20
"""Of a configuration file; real ones have some hundred."""

FIVE_PART_RANGES: Mapping[str, tuple[float, float]] = {
    "neutrophil": (40.0, 60.0),
    "lymphocyte": (20.0, 40.0),
    "monocyte": (2.0, 8.0),
    "eosinophil": (0.0, 4.0),
    "basophil": (0.0, 1.0),
}
"""Usual adult percentages; laboratories have their own and set them in the configuration. Few or no eosinophils and
basophils are no finding."""


Percent = Annotated[float, Meta(ge=0.0, le=100.0)]

VERDICT_STATES: Mapping[str, VerdictState] = {
    "few_cells": "incomplete",
    "cut_short": "incomplete",
    "unlike_training": "do not use",
    "unfamiliar": "do not use",
    "unclassified": "incomplete",
    "frames_rejected": "incomplete",
    "frames_lost": "incomplete",
    "magnification": "do not use",
    "stain": "do not use",
    "not_measured": "incomplete",
    "several_slides": "do not use",
    "light_changes": "incomplete",
    "one_area": "incomplete",
    "smudge_cells": "incomplete",
    "person_needed": "ready for review",
}
"""What each reason makes of a differential at best; docs/verdict.md says what it means."""


class VerdictConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a reason is given. Those of the classifier and of colours were measured (docs/verdict.md)."""

    least_cells: Count = 100
    """White cells below which a differential is incomplete: what a laboratory counts."""
    unlike_training_percent: Percent = 10.0
    """Of the white cells, how many may be unlike the training cells."""
    novelty_above_usual: Fraction = 0.1
    """By how much the mean novelty of the white cells may be above that of the nearest training laboratory's cells."""
    unclassified_percent: Percent = 15.0
    """Of the white cells, how many may be unclassified."""
    frames_rejected_percent: Percent = 50.0
    """Of the frames, how many may be rejected or have no place on the slide."""
    frames_lost_percent: Percent = 10.0
    """Of the frames and files, how many may be dropped or unreadable."""
    magnification_beyond: Annotated[float, Meta(ge=1.0)] = 1.5
    """So many times smaller or larger than in the pictures that trained the classifier red cells may be."""
    stain_distance: Annotated[float, Meta(gt=0.0)] = 0.2
    """Optical density by which the colours of plasma and red cells may differ from the nearest of those pictures."""
    light_range: Annotated[float, Meta(gt=0.0)] = 0.3
    """Optical density between which nine tenths of the frames' plasma may vary."""
    least_extent_um: Annotated[float, Meta(ge=0.0)] = 1000.0
    """Of the longer side of the only area that was looked at."""
    least_frames_of_slide: Count = 3
    """Files of like names below which these are not taken for those of a slide of its own."""
    smudge_cells_per_100: Annotated[float, Meta(gt=0.0)] = 10.0
    """Of 100 white cells."""
    person_unclassified_percent: Percent = 5.0
    """Share of unclassified cells above which a person has to name them."""
    person_classes: tuple[str, ...] = (
        *("blast", "promonocyte", "promyelocyte", "myelocyte", "metamyelocyte", "immature granulocyte"),
        *("erythroblast", "plasma cell", "variant lymphocyte"),
    )
    """Classes and subclasses of which a person has to see each cell."""
    states: dict[str, VerdictState] = {}
    """By reason, where it is another one than VERDICT_STATES has."""

    def __post_init__(self) -> None:
        for code in self.states:
            if code not in VERDICT_STATES:
                hint = near(code, VERDICT_STATES) or f"; expected some of {', '.join(VERDICT_STATES)}"
                raise ValueError(f"verdict.states: got the reason {code!r}, which does not exist{hint}")

    def state_of(self, code: str) -> VerdictState:
        return self.states.get(code, VERDICT_STATES[code])


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. None means "decided at the start": by the source, the card or the machine."""

    source: tuple[str, ...] = ()
    """Each `[NAME=]SRC`."""
    mode: Mode | None = None
    wait: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 0.0
    """Seconds for which a camera or stream that does not answer yet is waited for, at most."""
    detector: str | tuple[str, ...] = DEFAULT_DETECTOR
    """Each `[NAME=]MODEL`: a name or a file, for the source of that name; without one, for all others."""
    classifier: str | tuple[str, ...] | None = AUTO
    """Likewise; "auto": the detector's own classes where its card says that they are kinds of leukocyte, else
    `DEFAULT_CLASSIFIER`; "none": the detector's own classes or none at all."""
    segmenter: str | tuple[str, ...] | None = None
    """Likewise: what measures nucleus and cytoplasm of the counted white cells; None or "none": nothing does."""
    site: str | None = None
    """A folder that `leukostream adapt` wrote: its profile is the classifier of all sources."""
    um_per_px: str | float | tuple[str, ...] | None = None
    """Each `[NAME=]UM`: micrometres a pixel of the frames of that source, or of all others; None: not known."""
    slide: str | tuple[str, ...] | None = None
    """Each `[SOURCE=]TEXT`: the laboratory's name of the slide; "-": a line of standard input, "barcode": the code in
    the first frame. None: nobody said, here and below."""
    accession: str | tuple[str, ...] | None = None
    """Each `[SOURCE=]TEXT`, or "-" or "barcode" likewise."""
    operator: str | tuple[str, ...] | None = None
    """Each `[SOURCE=]TEXT`."""
    instrument: str | tuple[str, ...] | None = None
    stain: str | tuple[str, ...] | None = None
    magnification: str | tuple[str, ...] | None = None
    slide_info: str | tuple[str, ...] | None = None
    """Each `[SOURCE=]FILE.toml` with these as keys, and fields of the laboratory's own."""
    wbc: str | float | tuple[str, ...] | None = None
    """Each `[SOURCE=]N`: white cells in 10^9/L, counted elsewhere."""
    wbc_includes_nrbc: bool = False
    """That count has nucleated red cells among its white ones."""
    ignore_box: tuple[str, ...] = ()
    """Each `[NAME=]X1,Y1,X2,Y2`: a part of the frames of that source, or of all, that shows no slide, in pixels."""
    explain: bool = False
    """Each `cell` message says where on the cell the evidence for its class lies. The classifier runs on ONNX Runtime
    then."""
    backend: Backend = "auto"
    inference: str | None = None
    """ENDPOINT[,ENDPOINT…] of inference servers that run the models while they answer, "ray" or ray://HOST:PORT
    for those of a fleet, or kserve://HOST:PORT; None: this machine does."""
    server_key: str | None = None
    """The public key of the inference servers; `keys` is one's own folder then."""
    batch: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Frames of one run of the detector, of as many sources; None: as suits the backend, 1 on a CPU."""
    every_frame: bool = False
    """The models see every frame; else those alone that show something of the slide that was not looked at."""
    audit: Annotated[float, Meta(ge=0.0, le=100.0)] | None = None
    """Percentage of the frames with nothing new that the detector sees as a proof that nothing is lost; None: 2."""
    budget: Annotated[float, Meta(gt=0.0, le=100.0)] | None = None
    """In live mode: percentage of the machine that the models may take, shared by the sources; frames with something
    new are left out where it is too little. None: what they need."""
    min_score: Fraction | None = None
    """Lowest score published; None: the detector card's operating threshold."""
    long_side_px: Annotated[int, Meta(ge=64, le=4096)] | None = None
    """Longer side of the detector's input; None: the card's, or what the red cells of a source ask for."""
    rbc_diameter_px: Annotated[float, Meta(gt=0.0)] | None = None
    """Usual diameter of a red cell in pixels of the frames; None: measured."""
    stop_at: Count | None = None
    """End a source when so many white cells were counted on it."""
    stop_at_precision: Annotated[float, Meta(gt=0.0, lt=50.0)] | None = None
    """End a source when the 95 % limits of every class lie within so many percentage points of the middle between
    them. All limits of such a run, the final ones too, are those that are valid at every look."""
    stop_after_s: Annotated[float, Meta(gt=0.0)] | None = None
    """End the run after this many seconds."""
    publish: str | None = None
    insecure: bool = False
    keys: str | None = None
    """A key folder: publish encrypted, to those whose keys are in it."""
    control: bool = False
    """Whoever subscribes without keys may give commands."""
    linger: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 30.0
    """Seconds for which, at most, requests are still answered after the end, until every subscriber was sent it."""
    metrics: str | int | None = None
    """PORT or HOST:PORT where /metrics, /healthz and /readyz are served."""
    jsonl: str | None = None
    """A file, or "-" for standard output."""
    journal: str | None = None
    """A file that keeps everything, so that a killed run can be resumed and its counts be had again."""
    resume: bool = False
    """Go on with the sessions of an existing journal; where there is none yet, start it."""
    report: str | None = None
    """A page of what was counted, written at the end; without `journal` one is kept until then."""
    record: str | None = None
    """A file that keeps the frames and the messages, to be played again."""
    record_as: Keep = "got"
    """How it keeps frames: as got, that is without loss, or as JPEG."""
    dashboard: bool | None = None
    """None: on where standard output is a terminal."""
    picture: bool | None = None
    """The current frame, drawn in the dashboard; None: where cells can be recognised in it."""
    map: bool = False
    """The map of the slide, drawn large in the dashboard; a large terminal has it beside the picture anyway."""
    workers: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Frames analysed side by side; None: as many as this machine has cores, at most 4."""
    threads: Annotated[int, Meta(ge=1, le=64)] | None = None
    """Threads that one model call uses; None: a source's share of the cores, at most 4, or 1 with `every_frame`. The
    results are the same with any number."""
    queue: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """Frames of one source that may wait; a full queue makes a file wait and drops a camera's oldest frame.
    None: 4 in analysis mode; 2 in live mode, where what waits is old."""
    max_wait_ms: Annotated[float, Meta(ge=0.0, le=1000.0)] = 5.0
    """How long a batch may wait for frames of other sources."""
    stale_after_ms: Annotated[float, Meta(gt=0.0)] = 1000.0
    """A camera's frame that is older when its turn comes is dropped, and counted as "stale"."""
    shadow_every: Count = 1000
    """On a GPU, one frame of so many is also analysed on the CPU, and `health` says how far the two agree."""
    health_interval_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 1.0
    reference_ranges: dict[str, tuple[float, float]] = msgspec.field(default_factory=lambda: dict(FIVE_PART_RANGES))
    """Usual percentages per class or subclass, as [low, high]; those that a file leaves out are FIVE_PART_RANGES."""
    verdict: VerdictConfig = VerdictConfig()
    """When a differential may be believed."""

    def __post_init__(self) -> None:
        for name, (low, high) in self.reference_ranges.items():
            if not 0.0 <= low <= high <= 100.0:
                raise ValueError(
                    f"reference_ranges.{name}: got [{low:g}, {high:g}], expected percentages [low, high], "
                    "0 to 100, low not above high"
                )


def load_config(path: str | None, overrides: dict[str, Any], where: str = THE_COMMAND_LINE) -> Config:
    """The configuration of a TOML file (None: the defaults) with the given fields replaced. `where`: who gave them.

    UsageError for a file that can't be read, a key that doesn't exist (the near ones are named) and a value of the
    wrong type or range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _read(path)
        _convert(values, path)  # before the command line is mixed in, so that a fault of the file names the file
        if "reference_ranges" in values:
            values["reference_ranges"] = {**FIVE_PART_RANGES, **values["reference_ranges"]}
    return _convert({**values, **overrides}, where)


def _read(path: str) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before `open`, which would wait for the writer of a pipe
            raise UsageError(f"--config {path}: got what is no regular file, expected a TOML file")
        with open(path, "rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--config {path}: got {error.strerror}, expected a readable TOML file") from error
    if len(data) > FILE_MAX_BYTES:
        raise UsageError(f"--config {path}: got more than {FILE_MAX_BYTES} bytes, expected a TOML file of options")
    try:
        return parse_toml(data)
    except InvalidTomlError as error:
        raise UsageError(f"--config {path}: got {error}, expected a valid TOML file") from error


def _convert(values: dict[str, Any], where: str) -> Config:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(Config)}
    converted = {}
    for key, value in values.items():
        if key not in fields:
            hint = near(key, fields, cutoff=0.7) or f"; expected one of: {', '.join(sorted(fields))}"
            raise UsageError(f"{where}: got the key {key!r}, which does not exist{hint}")
        try:
            converted[key] = msgspec.convert(value, fields[key])
        except msgspec.ValidationError as error:
            named = f"--{key.replace('_', '-')}" if where == THE_COMMAND_LINE else f"{where}: {key}"
            raise UsageError(f"{named}{_fault(error, value)}{_near_choice(value, fields[key])}") from error
    try:
        return Config(**converted)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _fault(error: msgspec.ValidationError, value: object) -> str:
    """What msgspec says, in the order of our errors: the place in the value, got, expected."""
    fault, _, place = str(error).partition(" - at `$")
    return f"{place.strip('`')}: {in_plain_words(fault, value if not place else None)}"


_KINDS = {
    **{"float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false"},
    **{"array": "a list", "object": "a table", "null": "nothing"},
}
"""What msgspec's types are called by people."""
_BOUNDS = {">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}


def in_plain_words(fault: str, value: object = None) -> str:
    """A fault that msgspec found, for people who don't program. `value`: what was got; None: it has to be left out."""

    def plain(kinds: str) -> str:
        return " or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | ") if kind != "null")

    if bound := re.fullmatch(r"Expected `(float|int)(?: \| null)?` (>=|<=|>|<) (\S+)", fault):
        kind, sign, limit = bound.groups()
        got = "" if value is None else f"got {value}, "
        return f"{got}expected {plain(kind)} {_BOUNDS[sign]} {limit.removesuffix('.0')}"
    if other := re.fullmatch(r"Expected `(.*)`, got `(.*)`", fault):
        return f"got {plain(other.group(2))}, expected {plain(other.group(1))}"
    if length := re.fullmatch(r"Expected `(\w+)(?: \| null)?` of length (>=|<=) (\d+)", fault):
        kind, sign, limit = length.groups()
        return f"expected {plain(kind)} of {'at least' if sign == '>=' else 'at most'} {limit} characters"
    return f"{fault[:1].lower()}{fault[1:]}"


def _near_choice(value: object, type_: Any) -> str:
    """Of a field that takes one of some words, those that are near and all there are."""
    choices = [name for kind in (type_, *get_args(type_)) for name in get_args(kind) if isinstance(name, str)]
    return f", expected one of {', '.join(choices)}{near(str(value), choices)}" if choices else ""
