"""Frames a second of Ultralytics' own loop over a folder, in the interpreter of another environment that has it.

Their program is called as anyone would call it; nothing of it is here. Its weights can't be had everywhere: the network
is built from the description of YOLOv5n that comes with the package. It finds next to nothing so, which spares their
loop most of the suppression.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from engines.base import LeukostreamError

_LOOP = """
import json, sys, time
from ultralytics import YOLO
model = YOLO("yolov5n.yaml")
folder, side = sys.argv[1], int(sys.argv[2])
published = []
for _ in model.predict(folder, imgsz=side, stream=True, verbose=False, device="cpu"):
    published.append(time.perf_counter())
print(json.dumps((len(published) - 1) / (published[-1] - published[0])))
"""

LONG_SIDE_PX = 640
"""Of the input of both."""


def loop_rate(python: str, folder: Path) -> float:
    """LeukostreamError with the last that it said where it fails."""
    done = subprocess.run(
        [python, "-c", _LOOP, str(folder), str(LONG_SIDE_PX)], capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise LeukostreamError(f"--against-ultralytics {python}: got {said[0]}, expected an interpreter that has it")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))
