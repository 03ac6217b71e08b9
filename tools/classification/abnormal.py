"""What a classifier of normal and abnormal cells is measured on while it trains: laboratories, patients, no cell.

Both looks of a cell are pooled as the stream pools them. Cells that are painted over tell what a network has learnt of
the laboratory: where it can't see a cell it may know no more than how frequent the classes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engines.geometry import centred_squares, crop_squares
from tools.classification.augment import painted_over
from tools.classification.measures import balanced_accuracy, confusion, softmax
from tools.classification.squares import LOOK_RED_CELLS, SUBCLASS_NAMES, Squares, looks_at
from tools.datasets import ABNORMAL_CLASSES

MATURE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
WHITE = (*MATURE, "immature granulocyte", "blast")
FEWEST_CELLS = 15
"""Classes of fewer cells say nothing of a laboratory's balanced accuracy."""
PATIENTS = "deepapl"
HOME = "pbc"
COVERED = "covered"
"""What the cells that are painted over are called in figures."""
_BATCH = 64


@dataclass(frozen=True)
class Views:
    """Fixed looks at n cells: uint8 (n, 2, px, px, 3), classes and subclasses (n,), -1 for a subclass that is not
    known."""

    looks: np.ndarray
    classes: np.ndarray
    subclasses: np.ndarray


def views_of(stored: Squares, part: str, input_px: int, margin: float) -> dict[str, Views]:
    """Per laboratory the cells of a part, of pbc every third; and "covered LABORATORY" those of `PATIENTS` and `HOME`
    painted over."""
    found: dict[str, Views] = {}
    inside = stored.select(part)
    rng = np.random.default_rng(0)
    for name in sorted(set(stored.laboratories[inside].tolist())):
        chosen = inside[stored.laboratories[inside] == name][:: 3 if name == HOME else 1]
        truth = stored.classes[chosen], stored.subclasses[chosen]
        found[name] = Views(looks_at([stored.cells[i] for i in chosen], input_px, margin), *truth)
        if name in (PATIENTS, HOME):
            few = chosen[::2]
            looks = np.stack([_covered(stored, int(i), input_px, margin, rng) for i in few])
            found[f"{COVERED} {name}"] = Views(looks, stored.classes[few], stored.subclasses[few])
    return found


