"""Eighty wrong inputs and more: each gives one line on standard error that says what to do, the right exit status, and
no word of a programming language."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.cli import main

MISTYPED = """
frobnicate
modles
run
run --sauce x
run --source
run --source sim:cels=5
run --source sim:cells=
run --source sim:cells=many
run --source sim:pattern=zigzag
run --source sim:cells=-1
run --source sim:seed=1,seed=2
run --source 9cam=sim:
run --source a=sim: a=sim:
run --source ftp://host/x
run --source rtsp://
run --source imagezmq:5555
run --source camera:x
run --source camera:0,size=big
run --source sim: --mode slow
run --source sim: --min-score 7
run --source sim: --min-score much
run --source sim: --stop-at 0
run --source sim: --stop-at some
run --source sim: --stop-at-precision 90
run --source sim: --stop-at-precision 5 --classifier none
run --source sim: --detector yolov5n-bloot
run --source sim: --detector mobilenetv3-small
run --source sim: --classifier yolov5n-blood
run --source sim: --classifier darknet53-svm-blast
run --source sim: --segmenter nowhere.onnx
run --source sim: --detector other=yolov5n-blood
run --source sim: --site nowhere
run --source sim: --site dir
run --source sim: --backend cuda
run --source sim: --batch 0
run --source sim: --long-side-px 10
run --source sim: --publish 5555
run --source sim: --publish tcp://0.0.0.0:5555
run --source sim: --publish tcp://127.0.0.1:99999
run --source sim: --publish tcp://127.0.0.1:5599 --keys nowhere
run --source sim: --metrics eighty
run --source sim: --metrics 0.0.0.0:9000
run --source sim: --linger long
run --source sim: --wait -1
run --source sim: --journal dir
run --source sim: --journal file
run --source sim: --resume
run --source sim: --dashboard
run --source sim: --config nowhere.toml
run --source sim: --config bad.toml
run --source sim: --config key.toml
run --source sim: --ignore-box 1,2,3
run --source sim: --ignore-box 5,5,1,1
run --source sim: --ignore-box other=0,0,5,5
run --source sim: --um-per-px 0
run --source sim: --rbc-diameter-px -3
run --source sim: --workers 0
run --source sim: --slide-info slide.toml
run --source sim: --slide-info nowhere.toml
run --source sim: --wbc many
run --source sim: --wbc 0
run --source sim: --slide other=B-7
demo --dashboard
demo --publish 5555
watch
watch nowhere
watch tcp://127.0.0.1
watch tcp://127.0.0.1:5598 --keys nowhere
subscribe nowhere
subscribe tcp://127.0.0.1:5598 --count 0
subscribe tcp://127.0.0.1:5598 --server-key file
control tcp://127.0.0.1:5598
control tcp://127.0.0.1:5598 dance
control tcp://127.0.0.1:5598 reclassify x neutrophil
control tcp://127.0.0.1:5598 stop-at none --timeout x
classify --source cells
classify --source cells --classifier nowhere --jsonl -
explain cells
recount
export file --format csw -o x
export file --format csv
send nowhere --to 127.0.0.1
compare nowhere file
compare counts.csv counts.csv
compare words.csv words.csv
sign nowhere
sign file --reviewer "a b c d e f g h"
worklist
worklist list --to nowhere://x
qc nowhere
qc nowhere --accepted nowhere
mosaic file -o x.gif
mosaic file -o x.png --max-side 10
review file --bind nowhere
play file
models shwo
models show yolo
models pull yolov5n-blood
models pull yolov5n-blood --from nowhere
models pull nix --from .
compile yolov5n-blood --precision fp17 --batch 1,4,8
compile yolov5n-blood --precision fp16 --batch 4,1,8
compile yolov5n-blood --precision fp16 --batch many
keys
keys new
adapt nowhere -o site
adapt words.csv -o site
adapt
cameras now
doctor now
completion tcsh
completion
""".strip().splitlines()
"""What can't be meant: exit status 2."""

