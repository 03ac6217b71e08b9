"""Model cards: what a model is, how it wants its input, what its figures are. NAME.toml beside NAME.onnx.

Cards are read strictly: a misspelt key is an error that names the near one. Only `task` and `[[classes]]` are
needed, so that a person can write a card of ten lines beside a file from elsewhere.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engines.base import Attribute, CardError, InvalidTomlError, near, parse_toml
from engines.geometry import Border, Boxes, centred_squares

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
class CropInput:
    """Input of a classifier or segmenter."""

    height_px: int
    width_px: int
    channels: str = "bgr"
    crop_margin: float = 1.3
    """Side of the square crop over the longer side of the box."""
    mirrored_margin: float | None = None
    """The same of a second, mirrored look at each cell (of a picture of one cell the second look is mirrored then);
    None: one look a cell."""
    pad_value: int | None = None
    """Grey outside the frame; None repeats the frame's border, which looks less like an object."""
    middle_share: float = 0.65
    """Of a picture of one cell: the part of its side that the second look shows."""
    fixed_look_rbc: float | None = None
    """Side of the second look at a cell in diameters of the red cells around it, which shows how large the cell is;
    it is not mirrored. Where the magnification is not known the second look is that of `mirrored_margin`. None: it
    always is."""

    @property
    def looks(self) -> int:
        """How often a cell in a frame is looked at."""
        return 1 if self.mirrored_margin is None else 2

    def is_fixed(self, look: int, rbc_px: float | None) -> bool:
        """Whether the first (0) or second (1) look at a cell has a fixed physical size, where red cells are `rbc_px`
        wide in the frame; None: unknown."""
        return look == 1 and self.fixed_look_rbc is not None and rbc_px is not None

    def is_mirrored(self, look: int, rbc_px: float | None) -> bool:
        """Whether the first (0) or second (1) look at a cell is mirrored."""
        return look == 1 and self.mirrored_margin is not None and not self.is_fixed(look, rbc_px)

    def looked_at(self, look: int, box_px: Boxes, rbc_px: float | None) -> tuple[Boxes, float]:
        """Boxes float32 (n,4) and the side of the look's squares over their longer sides, for cells in boxes (n,4)."""
        if self.fixed_look_rbc is not None and rbc_px is not None and look == 1:
            return centred_squares(box_px, self.fixed_look_rbc * rbc_px), 1.0
        return box_px, self.crop_margin if look == 0 or self.mirrored_margin is None else self.mirrored_margin

    @property
    def border(self) -> Border:
        return "replicate" if self.pad_value is None else self.pad_value


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
    architecture: str = ""
    summary: str = ""
    licence: str = ""
    build: tuple[str, ...] = ()
    """Commands that make the file, in their order; empty where nobody said."""
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Measured figures by data set; each has the `command` that reproduces it."""
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
    top = _Table(document, where)
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
        input=_detector_input(settings) if task == "detector" else _crop_input(settings),
        classes=classes,
        thresholds=_thresholds(top.table("thresholds"), task),
        file=_file_name(top, stem),
        sha256=_sha256(top),
        subclasses=subclasses,
        attributes=attributes,
        attributes_of=attributes_of,
        architecture=top.text("architecture", ""),
        summary=top.text("summary", ""),
        licence=top.text("licence", ""),
        build=top.texts("build"),
        training=top.free("training"),
        figures=_figures(top.free("figures"), where),
    )
    top.done()
    return card


def card_from_metadata(metadata: Mapping[str, str], *, stem: str, long_side_px: int | None, where: str) -> Card:
    """The card of a YOLOv5 file that has none: class names from the `names` that Ultralytics writes into the file.

    `long_side_px` is that of a file of fixed sizes. The kinds are guessed from the names, and `notes` says so.
    """
    if "names" not in metadata:
        raise CardError(
            f"{where}: got neither a card beside it nor class names inside it, expected one of them; "
            f'write {stem}.toml with task = "detector" and a [[classes]] table (name, kind) for each class in order'
        )
    names = _parse_names(metadata["names"], where)
    classes = tuple(ClassEntry(name, guess_kind(name)) for name in names)
    guessed = ", ".join(f"{entry.name} = {entry.kind}" for entry in classes)
    return Card(
        name=stem,
        task="detector",
        input=DetectorInput(channels="rgb", long_side_px=long_side_px or 640, stride_px=_stride(metadata)),
        classes=classes,
        thresholds=Thresholds(),
        file=f"{stem}.onnx",
        architecture="yolov5",
        summary="YOLOv5 as exported by Ultralytics",
        notes=(f"{stem}: no card beside the file, kinds guessed from its class names: {guessed}",),
    )


_WHITE_WORDS = """
    wbc white leukocyte leucocyte neutrophil lymphocyte monocyte eosinophil basophil granulocyte band metamyelocyte
    myelocyte promyelocyte blast myeloblast monoblast lymphoblast prolymphocyte
    bas eos lya lyt mmz mob mon myb myo ngb ngs pmb pmo
