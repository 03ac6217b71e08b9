"""DICOM: what is written is read again by the libraries of the field, and the cells lie where they are."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from importlib import resources

import cv2
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the packages of DICOM are not installed")
hd = pytest.importorskip("highdicom", reason="the packages of DICOM are not installed")
wsidicom = pytest.importorskip("wsidicom", reason="the packages of DICOM are not installed")

from streamer.analysis import models  # noqa: E402
from streamer.cli import main  # noqa: E402
from streamer.interop.dicom_image import TILE_PX  # noqa: E402
from streamer.interop.sessions import pseudonym_of  # noqa: E402
from streamer.journal import JournalReader  # noqa: E402
from streamer.mosaic.visited import look_over  # noqa: E402
from tests.streamer.journal import journal_cases  # noqa: E402
from tests.streamer.journal.journal_cases import write_images  # noqa: E402

UM_PER_PX = 0.1


def export(journal, out, *options):
    return main(["export", str(journal), "--format", "dicom", "-o", str(out), *options])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run over the walk's files, with a scale, in which a person named a cell; and its export."""
    folder = tmp_path_factory.mktemp("dicom")
    images = write_images(folder / "frames")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
        patched.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())
        words = ["run", "--source", f"slide={images}", "--um-per-px", str(UM_PER_PX), "--journal", str(folder / "a.db")]
        assert main(words) == 0
    reclassify(folder / "a.db", "monocyte")
    assert export(folder / "a.db", folder / "out") == 0
    return folder


def reclassify(journal, name):
    """As if a person had named the first counted cell while it ran."""
    with JournalReader(journal) as reader:
        (stored,) = reader.sessions
        cell = next(cell for cell in look_over(stored).counted.count.cells() if cell.counted)
    body = json.dumps({"cell_id": cell.cell_id, "class": name})
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute(
            "INSERT INTO commands (session, run_id, after_frame, given_utc, by, request_id, request, body)"
            " SELECT 1, run_id, 30, started_utc, 'owner', 'one', 'reclassify', ? FROM runs",
            (body,),
        )


@pytest.fixture(scope="module")
def image(ran):
    return pydicom.dcmread(ran / "out" / "slide-image.dcm")


@pytest.fixture(scope="module")
def cells(ran):
    return hd.ann.annread(ran / "out" / "slide-cells.dcm")


@pytest.fixture(scope="module")
def visited(ran):
    with JournalReader(ran / "a.db") as reader:
        yield look_over(reader.sessions[0])


def matrix_of(path):
    """(H, W, 3) RGB, by highdicom."""
    return hd.imread(path).get_total_pixel_matrix(apply_icc_profile=False, dtype=np.uint8)


def points(cells):
    """By group's label, (n, 2)."""
    return {one.label: np.concatenate(one.get_graphic_data("2D")) for one in cells.get_annotation_groups()}


def test_the_image_is_read_by_three_libraries_alike(ran, image):
    path = ran / "out" / "slide-image.dcm"
    matrix = matrix_of(path)
    assert matrix.shape == (image.TotalPixelMatrixRows, image.TotalPixelMatrixColumns, 3)
    with wsidicom.WsiDicom.open(path) as slide:
        assert (slide.size.width, slide.size.height) == matrix.shape[1::-1]
        assert slide.mpp.width == pytest.approx(UM_PER_PX)
        seen = np.asarray(slide.read_region((0, 0), 0, matrix.shape[1::-1]))
    assert np.abs(seen.astype(int) - matrix).mean() < 2
    first = np.asarray(pydicom.pixels.pixel_array(image, index=0))
    assert first.shape == (TILE_PX, TILE_PX, 3)
    assert image.NumberOfFrames == -(-matrix.shape[0] // TILE_PX) * -(-matrix.shape[1] // TILE_PX)


def test_spacing_and_size_are_in_millimetres(image):
    measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(one) for one in measures.PixelSpacing] == pytest.approx([UM_PER_PX / 1000] * 2)
    assert pytest.approx(image.TotalPixelMatrixColumns * UM_PER_PX / 1000) == image.ImagedVolumeWidth
    assert pytest.approx(image.TotalPixelMatrixRows * UM_PER_PX / 1000) == image.ImagedVolumeHeight


@pytest.mark.parametrize("name", ["slide-image.dcm", "slide-cells.dcm"])
def test_what_the_standard_asks_of_every_module_is_there(ran, name):
    """By the tables of the standard that highdicom ships: attributes of the types 1 and 2 of mandatory modules."""
    tables = resources.files("highdicom") / "_standard"
    iods, modules, classes = (
        json.loads((tables / f"{table}.json").read_text())
        for table in ("iod_module_map", "module_attribute_map", "sop_class_iod_map")
    )
    made = pydicom.dcmread(ran / "out" / name)
    missing, checked = [], 0
    for module in iods[classes[made.SOPClassUID]]:
        if module["usage"] != "M" or "functional-groups" in module["key"]:
            continue
        for one in modules[module["key"]]:
            for item in items(made, one["path"]):
                if one["type"] in ("1", "2"):
                    checked += 1
                    value = item.get(one["keyword"])
                    if one["keyword"] not in item or (one["type"] == "1" and value in (None, "", [])):
                        missing.append((module["key"], *one["path"], one["keyword"]))
    assert missing == []
    assert checked > 60


