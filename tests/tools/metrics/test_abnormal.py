"""Figures of abnormal cells on cases that were counted by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from torch import Tensor, nn  # noqa: E402

from tools.data import ABNORMAL_CLASSES, TRAIN, VALIDATION, CellPicture  # noqa: E402
from tools.data.located import LocatedCell  # noqa: E402
from tools.data.squares import STORED_PX, SUBCLASS_NAMES  # noqa: E402
from tools.metrics import abnormal  # noqa: E402
from tools.metrics.abnormal import (  # noqa: E402
    COVERED,
    PATIENTS,
    Predicted,
    Views,
    auc,
    covered_figures,
    figures,
    is_named,
    laboratory_figures,
    measure,
    patient_figures,
    predict,
)


def indices(*labels: str) -> np.ndarray:
    return np.array([ABNORMAL_CLASSES.index(label) for label in labels])


def sure(*labels: str) -> np.ndarray:
    """Probabilities of cells that are called these."""
    p = np.full((len(labels), len(ABNORMAL_CLASSES)), 0.01)
    p[np.arange(len(labels)), indices(*labels)] = 1 - 0.01 * (len(ABNORMAL_CLASSES) - 1)
    return p


AUC = {
    "perfect": ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
    "the wrong way round": ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
    "ties count half": ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.5),
    "one of four pairs lost": ([0.9, 0.3, 0.4, 0.1], [1, 1, 0, 0], 0.75),
    "one tie of two": ([0.4, 0.4, 0.1], [1, 0, 0], 0.75),
    "no positive": ([0.1, 0.2], [0, 0], None),
    "no negative": ([0.1, 0.2], [1, 1], None),
}


@pytest.mark.parametrize(("scores", "positive", "expected"), AUC.values(), ids=list(AUC))
def test_auc(scores: list[float], positive: list[int], expected: float | None) -> None:
    found = auc(np.array(scores), np.array(positive, bool))
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_of_turned_scores_is_the_rest_of_one(cells: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([s for s, _ in cells], float), np.array([p for _, p in cells])
    found = auc(scores, positive)
    if found is not None:
        assert auc(-scores, positive) == pytest.approx(1 - found)
        assert auc(scores, ~positive) == pytest.approx(1 - found)


def test_figures_of_a_laboratory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abnormal, "FEWEST_CELLS", 3)
    truth = ["lymphocyte"] * 4 + ["blast"] * 3 + ["monocyte"] * 2
    said = ["lymphocyte"] * 3 + ["blast"] + ["blast", "blast", "monocyte"] + ["blast", "eosinophil"]
    found = laboratory_figures(sure(*said), indices(*truth))
    assert found["cells"] == 9
    assert found["accuracy"] == pytest.approx(5 / 9)
    assert found["balanced"] == pytest.approx((3 / 4 + 2 / 3) / 2)  # two monocytes say nothing
    assert found["mature_called_blast"] == pytest.approx(2 / 6)
    assert found["recall"] == {"lymphocyte": [0.75, 4], "blast": [0.6667, 3], "monocyte": [0.0, 2]}
    assert "accuracy_low" not in found
    of_patients = laboratory_figures(sure(*said), indices(*truth), ["a"] * 4 + ["b"] * 5)
    of_cells = laboratory_figures(sure(*said), indices(*truth), [str(i) for i in range(9)])
    assert of_patients["accuracy_low"] < of_cells["accuracy_low"] < 5 / 9 < of_cells["accuracy_high"]


def test_a_laboratory_of_few_cells_has_no_balanced_accuracy() -> None:
    found = laboratory_figures(sure("smudge cell", "blast"), indices("smudge cell", "smudge cell"))
    assert found["accuracy"] == 0.5
    assert found["balanced"] is None
    assert found["mature_called_blast"] is None


def subclass_logits(*names: str | None) -> np.ndarray:
    out = np.zeros((len(names), len(SUBCLASS_NAMES)))
    for row, name in zip(out, names, strict=True):
        if name is not None:
            row[SUBCLASS_NAMES.index(name)] = 5
    return out


def test_figures_of_patients() -> None:
    cells = [  # truth, its subclass, said, subclass that is likeliest
        ("blast", None, "blast", None),
        ("blast", "promonocyte", "monocyte", None),
        ("blast", None, "immature granulocyte", "promyelocyte"),
        ("blast", None, "immature granulocyte", "myelocyte"),
        ("blast", None, "smudge cell", None),
        ("lymphocyte", None, "smudge cell", None),
        ("lymphocyte", None, "lymphocyte", None),
        ("lymphocyte", "variant lymphocyte", "blast", None),
        ("lymphocyte", "variant lymphocyte", "smudge cell", None),
        ("smudge cell", None, "lymphocyte", None),
        ("smudge cell", None, "artefact", None),
    ]
    truth, subclasses, said, likeliest = (list(column) for column in zip(*cells, strict=True))
    known = np.array([-1 if name is None else SUBCLASS_NAMES.index(name) for name in subclasses])
    found = Predicted(sure(*said), subclass_logits(*likeliest), indices(*truth), known)
    assert patient_figures(found) == pytest.approx(
        {
            "blasts": 5,
            "blasts_as_mature": 1 / 5,
            "blasts_as_blast_or_promyelocyte": 2 / 5,
            "blasts_as_blast_or_immature": 3 / 5,
            "blasts_as_smudge_or_artefact": 1 / 5,
            "smudges_as_white": 1 / 2,
            "lymphocytes_as_smudge": 1 / 2,  # variants aside
            "variants_as_blast": 1 / 2,
        }
    )


def test_what_a_classifier_names_and_which_blasts_it_hides() -> None:
    said = ["monocyte"] * 3 + ["blast"] * 9 + ["lymphocyte"] * 10 + ["neutrophil"] * 2
    truth = ["blast"] * 22 + ["neutrophil"] * 2
    p = sure(*said)
    p[1] = 1 / len(ABNORMAL_CLASSES)
    patients = np.array(["a"] * 12 + ["b"] * 10 + [""] * 2)
    novelty = np.where(np.arange(24) == 12, 0.999, 0.1)
    found = Predicted(p, subclass_logits(*[None] * 24), indices(*truth), np.full(24, -1), novelty, patients)
    named = is_named(found, 0.5, 0.99)
    assert np.flatnonzero(~named).tolist() == [1, 12]
    of_all = figures({PATIENTS: found}, 0.5, 0.99)
    row = of_all[PATIENTS]
    assert row["classified"] == pytest.approx(22 / 24)
    assert row["accuracy_classified"] == pytest.approx(11 / 22)
    assert 0 <= row["calibration_error"] <= 1
    of_patients = of_all[f"{PATIENTS} patients"]
    assert of_patients["blasts_named_mature"] == pytest.approx(11 / 22)
    assert of_patients["blasts_unclassified"] == pytest.approx(2 / 22)
    assert of_patients["by_patient"] == {"a": [2, 12], "b": [9, 10]}
    assert (of_patients["patients_with_blasts"], of_patients["patients_with_few_hidden"]) == (2, 0.5)
    assert "classified" not in figures({PATIENTS: found})[PATIENTS]


def test_of_patients_without_such_cells_nothing_is_said() -> None:
    found = patient_figures(Predicted(sure("monocyte"), subclass_logits(None), indices("monocyte"), np.array([-1])))
    assert found.pop("blasts") == 0
    assert set(found.values()) == {None}


def test_figures_of_covered_cells() -> None:
    p = np.full((4, len(ABNORMAL_CLASSES)), 0.01)
    blast = ABNORMAL_CLASSES.index("blast")
    p[:, blast] = [0.4, 0.1, 0.2, 0.1]
    p[:, 0] = 0.3
    found = covered_figures(p, indices("blast", "blast", "lymphocyte", "monocyte"))
    assert found == pytest.approx(
        {"cells": 4, "blast_probability": 0.2, "called_blast": 0.25, "auc_of_blasts": (1 + 1 + 0 + 0.5) / 4}
    )
    assert covered_figures(p[2:], indices("lymphocyte", "monocyte"))["auc_of_blasts"] is None


class ByLightness(nn.Module):
    """A light look is a blast, a dark one a lymphocyte; subclasses are the picture's mean red."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        light = x.mean((1, 2, 3))
        logits = torch.zeros(len(x), len(ABNORMAL_CLASSES))
        logits[:, ABNORMAL_CLASSES.index("blast")] = 10 * light
        logits[:, ABNORMAL_CLASSES.index("lymphocyte")] = 10 * (1 - light)
        return logits, x[:, 2].mean((1, 2))[:, None].repeat(1, len(SUBCLASS_NAMES))


