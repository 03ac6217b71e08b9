"""OME-Zarr (OME-NGFF 0.4 and 0.5) by zarr: a folder with one picture at several sizes."""

from __future__ import annotations

from typing import Any

from streamer.sources.ome_xml import UM_PER_UNIT
from streamer.sources.packages import extra
from streamer.sources.whole_slide.arrays import part_of, size_of
from streamer.sources.whole_slide.slide_image import Image, SlideError, levels_of, stated, to_bgr

with extra("wsi", "source wsi:…"):
    import zarr


class OmeZarrSlide:
    """The first of a group's multiscale images."""

    format = "OME-Zarr"

    def __init__(self, path: str) -> None:
        node: Any = zarr.open(path, mode="r")
        attributes: dict[str, Any] = dict(node.attrs)
        images = attributes.get("ome", attributes).get("multiscales")
        if not images:
            raise SlideError("got Zarr without a multiscale image, expected OME-Zarr; give the folder of one image")
        image = images[0]
        axes = image["axes"]
        self._axes = "".join(axis["name"].lower() for axis in axes)
        self._arrays: list[Any] = [node[dataset["path"]] for dataset in image["datasets"]]
        self.levels = levels_of([size_of(array.shape, self._axes) for array in self._arrays])
        self.um_per_px = stated(self._um("x", image), self._um("y", image))

    def _um(self, name: str, image: dict[str, Any]) -> float | None:
        place = self._axes.index(name)
        factor = UM_PER_UNIT.get(image["axes"][place].get("unit", ""))
        scale = 1.0 if factor is None else factor
        for transformation in (
            *image["datasets"][0].get("coordinateTransformations", ()), *image.get("coordinateTransformations", ()),
        ):  # fmt: skip
            if transformation["type"] == "scale":
                scale *= float(transformation["scale"][place])
        return None if factor is None else scale

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Image:
        return to_bgr(part_of(self._arrays[level], self._axes, left, top, width, height))

    def close(self) -> None:
        """Nothing is held open."""
