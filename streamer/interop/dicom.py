"""DICOM: the picture of a slide as a whole slide image, and its cells as annotations of it; made and read by highdicom.

All identifiers follow from the session and from what the object holds, so that the same content is the same object
whenever it is exported, and a result that has changed is another one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

from engines.base import LeukostreamError, printable
from streamer.interop.dicom_cells import cell_annotations
from streamer.interop.dicom_image import whole_slide_image
from streamer.interop.dicom_object import DicomSlide
from streamer.interop.sessions import ExportedSession
from streamer.mosaic.compose import JoinedIslands, join, pictures_of
from streamer.mosaic.scale import scale_of
from streamer.mosaic.visited import Visited, look_over

MAX_SIDE_PX = 12_000
"""Of the picture, whose pixels are in memory at once: 430 MB at most."""


def files(sessions: Sequence[ExportedSession], recording: str | None) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file: of a session its image, then its cells where it has some. `recording`: that of the
    same run, for the frames; None: the run's own, or its source.

    LeukostreamError for a session without a place on the slide, a scale, or frames that can be had again.
    """
    for one in sessions:
        visited = look_over(one.stored)
        slide = _slide(one, visited)
        joined = _joined(one, visited, recording)
        name = one.source if len(sessions) == 1 else f"{one.source}-{one.stored.number}"
        image = whole_slide_image(slide, joined)
        yield f"{name}-image.dcm", _bytes(image)
        cells = cell_annotations(slide, image, list(joined.places(visited)))
        if cells is not None:
            yield f"{name}-cells.dcm", _bytes(cells)


def _slide(one: ExportedSession, visited: Visited) -> DicomSlide:
    stored, evidence = one.stored, visited.counted.count.evidence(final=one.stored.ended)
    scale = scale_of(stored, evidence.rbc_px)
    if scale is None:
        raise LeukostreamError(
            f"--format dicom: {one.source}: got no scale and too few red cells to measure one, expected micrometres a"
            " pixel, without which there is no such image; count the slide with run --um-per-px UM"
        )
    runs, rules = stored.runs(), stored.rules
    models = {"detector": rules.detector, "classifier": rules.classifier, "segmenter": rules.segmenter}
    return DicomSlide(
        name=one.source,
        subject=one.pseudonym,
        observed=one.observed(),
        program=printable(runs[-1].program) if runs else "unknown",
        models={
            task: printable(f"{model.name} {'' if model.sha256 is None else f'sha256:{model.sha256}'}".strip())
            for task, model in models.items()
            if model is not None
        },
        scale=scale,
        production=one.production,
    )


def _joined(one: ExportedSession, visited: Visited, recording: str | None) -> JoinedIslands:
    where = f"--format dicom: {one.source}: "
    if not visited.islands:
        raise LeukostreamError(f"{where}got no frame that has a place on the slide, expected some")
    try:
        pictures = pictures_of(one.stored, recording)
        try:
            return join(visited, list(visited.islands), pictures, MAX_SIDE_PX)
        finally:
            pictures.close()
    except LeukostreamError as error:
        raise LeukostreamError(f"{where}{str(error).removeprefix('mosaic: ')}") from error


def _bytes(made: Dataset) -> bytes:
    with io.BytesIO() as file:
        made.save_as(file, enforce_file_format=True)
        return file.getvalue()
