"""How often the cells of laboratories and classes are drawn, so that none can stand for a class."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from tools import data as datasets  # noqa: E402
from tools.data import ABNORMAL_CLASSES, TRAIN, VALIDATION  # noqa: E402
from tools.data.crops import set_name as laboratory  # noqa: E402
from tools.data.squares import SIMULATED, Squares  # noqa: E402
from tools.train import classifier  # noqa: E402
from tools.train.classifier import MARROW_SHARE, NEVER_TAUGHT, SIMULATED_SHARE, class_prior, sampling_weights  # noqa: E402


def stored(*cells: tuple[str, str, int]) -> Squares:
    """(laboratory, class, how many)."""
    names = np.repeat([name for name, _, _ in cells], [n for _, _, n in cells])
    classes = np.repeat([ABNORMAL_CLASSES.index(label) for _, label, _ in cells], [n for _, _, n in cells])
    n = len(names)
    return Squares(
        squares=np.zeros((n, 1, 1, 3), np.uint8),
        boxes=np.zeros((n, 4), np.float32),
        rbc_px=np.full(n, np.nan, np.float32),
        classes=classes,
        subclasses=np.full(n, -1),
        attributes=np.full((n, 11), -1),
        laboratories=names,
        parts=np.full(n, TRAIN),
        cells=(),
    )


def shares(weights: np.ndarray, of: np.ndarray) -> dict[str, float]:
    return {str(name): float(weights[of == name].sum()) for name in np.unique(of)}


def weighed(cells: Squares) -> tuple[np.ndarray, np.ndarray]:
    """The weights, and "laboratory class" of each cell."""
    labels = np.array([f"{a} {ABNORMAL_CLASSES[c]}" for a, c in zip(cells.laboratories, cells.classes, strict=True)])
    return sampling_weights(cells, np.arange(len(labels))), labels


def test_laboratories_and_classes_weigh_the_square_root_of_their_size() -> None:
    weights, labels = weighed(stored(("pbc", "neutrophil", 81), ("pbc", "monocyte", 9), ("krd", "lymphocyte", 10)))
    assert weights.sum() == pytest.approx(1)
    of_pbc, of_krd = 90**0.5, 10**0.5
    assert shares(weights, labels) == pytest.approx(
        {
            "pbc neutrophil": of_pbc / (of_pbc + of_krd) * 9 / 12,
            "pbc monocyte": of_pbc / (of_pbc + of_krd) * 3 / 12,
            "krd lymphocyte": of_krd / (of_pbc + of_krd),
        }
    )


def test_mature_cells_of_the_patients_weigh_exactly_what_their_blasts_do() -> None:
    patients = [
        ("deepapl", "blast", 100),
        ("deepapl", "lymphocyte", 900),
        ("deepapl", "monocyte", 7),
        ("deepapl", "neutrophil", 36),
        ("deepapl", "smudge cell", 49),
    ]
    weights, labels = weighed(stored(*patients, ("pbc", "neutrophil", 300)))
    by_class = shares(weights, labels)
    for label in ("lymphocyte", "monocyte", "neutrophil"):
        assert by_class[f"deepapl {label}"] == pytest.approx(by_class["deepapl blast"], rel=1e-12)
    assert by_class["deepapl smudge cell"] == pytest.approx(0.7 * by_class["deepapl blast"])
    without_blasts = shares(*weighed(stored(*patients[1:])))
    assert without_blasts["deepapl lymphocyte"] > 2 * without_blasts["deepapl monocyte"]


def test_marrow_and_the_simulation_are_a_small_part_however_many_they_are() -> None:
    weights, labels = weighed(
        stored(("marrow", "blast", 5000), (SIMULATED, "neutrophil", 5000), ("pbc", "neutrophil", 400))
    )
    names = np.array([label.split()[0] for label in labels])
    rest = 1 - MARROW_SHARE - SIMULATED_SHARE
    assert shares(weights, names) == pytest.approx({"marrow": MARROW_SHARE, SIMULATED: SIMULATED_SHARE, "pbc": rest})
    few, labels = weighed(stored(("marrow", "blast", 1), ("pbc", "neutrophil", 10_000)))
    assert shares(few, labels)["marrow blast"] == pytest.approx(1 / 101)
    raised, labels = weighed(stored(("marrow", "blast", 16), (SIMULATED, "monocyte", 2500), ("pbc", "monocyte", 1681)))
    assert shares(raised, labels)["marrow blast"] == pytest.approx(MARROW_SHARE)  # by what the simulation gave up


def test_one_laboratory_alone_has_all_weight_and_none_is_an_error() -> None:
    weights, _ = weighed(stored(("marrow", "blast", 4)))
    np.testing.assert_allclose(weights, 0.25)
    with pytest.raises(ValueError, match="training cells: got none"):
        sampling_weights(stored(("pbc", "monocyte", 2)), np.array([], np.int64))


def test_the_prior_is_how_often_classes_are_drawn() -> None:
    cells = stored(("pbc", "neutrophil", 81), ("pbc", "monocyte", 9))
    inside = np.arange(90)
    prior = class_prior(cells, inside, sampling_weights(cells, inside))
    assert prior.dtype == np.float32
    assert prior.sum() == pytest.approx(1)
    assert prior[ABNORMAL_CLASSES.index("neutrophil")] == pytest.approx(0.75)
    assert prior[ABNORMAL_CLASSES.index("blast")] == 0


@pytest.mark.data
@pytest.mark.slow
def test_what_is_drawn_of_the_real_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without squares: which cells train is a matter of the splits alone."""
    try:
        root = datasets.data_root()
        cells = datasets.read_cells(root, classifier.SETS)
    except datasets.DataSetMissing as error:
        pytest.skip(str(error))
    parts = datasets.load_splits(root)
    names = np.array([laboratory(cell) for cell in cells])
    assert set(NEVER_TAUGHT) == {name for name in names if name.startswith("wbc_masks")}
    held = [VALIDATION if name in NEVER_TAUGHT else parts[cell.key] for name, cell in zip(names, cells, strict=True)]
    inside = np.nonzero(np.array(held) == TRAIN)[0]
    classes = np.array([ABNORMAL_CLASSES.index(cell.cell_class) for cell in cells])
    n = len(cells)
    of_all = stored(("pbc", "blast", n))
    real = Squares(
        **{**{f: getattr(of_all, f) for f in Squares.__dataclass_fields__}, "classes": classes, "laboratories": names}
    )
    weights = sampling_weights(real, inside)
    by_laboratory = shares(weights, names[inside])
    assert not any(name.startswith("wbc_masks") for name in by_laboratory)
    assert by_laboratory["marrow"] == pytest.approx(MARROW_SHARE)
    patients = names[inside] == "deepapl"
    by_class = shares(weights[patients], np.array(ABNORMAL_CLASSES)[classes[inside][patients]])
    for label in classifier.AS_OFTEN_AS_BLASTS:
        assert by_class[label] == pytest.approx(by_class["blast"], rel=1e-9)