def test_both_looks_are_pooled_by_their_mean_log_probability() -> None:
    looks = np.zeros((70, 2, 4, 4, 3), np.uint8)  # more than a batch
    looks[:35] = 255
    looks[69, 0] = 255
    found = predict(ByLightness(), Views(looks, np.zeros(70, int), np.full(70, -1)), torch.device("cpu"))
    p, subclasses = found.probabilities, found.subclass_probabilities
    assert p.shape == (70, len(ABNORMAL_CLASSES))
    np.testing.assert_allclose(p.sum(1), 1)
    called = [ABNORMAL_CLASSES[c] for c in p.argmax(1)]
    assert called[:69] == ["blast"] * 35 + ["lymphocyte"] * 34
    blast, lymphocyte = indices("blast", "lymphocyte")
    assert p[69, blast] == pytest.approx(p[69, lymphocyte])
    light, dark = 1 / (1 + np.exp(-1)), 0.5
    assert subclasses[[0, 68, 69], 0] == pytest.approx([light, dark, (light + dark) / 2])


def test_what_is_measured_of_each_laboratory() -> None:
    looks = np.zeros((4, 2, 4, 4, 3), np.uint8)
    looks[:2] = 255
    view = Views(looks, indices("blast", "blast", "lymphocyte", "lymphocyte"), np.full(4, -1))
    views = {"deepapl": view, f"deepapl {COVERED}": view, "krd": view}
    found = measure(ByLightness(), views, torch.device("cpu"))
    assert set(found) == {"deepapl", "deepapl patients", f"deepapl {COVERED}", "krd"}
    assert found["krd"]["accuracy"] == found[f"deepapl {COVERED}"]["auc_of_blasts"] == 1
    assert found["deepapl patients"]["blasts_as_mature"] == 0


