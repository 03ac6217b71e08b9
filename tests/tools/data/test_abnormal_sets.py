"""krd, deepapl and marrow: what is read of them, and that no patient and no field is on two sides."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tools.cases import make_data, make_further_sets, smear, write_picture
from tools import data as datasets
from tools.data import CellPicture, readers
from tools.data import splits as groups
from tools.data.crops import set_name as laboratory

PROMYELOCYTIC = {
    f"deepapl Patient_{n}"
    for n in ("32", "39", "40", "41", "49", "59", "68", "69", "85", "91", "93", "97", "100", "102", "103", "104", "105")
}
"""Those with acute promyelocytic leukaemia, by Data/master.csv of the repository of deepapl."""


def labels(cells: Iterable[CellPicture]) -> Counter[tuple[str, str | None]]:
    return Counter((cell.cell_class, cell.subclass) for cell in cells)


def test_krd_gives_the_masks_box_and_leaves_out_fields_without_one(tmp_path: Path) -> None:
    make_further_sets(tmp_path, {"krd": [("neutrophil", "10 20 110 140"), ("lymphocyte", "")]})
    (cell,) = readers.read_cells(tmp_path, ("krd",))
    assert (cell.key, cell.cell_class, cell.subclass) == ("krd/images/neutrophil/k0.jpg", "neutrophil", None)
    assert (cell.box_px, cell.width_px, cell.height_px) == ((10, 20, 110, 140), 512, 512)
    assert not cell.box_is_guess
    assert cell.slide is None


DEEPAPL = {
    "blast": ("blast", None),
    "promonocyte": ("blast", "promonocyte"),
    "variant lymphocyte": ("lymphocyte", "variant lymphocyte"),
    "lymphocyte": ("lymphocyte", None),
    "band neutrophil": ("neutrophil", "band neutrophil"),
    "promyelocyte": ("immature granulocyte", "promyelocyte"),
    "giant platelet": ("platelet", "giant platelet"),
    "platelet clump": ("artefact", None),
    "artefact": ("artefact", None),
    "smudge cell": ("smudge cell", None),
    "erythroblast": ("erythroblast", None),
    "plasma cell": None,
    "eosinophil": None,
    "basophil": None,
}


@pytest.mark.parametrize(("word", "expected"), DEEPAPL.items(), ids=list(DEEPAPL))
def test_words_of_deepapl(tmp_path: Path, word: str, expected: tuple[str, str | None] | None) -> None:
    make_further_sets(tmp_path, {"deepapl": [(word, "Patient_01")]})
    cells = readers.read_cells(tmp_path, ("deepapl",))
    assert [(c.cell_class, c.subclass) for c in cells] == ([expected] if expected else [])
    for cell in cells:
        assert cell.slide == "deepapl Patient_01"
        assert cell.box_is_guess
        assert cell.box_px == pytest.approx((61.6, 61.6, 162.4, 162.4))


def test_a_patient_gives_so_many_of_a_class_whatever_else_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MOST_OF_PATIENT", 3)
    members = [("blast", "Patient_01")] * 7 + [("blast", "Patient_02")] * 2 + [("lymphocyte", "Patient_01")] * 4
    make_further_sets(tmp_path, {"deepapl": members})
    chosen = readers.read_cells(tmp_path, ("deepapl",))
    assert Counter((c.slide, c.cell_class) for c in chosen) == {
        ("deepapl Patient_01", "blast"): 3,
        ("deepapl Patient_02", "blast"): 2,
        ("deepapl Patient_01", "lymphocyte"): 3,
    }
    make_further_sets(tmp_path, {"deepapl": members[:9]})
    again = readers.read_cells(tmp_path, ("deepapl",))
    assert {c.key for c in again} == {c.key for c in chosen if c.cell_class == "blast"}


def test_stages_of_marrow(tmp_path: Path) -> None:
    stages = (
        "proerythroblast or early erythroid",
        "erythroblast",
        "myeloblast",
        "metamyelocyte",
        "segmented neutrophil",
    )
    make_further_sets(tmp_path, {"marrow": [(stage, str(n)) for n, stage in enumerate(stages)]})
    cells = readers.read_cells(tmp_path, ("marrow",))
    assert [(c.cell_class, c.subclass) for c in cells] == [
        ("erythroblast", None),
        ("erythroblast", None),
        ("blast", None),
        ("immature granulocyte", "metamyelocyte"),
        ("neutrophil", "segmented neutrophil"),
    ]
    assert {c.width_px for c in cells} == {96}


def test_the_new_sets_are_read_only_where_they_are_named(tmp_path: Path) -> None:
    assert not set(datasets.CELL_SETS) & set(datasets.FURTHER_CELL_SETS)
    with pytest.raises(datasets.DataSetMissing, match="krd"):
        datasets.read_cells(tmp_path, ("krd",))
    with pytest.raises(ValueError, match=r"set of typed cells: got 'c_nmc', expected some of pbc, .*, marrow"):
        datasets.read_cells(tmp_path, ("c_nmc",))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All sets; krd's fields 0 and 1 are one picture, 2 is a shifted crop of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    make_data(root)
    rows = [np.hstack([smear(70 + 2 * y + x, 320, 320) for x in range(2)]) for y in range(2)]
    wide = np.vstack(rows)
    for n, (x, y) in enumerate(((0, 0), (0, 0), (90, 70))):
        write_picture(root / f"krd/images/neutrophil/k{n}.jpg", np.ascontiguousarray(wide[y : y + 512, x : x + 512]))
    patients = ("Patient_16", "Patient_39", "Patient_01", "cc")
    make_further_sets(
        root,
        {
            "krd": [("neutrophil", "10 20 110 140")] * 3 + [("lymphocyte", "10 20 110 140")],
            "deepapl": [("blast", patient) for patient in patients] * 3,
            "marrow": [("myeloblast", "4")],
        },
    )
    write_picture(root / "krd/images/neutrophil/k0.mask.png", np.zeros((512, 512), np.uint8))
    return root


def test_patients_and_overlapping_fields_go_to_one_part(root: Path) -> None:
    together = {frozenset(keys) for keys in groups.build_groups(root).values() if len(keys) > 1}
    assert frozenset(f"krd/images/neutrophil/k{n}.jpg" for n in range(3)) in together
    for patient, first in (("Patient_16", 0), ("Patient_39", 1), ("Patient_01", 2), ("cc", 3)):
        assert frozenset(f"deepapl/images/{patient}/d{n}.jpg" for n in (first, first + 4, first + 8)) in together
    parts = datasets.load_splits(root)
    named = {key.split("/")[2]: part for key, part in parts.items() if key.startswith("deepapl/")}
    assert named == {"Patient_16": "validation", "Patient_39": "holdout", "Patient_01": "train", "cc": "train"}
    assert not any(key.endswith(".mask.png") for key in parts)


def test_a_mask_is_no_picture_to_compare(root: Path) -> None:
    before = datasets.load_splits(root)
    write_picture(root / "krd/images/lymphocyte/k3.mask.png", smear(5, 512, 512))
    assert datasets.load_splits(root) == before


def test_laboratories() -> None:
    cell = CellPicture("wbc_masks", "wbc_masks/jtsc/001.png", Path("x"), 120, 120, (0, 0, 1, 1), "lymphocyte")
    assert laboratory(cell) == "wbc_masks/jtsc"
    other = CellPicture("krd", "krd/images/lymphocyte/image1.jpg", Path("x"), 512, 512, (0, 0, 1, 1), "lymphocyte")
    assert laboratory(other) == "krd"


@pytest.fixture(scope="module")
def real_root() -> Path:
    try:
        root = datasets.data_root()
    except datasets.DataSetMissing as error:
        pytest.skip(str(error))
    for name in datasets.FURTHER_CELL_SETS:
        if not (root / name).is_dir():
            pytest.skip(f"no set {name} in {root}: fetch it with `python -m tools.data get`")
    return root


@pytest.mark.data
def test_cells_of_the_real_sets(real_root: Path) -> None:
    krd, deepapl, marrow = (readers.read_cells(real_root, (name,)) for name in datasets.FURTHER_CELL_SETS)
    assert Counter(c.cell_class for c in krd) == {
        "neutrophil": 300,
        "lymphocyte": 230,
        "monocyte": 39,
        "basophil": 20,
        "eosinophil": 11,
    }
    assert all(0 <= c.box_px[0] < c.box_px[2] <= 512 and 0 <= c.box_px[1] < c.box_px[3] <= 512 for c in krd)
    kinds = labels(deepapl)
    assert not {"eosinophil", "basophil"} & {cell_class for cell_class, _ in kinds}
    assert kinds["artefact", None] == 25 + 16
    assert kinds["blast", "promonocyte"] == 62
    assert kinds["lymphocyte", "variant lymphocyte"] == 234
    assert len({c.slide for c in deepapl}) == 53
    assert max(Counter((c.slide, c.cell_class, c.subclass) for c in deepapl).values()) == readers.MOST_OF_PATIENT
    assert labels(marrow)["blast", None] == 210
    assert Counter(c.cell_class for c in marrow)["immature granulocyte"] == 150
    assert all(c.path.exists() for c in (*krd, *deepapl, *marrow))


@pytest.mark.data
@pytest.mark.slow
def test_splits_of_the_real_sets(real_root: Path) -> None:
    parts = datasets.load_splits(real_root)
    cells = readers.read_cells(real_root, datasets.FURTHER_CELL_SETS)
    sides: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell.slide is not None:
            sides[cell.slide].add(parts[cell.key])
    assert all(len(found) == 1 for found in sides.values())
    assert sides["deepapl cc"] == {datasets.TRAIN}
    for part in datasets.PARTS:
        patients = {slide for slide, found in sides.items() if found == {part}}
        assert patients & PROMYELOCYTIC
        assert patients - PROMYELOCYTIC
        for label, least in (("promyelocyte", 12), ("blast", 30)):
            counts = Counter(c.slide for c in cells if c.slide in patients and (c.subclass or c.cell_class) == label)
            assert max(counts.values()) >= least, f"{part}: no patient with {least} of {label}"
    assert Counter(parts[c.key] for c in cells if c.dataset == "krd").keys() == set(datasets.PARTS)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("pair", [(200, 202), (394, 91), (318, 80)])
def test_fields_of_the_real_krd_that_overlap_are_one_group(real_root: Path, pair: tuple[int, int]) -> None:
    group_of = {key: group for group, keys in groups.build_groups(real_root).items() for key in keys}
    keys = {int(re.sub(r"\D", "", Path(k).name)): k for k in group_of if k.startswith("krd/")}
    assert group_of[keys[pair[0]]] == group_of[keys[pair[1]]]
    one, other = (cv2.imread(str(real_root / keys[n]), cv2.IMREAD_GRAYSCALE) for n in pair)
    assert one is not None
    assert other is not None
    assert groups.overlap_links({"a": one, "b": other}, (360, 360)) == [("a", "b")]
