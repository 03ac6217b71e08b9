"""Files and folders that are not what a command needs: one clear line, the right exit status, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from engines.base import LeukostreamError
from streamer.cli import main
from streamer.commands import explain
from streamer.commands.output import output_folder, writing


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with one of each kind of thing."""
    monkeypatch.chdir(tmp_path)
    for name in ("dir", "empty", "cells"):
        (tmp_path / name).mkdir()
    for name in ("dir.png", "dir.png/x"):
        (tmp_path / name).mkdir()
    cv2.imwrite("cells/1.png", np.full((40, 40, 3), 180, np.uint8))
    (tmp_path / "file").write_text("some text\n")
    (tmp_path / "nothing").touch()
    (tmp_path / "deep.toml").write_text(f"a = {'[' * 1000}{']' * 1000}\n")
    (tmp_path / "tables.toml").write_text(f"a = {'{a=' * 1000}1{'}' * 1000}\n")
    (tmp_path / "card.toml").write_text(f"a = {'[' * 1000}{']' * 1000}\n")
    (tmp_path / "large.toml").write_text("# many words\n" * 100_000)
    (tmp_path / "words.toml").write_bytes(b"mode = '\xff'\n")
    os.mkfifo("pipe")
    return tmp_path


CONFIGURATIONS = {
    "deep.toml": "got values nested too deep, expected a valid TOML file",
    "tables.toml": "got values nested too deep, expected a valid TOML file",
    "large.toml": "got more than 1048576 bytes",
    "words.toml": "expected a valid TOML file",
    "/dev/zero": "got what is no regular file, expected a TOML file",
    "pipe": "got what is no regular file, expected a TOML file",
    "dir": "got what is no regular file, expected a TOML file",
    "nowhere": "got No such file or directory",
    "nothing": "got no source, expected --source",
}


@pytest.mark.parametrize("file", CONFIGURATIONS)
def test_a_configuration_that_is_none(capsys, folder, file):
    assert main(["run", "--config", file]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert CONFIGURATIONS[file] in err


OUTPUTS = {
    "explain cells -o file": "-o file: got a file, expected a folder",
    "explain cells -o file/x": "-o file/x: got 'Not a directory', expected a folder that can be written",
    "explain cells -o /proc/x": "-o /proc/x: got 'No such file or directory', expected a folder that can be written",
    "explain nowhere -o out": "source nowhere: got no such file or folder, expected pictures",
    "explain empty -o out": "source empty: got an empty folder",
    "classify --source cells --detector none --jsonl /nope/x": "--jsonl /nope/x: got 'No such file or directory'",
    "classify --source cells --detector none --jsonl dir": "--jsonl dir: got 'Is a directory'",
    "classify --source cells --detector none --jsonl /dev/full": "--jsonl /dev/full: got 'No space left on device'",
    "classify --source file --detector none --jsonl x": "source file: got no folder",
    "run --source cells --jsonl /nope/x": "--jsonl /nope/x: got No such file or directory",
    "run --source cells --jsonl dir": "--jsonl dir: got Is a directory",
    "run --source cells --journal /nope/x": "journal /nope/x: got 'unable to open database file', expected a file",
    "run --source cells --journal dir": "dir: got ",
    "run --source cells --record /nope/x": "/nope/x: got ",
    "run --source cells --record dir": "dir: got ",
    "run --source cells --detector card.toml": "card.toml: no valid TOML (values nested too deep)",
    "recount dir": "journal dir: got 'Is a directory'",
    "recount file": "journal file: got another kind of file, expected a journal",
    "recount nothing": "journal nothing: got an empty file, expected a journal",
    "recount nowhere": "journal nowhere: got 'No such file or directory'",
    "recount /dev/zero": "journal /dev/zero: got another kind of file",
    "export nothing --format csv -o x": "journal nothing: got an empty file",
    "mosaic dir -o x.png": "journal dir: got 'Is a directory'",
    "play nothing --publish tcp://127.0.0.1:*": "recording nothing: got an empty file",
    "play dir --publish tcp://127.0.0.1:*": "recording dir: got 'Is a directory'",
    "keys new file": "keys new file: got ",
    "keys new file/x": "keys new file/x: got Not a directory, expected a folder that can be made",
    "keys new /proc/x": "keys new /proc/x: got No such file or directory, expected a folder that can be made",
    "models pull yolov5n-blood --from dir": "expected",
    "compile yolov5n-blood --precision fp32 --batch 1,1,1 --onnx /nope/x": "--onnx /nope/x: got 'No such file",
    "compile yolov5n-blood --precision fp32 --batch 1,1,1 --onnx dir": "--onnx dir: got 'Is a directory'",
}


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_file_or_folder_that_is_another_thing(capsys, monkeypatch, folder, words):
    monkeypatch.setattr(explain, "load_explainer", lambda name: pytest.fail("loaded before the paths were looked at"))
    before = sorted(os.listdir(folder))
    assert main(words.split()) in (1, 2)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("leukostream: ")]
    assert OUTPUTS[words] in said[-1]
    assert sorted(set(os.listdir(folder)) - {"out", "x"}) == before


@pytest.mark.parametrize("path", ["dir", "/nope/x", "/proc/x", "file/x", "/dev/full"])
def test_what_can_not_be_written_is_named_with_its_option(folder, path):
    expected = rf"^--layers {path}: got '.*', expected a file that can be written"
    with pytest.raises(LeukostreamError, match=expected), writing(path, "--layers") as file:
        file.write(b"text")


@pytest.mark.parametrize("words", [["models"], ["classify", "--source", "cells", "--detector", "none", "--jsonl", "-"]])
def test_a_full_disk_behind_standard_output_is_one_line(folder, words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamer", *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if " full " in line or "No space" in line] == [
        done.stderr.splitlines()[-1]
    ]
    assert "Traceback" not in done.stderr


def test_a_file_appears_when_it_is_whole(folder):
    (folder / "out").write_text("old")
    with pytest.raises(ZeroDivisionError), writing("out") as file:
        file.write(bytes(1 // 0))
    assert (folder / "out").read_text() == "old"
    with writing("out") as file:
        file.write(b"new")
        assert (folder / "out").read_text() == "old"
    assert (folder / "out").read_text() == "new"
    assert not (folder / "out.part").exists()


def test_a_device_is_written_to_and_not_replaced(folder):
    os.symlink("/dev/null", "sink")
    with writing("sink") as file:
        file.write(b"gone")
    assert os.path.realpath("sink") == "/dev/null"


def test_a_folder_is_made_with_those_above_it(folder):
    assert output_folder("a/b").is_dir()
    assert output_folder("a/b").is_dir()
