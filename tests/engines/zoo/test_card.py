"""Cards: what is read, what is refused and how the refusal reads."""

from __future__ import annotations

import hashlib

import pytest

from engines.base import Attribute, CardError
from engines.zoo.card import Appearance, DetectorInput, parse_card
from engines.zoo.crops import CropInput
from engines.zoo.guessed import card_from_metadata, guess_kind

DETECTOR = """
name = "yolov5n-blood"
task = "detector"
architecture = "yolov5n"
summary = "cells"
file = "yolov5n-blood.onnx"
sha256 = "{digest}"
licence = "Apache-2.0"
[input]
channels = "bgr"
long_side_px = 512
stride_px = 32
pad_value = 100
rbc_diameter_px = [18, 60]
[[classes]]
name = "WBC"
kind = "white"
[[classes]]
name = "RBC"
kind = "red"
[thresholds]
operating = 0.35
nms_iou = 0.5
nms_across = "kind"
[training]
data = ["txl_pbc"]
seed = 1
[[figures]]
dataset = "txl_pbc"
part = "validation"
command = "python -m tools.evaluate"
map50 = 0.81
""".format(digest="ab" * 32)

CLASSIFIER = """
task = "classifier"
[input]
height_px = 96
width_px = 80
crop_margin = 1.4
pad_value = 0
[[classes]]
name = "neutrophil"
kind = "white"
[[subclasses]]
name = "band neutrophil"
parent = "neutrophil"
"""


def test_detector_card() -> None:
    card = parse_card(DETECTOR, "x.toml", stem="x")
    assert card.name == "yolov5n-blood"
    assert card.input == DetectorInput("bgr", 512, 32, 100, (18.0, 60.0))
    assert card.class_names == ("WBC", "RBC")
    assert card.kinds == ("white", "red")
    assert (card.thresholds.operating, card.thresholds.nms_iou, card.thresholds.nms_across) == (0.35, 0.5, "kind")
    assert card.training["seed"] == 1
    assert card.figures["txl_pbc", "", "validation"]["map50"] == 0.81
    assert card.notes == ()


def test_classifier_card_takes_its_name_and_file_from_the_path() -> None:
    card = parse_card(CLASSIFIER, "x.toml", stem="my-net")
    assert (card.name, card.file, card.sha256) == ("my-net", "my-net.onnx", None)
    assert card.input == CropInput(height_px=96, width_px=80, crop_margin=1.4, pad_value=0)
    assert card.input.border == 0
    assert [(entry.name, entry.parent) for entry in card.subclasses] == [("band neutrophil", "neutrophil")]


