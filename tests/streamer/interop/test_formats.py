"""`leukostream export`: what its formats have in common, and Label Studio's tasks."""

from __future__ import annotations

import json
import sys

import pytest

from streamer.cli import main
from streamer.interop.formats import FORMATS
from tests.streamer.journal.journal_cases import HEIGHT, PLACES, WIDTH


def exported(walk, tmp_path, format_, *options):
    out = tmp_path / f"out.{format_}"
    assert main(["export", str(walk), "--format", format_, "-o", str(out), *options]) == 0
    return out.read_text(encoding="utf-8")


@pytest.mark.parametrize("format_", [name for name, one in FORMATS.items() if one.extra is None])
def test_no_name_of_source_or_file_leaves_under_a_pseudonym(walk, tmp_path, format_):
    plain = exported(walk, tmp_path, format_)
    hidden = exported(walk, tmp_path, format_, "--pseudonymise", "--pictures", str(tmp_path / "pictures"))
    assert '"source":"slide"' in plain or ",slide," in plain
    assert ':"slide"' not in hidden
    assert ",slide," not in hidden
    for i in range(len(PLACES)):
        assert f'"{i}.png"' not in hidden
        assert f"={i}.png" not in hidden
    assert "path:/frames" not in hidden
    assert all(path.name.startswith("slide-") for path in (tmp_path / "pictures").iterdir())


def test_cells_that_a_person_named_are_marked_in_coco(walk, tmp_path):
    annotations = json.loads(exported(walk, tmp_path, "coco"))["annotations"]
    reviewed = {one["attributes"]["cell_id"] for one in annotations if one["attributes"]["reviewed"]}
    assert len(reviewed) == 2
    assert {one["attributes"]["class"] for one in annotations if one["attributes"]["reviewed"]} == {
        "monocyte",
        "basophil",
    }


def test_coco_is_read_by_its_own_library(walk, tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    exported(walk, tmp_path, "coco")
    read = coco.COCO(str(tmp_path / "out.coco"))
    assert len(read.getImgIds()) == len(PLACES)
    assert {one["name"] for one in read.loadCats(read.getCatIds())} == {"WBC", "RBC", "platelet"}


def test_label_studio_gets_every_frame_and_box(walk, tmp_path):
    tasks = json.loads(exported(walk, tmp_path, "labelstudio"))
    images = json.loads(exported(walk, tmp_path, "coco"))
    assert len(tasks) == len(PLACES)
    assert tasks[3]["data"]["image"] == "/data/local-files/?d=3.png"
    boxes = [box for task in tasks for box in task["predictions"][0]["result"]]
    assert len(boxes) == len(images["annotations"])
    for box, annotation in zip(boxes, images["annotations"], strict=True):
        value = box["value"]
        x, y, width, height = annotation["bbox"]
        assert [value["x"] * WIDTH, value["y"] * HEIGHT] == pytest.approx([100 * x, 100 * y])
        assert [value["width"] * WIDTH, value["height"] * HEIGHT] == pytest.approx([100 * width, 100 * height])
        assert len(value["rectanglelabels"]) == 1
    names = {box["value"]["rectanglelabels"][0] for box in boxes}
    assert {"monocyte", "basophil", "RBC", "platelet"} <= names
    assert len({box["id"] for box in tasks[3]["predictions"][0]["result"]}) == len(tasks[3]["predictions"][0]["result"])


@pytest.mark.parametrize(
    ("format_", "package"), [("fhir", "fhir"), ("oul", "hl7apy"), ("oru", "hl7apy"), ("dicom", "pydicom")]
)
def test_a_library_that_is_not_here_is_one_line_with_the_command(walk, tmp_path, capsys, monkeypatch, format_, package):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("fhir", "hl7apy", "pydicom")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("fhir", "hl7_messages", "mllp", "outbox", "delivery", "dicom", "dicom_object"):
        monkeypatch.delitem(sys.modules, f"streamer.interop.{name}", raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [_Without(package), *sys.meta_path])
    out = tmp_path / "out"
    assert main(["export", str(walk), "--format", format_, "-o", str(out)]) == 2
    err = capsys.readouterr().err
    extra = FORMATS[format_].extra
    assert err == (
        f"leukostream: --format {format_}: got no package {package}, expected it: pip install 'leukostream[{extra}]'\n"
    )
    assert not out.exists()


class _Without:
    """A finder under which a package is not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {self.package!r}", name=self.package)
        return None
