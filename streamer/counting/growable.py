"""Arrays that grow together: the columns of a table, named by a schema.

The schema says what a journal keeps: an array that is not in it is not written, and one that a journal lacks or has in
another type is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Column(NamedTuple):
    """One array of a table, read as the attribute `name`."""

    name: str
    dtype: npt.DTypeLike
    width: int | None = None
    """Values of a row; None: one, and the array is (n,)."""
    stored_as: str | None = None
    """What journals call it; None: `name`."""

    @property
    def key(self) -> str:
        return self.stored_as or self.name

    def empty(self, rows: int) -> npt.NDArray[Any]:
        return np.zeros((rows,) if self.width is None else (rows, self.width), self.dtype)


class GrowableTable:
    """Columns as attributes, longer than `count`: read them up to there, and write only rows that exist."""

    def __init__(self, schema: Sequence[Column], *, least_rows: int) -> None:
        """`least_rows`: the length of the columns once there is any row."""
        self._schema = tuple(schema)
        self._least_rows = least_rows
        self._allocated = 0
        self.count = 0
        for column in self._schema:
            setattr(self, column.name, column.empty(0))

    @property
    def bytes_used(self) -> int:
        return sum(getattr(self, column.name).nbytes for column in self._schema)

    def add_rows(self, count: int) -> npt.NDArray[np.intp]:
        """Numbers of `count` new rows of zeros."""
        first, self.count = self.count, self.count + count
        if self.count > self._allocated:
            self._grow(max(self._least_rows, self.count, self._allocated * 3 // 2))
        return np.arange(first, self.count)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """All rows, by the names that journals use; views, valid until the table changes."""
        return {column.key: getattr(self, column.name)[: self.count] for column in self._schema}

    def restore(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with the columns of another table, which this one keeps. ValueError for those of another schema."""
        for column in self._schema:
            expected, got = column.empty(0), columns.get(column.key)
            if got is None or got.dtype != expected.dtype or got.shape[1:] != expected.shape[1:]:
                raise ValueError(
                    f"column {column.key}: got {sorted(columns)}, expected it among them, of {expected.dtype} and"
                    f" {expected.shape[1:]} a row"
                )
        lengths = {len(columns[column.key]) for column in self._schema}
        if len(lengths) > 1:
            raise ValueError(f"columns: got {sorted(lengths)} rows, expected as many in each")
        for column in self._schema:
            setattr(self, column.name, columns[column.key])
        self.count = self._allocated = len(columns[self._schema[0].key])

    def _grow(self, rows: int) -> None:
        for column in self._schema:
            grown = column.empty(rows)
            grown[: self._allocated] = getattr(self, column.name)
            setattr(self, column.name, grown)
        self._allocated = rows
