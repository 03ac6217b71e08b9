"""COCO: the frames and their boxes, with the detector's labels as categories and the class of the cell, as looks and
people made it, among the attributes; what is said of the slides is in `info`. Frames of video, cameras and the
simulated slide, which have no file, are called SOURCE-000012.png after their frame_id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

import msgspec

from streamer.interop.sessions import ExportedSession


class CocoDataset:
    """Takes frames and their boxes in turn. https://cocodataset.org/#format-data; `score` as of COCO's results."""

    def __init__(self, labels: Sequence[str]) -> None:
        """`labels`: of all boxes to come."""
        self._labels = list(labels)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_frame(self, file_name: str, width: int, height: int, **more: Any) -> None:
        image = {"id": len(self._images) + 1, "file_name": file_name, "width": width, "height": height}
        self._images.append({**image, **more})

    def add_box(self, box_px: Sequence[float], label: str, score: float | None, attributes: dict[str, Any]) -> None:
        """Of the frame that was added last; `box_px` x1, y1, x2, y2. `score`: None: no model found it."""
        x1, y1, x2, y2 = box_px
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": len(self._images),
                "category_id": self._labels.index(label) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "score": score,
                "attributes": attributes,
            }
        )

    def content(self, info: dict[str, Any]) -> dict[str, Any]:
        """The data set so far."""
        categories = [{"id": number, "name": name} for number, name in enumerate(self._labels, start=1)]
        return {"info": info, "images": self._images, "annotations": self._annotations, "categories": categories}


def write(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    coco = CocoDataset(list(dict.fromkeys(name for one in sessions for name in one.stored.rules.label_names)))
    for one in sessions:
        for seen in one.stored.frames():
            boxes = list(one.boxes(seen))
            if not boxes and not seen.looked:  # an image without boxes would be one without cells
                continue
            coco.add_frame(
                one.picture_name(seen),
                seen.width,
                seen.height,
                source=one.source,
                slide=one.slide,
                frame_id=seen.frame_id,
                date_captured=seen.captured_utc,
                stage_um=seen.stage_um,
                um_per_px=seen.um_per_px,
            )
            for box, cell in boxes:
                attributes = {
                    "cell_id": box["cell_id"],
                    "class": box["class"],
                    "stage_um": None if cell is None else one.micrometres.on_stage(cell),
                    "subclass": None if cell is None else cell.subclass,
                    "reviewed": cell is not None and cell.reclassified,
                }
                coco.add_box(box["box_px"], box["label"], box["score"], attributes)
    slides = [{"session": one.id, "source": one.source, "slide": one.stored.slide.or_none()} for one in sessions]
    file.write(msgspec.json.encode(coco.content({"slides": slides})).decode())
