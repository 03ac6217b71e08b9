"""What a classifier of normal and abnormal cells is measured on: laboratories, patients, and no cell at all.

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
from engines.models.classifier import Classifier
from tools.data import ABNORMAL_CLASSES
from tools.data.augment import painted_over
from tools.data.crops import cluster_of, read_image, set_name
from tools.data.located import LocatedCell
from tools.data.squares import LOOK_RED_CELLS, SUBCLASS_NAMES
from tools.metrics.classification import balanced_accuracy, calibration_error, confusion, share_of, softmax

MATURE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
WHITE = (*MATURE, "immature granulocyte", "blast")
FEWEST_CELLS = 15
"""Classes of fewer cells say nothing of a laboratory's balanced accuracy."""
PATIENTS = "deepapl"
MANY_BLASTS, FEW_HIDDEN = 10, 0.2
HOME = "pbc"
HOME_STEP = 3
"""Of pbc every third cell is measured: it has as many as all others together."""
COVERED = "covered"
"""What the cells that are painted over are called in figures."""
_BATCH = 64


@dataclass(frozen=True)
class Chosen:
    """Cells that are measured together; `covered`: painted over."""

    cells: tuple[LocatedCell, ...]
    covered: bool = False

    @property
    def classes(self) -> np.ndarray:
        """int64 (n,), index into `ABNORMAL_CLASSES`."""
        return np.array([ABNORMAL_CLASSES.index(one.cell.cell_class) for one in self.cells], np.int64)

    @property
    def subclasses(self) -> np.ndarray:
        """int64 (n,), index into `SUBCLASS_NAMES`, -1 where it is not known."""
        return np.array(
            [SUBCLASS_NAMES.index(c.cell.subclass) if c.cell.subclass else -1 for c in self.cells], np.int64
        )

    def picture(self, number: int) -> np.ndarray:
        """uint8 (h, w, 3) BGR of a cell; always the same one where it is covered."""
        one = self.cells[number]
        image = read_image(one.cell.path)
        if not self.covered:
            return image
        return painted_over(image, np.array(one.cell.box_px, np.float32), np.random.default_rng(number))


def choose(cells: Sequence[LocatedCell], parts: Sequence[str], part: str) -> dict[str, Chosen]:
    """Per laboratory the cells of a part, of `HOME` every third; and "LABORATORY covered" every other one of those of
    `PATIENTS` and `HOME`, painted over."""
    found: dict[str, Chosen] = {}
    of_part = [one for one, own in zip(cells, parts, strict=True) if own == part]
    for name in sorted({set_name(one.cell) for one in of_part}):
        own = [one for one in of_part if set_name(one.cell) == name][:: HOME_STEP if name == HOME else 1]
        found[name] = Chosen(tuple(own))
        if name in (PATIENTS, HOME):
            found[f"{name} {COVERED}"] = Chosen(tuple(own[::2]), covered=True)
    return found


@dataclass(frozen=True)
class Views:
    """Fixed looks at n cells: uint8 (n, 2, px, px, 3), classes and subclasses (n,), -1 for a subclass that is not
    known."""

    looks: np.ndarray
    classes: np.ndarray
    subclasses: np.ndarray


def views_of(chosen: Mapping[str, Chosen], input_px: int, margin: float) -> dict[str, Views]:
    """The looks at chosen cells, kept in memory."""
    return {
        name: Views(
            np.stack([_looks(some, i, input_px, margin) for i in range(len(some.cells))]),
            some.classes,
            some.subclasses,
        )
        for name, some in chosen.items()
    }


def _looks(some: Chosen, number: int, input_px: int, margin: float) -> np.ndarray:
    """uint8 (2, px, px, 3): both looks as the stream has them, the second mirrored where the magnification is not
    known."""
    one, image = some.cells[number], some.picture(number)
    box, size = np.array([one.cell.box_px], np.float32), (input_px, input_px)
    first = crop_squares(image, box, size, margin)[0]
    if one.rbc_px is None:
        return np.stack([first, first[:, ::-1]])
    return np.stack([first, crop_squares(image, centred_squares(box, LOOK_RED_CELLS * one.rbc_px), size)[0]])


@dataclass(frozen=True)
class Predicted:
    """What was said of n cells: `probabilities` float64 (n, classes) and `subclass_probabilities` (n, subclasses), by
    `ABNORMAL_CLASSES` and `SUBCLASS_NAMES`; and which they are."""

    probabilities: np.ndarray
    subclass_probabilities: np.ndarray
    classes: np.ndarray
    subclasses: np.ndarray
    novelty: np.ndarray | None = None
    """float64 (n,); None where the model does not say."""
    patients: np.ndarray | None = None
    """text (n,), patients or slides, "" where the set names none; None: nobody noted it."""
    clusters: np.ndarray | None = None
    """text (n,): the slide, patient or picture of each; None where nobody said, as in training."""


