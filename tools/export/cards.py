"""Model cards: what all of them say, and their text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.zoo import store
from engines.zoo.card import Task
from engines.zoo.figures import Figures, MeasuredOn, figure_tables
from tools.data.licences import data_licences, licence_of_weights

ZOO = Path(__file__).resolve().parents[2] / "engines" / "zoo"
"""Where the models that ship are, each with its card."""
PUBLISHED = ZOO / store.PUBLISHED
"""Where those of the publications are that a clone has and the wheel does not."""


def card_values(
    name: str, task: Task, architecture: str, summary: str, file: bytes, *, training: Mapping[str, Any], **tables: Any
) -> dict[str, Any]:
    """A card as nested mappings: what every card says, then its `tables` (input, classes, thresholds, …). The sets in
    `training` ("data") say its licence and bring their own (`data_licences`)."""
    sets = list(training.get("data", ()))
    told = {"data": sets, "data_licences": data_licences(sets)} if sets else {}
    return {
        "name": name,
        "task": task,
        "architecture": architecture,
        "summary": summary,
        "file": f"{name}.onnx",
        "sha256": hashlib.sha256(file).hexdigest(),
        "licence": licence_of_weights(sets),
        **tables,
        "training": {**told, **training},
    }


def crop_input(side_px: int, margins: Sequence[float], **more: Any) -> dict[str, Any]:
    """The input of a model of single cells: looks with one margin, or two, the second mirrored."""
    return {
        "channels": "bgr",
        "height_px": side_px,
        "width_px": side_px,
        "crop_margin": margins[0],
        "mirrored_margin": margins[1] if len(margins) == 2 else None,
        **more,
    }


def frame_input(long_side_px: int, rbc_diameter_px: Sequence[float]) -> dict[str, Any]:
    """The input of a detector, and the diameters of red cells that it reads."""
    return {
        "channels": "bgr",
        "long_side_px": long_side_px,
        "stride_px": 32,
        "pad_value": 114,
        "rbc_diameter_px": [float(diameter) for diameter in rbc_diameter_px],
    }


def write_files(values: Mapping[str, Any], file: bytes, folder: Path) -> tuple[Path, Path]:
    """Write FOLDER/NAME.onnx and FOLDER/NAME.toml; the paths of the model and of the card, which has no figures yet."""
    model, card = folder / str(values["file"]), folder / f"{values['name']}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    model.write_bytes(file)
    card.write_text(toml(values))
    return model, card


def write_figures(card: Path, values: Mapping[str, Any], figures: Mapping[MeasuredOn, Figures]) -> None:
    """Write the card anew with its figures."""
    card.write_text(toml({**values, "figures": figure_tables(figures) or None}))


def toml_value(value: Any) -> str:
    """A string, number, bool or list of them as TOML; TypeError for what TOML can't hold (None among it)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"card value: got {type(value).__name__}, expected a string, number, bool or list")


def toml(tables: Mapping[str, Any]) -> str:
    """TOML text of nested mappings; lists of mappings become arrays of tables, values that are None are left out."""
    lines: list[str] = []

    def write(table: Mapping[str, Any], name: str) -> None:
        for key, value in table.items():
            if value is not None and not _is_table(value):
                lines.append(f"{key} = {toml_value(value)}")
        for key, value in table.items():
            path = f"{name}.{key}" if name else key
            if isinstance(value, Mapping):
                if any(not _is_table(v) for v in value.values()):
                    lines.extend(("", f"[{path}]"))
                write(value, path)
            elif _is_table(value):
                for row in value:
                    lines.extend(("", f"[[{path}]]"))
                    write(row, path)

    write(tables, "")
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )
