"""Model cards: what all of them say, and their text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.zoo import store
from engines.zoo.card import Task
from engines.zoo.figures import Figures, MeasuredOn, figure_tables
from engines.zoo.toml import toml
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
