"""Model cards: what a model is, how it wants its input, what its figures are. NAME.toml beside NAME.onnx.

Cards are read strictly: a misspelt key is an error that names the near one. Only `task` and `[[classes]]` are
needed, so that a person can write a card of ten lines beside a file from elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engines.base import Attribute, CardError, InvalidTomlError, near, parse_toml
from engines.zoo.crops import CropInput, read_crop_input
from engines.zoo.figures import Figures, MeasuredOn, read_figures
from engines.zoo.slide_flags import SlideFlag, read_slide_flags
from engines.zoo.table import Table

Task = Literal["detector", "classifier", "segmenter"]
TASKS: tuple[Task, ...] = get_args(Task)
KINDS = ("white", "red", "platelet", "nucleated red", "other")
"""What a label counts as. "other" is what is none of the rest; it is shown and never counted."""


@dataclass(frozen=True, slots=True)
class DetectorInput:
    channels: str = "bgr"
    """What the network inside the graph wants; the graph's own input is BGR always."""
    long_side_px: int = 640
    stride_px: int = 32
    pad_value: int = 114
    rbc_diameter_px: tuple[float, float] | None = None
    """Diameters of red cells, in input px, that the detector was trained for; None where nobody said."""


@dataclass(frozen=True, slots=True)
class ClassEntry:
    name: str
    kind: str
    parent: str | None = None
    """Detector whose classes are kinds of leukocyte: the class of the differential that this one is a subclass of."""
    group: str | None = None
    """Classifier of two levels: behind a detector with a label of this name, cells of its other labels are never this
    class."""


@dataclass(frozen=True, slots=True)
class SubclassEntry:
    name: str
    parent: str


@dataclass(frozen=True, slots=True)
class Appearance:
    """How some pictures of a laboratory look that trained a classifier; several of these may be of one laboratory."""

    laboratory: str
    """Named as its figures are."""
    plasma: tuple[float, float, float]
    """Optical density of blue, green and red, as streamer/analysis/colours.py measures it."""
    red: tuple[float, float, float]
    """The same of the red cells, less that of the plasma."""
    rbc_diameter_px: float
    """Of the red cells in the pictures."""
    novelty: float | None = None
    """Mean of the laboratory's cells that did not train the classifier; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    operating: float = 0.25
    """Detector: the score from which a box is counted. Classifier: the probability below which a cell is
    "unclassified"."""
    nms_iou: float = 0.45
    nms_across: Literal["class", "kind"] = "class"
    """Which boxes suppress one another: those of a class, or, of those that are counted, all of a kind (several classes
    of white cell)."""
    naming: float | None = None
    """Detector whose classes are kinds of leukocyte: the share of its class scores below which a cell is
    "unclassified". None: its classes do not say what a white cell is."""
    novelty: float | None = None
    """Classifier: the novelty above which a crop is like no training cell, and a cell all of whose looks are so
    "unclassified". None: the model does not say how novel a crop is."""


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    task: Task
    input: DetectorInput | CropInput
    classes: tuple[ClassEntry, ...]
    thresholds: Thresholds
    file: str
    """Name of the ONNX file beside the card."""
    sha256: str | None = None
    """Of that file, 64 hexadecimal digits; None where the card does not say, then nothing is checked."""
    subclasses: tuple[SubclassEntry, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    """What the classifier says of how a cell looks."""
    attributes_of: tuple[str, ...] = ()
    """The classes whose cells these attributes were learnt from; of others they are not told."""
    appearances: tuple[Appearance, ...] = ()
    """Classifier: how the pictures look that trained it; empty where nobody said."""
    slide_flags: tuple[SlideFlag, ...] = ()
    """Classifier: classes of which one cell is not enough for a flag; of all others it is."""
    architecture: str = ""
    summary: str = ""
    licence: str = ""
    build: tuple[str, ...] = ()
    """Commands that make the file, in their order; empty where nobody said."""
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[MeasuredOn, Figures] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)
    """How the weights are stored, where the file was made anew of another (its SHA-256: `was`, which the figures were
    measured with), and what that cost."""
    notes: tuple[str, ...] = ()
    """What was assumed and a person should be told once; empty for a card that says everything itself."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.classes)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(entry.kind for entry in self.classes)

    def check_file(self, data: bytes, where: str) -> None:
        """CardError unless `data` is the file that the card was written for."""
        digest = hashlib.sha256(data).hexdigest()
        if self.sha256 is not None and digest != self.sha256:
            raise CardError(
                f"{where}: got sha256 {digest[:12]}…, expected {self.sha256[:12]}… by its card {self.name!r}; "
                "fetch the file again, or correct the card if the file was changed on purpose"
            )


