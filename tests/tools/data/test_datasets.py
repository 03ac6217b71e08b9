from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.cases import coco_table, make_data, smear, write_picture
from tools import data as datasets
from tools.data import readers
from tools.data import splits as groups

ITEMS = st.integers(0, 12).map(lambda i: f"item{i:02}")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_data(tmp_path / "data")
    return tmp_path / "data"


@given(st.lists(st.tuples(ITEMS, ITEMS), max_size=30))
def test_union_find_gives_the_connected_components(links: list[tuple[str, str]]) -> None:
    union = groups.UnionFind()
    neighbours: dict[str, set[str]] = defaultdict(set)
    for a, b in links:
        union.union(a, b)
        neighbours[a] |= {a, b}
        neighbours[b] |= {a, b}
    for start in neighbours:
        reached, todo = {start}, [start]
        while todo:
            new = neighbours[todo.pop()] - reached
            reached |= new
            todo += new
        assert union.groups()[union.root(start)] == sorted(reached)
        assert union.root(start) == min(reached)


@given(st.permutations([("a", "b"), ("d", "c"), ("b", "c"), ("x", "y")]))
def test_group_names_do_not_depend_on_the_order_of_links(links: list[tuple[str, str]]) -> None:
    union = groups.UnionFind("abcdxyz")
    for a, b in links:
        union.union(a, b)
    assert union.groups() == {"a": ["a", "b", "c", "d"], "x": ["x", "y"], "z": ["z"]}


def turned(image: np.ndarray, quarter: int, mirrored: bool) -> np.ndarray:
    image = np.rot90(image, quarter)
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


REEXPORTS = {
    "smaller": lambda g: cv2.resize(g, (97, 90), interpolation=cv2.INTER_AREA),
    "larger": lambda g: cv2.resize(g, (416, 416), interpolation=cv2.INTER_CUBIC),
    "jpeg": lambda g: cv2.imdecode(cv2.imencode(".jpg", g, (cv2.IMWRITE_JPEG_QUALITY, 40))[1], 0),
    "darker": lambda g: cv2.convertScaleAbs(g, alpha=0.6, beta=10),
    **{
        f"turned {90 * q} mirrored {m}": lambda g, q=q, m=m: turned(g, q, m)
        for q in range(4)
        for m in (False, True)
        if q or m
    },
}


@pytest.mark.parametrize("change", REEXPORTS.values(), ids=list(REEXPORTS))
def test_hash_links_a_picture_to_its_reexport_and_to_no_other(change) -> None:
    greys = [cv2.cvtColor(smear(s), cv2.COLOR_BGR2GRAY) for s in range(12)]
    signs = np.stack([groups.hash_signs(g) for g in [*greys, change(greys[5])]])
    keys = [f"{i:02}" for i in range(13)]
    assert groups.hash_links(keys, signs) == [("05", "12")]


@pytest.mark.parametrize("mirrored", [False, True])
def test_overlap_links_turned_cropped_fields_that_the_hash_misses(mirrored: bool) -> None:
    greys = {f"{s}": cv2.cvtColor(smear(s, 480, 360), cv2.COLOR_BGR2GRAY) for s in range(4)}
    affine = cv2.getRotationMatrix2D((240, 180), 17, 1.15)
    changed = cv2.warpAffine(greys["2"], affine, (480, 360))
    greys["changed"] = changed[:, ::-1].copy() if mirrored else changed
    signs = np.stack([groups.hash_signs(g) for g in greys.values()])
    assert groups.hash_links(list(greys), signs) == []
    assert groups.overlap_links(greys, (480, 360)) == [("2", "changed")]


PART_CASES = {
    "kept slide": ({"E-14"}, set(), {"validation"}),
    "holdout slide": ({"B-57"}, set(), {"holdout"}),
    "training slide": ({"M-8"}, set(), {"train"}),
    "a group that ties a training slide to a kept one trains": ({"M-8", "E-8"}, set(), {"train"}),
    "official validation takes its group along": (set(), {"train", "val"}, {"validation"}),
    "official training is never validation": (set(), {"train"}, {"train", "holdout"}),
    "no official split": (set(), set(), {"train", "validation", "holdout"}),
}


@pytest.mark.parametrize(("slides", "official", "expected"), PART_CASES.values(), ids=list(PART_CASES))
def test_part_of(slides: set[str], official: set[str], expected: set[str]) -> None:
    assert {groups.part_of(f"group {i}", slides, official) for i in range(200)} == expected


