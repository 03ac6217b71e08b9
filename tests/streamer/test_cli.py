"""The command line from outside: exit status, one clear line, what goes to which output."""

import json
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

from streamer.cli import main
from streamer.protocol.messages import decode
from tests.cases import textured_slide


def said(capfd, *arguments):
    """(exit status, standard output, lines of standard error)."""
    status = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return status, captured.out, captured.err.splitlines()


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    slide = textured_slide(width=900)
    for i in range(4):
        cv2.imwrite(str(folder / f"frame{i}.png"), slide[:, i * 60 : i * 60 + 320])
    return folder


USAGE = [
    (["run"], "got no source, expected --source"),
    (["run", "--sauce", "x"], "--sauce"),
    (["run", "--source", "sim:", "--min-score", "7"], "--min-score: got 7.0, expected a number of at most 1"),
    (["run", "--source", "sim:", "--stop-at", "0"], "--stop-at: got 0, expected a whole number of at least 1"),
    (["run", "--source", "sim:cels=5"], "cels"),
    (["run", "--source", "9cam=sim:"], "9cam"),
    (["run", "--source", "sim:", "--detector", "yolov5n-bloot"], "yolov5n-blood"),
    (["run", "--source", "sim:", "--classifier", "mobilenet"], "mobilenetv3-small"),
    (["run", "--source", "sim:", "--publish", "5555"], "--publish"),
    (["run", "--source", "sim:", "--publish", "tcp://0.0.0.0:5555"], "--insecure"),
    (["run", "--source", "sim:", "--backend", "tensorrt"], "leukostream[tensorrt]"),
    (["compile", "yolov5n-blood", "--precision", "fp16", "--batch", "1,4,8"], "leukostream[tensorrt]"),
    (["subscribe", "nowhere"], "nowhere"),
    (["frobnicate"], "frobnicate"),
]


@pytest.mark.parametrize(("arguments", "expected"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_bad_usage_is_one_line_and_status_2(capfd, arguments, expected):
    status, out, err = said(capfd, *arguments)
    assert (status, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith("leukostream: ")
    assert expected in err[0]


def test_a_misspelt_key_of_the_configuration_is_bad_usage(capfd, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('source = ["sim:"]\ndetecter = "yolov5n-blood"\n')
    status, _, err = said(capfd, "run", "--config", file)
    assert status == 2
    assert err == [f"leukostream: {file}: got the key 'detecter', which does not exist; did you mean 'detector'?"]


@pytest.mark.parametrize("source", ["missing", "missing/*.png", "empty"])
def test_a_source_that_is_not_there_fails_with_one_line(capfd, tmp_path, source):
    (tmp_path / "empty").mkdir()
    status, _, err = said(capfd, "run", "--source", tmp_path / source, "--jsonl", tmp_path / "out.jsonl")
    assert status == 1
    assert len([line for line in err if line.startswith("leukostream: ")]) == 1
    assert source.split("/")[0] in err[-1]
    assert "expected" in err[-1]


def test_a_corrupt_model_fails_with_one_line(capfd, tmp_path, frames):
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"\x08no model at all")
    status, _, err = said(capfd, "run", "--source", frames, "--detector", model)
    assert status == 1
    assert len(err) == 1
    assert "broken.onnx" in err[0]


def test_a_port_in_use_fails_with_one_line(capfd, frames):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = said(capfd, "run", "--source", frames, "--publish", f"tcp://127.0.0.1:{port}")
    assert status == 1
    assert len(err) == 1
    assert "in use" in err[0]


def test_json_lines_on_standard_output_are_alone_there(frames):
    (frames / "notes.txt").write_text("no image")
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "run", "--source", f"demo={frames}", "--jsonl", "-"],
        capture_output=True,
        check=True,
        timeout=120,
    )
    messages = [decode(line) for line in done.stdout.splitlines()]
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert kinds.count("frame") == 4
    assert kinds[-1] == "end"
    assert [m.file for m in messages if m.__class__.__name__ == "FrameMessage"] == [f"frame{i}.png" for i in range(4)]
    finals = [m for m in messages if m.__class__.__name__ == "DifferentialMessage" and m.final]
    assert [final.frames for final in finals] == [4]
    assert b"skipped notes.txt" in done.stderr
    assert b"differential of demo" in done.stderr


def test_classify_writes_one_line_an_image_and_counts_the_rest(capfd, tmp_path):
    cells = tmp_path / "cells" / "a"
    cells.mkdir(parents=True)
    for name, size in (("1.png", 100), ("2.jpg", 360), ("10.png", 224)):
        cv2.imwrite(str(cells / name), np.full((size, size, 3), 180, np.uint8))
    (tmp_path / "cells" / "readme.txt").write_text("not a cell")
    out = tmp_path / "classes.jsonl"
    status, _, err = said(capfd, "classify", "--source", tmp_path / "cells", "--jsonl", out)
    assert status == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a/1.png", "a/2.jpg", "a/10.png"]
    for line in lines:
        assert sum(line["class_probabilities"].values()) == pytest.approx(1.0, abs=1e-6)
        assert line["top_class"] == max(line["class_probabilities"], key=line["class_probabilities"].get)
        assert line["class"] in (line["top_class"], "unclassified")
        assert (line["unclassified_reason"] is None) == (line["class"] != "unclassified")
        assert "attributes" in line
    assert err[-1] == "classified 3 files; skipped 1: not an image 1"


def test_classify_of_a_folder_without_images_fails(capfd, tmp_path):
    status, _, err = said(capfd, "classify", "--source", tmp_path, "--jsonl", tmp_path / "out.jsonl")
    assert status == 1
    assert "empty folder" in err[-1]


def test_models_and_doctor_tell_what_is_here(capfd):
    status, out, _ = said(capfd, "models")
    assert status == 0
    assert "yolov5n-blood" in out
    assert "mobilenetv3-small" in out
    status, out, _ = said(capfd, "doctor")
    assert status == 0
    assert "backend onnxruntime" in out
    assert "leukostream can run here" in out


def test_names_of_files_move_no_cursor(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "\x1b[2Jone.png").write_bytes(b"no image")
    assert main(["classify", "--source", str(folder), "--jsonl", str(tmp_path / "out.jsonl")]) in (0, 1)
    assert main(["run", "--source", f"{folder}\x1b]0;title\x07"]) == 1
    said = capsys.readouterr()
    assert "·[2Jone.png" in said.err
    assert all(letter.isprintable() or letter == "\n" for letter in said.out + said.err)