@torch.no_grad()
def predict(network: nn.Module, view: Views, device: torch.device) -> Predicted:
    """Of a network of `ABNORMAL_CLASSES` in training, both looks pooled; subclasses are as likely as their logits order
    them."""
    network.eval()
    n, k = view.looks.shape[:2]
    flat = view.looks.reshape(n * k, *view.looks.shape[2:])
    classes, subclasses = [], []
    for start in range(0, len(flat), _BATCH):
        x = torch.from_numpy(flat[start : start + _BATCH]).to(device).permute(0, 3, 1, 2).float() / 255
        found = network(x)
        classes.append(torch.log_softmax(found[0].float(), 1).cpu().numpy())
        subclasses.append(found[1].float().sigmoid().cpu().numpy())
    pooled = np.concatenate(classes).astype(np.float64).reshape(n, k, -1).mean(1)
    of_subclasses = np.concatenate(subclasses).astype(np.float64).reshape(n, k, -1).mean(1)
    return Predicted(softmax(pooled), of_subclasses, view.classes, view.subclasses)


def predict_with(classifier: Classifier, some: Chosen) -> Predicted:
    """Of a classifier as it ships, looking as it does in the stream. Classes of its own order, or fewer, are laid out
    as here; those that it lacks get 0. ValueError for a class that is not known here."""
    unknown = [name for name in classifier.class_names if name not in ABNORMAL_CLASSES]
    if unknown:
        raise ValueError(f"classes of {classifier.card.name}: got {unknown}, expected some of {ABNORMAL_CLASSES}")
    columns = [ABNORMAL_CLASSES.index(name) for name in classifier.class_names]
    subclass_names = [entry.name for entry in classifier.card.subclasses]
    probabilities = np.zeros((len(some.cells), len(ABNORMAL_CLASSES)))
    of_subclasses = np.zeros((len(some.cells), len(SUBCLASS_NAMES)))
    novelty = np.zeros(len(some.cells))
    knows_novelty = False
    for i, one in enumerate(some.cells):
        looks = classifier.classify(some.picture(i), np.array([one.cell.box_px], np.float32), one.rbc_px)
        probabilities[i, columns] = looks.probabilities[0]
        if subclass_names:
            of_subclasses[i, [SUBCLASS_NAMES.index(name) for name in subclass_names]] = looks.subclass_probabilities[0]
        if looks.novelty is not None:
            novelty[i], knows_novelty = looks.novelty[0], True
    given = novelty if knows_novelty else None
    patients = np.array([one.cell.slide or "" for one in some.cells])
    clusters = np.array([cluster_of(one.cell) for one in some.cells])
    return Predicted(probabilities, of_subclasses, some.classes, some.subclasses, given, patients, clusters)


def measure(network: nn.Module, views: Mapping[str, Views], device: torch.device) -> dict[str, Any]:
    """The figures (`figures`) of a network in training."""
    return figures({name: predict(network, view, device) for name, view in views.items()})


def figures(
    predicted: Mapping[str, Predicted], threshold: float | None = None, novel_above: float | None = None
) -> dict[str, Any]:
    """By laboratory its figures (`laboratory_figures`), of the patients theirs (`patient_figures`), and what is said of
    cells that are painted over (`covered_figures`). With the threshold of a classifier, and its novelty's, also what it
    names (`named_figures`)."""
    out: dict[str, Any] = {}
    for name, found in predicted.items():
        if name.endswith(COVERED):
            out[name] = covered_figures(found.probabilities, found.classes)
            continue
        out[name] = laboratory_figures(found.probabilities, found.classes, found.clusters)
        named = None if threshold is None else is_named(found, threshold, novel_above)
        if named is not None:
            out[name] |= named_figures(found, named)
        if name == PATIENTS:
            out[f"{name} patients"] = patient_figures(found, named)
    return out


def is_named(found: Predicted, threshold: float, novel_above: float | None) -> np.ndarray:
    """bool (n,): which cells a classifier of these thresholds leaves `unclassified` not."""
    clear = found.probabilities.max(1) >= threshold
    if novel_above is not None and found.novelty is not None:
        clear &= found.novelty <= novel_above
    return np.asarray(clear)


def named_figures(found: Predicted, named: np.ndarray) -> dict[str, float | None]:
    """The share of cells that are named, how many of these rightly, and the calibration error of all."""
    right = found.probabilities.argmax(1) == found.classes
    return {
        "classified": float(named.mean()),
        "accuracy_classified": _share(right, named),
        "calibration_error": calibration_error(found.probabilities, found.classes),
    }