def _covered(stored: Squares, i: int, input_px: int, margin: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 (2, px, px, 3) of the square of a cell that is painted over."""
    square, box = painted_over(stored.squares[i], stored.boxes[i], rng), stored.boxes[i : i + 1]
    around = centred_squares(box, float(np.nan_to_num(LOOK_RED_CELLS * stored.rbc_px[i])))
    looks = ((box, margin), (around, 1.0))
    return np.stack([crop_squares(square, boxes, (input_px, input_px), m)[0] for boxes, m in looks])


@torch.no_grad()
def predict(network: nn.Module, looks: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n, classes) and (n, subclasses): pooled class probabilities and mean subclass logits of looks
    (n, k, px, px, 3) BGR."""
    network.eval()
    n, k = looks.shape[:2]
    flat = looks.reshape(n * k, *looks.shape[2:])
    classes, subclasses = [], []
    for start in range(0, len(flat), _BATCH):
        x = torch.from_numpy(flat[start : start + _BATCH]).to(device).permute(0, 3, 1, 2).float() / 255
        found = network(x)
        classes.append(torch.log_softmax(found[0].float(), 1).cpu().numpy())
        subclasses.append(found[1].float().cpu().numpy())
    pooled = np.concatenate(classes).astype(np.float64).reshape(n, k, -1).mean(1)
    return softmax(pooled), np.concatenate(subclasses).astype(np.float64).reshape(n, k, -1).mean(1)


def measure(network: nn.Module, views: Mapping[str, Views], device: torch.device) -> dict[str, Any]:
    """By laboratory its figures (`laboratory_figures`), of the patients theirs (`patient_figures`), and what is said of
    cells that are painted over (`covered_figures`)."""
    out: dict[str, Any] = {}
    for name, view in views.items():
        p, subclass_logits = predict(network, view.looks, device)
        if name.startswith(COVERED):
            out[name] = covered_figures(p, view.classes)
            continue
        out[name] = laboratory_figures(p, view.classes)
        if name == PATIENTS:
            out[f"{name} patients"] = patient_figures(p, subclass_logits, view)
    return out


def laboratory_figures(p: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Accuracy, balanced accuracy over the classes of `FEWEST_CELLS` cells or more (None where there are none), the
    share of mature cells called blast, and recall by class."""
    table = confusion(classes, p.argmax(1), len(ABNORMAL_CLASSES))
    many = table.sum(1) >= FEWEST_CELLS
    recalls = {
        ABNORMAL_CLASSES[c]: [round(float(table[c, c] / table[c].sum()), 4), int(table[c].sum())]
        for c in np.nonzero(table.sum(1))[0]
    }
    mature = _is(classes, MATURE)
    return {
        "cells": len(classes),
        "accuracy": float(np.trace(table) / len(classes)),
        "balanced": balanced_accuracy(np.where(many[:, None], table, 0)) if many.any() else None,
        "mature_called_blast": _share(_is(p.argmax(1), ("blast",)), mature),
        "recall": recalls,
    }


def patient_figures(p: np.ndarray, subclass_logits: np.ndarray, view: Views) -> dict[str, float | None]:
    """What matters in patients with leukaemia, as shares by the likeliest class; None where no cell is of the kind."""
    said = p.argmax(1)
    blasts, variants = _is(view.classes, ("blast",)), view.subclasses == SUBCLASS_NAMES.index("variant lymphocyte")
    promyelocyte = SUBCLASS_NAMES.index("promyelocyte")
    immature = [SUBCLASS_NAMES.index(name) for name in ("metamyelocyte", "myelocyte", "promyelocyte")]
    is_promyelocyte = _is(said, ("immature granulocyte",)) & (
        np.array(immature)[subclass_logits[:, immature].argmax(1)] == promyelocyte
    )
    smudges, lymphocytes = _is(view.classes, ("smudge cell",)), _is(view.classes, ("lymphocyte",))
    return {
        "blasts": int(blasts.sum()),
        "blasts_as_mature": _share(_is(said, MATURE), blasts),
        "blasts_as_blast_or_promyelocyte": _share(_is(said, ("blast",)) | is_promyelocyte, blasts),
        "blasts_as_blast_or_immature": _share(_is(said, ("blast", "immature granulocyte")), blasts),
        "blasts_as_smudge_or_artefact": _share(_is(said, ("smudge cell", "artefact")), blasts),
        "smudges_as_white": _share(_is(said, WHITE), smudges),
        "lymphocytes_as_smudge": _share(_is(said, ("smudge cell",)), lymphocytes & ~variants),
        "variants_as_blast": _share(_is(said, ("blast",)), variants),
    }


def covered_figures(p: np.ndarray, classes: np.ndarray) -> dict[str, float | None]:
    """Of cells that are painted over: the mean probability of a blast, how often that is the likeliest class, and how
    well it still tells blasts from other cells (area under the curve; .5: not at all)."""
    blast = p[:, ABNORMAL_CLASSES.index("blast")]
    were = _is(classes, ("blast",))
    return {
        "cells": len(classes),
        "blast_probability": float(blast.mean()),
        "called_blast": _share(_is(p.argmax(1), ("blast",)), np.ones(len(p), bool)),
        "auc_of_blasts": auc(blast, were),
    }


def auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the receiver operating characteristic, ties counting half; None where one side is empty."""
    if positive.all() or not positive.any():
        return None
    below = scores[~positive]
    wins = [(below < s).mean() + (below == s).mean() / 2 for s in scores[positive]]
    return float(np.mean(wins))


def _is(classes: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    return np.isin(classes, [ABNORMAL_CLASSES.index(label) for label in labels])


def _share(hit: np.ndarray, among: np.ndarray) -> float | None:
    return float(hit[among].mean()) if among.any() else None