def test_readers_give_each_sets_labels_and_what_they_leave_out(root: Path) -> None:
    fields = {f.key: f for f in readers.read_fields(root)}
    assert len(fields) == 3 + 2 + 1 + 3 + 1
    first = fields["bccd/images/BloodImage_00001.jpg"]
    assert first.boxes[0] == readers.LabelledBox((10, 20, 50, 50), "WBC")
    assert first.boxes[1].label == "platelet"
    assert first.complete == {"WBC"}
    assert fields["bcd/images/image-1.jpg"].complete == {"WBC", "RBC"}
    assert fields["chula_wbc/images/M-8_0003.jpg"].complete == set()
    assert fields["chula_wbc/images/M-8_0003.jpg"].slide == "M-8"
    assert fields["txl_pbc/images/a.jpg"].official_part == "val"


def test_cells_of_every_set(root: Path) -> None:
    cells = {(c.dataset, c.cell_class): c for c in readers.read_cells(root)}
    assert len(cells) == len(readers.read_cells(root)) == 8
    basophil = cells["pbc", "basophil"]
    assert basophil.box_px == (80, 90, 140, 140)  # the box over the centre, not the other basophil's
    assert not basophil.box_is_guess
    promyelocyte = cells["pbc", "immature granulocyte"]
    assert promyelocyte.subclass == "promyelocyte"
    assert promyelocyte.box_is_guess
    assert promyelocyte.box_px == (82, 82, 142, 142)  # centred, as wide as boxes of any class usually are
    assert cells["wbc_masks", "lymphocyte"].box_px == (40, 30, 100, 80)
    assert cells["bccd_crops", "eosinophil"].box_px == (0, 0, 40, 30)
    assert cells["bccd", "eosinophil"].box_px == (10, 20, 50, 50)  # one white box and one type; the others have not


def write_pbc(root: Path, *pictures: tuple[str, str, list[tuple[str, list[float]]] | None]) -> None:
    """PBC's tables and pictures: (file, class, boxes as (label, [x, y, w, h]) or None where it has no annotation)."""
    labels = ["basophil", "eosinophil", "monocyte", "red blood cell"]
    with open(root / "pbc/labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "class", "subclass", "wbcatt_split"))
        table.writerows((name, cell_class, "", "") for name, cell_class, _ in pictures)
    for name, _, _ in pictures:
        write_picture(root / "pbc/images" / name, smear(3, 224, 200))
    images = [
        {"id": n, "file_name": name, "width": 224, "height": 200}
        for n, (name, _, boxes) in enumerate(pictures)
        if boxes is not None
    ]
    boxes = [(n, label, box) for n, (_, _, found) in enumerate(pictures) for label, box in found or []]
    with gzip.open(root / "pbc/boxes.json.gz", "wt") as zipped:
        zipped.write(coco_table(images, boxes, labels))


def test_of_several_boxes_over_the_centre_the_largest_of_the_own_class_is_the_cell(root: Path) -> None:
    small, large, thin = [100, 90, 30, 30], [82, 60, 60, 80], [10, 98, 210, 5]
    other, aside = ("monocyte", [10, 10, 200, 180]), ("basophil", [0, 0, 100, 190])
    for order in ([small, large, thin], [large, thin, small], [thin, small, large]):
        own = [("basophil", [float(side) for side in box]) for box in order]
        write_pbc(root, ("BA_1.jpg", "basophil", [other, *own, aside]))
        (cell,) = [cell for cell in readers.read_cells(root) if cell.dataset == "pbc"]
        assert (cell.box_px, cell.box_is_guess) == ((82, 60, 142, 140), False)


def test_a_cell_without_a_box_has_the_median_side_of_all_about_the_centre(root: Path) -> None:
    """Longer sides 60, 70 and 200 of basophils, 120 of the monocyte; of eosinophils none has a box. A side that is its
    class's own would tell the class."""
    write_pbc(
        root,
        ("BA_1.jpg", "basophil", [("basophil", [90, 80, 60, 50])]),
        ("BA_2.jpg", "basophil", [("basophil", [90, 70, 40, 70])]),
        ("BA_3.jpg", "basophil", [("basophil", [10, 0, 200, 190])]),
        ("BA_4.jpg", "basophil", [("basophil", [0, 0, 20, 20])]),
        ("BA_5.jpg", "basophil", None),
        ("MO_1.jpg", "monocyte", [("monocyte", [50, 40, 120, 110])]),
        ("MO_2.jpg", "monocyte", []),
        ("EO_1.jpg", "eosinophil", [("red blood cell", [90, 80, 60, 50])]),
    )
    cells = {Path(cell.key).name: cell for cell in readers.read_cells(root) if cell.dataset == "pbc"}
    assert [name for name, cell in cells.items() if cell.box_is_guess] == [
        "BA_4.jpg",
        "BA_5.jpg",
        "MO_2.jpg",
        "EO_1.jpg",
    ]
    assert {cell.box_px for cell in cells.values() if cell.box_is_guess} == {(64.5, 52.5, 159.5, 147.5)}


def test_types_said_by_eye_belong_to_boxes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {f.key: f for f in readers.read_fields(root, ("txl_pbc", "bcd"))}
    key, boxes = next((k, f.boxes) for k, f in fields.items() if any(b.label == "WBC" for b in f.boxes))
    white = [b.box_px for b in boxes if b.label == "WBC"]
    table = tmp_path / "types.csv"
    table.write_text(f"picture,white_box,class\n{key},{len(white) - 1},monocyte\ntxl_pbc/images/none.jpg,0,basophil\n")
    monkeypatch.setattr(readers, "TYPED_BY_EYE", table)
    (cell,) = [c for c in readers.read_cells(root) if c.dataset in ("txl_pbc", "bcd")]
    assert (cell.key, cell.cell_class, cell.box_px) == (key, "monocyte", white[-1])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("WBC", "WBC"),
        ("platelet", "platelet"),
        ("RBC", "RBC"),
        ("red blood cell", "RBC"),
        ("erythroblast", "WBC"),
        ("band neutrophil", "WBC"),
    ],
)
def test_blood_label(label: str, expected: str) -> None:
    assert readers.blood_label(label) == expected


