"""Model name or path -> its card and its graph, found and checked, not yet loaded on a backend."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from engines.base import CardError, InvalidTomlError, ModelFormatError, ModelNotFoundError, near, parse_toml
from engines.graphs.graph import adapt_ultralytics, is_compact
from engines.graphs.onnx_editing import dims_of, only_input, spell
from engines.graphs.storage import widened
from engines.zoo import store
from engines.zoo.card import Card, Task, parse_card
from engines.zoo.guessed import card_from_metadata
from engines.zoo.home import SUFFIX, HomeCells, read_home
from engines.zoo.store import PUBLISHED, Place


class WrongTaskError(ModelNotFoundError):
    """There is such a model, for another task."""

    def __init__(self, message: str, got: Task) -> None:
        super().__init__(message)
        self.got = got


@dataclass(frozen=True, slots=True)
class Model:
    """A model file that was found and read, not yet loaded on a backend."""

    card: Card
    proto: ModelProto
    where: str
    """Its name or path, for errors."""


def models() -> list[Card]:
    """Cards of all models that have a name, by name; their figures are in `figures`."""
    return [zoo_card(name) for name in zoo_names()]


def place(card: Card) -> Place:
    """Where the file of a model that has a name is."""
    return store.place_of(card, _zoo())


def file_of(card: Card) -> Traversable:
    """The file of a model that has a name. ModelNotFoundError says how to get a missing one."""
    return store.file_of(card, _zoo())


def zoo_names() -> list[str]:
    """Names of the models whose cards ship; the files of those of the publications do not."""
    return sorted(_card_files())


def _card_files() -> dict[str, Traversable]:
    """The cards by name."""
    entries = [entry for folder in _folders() for entry in folder.iterdir()]
    return {entry.name.removesuffix(".toml"): entry for entry in entries if entry.name.endswith(".toml")}


def _folders() -> list[Traversable]:
    return [folder for folder in (_zoo(), _zoo() / PUBLISHED) if folder.is_dir()]


def _zoo() -> Traversable:
    return resources.files("engines") / "zoo"


def find(name_or_path: str, task: Task) -> Model:
    """The model of that name or path, with its card; ModelNotFoundError suggests the near names."""
    if name_or_path in zoo_names():
        card = zoo_card(name_or_path)
        model = Model(card, _parse(store.read_model(card, _zoo()), name_or_path), name_or_path)
    else:
        model = _find_file(name_or_path, task)
    if model.card.task != task:
        raise WrongTaskError(
            f"{task} {name_or_path!r}: got a {model.card.task}, expected a {task}: {_choices(task) or 'an ONNX file'}",
            got=model.card.task,
        )
    return model


def zoo_card(name: str) -> Card:
    """The card of a model that has a name; ModelNotFoundError suggests the near ones."""
    file = _card_files().get(name)
    if file is None:
        known = ", ".join(zoo_names())
        raise ModelNotFoundError(f"model {name!r}: no such model{near(name, zoo_names()) or ';'} known: {known}")
    return parse_card(file.read_text("utf-8"), file.name, stem=name)


def card_document(name_or_path: str) -> dict[str, Any]:
    """The card of a model that was found, as TOML has it; CardError where there is none."""
    file = _beside(name_or_path, ".toml")
    try:
        return parse_toml(file.read_bytes())
    except (OSError, InvalidTomlError) as error:
        raise CardError(f"{file}: got no card that can be read ({error}), expected one") from error


def home_cells(name_or_path: str, card: Card) -> HomeCells | None:
    """Those beside the card of a model that was found; None where there are none, CardError for those of another."""
    file = _beside(name_or_path, SUFFIX)
    return read_home(file.read_bytes(), str(file), model_sha256=card.sha256) if file.is_file() else None


def _beside(name_or_path: str, suffix: str) -> Traversable:
    if name_or_path in zoo_names():
        files = [folder / f"{name_or_path}{suffix}" for folder in _folders()]
        return next((file for file in files if file.is_file()), files[0])
    return Path(name_or_path).with_suffix(suffix)


def _choices(task: Task) -> str:
    return ", ".join(card.name for card in models() if card.task == task)


def _find_file(name_or_path: str, task: Task) -> Model:
    path = Path(name_or_path)
    if not path.is_file():
        raise _not_found(name_or_path, path, task)
    card_path = path if path.suffix == ".toml" else path.with_suffix(".toml")
    card: Card | None = None
    if card_path.is_file():
        try:
            card = parse_card(card_path.read_text("utf-8"), str(card_path), stem=card_path.stem)
        except UnicodeDecodeError as error:
            raise CardError(f"{card_path}: no text in UTF-8 ({error}), expected a model card in TOML") from error
    model_path = card_path.with_name(card.file) if card is not None and path == card_path else path
    try:
        data = model_path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"{model_path}: can't be read ({error.strerror}); give a model file") from error
    if card is not None:
        card.check_file(data, str(model_path))
    proto = _parse(data, str(model_path))
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        try:
            onnx.load_external_data_for_model(proto, str(model_path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelFormatError(
                f"{model_path}: its weights lie in another file that can't be read ({error})"
            ) from error
    if card is None:
        if task != "detector":
            raise CardError(
                f"{model_path}: got no model card, expected {card_path.name} beside it; "
                f'write one with task = "{task}", its input size and its [[classes]]'
            )
        metadata: Mapping[str, str] = {entry.key: entry.value for entry in proto.metadata_props}
        fixed = dims_of(only_input(proto))[2:4] if not is_compact(proto) else []
        sizes = [size for size in fixed if size is not None]
        card = card_from_metadata(
            metadata, stem=model_path.stem, long_side_px=max(sizes, default=None), where=str(model_path)
        )
    if card.sha256 is None:
        card = replace(card, sha256=hashlib.sha256(data).hexdigest())
    return Model(card, proto, str(model_path))


def _not_found(name_or_path: str, path: Path, task: Task) -> ModelNotFoundError:
    if path.is_dir():
        return ModelNotFoundError(
            f"{task} {name_or_path!r}: got a folder, expected an ONNX file or a name: {_choices(task)}"
        )
    if path.suffix in (".onnx", ".toml") or len(path.parts) > 1:
        beside = [entry.name for entry in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        hint = near(path.name, beside) or ";"
        return ModelNotFoundError(
            f"{task} {name_or_path!r}: got no such file{hint} expected an ONNX file; check the path"
        )
    available = _choices(task) or "none is shipped"
    return ModelNotFoundError(
        f"{task} {name_or_path!r}: no such model{near(name_or_path, zoo_names()) or ';'} "
        f"available: {available}; or give the path of an ONNX file"
    )


def _parse(data: bytes, where: str) -> ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ModelFormatError(f"{where}: got no readable ONNX, expected an ONNX file; export it again") from error
    if not proto.graph.node:
        raise ModelFormatError(f"{where}: got an ONNX file without any operator, expected a network; export it again")
    return widened(proto)


def _adapted(model: Model) -> ModelProto:
    """A YOLOv5 file of Ultralytics with the compact head, once its classes are known to fit the card."""
    outputs = model.proto.graph.output
    shape = dims_of(outputs[0]) if len(outputs) == 1 else []
    features = 5 + len(model.card.classes)
    if shape and shape[-1] not in (features, None):
        raise ModelFormatError(
            f"output {outputs[0].name!r}: got {spell(outputs[0])}, expected (N, candidates, {features}) for the "
            f"{len(model.card.classes)} classes {', '.join(model.card.class_names)}; "
            "give a YOLOv5 export, or correct the classes in its card"
        )
    return adapt_ultralytics(model.proto)


def compact(model: Model) -> ModelProto:
    """The graph of a detector with the uint8 input and the compact head: its own, or YOLOv5's adapted."""
    with naming_model(model.where):
        return model.proto if is_compact(model.proto) else _adapted(model)


@contextmanager
def naming_model(where: str) -> Iterator[None]:
    """Put the model's name before what is wrong with its format."""
    try:
        yield
    except ModelFormatError as error:
        raise ModelFormatError(f"{where}: {error}") from error
