"""Cells as they are published: what the table and the looks say of them by now."""

from __future__ import annotations

import math

import numpy as np

from streamer.counting.cell_table import KINDS, CellTable
from streamer.counting.fusion import Fusion
from streamer.counting.matching import Ints
from streamer.counting.tallies import Tallies
from streamer.records import UNCLASSIFIED, Cell


class CellDescription:
    """Of the cells of one slide."""

    def __init__(self, cells: CellTable, fusion: Fusion, tallies: Tallies, attributes_of: tuple[str, ...]) -> None:
        """`attributes_of`: classes whose cells the classifier learnt to describe."""
        self._cells, self._fusion, self._tallies = cells, fusion, tallies
        self._attributes_of = attributes_of

    def of(self, rows: Ints, *, with_attributes: bool = True) -> list[Cell]:
        """These cells as they are now, in their order."""
        if len(rows) == 0:
            return []
        cells, fusion = self._cells, self._fusion
        sums = cells.white_row[rows].astype(np.intp)
        looked_at = sums >= 0
        fused = np.full((len(rows), len(fusion.class_names)), np.nan, np.float32)
        if fusion.class_names and looked_at.any():
            fused[looked_at] = fusion.probabilities(sums[looked_at])
        columns = zip(
            rows.tolist(),
            sums.tolist(),
            fused.tolist(),
            cells.centres(rows).tolist(),
            cells.kind(rows).tolist(),
            cells.class_index[rows].tolist(),
            cells.subclass_index[rows].tolist(),
            self._tallies.counted(rows).tolist(),
            (cells.reclassified_order[rows] > 0).tolist(),
            strict=True,
        )
        described = []
        for row, own, shares, (x, y), kind, class_index, subclass_index, counted, reclassified in columns:
            probabilities: dict[str, float] = {}
            class_name = top = UNCLASSIFIED
            subclass = reason = attributes = None
            if own >= 0 and fusion.class_names:
                if not math.isnan(shares[0]):
                    probabilities = dict(zip(fusion.class_names, shares, strict=True))
                    top = max(probabilities, key=probabilities.__getitem__)
                if class_index >= 0:
                    class_name = fusion.nameable[class_index]
                if subclass_index >= 0:
                    subclass = fusion.subclass_names[subclass_index]
                if with_attributes and class_name in self._attributes_of:
                    attributes = fusion.attributes_of(own)
                if class_name == UNCLASSIFIED and not reclassified:
                    reason = fusion.reason(own)
            described.append(
                Cell(
                    cell_id=row,
                    island=int(cells.island[row]),
                    x_px=x,
                    y_px=y,
                    kind=KINDS[kind],
                    class_name=class_name,
                    subclass=subclass,
                    top_class=top,
                    class_probabilities=probabilities,
                    looks=int(cells.looks[row]),
                    partial=bool(cells.partial[row]),
                    first_frame_id=int(cells.first_frame[row]),
                    last_frame_id=int(cells.last_frame[row]),
                    counted=counted,
                    reclassified=reclassified,
                    unclassified_reason=reason,
                    attributes=attributes,
                )
            )
        return described