def laboratory_figures(
    p: np.ndarray, classes: np.ndarray, clusters: Sequence[str] | np.ndarray | None = None
) -> dict[str, Any]:
    """Accuracy (with its 95 % limits where the clusters of the cells are known), balanced accuracy over the classes of
    `FEWEST_CELLS` cells or more (None where there are none), the share of mature cells called blast, and by class its
    recall and cells."""
    table = confusion(classes, p.argmax(1), len(ABNORMAL_CLASSES))
    many = table.sum(1) >= FEWEST_CELLS
    recalls = {
        ABNORMAL_CLASSES[c]: [round(float(table[c, c] / table[c].sum()), 4), int(table[c].sum())]
        for c in np.nonzero(table.sum(1))[0]
    }
    mature = _is(classes, MATURE)
    share = share_of(p.argmax(1) == classes, None if clusters is None else list(clusters)).as_dict()
    limits = {} if clusters is None else {"accuracy_low": share["low"], "accuracy_high": share["high"]}
    return {
        "cells": len(classes),
        "accuracy": float(np.trace(table) / len(classes)),
        **limits,
        "balanced": balanced_accuracy(np.where(many[:, None], table, 0)) if many.any() else None,
        "mature_called_blast": _share(_is(p.argmax(1), ("blast",)), mature),
        "recall": recalls,
    }


def patient_figures(found: Predicted, named: np.ndarray | None = None) -> dict[str, Any]:
    """What matters in patients with leukaemia, as shares by the likeliest class; None where no cell is of the kind.
    With `named` (n,) also the shares of blasts that are given a mature type and that stay unclassified, of the patients
    with `MANY_BLASTS` or more how many have at most `FEW_HIDDEN` of these given a mature type, and `by_patient`."""
    said = found.probabilities.argmax(1)
    blasts = _is(found.classes, ("blast",))
    variants = found.subclasses == SUBCLASS_NAMES.index("variant lymphocyte")
    stages = np.array([SUBCLASS_NAMES.index(name) for name in ("metamyelocyte", "myelocyte", "promyelocyte")])
    stage = stages[found.subclass_probabilities[:, stages].argmax(1)]
    promyelocytes = _is(said, ("immature granulocyte",)) & (stage == SUBCLASS_NAMES.index("promyelocyte"))
    smudges, lymphocytes = _is(found.classes, ("smudge cell",)), _is(found.classes, ("lymphocyte",))
    return {
        "blasts": int(blasts.sum()),
        "blasts_as_mature": _share(_is(said, MATURE), blasts),
        "blasts_as_blast_or_promyelocyte": _share(_is(said, ("blast",)) | promyelocytes, blasts),
        "blasts_as_blast_or_immature": _share(_is(said, ("blast", "immature granulocyte")), blasts),
        "blasts_as_smudge_or_artefact": _share(_is(said, ("smudge cell", "artefact")), blasts),
        "smudges_as_white": _share(_is(said, WHITE), smudges),
        "lymphocytes_as_smudge": _share(_is(said, ("smudge cell",)), lymphocytes & ~variants),
        "variants_as_blast": _share(_is(said, ("blast",)), variants),
        **({} if named is None else _hidden_blasts(found, named & _is(said, MATURE), named, blasts)),
    }


def _hidden_blasts(found: Predicted, mature: np.ndarray, named: np.ndarray, blasts: np.ndarray) -> dict[str, Any]:
    by_patient: dict[str, list[int]] = {}
    for patient in [] if found.patients is None else np.unique(found.patients).tolist():
        own = blasts & (found.patients == patient)
        if patient and own.any():
            by_patient[patient] = [int(mature[own].sum()), int(own.sum())]
    hidden = [some / cells for some, cells in by_patient.values() if cells >= MANY_BLASTS]
    return {
        "blasts_named_mature": _share(mature, blasts),
        "blasts_unclassified": _share(~named, blasts),
        "patients_with_blasts": len(hidden),
        "patients_with_few_hidden": float(np.mean([one <= FEW_HIDDEN for one in hidden])) if hidden else None,
        "by_patient": by_patient,
    }


def covered_figures(p: np.ndarray, classes: np.ndarray) -> dict[str, float | None]:
    """Of cells that are painted over: the mean probability of a blast, how often that is the likeliest class, and how
    well it still tells blasts from other cells (area under the curve; .5: not at all)."""
    blast = p[:, ABNORMAL_CLASSES.index("blast")]
    return {
        "cells": len(classes),
        "blast_probability": float(blast.mean()),
        "called_blast": _share(_is(p.argmax(1), ("blast",)), np.ones(len(p), bool)),
        "auc_of_blasts": auc(blast, _is(classes, ("blast",))),
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