def parse_card(text: str, where: str, *, stem: str) -> Card:
    """Read a card from TOML. `where` names it in errors; `stem` is the file name without suffix, for defaults."""
    try:
        document = parse_toml(text)
    except InvalidTomlError as error:
        raise CardError(f"{where}: no valid TOML ({error})") from error
    top = Table(document, where)
    task = top.choice("task", TASKS)
    classes = tuple(_class(row) for row in top.entries("classes", required=True))
    parents = [entry.name for entry in classes]
    subclasses = tuple(_subclass(row, parents) for row in top.entries("subclasses"))
    attributes = tuple(_attribute(row) for row in top.entries("attributes"))
    for what, names in (
        ("classes", parents),
        ("subclasses", [entry.name for entry in subclasses]),
        ("attributes", [entry.name for entry in attributes]),
    ):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise CardError(f"{where}: {what}: got {sorted(twice)} twice, expected different names")
    attributes_of = _attributes_of(top, parents) if attributes else ()
    settings = top.table("input")
    card = Card(
        name=top.text("name", stem),
        task=task,
        input=_detector_input(settings) if task == "detector" else read_crop_input(settings),
        classes=classes,
        thresholds=_thresholds(top.table("thresholds"), task),
        file=_file_name(top, stem),
        sha256=_sha256(top),
        subclasses=subclasses,
        attributes=attributes,
        attributes_of=attributes_of,
        appearances=tuple(_appearance(row) for row in top.entries("appearances")),
        slide_flags=read_slide_flags(top, parents, {entry.name: entry.parent for entry in subclasses}),
        architecture=top.text("architecture", ""),
        summary=top.text("summary", ""),
        licence=top.text("licence", ""),
        build=top.texts("build"),
        training=top.free("training"),
        figures=read_figures(top),
        storage=top.free("storage"),
    )
    top.done()
    return card


def _class(row: Table) -> ClassEntry:
    parent = row.text("parent") if "parent" in row else None
    group = row.text("group") if "group" in row else None
    read = ClassEntry(row.text("name"), row.choice("kind", KINDS), parent, group)
    row.done()
    return read


def _subclass(row: Table, parents: Sequence[str]) -> SubclassEntry:
    read = SubclassEntry(row.text("name"), row.choice("parent", parents))
    row.done()
    return read


def _attribute(row: Table) -> Attribute:
    read = Attribute(row.text("name"), row.texts("values"))
    if len(read.values) < 2 or len(set(read.values)) < len(read.values):
        raise CardError(f"{row.where}: values: got {list(read.values)}, expected at least two different ones")
    row.done()
    return read


def _appearance(row: Table) -> Appearance:
    read = Appearance(
        row.text("laboratory"),
        row.density("plasma"),
        row.density("red"),
        row.number("rbc_diameter_px", low=1, high=1000),
        row.number("novelty", low=0, high=1) if "novelty" in row else None,
    )
    row.done()
    return read


def _attributes_of(top: Table, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that have attributes; all of them where the card doesn't say."""
    named = top.texts("attributes_of") if "attributes_of" in top else tuple(classes)
    for name in named:
        if name not in classes:
            raise CardError(
                f"{top.where}: attributes_of: got {name!r}, expected classes of this card{near(name, classes)}"
            )
    return named


def _detector_input(settings: Table) -> DetectorInput:
    low_high = settings.numbers("rbc_diameter_px", 2)
    if low_high is not None and not 0 < low_high[0] < low_high[1]:
        raise CardError(f"{settings.where}: rbc_diameter_px: got {list(low_high)}, expected [low, high] above 0")
    read = DetectorInput(
        channels=settings.choice("channels", ("bgr", "rgb"), "bgr"),
        long_side_px=settings.whole("long_side_px", 640, low=32),
        stride_px=settings.whole("stride_px", 32, low=1),
        pad_value=settings.whole("pad_value", 114, low=0, high=255),
        rbc_diameter_px=None if low_high is None else (low_high[0], low_high[1]),
    )
    settings.done()
    return read


def _thresholds(settings: Table, task: Task) -> Thresholds:
    operating = settings.number("operating", 0.25, low=0, high=1)
    if task == "detector":
        read = Thresholds(
            operating,
            settings.number("nms_iou", 0.45, low=0, high=1),
            settings.choice("nms_across", ("class", "kind"), "class"),
            settings.number("naming", low=0, high=1) if "naming" in settings else None,
        )
    else:
        novelty = settings.number("novelty", low=0, high=1) if "novelty" in settings else None
        read = Thresholds(operating, novelty=novelty)
    settings.done()
    return read


def _file_name(top: Table, stem: str) -> str:
    name = top.text("file", f"{stem}.onnx")
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise CardError(
            f"{top.where}: file: got {name!r}, expected the name of a file beside the card, without folders"
        )
    return name


def _sha256(top: Table) -> str | None:
    if "sha256" not in top:
        return None
    digest = top.text("sha256").lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise CardError(f"{top.where}: sha256: got {digest[:20]!r}…, expected 64 hexadecimal digits")
    return digest