def items(made, path):
    found = [made]
    for keyword in path:
        found = [inner for one in found for inner in one.get(keyword, [])]
    return found


def test_every_cell_is_a_point_of_its_class_at_its_place_on_the_picture(image, cells, visited):
    everywhere = [cell for some in visited.cells.values() for cell in some]
    found = points(cells)
    assert sum(map(len, found.values())) == len(everywhere) > 10
    for label, where in found.items():
        name, _, cut = label.partition(", ")
        mine = [one for one in everywhere if (one.class_name, one.partial) == (name, bool(cut))]
        assert len(where) == len(mine)
    ((number, frames),) = visited.islands.items()
    left, top = min(one.x_px for one in frames), min(one.y_px for one in frames)
    expected = sorted((cell.x_px - left, cell.y_px - top) for cell in visited.cells[number])
    seen = np.array(sorted(map(tuple, np.concatenate(list(found.values())).tolist())))
    offset = seen - np.array(expected)
    assert np.ptp(offset, axis=0) == pytest.approx([0, 0], abs=1e-3)  # the margin of the picture, the same for all
    assert 0 < offset.min() < offset.max() < 100


def test_the_points_are_where_the_frames_cells_are_found_on_the_picture(ran, cells):
    """By pixels alone: what a frame shows of a cell is searched on the picture."""
    matrix = matrix_of(ran / "out" / "slide-image.dcm")[..., ::-1].copy()
    where, found = points(cells), set()
    with JournalReader(ran / "a.db") as reader:
        (stored,) = reader.sessions
        count = look_over(stored).counted.count
        for seen in stored.frames():
            for (x1, y1, x2, y2), number in zip(
                seen.detections.boxes_px.astype(int).tolist(), stored.cells_of(seen.frame_id), strict=True
            ):
                if number < 0 or min(x1, y1) < 6 or x2 > seen.width - 6 or y2 > seen.height - 6:
                    continue
                cell = count.cell(number)
                if cell.kind != "white" or cell.cell_id in found:
                    continue
                shown = cv2.imread(str(ran / "frames" / seen.file))[y1:y2, x1:x2]
                best = cv2.minMaxLoc(cv2.matchTemplate(matrix, shown, cv2.TM_CCOEFF_NORMED))[3]
                centre = best[0] + (x2 - x1) / 2, best[1] + (y2 - y1) / 2
                assert np.abs(where[cell.class_name] - centre).max(axis=1).min() < 3
                found.add(cell.cell_id)
    assert len(found) > 10


def test_codes_algorithm_and_statement(ran, image, cells):
    assert cells.ContentDescription == "White cells by class. Research use only: not a medical device."
    assert image.ImageComments == "Research use only: not a medical device."
    groups = {one.label: one for one in cells.get_annotation_groups()}
    for label, one in groups.items():
        kind = one.annotated_property_type
        assert (kind.scheme_designator, kind.meaning) == ("99LEUKO", label.partition(", ")[0])
        assert one.annotated_property_category.value == "91723000"
        (algorithm,) = one.algorithm_identification
        assert algorithm.AlgorithmName == "leukostream"
        assert algorithm.AlgorithmParameters.startswith("detector=scripted-detector")
    named = groups["monocyte"]
    assert (str(named.algorithm_type.value), named.AnnotationGroupDescription) == (
        "SEMIAUTOMATIC",
        f"1 of {named.number_of_annotations} named by a person",
    )
    with JournalReader(ran / "a.db") as reader:
        assert image.PatientID == cells.PatientID == str(pseudonym_of(reader.sessions[0].id))
    assert not str(image.PatientName)
    (referenced,) = cells.ReferencedImageSequence
    assert referenced.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert cells.StudyInstanceUID == image.StudyInstanceUID


@pytest.mark.lengthy
def test_the_same_export_is_the_same_to_the_byte_and_a_changed_result_is_another_object(ran, tmp_path, image, cells):
    assert export(ran / "a.db", tmp_path / "again") == 0
    for name in ("slide-image.dcm", "slide-cells.dcm"):
        assert (tmp_path / "again" / name).read_bytes() == (ran / "out" / name).read_bytes()
    shutil.copy(ran / "a.db", tmp_path / "b.db")
    with closing(sqlite3.connect(tmp_path / "b.db")) as database, database:
        database.execute("UPDATE commands SET body = replace(body, 'monocyte', 'basophil')")
    assert export(tmp_path / "b.db", tmp_path / "changed") == 0
    changed = hd.ann.annread(tmp_path / "changed" / "slide-cells.dcm")
    assert changed.SOPInstanceUID != cells.SOPInstanceUID
    assert changed.SeriesInstanceUID == cells.SeriesInstanceUID
    assert (tmp_path / "changed" / "slide-image.dcm").read_bytes() == (ran / "out" / "slide-image.dcm").read_bytes()


