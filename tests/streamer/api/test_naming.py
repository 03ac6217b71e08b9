"""The name of one cell is that of the command."""

import cv2
import msgspec
import pytest

import streamer
from streamer.cli import main
from tests.cases import textured_slide

pytestmark = pytest.mark.lengthy


def test_an_array_a_file_and_the_command_agree(tmp_path, capfd):
    slide = textured_slide(width=640)
    for name, picture in {"small": slide[:64, :64], "field": slide[:, :320]}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    assert main(["classify", "--source", str(tmp_path), "--jsonl", "-"]) == 0
    lines = [msgspec.json.decode(line) for line in capfd.readouterr().out.splitlines()]
    assert [line.pop("file") for line in lines] == ["field.png", "small.png"]
    for line, name in zip(lines, ("field.png", "small.png"), strict=True):
        of_file = streamer.classify(tmp_path / name)
        of_array = streamer.classify(cv2.imread(str(tmp_path / name)))
        assert msgspec.to_builtins(of_file) == msgspec.to_builtins(of_array)
        assert of_file.class_probabilities == pytest.approx(line["class_probabilities"])
        assert (of_file.class_, of_file.box_px and list(of_file.box_px)) == (line["class"], line["box_px"])


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(streamer.LeukostreamError, match=r"notes\.png: got .*, expected an image"):
        streamer.classify(tmp_path / "notes.png")
