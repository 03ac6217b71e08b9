"""Label Studio: a task a frame, its boxes as predictions, each white cell by the class that looks and people gave it.

Images are named as Label Studio serves local files: the root of its storage has to be the folder of the frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO
from urllib.parse import quote

import msgspec

from streamer.interop.sessions import ExportedSession
from streamer.journal import SeenFrame

LOCAL_FILES = "/data/local-files/?d="


def write(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    file.write("[")
    first = True
    for one in sessions:
        rules = one.stored.rules
        models = " + ".join(model.name for model in (rules.detector, rules.classifier) if model is not None)
        for seen in one.stored.frames():
            results = list(_results(one, seen))
            if not results and not seen.looked:  # a picture without boxes would be one without cells
                continue
            task = {
                "data": {
                    "image": LOCAL_FILES + quote(one.picture_name(seen)),
                    "source": one.source,
                    "slide": one.slide,
                    "frame_id": seen.frame_id,
                },
                "predictions": [{"model_version": models, "result": results}],
            }
            file.write(("" if first else ",") + "\n" + msgspec.json.encode(task).decode())
            first = False
    file.write("\n]\n")


def _results(one: ExportedSession, seen: SeenFrame) -> Iterator[dict[str, Any]]:
    """Places in percent of the frame, as Label Studio has them."""
    for number, (box, cell) in enumerate(one.boxes(seen)):
        x1, y1, x2, y2 = box["box_px"]
        yield {
            "id": f"box{number}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": seen.width,
            "original_height": seen.height,
            "image_rotation": 0,
            "score": box["score"],
            "value": {
                "x": 100.0 * x1 / seen.width,
                "y": 100.0 * y1 / seen.height,
                "width": 100.0 * (x2 - x1) / seen.width,
                "height": 100.0 * (y2 - y1) / seen.height,
                "rotation": 0,
                "rectanglelabels": [box["class"] or box["label"]],
            },
            "meta": {"cell_id": box["cell_id"], "reviewed": cell is not None and cell.reclassified},
        }
