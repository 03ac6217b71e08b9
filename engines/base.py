"""What an engine is: tensors in, tensors out, and the errors that every part of leukostream raises."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class LeukostreamError(Exception):
    """Root of all errors that a user is told about: the thing, got, expected, what to do. Exit status 1."""


class UsageError(LeukostreamError):
    """What was asked for can't be meant: an unknown name, a misspelt key, a malformed address. Exit status 2."""


class EngineError(LeukostreamError):
    """A model could not be loaded or run."""


def near(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """ "; did you mean 'x'?" for the names that look like `name`, else "": the end of an error's line."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=cutoff)]
    return f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def printable(text: str) -> str:
    """`text` as it may be shown on a terminal, in one line: names and paths come from files and from the wire, and a
    control character among their letters would move the cursor, or more."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "·" for letter in text)


class InvalidTomlError(LeukostreamError):
    """Not TOML. Whoever reads a file says which one and what it should hold."""


def parse_toml(data: bytes | str) -> dict[str, Any]:
    """The document; InvalidTomlError also for what is not UTF-8 and for what is nested too deep to be read."""
    try:
        return tomllib.loads(data if isinstance(data, str) else data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidTomlError(str(error)) from error
    except RecursionError:
        raise InvalidTomlError("values nested too deep") from None


class ModelNotFoundError(EngineError, UsageError):
    """No model of that name or path; the message suggests the near ones."""


class CardError(EngineError):
    """A model card is missing, incomplete or contradicts its model."""


class ModelFormatError(EngineError):
    """The file is no ONNX model, or its inputs and outputs are not those of any known kind of model."""


class BackendUnavailableError(EngineError, UsageError):
    """The backend asked for can't work on this machine; the message says what to install."""


class EngineClosedError(EngineError):
    """An engine was called after `close`."""

    def __init__(self) -> None:
        super().__init__("engine: got a call after close, expected none; load the model again")


class TensorMismatchError(EngineError):
    """A tensor given to an engine has another name, shape or dtype than the engine's own."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and dtype of one input or output; None in `shape` is a size that may vary."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def check(self, array: Array) -> None:
        """Raise TensorMismatchError unless `array` fits."""
        fits = len(array.shape) == len(self.shape) and all(
            want is None or got == want for got, want in zip(array.shape, self.shape, strict=True)
        )
        if not fits or array.dtype != self.dtype:
            expected = ",".join("N" if size is None else str(size) for size in self.shape)
            raise TensorMismatchError(
                f"input {self.name!r}: got {array.dtype} {array.shape}, expected {self.dtype} ({expected})"
            )


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, Array]) -> None:
    """TensorMismatchError unless `feeds` are exactly the inputs."""
    expected = {spec.name for spec in inputs}
    if feeds.keys() != expected:
        raise TensorMismatchError(f"inputs: got {sorted(feeds)}, expected {sorted(expected)}")
    for spec in inputs:
        spec.check(feeds[spec.name])


@runtime_checkable
class Engine(Protocol):
    """A model loaded on a backend.

    `infer` may be called from several threads at once; `concurrency` says how many such calls run side by
    side to advantage. Outputs belong to the caller. `close` frees what the engine holds; after it `infer` raises.
    """

    @property
    def backend(self) -> str:
        """For people: "onnxruntime cpu", "tensorrt fp16", "scripted"."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def concurrency(self) -> int: ...

    @property
    def max_batch(self) -> int | None:
        """The largest first dimension that one call takes; None for no limit."""

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model on named inputs; TensorMismatchError for a wrong name, shape or dtype."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineId:
    """What an engine computes, on whatever machine: engines of one id give the same results, within their precision."""

    sha256: str
    """Of the model's file."""
    height: int | None = None
    """Of the input; None: as the file has it."""
    width: int | None = None
    maps: bool = False
    """With Grad-CAM in its graph."""


Elsewhere = Callable[[EngineId, Engine], Engine]
"""(which engine, that engine on this machine) -> one that runs on another machine while it can, and here otherwise. It
closes the one on this machine with itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes of one frame, best score first. Empty arrays mean "looked and found nothing"."""

    boxes_px: npt.NDArray[np.float32]
    """(n, 4) x1, y1, x2, y2 in full-frame pixels, clipped to the frame."""
    scores: npt.NDArray[np.float32]
    """(n,) 0 to 1."""
    labels: npt.NDArray[np.intp]
    """(n,) index into `label_names`."""
    label_names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Kind of each label: "white", "red", "platelet", "nucleated red", or "other" for what is none of them (never
    counted); as long as `label_names`."""
    truncated: bool
    """True when the head's last candidate was still above the threshold: there may be more cells than these."""
    class_scores: npt.NDArray[np.float32] | None = None
    """(n, labels) the network's score of every label for each box, 0 to 1, not a distribution; None where the model
    gives only the best one."""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def white_rows(self) -> npt.NDArray[np.intp]:
        """Rows of the white cells, in order; the looks at a frame are of these. Computed on every access."""
        return np.flatnonzero(np.array([kind == "white" for kind in self.kinds], bool)[self.labels])

    def __getitem__(self, rows: slice) -> Detections:
        """Some of the boxes, as views."""
        return replace(
            self,
            boxes_px=self.boxes_px[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            class_scores=None if self.class_scores is None else self.class_scores[rows],
        )


class Attribute(NamedTuple):
    """Something that a classifier says of how a cell looks, such as the shape of its nucleus."""

    name: str
    values: tuple[str, ...]
    """At least two, in the order of the network."""


@dataclass(frozen=True, slots=True, eq=False)
class Classifications:
    """What a classifier says of a batch of crops."""

    probabilities: npt.NDArray[np.float32]
    """(n, C), calibrated, each row sums to 1."""
    class_names: tuple[str, ...]
    subclass_probabilities: npt.NDArray[np.float32]
    """(n, S), those of one parent class sum to 1; (n, 0) where the model has no subclasses."""
    subclass_names: tuple[str, ...]
    subclass_parents: tuple[str, ...]
    """The class that each subclass belongs to; as long as `subclass_names`."""
    attribute_probabilities: npt.NDArray[np.float32] | None = None
    """(n, V), the values of all `attributes` side by side, those of one attribute sum to 1; None where the model says
    nothing of them."""
    attributes: tuple[Attribute, ...] = ()
    novelty: npt.NDArray[np.float32] | None = None
    """(n,) 0 to 1, how unlike all training cells a crop is; None where the model does not say."""

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Classifications:
        """Some of the crops: as views for a slice, copied for an array of rows."""
        return replace(
            self,
            probabilities=self.probabilities[rows],
            subclass_probabilities=self.subclass_probabilities[rows],
            attribute_probabilities=None
            if self.attribute_probabilities is None
            else self.attribute_probabilities[rows],
            novelty=None if self.novelty is None else self.novelty[rows],
        )

    def pooled(self, views: int | None = None) -> Classifications:
        """`views` looks at each cell made one, the looks at a cell side by side; None: one cell.

        Classes are pooled log-linearly, as a slide pools the looks at a cell: the view that shows too little of the
        cell, or too much around it, is unsure, and a sure one outweighs it. Subclasses and attributes are averaged.
        A cell is as novel as the view that is least so.
        """
        views = len(self) if views is None else views
        cells = len(self) // views
        odds = np.log(np.maximum(self.probabilities, 1e-7)).reshape(cells, views, self.probabilities.shape[1]).mean(1)
        odds = np.exp(odds)

        def averaged(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return np.asarray(rows.reshape(cells, views, rows.shape[1]).mean(1), np.float32)

        values, novelty = self.attribute_probabilities, self.novelty
        return replace(
            self,
            probabilities=np.asarray(odds / odds.sum(1, keepdims=True), np.float32),
            subclass_probabilities=averaged(self.subclass_probabilities),
            attribute_probabilities=None if values is None else averaged(values),
            novelty=None if novelty is None else novelty.reshape(cells, views).min(1),
        )


def attribute_columns(attributes: Sequence[Attribute]) -> list[npt.NDArray[np.intp]]:
    """Of each attribute, the columns of its values in an array that has those of all side by side."""
    ends = np.cumsum([len(attribute.values) for attribute in attributes]).tolist()
    return [np.arange(end - len(one.values), end) for end, one in zip(ends, attributes, strict=True)]


def usable_cores() -> int:
    """Cores that this process may run on, which a container can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