@pytest.mark.lengthy
def test_under_a_pseudonym_no_name_leaves(ran, tmp_path, image):
    assert export(ran / "a.db", tmp_path / "out", "--pseudonymise") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert all(name.startswith("slide-") and len(name) > len("slide-image.dcm") for name in names)
    hidden = pydicom.dcmread(tmp_path / "out" / names[1])
    assert hidden.ContainerIdentifier == names[1].removesuffix("-image.dcm")
    assert hidden.SOPInstanceUID != image.SOPInstanceUID


@pytest.mark.lengthy
def test_production_has_no_research_statement(ran, tmp_path):
    assert export(ran / "a.db", tmp_path / "out", "--production") == 0
    assert "ImageComments" not in pydicom.dcmread(tmp_path / "out" / "slide-image.dcm")
    assert "esearch" not in str(pydicom.dcmread(tmp_path / "out" / "slide-cells.dcm"))


def test_parts_of_the_film_lie_side_by_side_and_that_is_said(tmp_path, monkeypatch):
    frames = write_images(tmp_path / "all")
    (tmp_path / "frames").mkdir()
    for number in range(4):  # two at one end of the walk, two at the other
        shutil.copy(frames / f"frame{number}.png", tmp_path / "frames")
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())
    words = ["--um-per-px", "0.1", "--journal", str(tmp_path / "a.db")]
    assert main(["run", "--source", f"slide={tmp_path / 'frames'}", *words]) == 0
    assert export(tmp_path / "a.db", tmp_path / "out") == 0
    made = pydicom.dcmread(tmp_path / "out" / "slide-image.dcm")
    assert "2 parts of the film lie side by side: distances from one to another mean nothing." in made.ImageComments
    where = np.concatenate(list(points(hd.ann.annread(tmp_path / "out" / "slide-cells.dcm")).values()))
    inside = (where > 0) & (where < (made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows))
    with JournalReader(tmp_path / "a.db") as reader:
        visited = look_over(reader.sessions[0])
    assert len(visited.islands) == 2
    assert all(visited.cells[number] for number in visited.islands)
    assert len(where) == inside.all(axis=1).sum() == sum(map(len, visited.cells.values()))


def without_scale(journal):
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute("UPDATE runs SET configuration = '{}'")


@pytest.mark.lengthy
def test_a_scale_that_nobody_gave_is_that_of_the_red_cells_and_said(ran, tmp_path):
    shutil.copy(ran / "a.db", tmp_path / "a.db")
    without_scale(tmp_path / "a.db")
    assert export(tmp_path / "a.db", tmp_path / "out") == 0
    made = pydicom.dcmread(tmp_path / "out" / "slide-image.dcm")
    spacing = float(made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0])
    assert spacing == pytest.approx(7.5 / 22 / 1000, rel=0.05)  # the scripted red cells are 22 px wide
    assert "by red cells taken for 7.5 µm" in made.ImageComments


def no_scale(path):
    without_scale(path)
    with closing(sqlite3.connect(path)) as database, database:
        rules = json.loads(database.execute("SELECT rules FROM sessions").fetchone()[0])
        rules["kinds"] = ["platelet" if kind == "red" else kind for kind in rules["kinds"]]
        database.execute("UPDATE sessions SET rules = ?", (json.dumps(rules),))


def no_frame(path):
    with closing(sqlite3.connect(path)) as database, database:
        for table in ("frames", "looks", "commands"):
            database.execute(f"DELETE FROM {table}")


def camera(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE sessions SET address = 'camera:0', live = 1")


@pytest.mark.parametrize(
    ("spoil", "options", "status", "says"),
    [
        (no_scale, (), 1, "slide: got no scale and too few red cells to measure one, expected micrometres a pixel"),
        (camera, (), 1, "slide: got no recording of 'slide', which can't be read again, expected one"),
        (no_frame, (), 1, "slide: got no frame that has a place on the slide"),
        (camera, ("--pictures", "p"), 2, "--pictures: got --format dicom"),
    ],
)
def test_what_cannot_be_such_an_image_is_one_line(ran, tmp_path, capsys, spoil, options, status, says):
    shutil.copy(ran / "a.db", tmp_path / "a.db")
    spoil(tmp_path / "a.db")
    assert export(tmp_path / "a.db", tmp_path / "out", *options) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["-", "slide.dcm"])
def test_it_is_a_folder(ran, tmp_path, capsys, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    assert export(ran / "a.db", out) == 2
    assert (
        capsys.readouterr().err
        == f"leukostream: -o {out}: got a file, expected the name of a folder: dicom is several files\n"
    )


def test_a_recording_is_for_formats_with_a_picture(ran, capsys):
    assert main(["export", str(ran / "a.db"), "a.rec", "--format", "csv", "-o", "-"]) == 2
    assert "--format csv: got a recording, expected none" in capsys.readouterr().err
