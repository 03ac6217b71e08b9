"""COCO: the frames and their boxes, with the detector's labels as categories and the class of the cell, as looks and
people made it, among the attributes; what is said of the slides is in `info`. Frames of video, cameras and the
simulated slide, which have no file, are called SOURCE-000012.png after their frame_id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

import msgspec

from streamer.interop.sessions import ExportedSession


def write(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    labels = list(dict.fromkeys(name for one in sessions for name in one.stored.rules.label_names))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for one in sessions:
        for seen in one.stored.frames():
            boxes = list(one.boxes(seen))
            if not boxes and not seen.looked:  # an image without boxes would be one without cells
                continue
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": one.picture_name(seen),
                    "width": seen.width,
                    "height": seen.height,
                    "source": one.source,
                    "slide": one.slide,
                    "frame_id": seen.frame_id,
                    "date_captured": seen.captured_utc,
                    "stage_um": seen.stage_um,
                    "um_per_px": seen.um_per_px,
                }
            )
            for box, cell in boxes:
                x1, y1, x2, y2 = box["box_px"]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": labels.index(box["label"]) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "score": box["score"],
                        "attributes": {
                            "cell_id": box["cell_id"],
                            "class": box["class"],
                            "stage_um": None if cell is None else one.micrometres.on_stage(cell),
                            "subclass": None if cell is None else cell.subclass,
                            "reviewed": cell is not None and cell.reclassified,
                        },
                    }
                )
    categories = [{"id": number, "name": name} for number, name in enumerate(labels, start=1)]
    slides = [{"session": one.id, "source": one.source, "slide": one.stored.slide.or_none()} for one in sessions]
    coco = {"info": {"slides": slides}, "images": images, "annotations": annotations, "categories": categories}
    file.write(msgspec.json.encode(coco).decode())