FAILING = """
run --source nowhere
run --source empty
run --source file
run --source fake.mp4
run --source 99
run --source /dev/video99
run --source replay:nowhere
run --source replay:file
run --source wsi:nowhere
run --source sim: --detector file
run --source sim: --publish tcp://nowhere.invalid:5555 --insecure
run --source sim: --jsonl dir
run --source sim: --jsonl nowhere/x
run --source sim: --record nowhere/x
run --source sim: --report nowhere/x.html
control tcp://127.0.0.1:5598 pause --timeout 0.05
classify --source nowhere --jsonl -
classify --source empty --jsonl -
classify --source cells --jsonl dir
classify --source dir --jsonl -
explain nowhere -o out
explain empty -o out
explain half.png -o out
explain file -o out
recount nowhere
recount file
recount nothing
recount dir
export nowhere --format csv -o x
export nothing --format csv -o x
export file --format dicom -o file
send nowhere --to mllp://127.0.0.1:1
sign nowhere --reviewer AK
worklist add nowhere --to dir
mosaic nowhere -o x.png
report nowhere -o x.html
report file -o nowhere/x.html
review nowhere
play nowhere --publish tcp://127.0.0.1:*
play file --publish tcp://127.0.0.1:*
keys new file/x
""".strip().splitlines()
"""What could be meant, and does not work: exit status 1."""

PYTHON = re.compile(
    r"Traceback|\b(NoneType|None|Errno|dtype|isinstance|KeyError|ValueError|TypeError|RuntimeError|OSError|bytes-like)\b"
    r"|<class|<function|object at 0x|`(float|int|str|bool|array|object)\b|\b(got|expected) (float|int|str|bool)\b"
)
ADVICE = re.compile(
    r"expected|see: leukostream|did you mean|available: |known: |give |check |fetch it with|which ha(s|ve) to be given"
)
REMARKS = re.compile(r"leukostream: (skipped |[\w-]+: runs on )|classified \d+ files")
"""Lines that say what was done before it failed."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with one of each kind of thing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path / "dir"))  # no model was pulled
    for name in ("dir", "empty", "cells"):
        (tmp_path / name).mkdir()
    cv2.imwrite("cells/1.png", np.full((40, 40, 3), 180, np.uint8))
    texts = {
        "file": "some text\n",
        "dir/file": "some text\n",
        "nothing": "",
        "fake.mp4": "no film\n",
        "half.png": "\x89PNG",
        "words.csv": "a;b\n1;2\n",
        "counts.csv": "class,count\nneutrophil,many\n",
        "bad.toml": "mode = \n",
        "key.toml": "sauce = 'x'\n",
        "slide.toml": "wbc = 'many'\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="latin-1")


def the_line_of(capfd: pytest.CaptureFixture[str], words: str, status: int) -> str:
    assert main(shlex.split(words)) == status
    lines = [line for line in capfd.readouterr().err.splitlines() if not REMARKS.match(line)]
    assert len(lines) == 1
    return lines[0]


def check(line: str) -> None:
    assert line.startswith("leukostream: ")
    assert ADVICE.search(line)
    assert not PYTHON.search(line)


@pytest.mark.parametrize("words", MISTYPED)
def test_what_can_not_be_meant_is_one_line(capfd: pytest.CaptureFixture[str], words: str) -> None:
    check(the_line_of(capfd, words, 2))


@pytest.mark.lengthy
@pytest.mark.parametrize("words", FAILING)
def test_what_does_not_work_is_one_line(capfd: pytest.CaptureFixture[str], words: str) -> None:
    before = sorted(os.listdir())
    check(the_line_of(capfd, words, 1))
    assert set(os.listdir()) - {*before, "out"} == set()  # nothing half done is left behind


def test_they_are_eighty_and_more_and_all_different() -> None:
    assert len({*MISTYPED, *FAILING}) == len(MISTYPED) + len(FAILING) >= 80