def test_views_of_a_part_and_of_its_cells_painted_over(tmp_path: Path) -> None:
    image = np.full((STORED_PX, STORED_PX, 3), 220, np.uint8)
    cv2.ellipse(image, (128, 128), (40, 40), 0, 0, 360, (120, 20, 60), -1)
    path = tmp_path / "cell.png"
    cv2.imwrite(str(path), image)
    box = (88.0, 88.0, 168.0, 168.0)
    names = ("deepapl", "deepapl", "krd", "pbc", "pbc", "pbc", "pbc", "krd")
    cells = [CellPicture(n, f"{n}/{i}.png", path, STORED_PX, STORED_PX, box, "blast") for i, n in enumerate(names)]
    located = [LocatedCell(c, True, None if i % 2 else 40.0) for i, c in enumerate(cells)]
    parts = [VALIDATION] * (len(cells) - 1) + [TRAIN]
    views = abnormal.views_of(abnormal.choose(located, parts, VALIDATION), 64, 1.3)
    assert {name: len(view.looks) for name, view in views.items()} == {
        "deepapl": 2,
        "krd": 1,  # the other one trains
        "pbc": 2,  # every third
        f"deepapl {COVERED}": 1,
        f"pbc {COVERED}": 1,
    }
    for name, view in views.items():
        assert view.looks.shape[1:] == (2, 64, 64, 3)
        darkest = view.looks.reshape(len(view.looks), 2, -1).min(2)
        assert (darkest > 200).all() if name.endswith(COVERED) else (darkest < 40).all()