def test_reexports_share_a_group_and_a_part(root: Path) -> None:
    by_root = groups.build_groups(root)
    together = {frozenset(keys) for keys in by_root.values() if len(keys) > 1}
    assert together == {
        frozenset(
            {
                "bccd/images/BloodImage_00001.jpg",
                "txl_pbc/images/a.jpg",
                "bccd_crops/eosinophil/BloodImage_00001_1.jpg",
            }
        ),
        frozenset({"pbc/images/basophil/BA_1.jpg", "txl_pbc/images/b.jpg"}),
    }
    parts = datasets.load_splits(root)
    assert parts["bccd/images/BloodImage_00001.jpg"] == "validation"
    assert parts["bccd_crops/eosinophil/BloodImage_00001_1.jpg"] == "validation"
    assert parts["chula_wbc/images/N-1B_0002.jpg"] == "holdout"
    assert parts["pbc/images/basophil/BA_1.jpg"] == parts["txl_pbc/images/b.jpg"] != "validation"


def test_links_are_computed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = datasets.load_splits(root)
    monkeypatch.setattr(groups, "hash_links", None)
    assert datasets.load_splits(root) == first


def test_missing_data_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOSTREAM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(datasets.DataSetMissing, match=r"nowhere.*tools\.data get"):
        datasets.data_root()
    with pytest.raises(datasets.DataSetMissing, match="bccd"):
        datasets.read_fields(tmp_path)
    with pytest.raises(ValueError, match="got 'raabin', expected one of bccd"):
        datasets.read_fields(tmp_path, ("raabin",))


@pytest.fixture(scope="module")
def real_root() -> Path:
    try:
        return datasets.data_root()
    except datasets.DataSetMissing as error:
        pytest.skip(str(error))


@pytest.mark.data
@pytest.mark.slow
def test_no_group_of_the_real_data_is_on_two_sides(real_root: Path) -> None:
    parts = datasets.load_splits(real_root)
    for keys in groups.build_groups(real_root).values():
        assert len({parts[k] for k in keys}) == 1
    slides: dict[str, set[str]] = defaultdict(set)
    types: dict[str, set[str]] = defaultdict(set)
    for cell in datasets.read_cells(real_root):
        if cell.slide is not None:
            slides[cell.slide].add(parts[cell.key])
            types[parts[cell.key]].add(cell.cell_class)
    assert all(len(p) == 1 for p in slides.values())
    assert [len(types[p]) for p in datasets.PARTS] == [5, 5, 5]


@pytest.mark.data
@pytest.mark.slow
def test_reexports_of_the_real_data_are_found(real_root: Path) -> None:
    by_root = groups.build_groups(real_root)
    sets_of = [{k.split("/")[0] for k in keys} for keys in by_root.values() for _ in keys]
    txl = sum("txl_pbc" in s and "pbc" in s for s in sets_of)
    assert txl >= 2 * 290  # 299 pictures of pbc are in txl_pbc's train and validation parts
    fields = {f.key: f for f in datasets.read_fields(real_root, ("txl_pbc",))}
    lone = [keys for keys in by_root.values() if len(keys) == 1 and keys[0] in fields]
    assert not any(fields[k[0]].width_px == 360 for k in lone)
