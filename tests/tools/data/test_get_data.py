from __future__ import annotations

import csv
import gzip
import json
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tools.cases import smear, write_picture
from tools.data import get as get_data
from tools.data import readers

VOC = """<annotation><size><width>160</width><height>120</height></size>
<object><name>WBC</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>50</xmax><ymax>60</ymax></bndbox></object>
<object><name>Platelets</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>
</annotation>"""


def archive(tmp_path: Path, name: str) -> Path:
    """A zip like that of the set's home, with a picture or two."""
    src = tmp_path / f"{name}-src" / "repo-main"
    if name == "bccd":
        for stem in ("BloodImage_00001", "BloodImage_00002"):
            write_picture(src / f"BCCD/JPEGImages/{stem}.jpg", smear(1))
            (src / "BCCD/Annotations").mkdir(exist_ok=True)
            (src / f"BCCD/Annotations/{stem}.xml").write_text(VOC)
        (src / "BCCD/ImageSets/Main").mkdir(parents=True)
        (src / "BCCD/ImageSets/Main/trainval.txt").write_text("BloodImage_00001\n")
    elif name == "bccd_crops":
        write_picture(src / "BCCD_cropped/Basophil/BloodImage_00008_1.jpg", smear(2, 50, 50))
    elif name == "txl_pbc":
        for part in ("train", "val", "test"):
            write_picture(src / f"TXL_PBC/images/{part}/{part}.jpg", smear(3, 200, 100))
            (src / f"TXL_PBC/labels/{part}").mkdir(parents=True)
            (src / f"TXL_PBC/labels/{part}/{part}.txt").write_text("2 0.5 0.5 0.1 0.2\n\n")
        (src / "TXL_PBC/data.yaml").write_text("nc: 3\n")
    elif name == "bcd":
        write_picture(src / "images/image-1.png", smear(4, 256, 256))
        rows = [("image", "xmin", "ymin", "xmax", "ymax", "label"), ("image-1.png", 1.5, 2, 30, 40, "rbc")]
        with open(src / "annotations.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
    elif name == "chula_wbc":
        write_picture(src / "WBC_Samples/train/images/L-5Bb_0165.jpg", smear(5, 288, 180))
        write_picture(src / "WBC_Samples/train/images/L-9_0001.jpg", smear(6, 288, 180))
        (src / "WBC_Samples/train/labels").mkdir(parents=True)
        (src / "WBC_Samples/train/labels/L-5Bb_0165.txt").write_text("3 0.5 0.5 0.25 0.5\n")
    elif name == "wbc_masks":
        for number in (1, 2):
            mask = np.zeros((60, 60), np.uint8)
            mask[10:40, 10:40] = 128
            mask[20:30, 20:30] = 255
            write_picture(src / f"Dataset {number}/001.bmp", smear(7, 60, 60))
            write_picture(src / f"Dataset {number}/001.png", mask)
            (src / f"Class Labels of Dataset {number}.csv").write_text("image ID,class\n1,4\n")
    elif name == "pbc":
        for key in ("basophil/BA_1.jpg", "ig/PMY_2.jpg", "neutrophil/._SNE_9.jpg"):
            write_picture(src / key, smear(8, 360, 363))
    elif name == "pbc_boxes":
        (src / "Datasets/PBC-YOLO-721/labels/train").mkdir(parents=True)
        (src / "Datasets/PBC-YOLO-721/labels/train/BA_1.txt").write_text("0 0.5 0.5 0.25 0.25\n10 0.1 0.1 0.1 0.1\n")
    elif name == "krd":
        krd_fields(src)
    elif name == "deepapl":
        deepapl_cells(src)
    elif name == "marrow":
        for part, cells in (("test", (3, 11)), ("train", (9, 10, 2))):
            for number in cells:
                write_picture(src / f"bone_marrow/{part}/0/{number}.jpg", smear(number, 144, 144))
            write_picture(src / f"bone_marrow/{part}/4/1.jpg", smear(30, 96, 96))
    path = tmp_path / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(src.rglob("*")):
            file.write(member, member.relative_to(src.parent).as_posix())
    return path


def krd_fields(src: Path) -> None:
    """A field with a cell and a speck in its mask, one without a mask, one with an empty mask, and a copy of one."""
    data = src / "data/KRD-WBC dataset"
    mask = np.zeros((512, 512), np.uint8)
    mask[100:180, 200:260] = 250
    mask[10:14, 10:14] = 255
    for number in (9, 99, 405, 601):
        write_picture(data / f"Dataset/image/image{number}.jpg", smear(number, 512, 512))
    for number, picture in ((9, mask), (405, np.zeros_like(mask)), (601, mask)):
        write_picture(data / f"Dataset/mask/mask{number}.jpg", picture)
    rows = ("Image ID,Categoriy", "Image9,Neutrophil", "image99,Lymphocyte", "Imaeg405,Monocyte", "Image601,Basophil")
    (data / "class labels.csv").write_text("\n".join(rows))


def deepapl_cells(src: Path) -> None:
    for key in (
        "All/Patient_01/Signed slides/Blast, no lineage spec/BL_1.jpg",
        "All/Patient_01/Signed slides/Blast, no lineage spec/BL_2.jpg",
        "All/Patient_01/Signed slides/Blast, no lineage spec/BL_3.jpg",
        "All/Patient_16/Signed slides/Promyelocyte/PMO_4.jpg",
        "All/Patient_16/Signed slides/Unidentified/UI_5.jpg",
        "All/Patient_16/Unsigned slides/6.jpg",
        "All/Patient_02/Signed slides/Monocyte/MO_7.jpg",  # a patient who is kept back
        "Clinical_Case/cc/Signed slides/Lymphocyte, variant/VLY_8.jpg",
    ):
        write_picture(src / "Data" / key, smear(50, 360, 363))


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    arguments = ["--out", str(out)]
    for name in get_data.SOURCES:
        arguments += ["--archive", f"{name}={archive(tmp_path, name)}"]
    assert get_data.main(arguments) == 0
    return out


def test_every_set_is_laid_out_as_the_readers_want_it(laid_out: Path) -> None:
    fields = {f.key: f for f in readers.read_fields(laid_out)}
    assert sorted(fields) == [
        "bccd/images/BloodImage_00001.jpg",
        "bcd/images/image-1.jpg",
        "chula_wbc/images/L-5Bb_0165.jpg",
        "pbc/images/basophil/BA_1.jpg",
        "txl_pbc/images/train.jpg",
        "txl_pbc/images/val.jpg",
    ]
    assert fields["bccd/images/BloodImage_00001.jpg"].boxes[0].box_px == (10, 20, 50, 60)
    assert fields["txl_pbc/images/val.jpg"].boxes == (readers.LabelledBox((90, 40, 110, 60), "platelet"),)
    assert fields["txl_pbc/images/val.jpg"].official_part == "val"
    assert fields["chula_wbc/images/L-5Bb_0165.jpg"].slide == "L-5Bb"
    assert fields["pbc/images/basophil/BA_1.jpg"].boxes[0].box_px == (84, 84, 140, 140)
    cells = {(c.dataset, c.key.split("/")[-1]): (c.cell_class, c.subclass) for c in readers.read_cells(laid_out)}
    assert cells == {
        ("pbc", "BA_1.jpg"): ("basophil", None),
        ("pbc", "PMY_2.jpg"): ("immature granulocyte", "promyelocyte"),
        ("bccd_crops", "BloodImage_00008_1.jpg"): ("basophil", None),
        ("wbc_masks", "001.png"): ("eosinophil", None),
        ("chula_wbc", "L-5Bb_0165.jpg"): ("lymphocyte", None),
    }


def test_pictures_and_masks_are_converted(laid_out: Path) -> None:
    image = cv2.imread(str(laid_out / "pbc/images/basophil/BA_1.jpg"))
    assert image is not None
    assert image.shape == (224, 224, 3)
    mask = cv2.imread(str(laid_out / "wbc_masks/jtsc/001_mask.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    assert np.unique(mask, return_counts=True)[1].tolist() == [60 * 60 - 900, 800, 100]
    with gzip.open(laid_out / "pbc/boxes.json.gz", "rt") as file:
        assert len(json.load(file)["categories"]) == 12
    source = json.loads((laid_out / "pbc/SOURCE.json").read_text())
    assert source["licence"] == "CC BY 4.0"
    assert len(source["archive_sha256"]) == 64
    assert (laid_out / "pbc/SOURCE-pbc_boxes.json").exists()


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_boxes_of_krd_are_those_of_the_masks_largest_pieces(laid_out: Path) -> None:
    rows = {row["file"]: row for row in rows_of(laid_out / "krd/labels.csv")}
    assert sorted(rows) == [
        "images/lymphocyte/image99.jpg",
        "images/monocyte/image405.jpg",
        "images/neutrophil/image9.jpg",
    ]  # 601 is a copy of another field
    x1, y1, x2, y2 = (int(rows["images/neutrophil/image9.jpg"][name]) for name in ("x1", "y1", "x2", "y2"))
    np.testing.assert_allclose((x1, y1, x2, y2), (200, 100, 260, 180), atol=2)
    assert rows["images/lymphocyte/image99.jpg"]["x1"] == rows["images/monocyte/image405.jpg"]["x1"] == ""
    mask = cv2.imread(str(laid_out / "krd/images/neutrophil/image9.mask.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    assert set(np.unique(mask)) == {0, 255}
    (cell,) = readers.read_cells(laid_out, ("krd",))  # the others have no box
    assert (cell.cell_class, cell.box_px) == ("neutrophil", (x1, y1, x2, y2))


def test_cells_of_deepapl_are_the_known_patients_by_folder(laid_out: Path) -> None:
    rows = [tuple(row.values()) for row in rows_of(laid_out / "deepapl/labels.csv")]
    assert rows == [
        *((f"images/Patient_01/BL_{n}.jpg", "blast", "Patient_01") for n in (1, 2, 3)),
        ("images/Patient_16/PMO_4.jpg", "promyelocyte", "Patient_16"),
        ("images/cc/VLY_8.jpg", "variant lymphocyte", "cc"),
    ]
    assert get_data.size_px(laid_out / "deepapl/images/cc/VLY_8.jpg") == (224, 224)
    assert {cell.slide for cell in readers.read_cells(laid_out, ("deepapl",))} == {
        "deepapl Patient_01",
        "deepapl Patient_16",
        "deepapl cc",
    }
    assert json.loads((laid_out / "deepapl/SOURCE.json").read_text())["licence"] == "none stated"


def test_a_class_of_deepapl_gives_so_many_cells_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(get_data.DEEPAPL_MOST, "blast", 2)
    deepapl_cells(tmp_path / "source")
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        get_data.convert_deepapl(tmp_path / "source", tmp_path / name)
    once, again = ((tmp_path / name / "labels.csv").read_text() for name in ("once", "again"))
    assert once == again
    assert once.count(",blast,") == 2
    with pytest.raises(FileNotFoundError, match="Signed slides"):
        get_data.convert_deepapl(tmp_path / "once", tmp_path / "again")


def test_stages_of_marrow_come_from_the_fuller_part_first_numbers_first(
    laid_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [tuple(row.values()) for row in rows_of(laid_out / "marrow/labels.csv")]
    early = "proerythroblast or early erythroid"
    assert rows == [
        ("images/0/10.jpg", early),
        ("images/0/2.jpg", early),
        ("images/0/9.jpg", early),
        ("images/4/1.jpg", "myeloblast"),
    ]
    assert [c.cell_class for c in readers.read_cells(laid_out, ("marrow",))] == ["erythroblast"] * 3 + ["blast"]
    monkeypatch.setattr(get_data, "MARROW_MOST", (2, *get_data.MARROW_MOST[1:]))
    (tmp_path / "few").mkdir()
    get_data.convert_marrow(next((tmp_path / "marrow-src").rglob("train")), tmp_path / "few")
    assert [row["file"] for row in rows_of(tmp_path / "few/labels.csv")][:2] == ["images/0/2.jpg", "images/0/9.jpg"]
    with pytest.raises(FileNotFoundError, match="no folder '0'"):
        get_data.convert_marrow(laid_out / "krd", tmp_path / "few")


@pytest.mark.data
def test_the_copies_of_the_project_have_the_patients_classes_and_sizes_that_are_written_here() -> None:
    try:
        root = readers.data_root()
    except readers.DataSetMissing as error:
        pytest.skip(str(error))
    deepapl = rows_of(root / "deepapl/labels.csv")
    assert {row["patient"] for row in deepapl} == get_data.DEEPAPL_PATIENTS
    counts = Counter(row["class"] for row in deepapl)
    assert set(counts) == set(get_data.DEEPAPL_CLASSES.values())
    assert {label: counts[label] for label in get_data.DEEPAPL_MOST} == get_data.DEEPAPL_MOST
    marrow = Counter((row["file"].split("/")[1], row["class"]) for row in rows_of(root / "marrow/labels.csv"))
    stages = zip(get_data.MARROW_STAGES, get_data.MARROW_MOST, strict=True)
    assert marrow == {(str(n), stage): most for n, (stage, most) in enumerate(stages)}
    krd = rows_of(root / "krd/labels.csv")
    assert sorted(get_data._number(Path(row["file"])) for row in krd) == list(range(1, get_data.KRD_FIELDS + 1))


def test_archives_inside_the_archive_are_unpacked(tmp_path: Path) -> None:
    inner = archive(tmp_path, "bcd")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        file.write(inner, "folder/inner.zip")
    get_data.unpack(tmp_path / "outer.zip", tmp_path / "out")
    assert (tmp_path / "out/folder/inner/repo-main/annotations.csv").exists()
    assert not list((tmp_path / "out").rglob("*.zip"))


@pytest.mark.parametrize("member", ["../outside.txt", "/etc/outside.txt", "a/../../outside.txt"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(member, "x")
    with pytest.raises(ValueError, match="expected paths inside the archive"):
        get_data.unpack(tmp_path / "bad.zip", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("outside.txt"))


BAD = {
    "no archive": ([], "download it from https://data.mendeley.com/datasets/snkd93bnjr/1"),
    "missing file": (["--archive", "pbc=nowhere.zip"], "got no file at nowhere.zip"),
}


@pytest.mark.parametrize(("more", "message"), BAD.values(), ids=list(BAD))
def test_a_set_that_fails_is_one_line_and_exit_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert get_data.main(["pbc", "--out", str(tmp_path), *more]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_another_layout_and_another_checksum_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = archive(tmp_path, "bcd")
    assert get_data.main(["bccd", "--out", str(tmp_path / "out"), "--archive", f"bccd={wrong}"]) == 1
    assert "got another layout" in capsys.readouterr().err
    known = get_data.Source("page", "MIT", None, get_data.convert_bcd, "bcd", sha256="0" * 64)
    monkeypatch.setitem(get_data.SOURCES, "bcd", known)
    assert get_data.main(["bcd", "--out", str(tmp_path / "out"), "--archive", f"bcd={wrong}"]) == 1
    assert "expected 000000" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["raabin", "--out", "x"], ["bcd"], ["--out", "x", "--archive", "bcd"]])
def test_bad_usage_is_exit_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        get_data.main(arguments)
    assert stop.value.code == 2


def test_list_fetches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_data.main(["--list"]) == 0
    assert capsys.readouterr().out.count("https://") == len(get_data.SOURCES)