def test_without_a_pad_value_the_border_is_repeated() -> None:
    card = parse_card(CLASSIFIER.replace("pad_value = 0\n", ""), "x.toml", stem="x")
    assert isinstance(card.input, CropInput)
    assert card.input.border == "replicate"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('task = "detector"', "", r"x.toml: task: got nothing, expected 'detector' or 'classifier' or 'segmenter'"),
        ('task = "detector"', 'tsk = "detector"', r"task: got nothing, .*; did you mean 'tsk'\?"),
        ('task = "detector"', 'task = "detektor"', r"task: got 'detektor', .*; did you mean 'detector'\?"),
        ('summary = "cells"', 'sumary = "cells"', r"unknown key 'sumary'; did you mean 'summary'\?"),
        (
            "long_side_px = 512",
            "long_side = 512",
            r"\[input\]: got the unknown key 'long_side'; did you mean 'long_side_px'",
        ),
        ("long_side_px = 512", 'long_side_px = "512"', r"long_side_px: got '512', expected a whole number"),
        ("long_side_px = 512", "long_side_px = 5", r"long_side_px: got 5, expected 32 to 65536"),
        ("long_side_px = 512", "long_side_px = true", r"long_side_px: got True, expected a whole number"),
        ("[18, 60]", "[60, 18]", r"rbc_diameter_px: got \[60.0, 18.0\]"),
        ("[18, 60]", "[18]", r"rbc_diameter_px: got \[18\], expected 2 numbers"),
        ('kind = "red"', 'kind = "rot"', r"\[\[classes\]\] 2: kind: got 'rot', expected 'white' or 'red'"),
        ('kind = "red"', 'knd = "red"', r"\[\[classes\]\] 2: kind: got nothing, .*did you mean 'knd'"),
        ('name = "RBC"', 'name = "WBC"', r"classes: got \['WBC'\] twice"),
        ("operating = 0.35", "operating = 35", r"\[thresholds\]: operating: got 35.0, expected 0 to 1"),
        ("operating = 0.35", "operatng = 0.35", r"unknown key 'operatng'; did you mean 'operating'"),
        ("abab", "zzzz", r"sha256: got .* expected 64 hexadecimal digits"),
        ('command = "python -m tools.evaluate"', "", r"\[\[figures\]\] 1: command: got nothing, expected a text"),
        ('part = "validation"', 'prt = "validation"', r"\[\[figures\]\] 1: part: got nothing, .*did you mean 'prt'"),
        (
            "[[figures]]",
            "[figures.home]",
            r"figures: got a table, .* expected \[\[figures\]\] tables; write .* part =",
        ),
        (
            'file = "yolov5n-blood.onnx"',
            'file = "../other.onnx"',
            r"file: got '../other.onnx', expected the name of a file",
        ),
        ("[input]", "[input", r"x.toml: no valid TOML"),
        ("[input]", "[inptu]", r"got the unknown key 'inptu'; did you mean 'input'"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(old: str, new: str, message: str) -> None:
    assert old in DETECTOR
    with pytest.raises(CardError, match=message):
        parse_card(DETECTOR.replace(old, new, 1), "x.toml", stem="x")


def test_a_card_without_classes() -> None:
    with pytest.raises(CardError, match=r"classes: got nothing, expected \[\[classes\]\] tables"):
        parse_card('task = "detector"', "x.toml", stem="x")


def test_a_classifier_must_give_its_size() -> None:
    with pytest.raises(CardError, match=r"\[input\]: height_px: got nothing"):
        parse_card(CLASSIFIER.replace("height_px = 96", ""), "x.toml", stem="x")


def test_a_subclass_of_no_class() -> None:
    with pytest.raises(CardError, match=r"\[\[subclasses\]\] 1: parent: got 'neutrofil', .* did you mean 'neutrophil'"):
        parse_card(CLASSIFIER.replace('parent = "neutrophil"', 'parent = "neutrofil"'), "x.toml", stem="x")


def test_checksum() -> None:
    data = b"a model"
    card = parse_card(DETECTOR.replace("ab" * 32, hashlib.sha256(data).hexdigest()), "x.toml", stem="x")
    card.check_file(data, "x.onnx")
    with pytest.raises(CardError, match=r"x.onnx: got sha256 .*…, expected .*… by its card 'yolov5n-blood'"):
        card.check_file(b"another model", "x.onnx")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("WBC", "white"),
        ("wbcs", "white"),
        ("White_Blood_Cell", "white"),
        ("Leukocytes", "white"),
        ("RBC", "red"),
        ("red blood cell", "red"),
        ("Red-Blood-Cells", "red"),
        ("nucleated red cell", "nucleated red"),
        ("erythroblast", "nucleated red"),
        ("NRBC", "nucleated red"),
        ("Platelets", "platelet"),
        ("platelet", "platelet"),
        *((name, "white") for name in ("basophil", "band neutrophil", "eosinophil", "lymphocyte", "metamyelocyte")),
        *((name, "white") for name in ("monocyte", "myelocyte", "promyelocyte", "segmented neutrophil", "BAS")),
        ("smudge cell", "other"),
        ("person", "other"),
    ],
)
def test_kinds_by_name(name: str, kind: str) -> None:
    assert guess_kind(name) == kind


