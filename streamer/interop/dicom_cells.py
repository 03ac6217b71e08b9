"""The cells of a slide as Microscopy Bulk Simple Annotations (PS3.3 A.87): a point a cell, a group a class."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from streamer.dashboard.palette import class_colour, in_order
from streamer.interop.dicom_object import MAKER, DicomSlide, finish, local, text
from streamer.records import Cell

PlacedCell = tuple[Cell, float, float]
"""A cell, and the x and y of its centre in pixels of the image."""

CUT = ", cut by an edge"
"""Behind the label of a group whose cells are in no percentage, as no frame shows them whole."""


def cell_annotations(slide: DicomSlide, image: Dataset, cells: Sequence[PlacedCell]) -> Dataset | None:
    """None where there are no cells: annotations of nothing are no object."""
    grouped: defaultdict[tuple[bool, str], list[PlacedCell]] = defaultdict(list)
    for one in cells:
        grouped[one[0].partial, one[0].class_name].append(one)
    if not grouped:
        return None
    digest = hashlib.sha256(repr((image.SOPInstanceUID, slide, cells)).encode()).hexdigest()
    keys = [(cut, name) for cut in (False, True) for name in in_order([name for one, name in grouped if one == cut])]
    made = MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type="2D",
        annotation_groups=[
            _group(slide, digest, number, name, cut, grouped[cut, name])
            for number, (cut, name) in enumerate(keys, start=1)
        ],
        series_instance_uid=slide.uid("series", "cells"),
        series_number=2,
        sop_instance_uid=slide.uid("cells", digest),
        instance_number=1,
        content_label="CELLS",
        content_description=text(" ".join(filter(None, ("White cells by class.", slide.statement)))),
        series_description=text(f"Cells by class{'' if slide.production else ', research use only'}"),
        **slide.common,
    )
    finish(made)
    return cast(Dataset, made)


def _group(
    slide: DicomSlide, digest: str, number: int, name: str, cut: bool, cells: Sequence[PlacedCell]
) -> AnnotationGroup:
    label = f"{name}{CUT if cut else ''}"
    by_person = sum(cell.reclassified for cell, _, _ in cells)
    probabilities = np.array(
        [cell.class_probabilities.get(cell.class_name, np.nan) for cell, _, _ in cells], np.float32
    )
    return AnnotationGroup(
        number=number,
        uid=slide.uid("group", digest, label),
        label=text(label),
        annotated_property_category=codes.SCT.PhysicalObject if name == "artefact" else codes.SCT.AnatomicalStructure,
        annotated_property_type=local(name),
        graphic_type="POINT",
        graphic_data=[np.array([[x, y]], np.float32) for _, x, y in cells],
        algorithm_type="SEMIAUTOMATIC" if by_person else "AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=MAKER,
            family=codes.DCM.ArtificialIntelligence,
            version=text(slide.program),
            source=MAKER,
            parameters=slide.models,
        ),
        measurements=_probability(probabilities),
        description=f"{by_person} of {len(cells)} named by a person" if by_person else None,
        display_color=CIELabColor.from_rgb(*bytes.fromhex(class_colour(name)[1:])),
    )


def _probability(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[Measurements] | None:
    """None where no cell has one, as `unclassified` ones."""
    if np.isnan(values).all():
        return None
    name = local("probability", "Probability of the class, by its looks")
    return [Measurements(name=name, values=values, unit=codes.UCUM.NoUnits)]
