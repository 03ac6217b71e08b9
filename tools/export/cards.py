"""Model cards: what all of them say, whom the data belongs to, and their text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.zoo.card import Task
from engines.zoo.figures import Figures, MeasuredOn, figure_tables
from engines.zoo.toml import toml

ZOO = Path(__file__).resolve().parents[2] / "engines" / "zoo"
"""Where the cards are, and the files that ship."""
LICENCES = {
    "pbc": "PBC: Acevedo 2020, CC BY 4.0; boxes OI-PBC",
    "chula_wbc": "chula_wbc: MIT",
    "bccd": "BCCD: MIT",
    "txl_pbc": "TXL-PBC: MIT; its pictures from Raabin-WBC, types said by eye (tools/data/types_by_eye.csv)",
    "bcd": "bcd: MIT; types said by eye",
    "wbc_masks": "wbc_masks (zxaoyou/segmentation_WBC): data under GPL-3.0",
    "simulated": "the simulated slide of this project",
}
"""Of each set that trains something, whose it is and on which terms."""


def licences(sets: Sequence[str]) -> list[str]:
    """The licences of those sets that have one in `LICENCES`."""
    return [LICENCES[name] for name in sets if name in LICENCES]


def card_values(
    name: str, task: Task, architecture: str, summary: str, file: bytes, *, licence: str = "Apache-2.0", **tables: Any
) -> dict[str, Any]:
    """A card as nested mappings: what every card says, then its `tables` (input, classes, thresholds, training, …)."""
    return {
        "name": name,
        "task": task,
        "architecture": architecture,
        "summary": summary,
        "file": f"{name}.onnx",
        "sha256": hashlib.sha256(file).hexdigest(),
        "licence": licence,
        **tables,
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


def write_files(values: Mapping[str, Any], file: bytes, cards: Path, files: Path | None = None) -> tuple[Path, Path]:
    """Write CARDS/NAME.toml and FILES/NAME.onnx, by default both into one folder; the paths of the model and of the
    card, which has no figures yet."""
    model, card = (files or cards) / str(values["file"]), cards / f"{values['name']}.toml"
    for path in (model, card):
        path.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(file)
    card.write_text(toml(values))
    return model, card


def write_figures(card: Path, values: Mapping[str, Any], figures: Mapping[MeasuredOn, Figures]) -> None:
    """Write the card anew with its figures."""
    card.write_text(toml({**values, "figures": figure_tables(figures) or None}))