@pytest.mark.parametrize("names", ["{0: 'WBC', 1: 'RBC'}", "['WBC', 'RBC']", "{1: 'RBC', 0: 'WBC'}"])
def test_class_names_inside_a_file(names: str) -> None:
    card = card_from_metadata({"names": names, "stride": "64"}, stem="best", long_side_px=320, where="best.onnx")
    assert card.class_names == ("WBC", "RBC")
    assert isinstance(card.input, DetectorInput)
    assert (card.input.stride_px, card.input.long_side_px, card.input.channels) == (64, 320, "rgb")
    assert card.notes == ("best: no card beside the file, kinds guessed from its class names: WBC = white, RBC = red",)


@pytest.mark.parametrize(
    "names", ["", "{}", "[]", "names", "{0: 'a', 2: 'b'}", "{0: 1}", "__import__('os').getcwd()", "(" * 500, "{[]: 1}"]
)
def test_names_that_are_none(names: str) -> None:
    with pytest.raises(CardError, match=r"best.onnx: metadata 'names': got .*; write a card beside"):
        card_from_metadata({"names": names}, stem="best", long_side_px=None, where="best.onnx")


def test_neither_card_nor_names() -> None:
    with pytest.raises(CardError, match=r"best.onnx: got neither a card beside it .*; write best.toml with task"):
        card_from_metadata({}, stem="best", long_side_px=None, where="best.onnx")


ATTRIBUTES = """
[[attributes]]
name = "nucleus_shape"
values = ["round", "bent"]
[[attributes]]
name = "cell_size"
values = ["small", "middling", "big"]
[thresholds]
operating = 0.6
novelty = 0.99
"""


def test_attributes_and_the_threshold_of_novelty() -> None:
    card = parse_card(CLASSIFIER + ATTRIBUTES, "x.toml", stem="x")
    assert card.attributes == (
        Attribute("nucleus_shape", ("round", "bent")),
        Attribute("cell_size", ("small", "middling", "big")),
    )
    assert card.attributes_of == ("neutrophil",)  # all classes, where the card doesn't say
    assert card.thresholds.novelty == 0.99
    plain = parse_card(CLASSIFIER, "x.toml", stem="x")
    assert (plain.attributes, plain.attributes_of, plain.thresholds.novelty) == ((), (), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('["round", "bent"]', '["round"]'), r"values: got \['round'\], expected at least two different ones"),
        (('["round", "bent"]', '["round", "round"]'), "expected at least two different ones"),
        (('"cell_size"', '"nucleus_shape"'), r"attributes: got \['nucleus_shape'\] twice"),
        (("novelty = 0.99", "novelty = 2"), "novelty: got 2.0, expected 0 to 1"),
        (("novelty = 0.99", "novelti = 0.9"), "unknown key 'novelti'; did you mean 'novelty'"),
    ],
)
def test_attributes_that_are_none(change: tuple[str, str], message: str) -> None:
    with pytest.raises(CardError, match=message):
        parse_card(CLASSIFIER + ATTRIBUTES.replace(*change), "x.toml", stem="x")


def test_attributes_of_classes_that_there_are_not() -> None:
    with pytest.raises(CardError, match=r"attributes_of: got 'neutrofil', .*did you mean 'neutrophil'"):
        parse_card('attributes_of = ["neutrofil"]' + CLASSIFIER + ATTRIBUTES, "x.toml", stem="x")


APPEARANCE = """
[[appearances]]
laboratory = "pbc"
plasma = [0.1, 0.2, 0.15]
red = [0.3, 0.5, 0.25]
rbc_diameter_px = 43.5
"""


def test_how_the_pictures_looked_that_trained_it() -> None:
    card = parse_card(CLASSIFIER + APPEARANCE, "x.toml", stem="x")
    assert card.appearances == (Appearance("pbc", (0.1, 0.2, 0.15), (0.3, 0.5, 0.25), 43.5),)
    assert parse_card(CLASSIFIER, "x.toml", stem="x").appearances == ()
    with pytest.raises(CardError, match=r"\[\[appearances\]\] 1: red: got nothing, expected 3 numbers"):
        parse_card(CLASSIFIER + APPEARANCE.replace("red = [0.3, 0.5, 0.25]\n", ""), "x.toml", stem="x")
