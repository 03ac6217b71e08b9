"""The card of a YOLOv5 file that has none: its classes from the file, their kinds from their names."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from engines.base import CardError
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds


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