"""
_WHITE = frozenset(_WHITE_WORDS.split())
_NUCLEATED_RED = {"erythroblast", "normoblast", "nrbc", "ebo", "erb"}
_RED = {"rbc", "red", "erythrocyte", "reticulocyte"}
_PLATELET = {"platelet", "plt", "thrombocyte"}


def guess_kind(name: str) -> str:
    """The kind that a class name means, by its words: "WBC" -> "white"; "other" where no word is known."""
    words = set(name.lower().replace("_", " ").replace("-", " ").split())
    words |= {word.removesuffix("s") for word in words}
    if words & _PLATELET:
        return "platelet"
    if words & _NUCLEATED_RED or ("nucleated" in words and words & _RED):
        return "nucleated red"
    if words & _RED:
        return "red"
    return "white" if words & _WHITE else "other"


def _class(row: _Table) -> ClassEntry:
    parent = row.text("parent") if "parent" in row else None
    group = row.text("group") if "group" in row else None
    read = ClassEntry(row.text("name"), row.choice("kind", KINDS), parent, group)
    row.done()
    return read


def _subclass(row: _Table, parents: Sequence[str]) -> SubclassEntry:
    read = SubclassEntry(row.text("name"), row.choice("parent", parents))
    row.done()
    return read


def _attribute(row: _Table) -> Attribute:
    read = Attribute(row.text("name"), row.texts("values"))
    if len(read.values) < 2 or len(set(read.values)) < len(read.values):
        raise CardError(f"{row.where}: values: got {list(read.values)}, expected at least two different ones")
    row.done()
    return read


def _attributes_of(top: _Table, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that have attributes; all of them where the card doesn't say."""
    named = top.texts("attributes_of") if "attributes_of" in top else tuple(classes)
    for name in named:
        if name not in classes:
            raise CardError(
                f"{top.where}: attributes_of: got {name!r}, expected classes of this card{near(name, classes)}"
            )
    return named


def _detector_input(settings: _Table) -> DetectorInput:
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


def _crop_input(settings: _Table) -> CropInput:
    read = CropInput(
        height_px=settings.whole("height_px", low=1),
        width_px=settings.whole("width_px", low=1),
        channels=settings.choice("channels", ("bgr", "rgb"), "bgr"),
        crop_margin=settings.number("crop_margin", 1.3, low=0.1, high=10),
        mirrored_margin=settings.number("mirrored_margin", low=0.1, high=10) if "mirrored_margin" in settings else None,
        pad_value=settings.whole("pad_value", low=0, high=255) if "pad_value" in settings else None,
        middle_share=settings.number("middle_share", 0.65, low=0.1, high=1),
        fixed_look_rbc=settings.number("fixed_look_rbc", low=0.5, high=20) if "fixed_look_rbc" in settings else None,
    )
    if read.fixed_look_rbc is not None and read.mirrored_margin is None:
        raise CardError(
            f"{settings.where}: got fixed_look_rbc without mirrored_margin, expected both; mirrored_margin is the "
            "second look at frames of unknown magnification"
        )
    settings.done()
    return read


def _thresholds(settings: _Table, task: Task) -> Thresholds:
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


def _file_name(top: _Table, stem: str) -> str:
    name = top.text("file", f"{stem}.onnx")
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise CardError(
            f"{top.where}: file: got {name!r}, expected the name of a file beside the card, without folders"
        )
    return name


