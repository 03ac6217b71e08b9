"""What a classifier in training is measured on after each epoch: fixed crops of the validation cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tools.data import CELL_CLASSES, SUBCLASSES, VALIDATION
from tools.data.crops import SUBCLASS_NAMES, StoredCells, class_crop, set_name
from tools.metrics import classification as measures

SUBCLASS_OF = [[i for i, s in enumerate(SUBCLASS_NAMES) if SUBCLASSES[s] == c] for c in CELL_CLASSES]
"""Indices of the subclasses of each class."""


@dataclass(frozen=True)
class Looks:
    """Fixed crops to measure on: uint8 (n, px, px, 3), classes and subclasses (n,)."""

    crops: np.ndarray
    classes: np.ndarray
    subclasses: np.ndarray


def validation_looks(stored: StoredCells, input_px: int, margin: float) -> dict[str, Looks]:
    """Per set the validation cells (of pbc every third) as the detector would crop them, pbc also as whole pictures."""
    looks: dict[str, Looks] = {}
    inside = stored.select(VALIDATION)
    names = np.array([set_name(cell) for cell in stored.cells])
    for name in sorted(set(names[inside].tolist())):
        chosen = inside[names[inside] == name][:: 3 if name == "pbc" else 1]
        ways = {name: False} | ({f"{name} whole": True} if name == "pbc" else {})
        for title, whole in ways.items():
            looks[title] = Looks(
                np.stack([class_crop(stored.cells[i], input_px, margin, whole=whole) for i in chosen]),
                stored.classes[chosen],
                stored.subclasses[chosen],
            )
    return looks


@torch.no_grad()
def predict(network: nn.Module, crops: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Class logits float32 (n, 8) and subclass logits (n, 5) of crops uint8 (n, px, px, 3) BGR."""
    network.eval()
    classes, subclasses = [], []
    for start in range(0, len(crops), 64):
        x = torch.from_numpy(crops[start : start + 64]).to(device).permute(0, 3, 1, 2).float() / 255
        c, s = network(x)
        classes.append(c.float().cpu().numpy())
        subclasses.append(s.float().cpu().numpy())
    return np.concatenate(classes), np.concatenate(subclasses)


def measure(network: nn.Module, looks: Mapping[str, Looks], device: torch.device) -> dict[str, dict[str, Any]]:
    """Accuracy, balanced accuracy, subclass accuracy within the true parent and the confusion table of every set."""
    out: dict[str, dict[str, Any]] = {}
    for name, look in looks.items():
        class_logits, subclass_logits = predict(network, look.crops, device)
        table = measures.confusion(look.classes, class_logits.argmax(1), len(CELL_CLASSES))
        known = look.subclasses >= 0
        within = [SUBCLASS_OF[c] for c in look.classes[known]]
        chosen = [w[int(z[w].argmax())] for w, z in zip(within, subclass_logits[known], strict=True)]
        out[name] = {
            "n": len(look.classes),
            "accuracy": float(np.trace(table) / len(look.classes)),
            "balanced": measures.balanced_accuracy(table),
            "subclass": float(np.mean(np.array(chosen) == look.subclasses[known])) if known.any() else None,
            "confusion": table.tolist(),
        }
    return out


def score(results: Mapping[str, Mapping[str, Any]]) -> float:
    """What `best.pt` is chosen by: the home set and the mean of the other laboratories weigh the same."""
    home = [r["accuracy"] for name, r in results.items() if name.startswith("pbc")]
    away = [r["balanced"] for name, r in results.items() if not name.startswith("pbc")]
    return float(np.mean([np.mean(part) for part in (home, away) if part]))