def _sha256(top: _Table) -> str | None:
    if "sha256" not in top:
        return None
    digest = top.text("sha256").lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise CardError(f"{top.where}: sha256: got {digest[:20]!r}…, expected 64 hexadecimal digits")
    return digest


def _figures(figures: Mapping[str, Any], where: str) -> Mapping[str, Mapping[str, Any]]:
    for name, values in figures.items():
        if not isinstance(values, Mapping) or not isinstance(values.get("command"), str):
            raise CardError(
                f"{where}: [figures.{name}]: got no command, expected the command that measures these figures"
            )
    return figures


def _parse_names(text: str, where: str) -> list[str]:
    """Ultralytics writes `{0: 'a', 1: 'b'}`, older exports `['a', 'b']`, both as Python literals."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        value = None
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise CardError(
            f"{where}: metadata 'names': got {text[:60]!r}, expected {{0: 'name', 1: 'name'}}; "
            "write a card beside the file"
        )
    return list(value)


def _stride(metadata: Mapping[str, str]) -> int:
    text = metadata.get("stride", "32")
    return int(text) if text.isdigit() and int(text) > 0 else 32


_REQUIRED: Any = object()


class _Table:
    """One table of a card, whose keys are taken one by one; `done` complains of those that nobody took."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._known: list[str] = []
        self.where = where

    def __contains__(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values

    def _take(self, key: str, kinds: tuple[type, ...], expected: str, default: Any = _REQUIRED) -> Any:
        self._known.append(key)
        value = self._values.get(key, default)
        if value is _REQUIRED:
            raise CardError(f"{self.where}: {key}: got nothing, expected {expected}{self._misspelt(key)}")
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise CardError(f"{self.where}: {key}: got {value!r}, expected {expected}")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        return str(self._take(key, (str,), "a text", default))

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._take(key, (list,), "a list of texts", [])
        if not all(isinstance(value, str) for value in values):
            raise CardError(f"{self.where}: {key}: got {values}, expected a list of texts")
        return tuple(values)

    def choice(self, key: str, allowed: Sequence[Any], default: Any = _REQUIRED) -> Any:
        expected = " or ".join(repr(value) for value in allowed)
        value = self._take(key, (str,), expected, default)
        if value not in allowed:
            raise CardError(f"{self.where}: {key}: got {value!r}, expected {expected}{near(value, allowed)}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, low: float, high: float = float("inf")) -> float:
        value = float(self._take(key, (int, float), "a number", default))
        if not low <= value <= high:
            raise CardError(f"{self.where}: {key}: got {value}, expected {low} to {high}")
        return value

    def whole(self, key: str, default: Any = _REQUIRED, *, low: int, high: int = 1 << 16) -> int:
        value = int(self._take(key, (int,), "a whole number", default))
        if not low <= value <= high:
            raise CardError(f"{self.where}: {key}: got {value}, expected {low} to {high}")
        return value

    def numbers(self, key: str, count: int) -> list[float] | None:
        values = self._take(key, (list,), f"{count} numbers", None)
        if values is None:
            return None
        if len(values) != count or not all(isinstance(value, int | float) for value in values):
            raise CardError(f"{self.where}: {key}: got {values}, expected {count} numbers")
        return [float(value) for value in values]

    def table(self, key: str) -> _Table:
        return _Table(self._take(key, (dict,), f"a table [{key}]", {}), f"{self.where}: [{key}]")

    def free(self, key: str) -> Mapping[str, Any]:
        values: Mapping[str, Any] = self._take(key, (dict,), f"a table [{key}]", {})
        return values

    def entries(self, key: str, *, required: bool = False) -> list[_Table]:
        rows = self._take(key, (list,), f"[[{key}]] tables", _REQUIRED if required else [])
        if not all(isinstance(row, dict) for row in rows) or (required and not rows):
            raise CardError(f"{self.where}: {key}: got {rows!r}, expected [[{key}]] tables")
        return [_Table(row, f"{self.where}: [[{key}]] {index + 1}") for index, row in enumerate(rows)]

    def _misspelt(self, key: str) -> str:
        return near(key, [other for other in self._values if other not in self._known])

    def done(self) -> None:
        for key in self._values:
            if key not in self._known:
                raise CardError(f"{self.where}: got the unknown key {key!r}{near(key, self._known)}")
