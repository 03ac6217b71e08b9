"""What a source's own positions say, frame by frame, and those that keyframes have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamer.records import Frame, StagePoint, usable_error, usable_point, usable_scale


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a source says that a frame was taken; micrometres."""

    x_um: float
    y_um: float
    error_um: float | None = None
    """The largest error along either axis, as the source states it; None: it states none."""
    um_per_px: float | None = None
    is_tile: bool = False
    """Whether the frame was cut from one picture with all others of its source."""

    @classmethod
    def of(cls, frame: Frame) -> Reading | None:
        """None for a frame without a position, or with one that is no number."""
        said = cls.said(frame.stage_um, frame.stage_error_um, frame.um_per_px)
        return said if said is None else replace(said, is_tile=frame.is_tile)

    @classmethod
    def said(cls, point: StagePoint | None, error_um: float | None, um_per_px: float | None) -> Reading | None:
        """As `of`, from what a frame has."""
        point = usable_point(point)
        if point is None:
            return None
        return cls(point.x, point.y, usable_error(error_um), usable_scale(um_per_px))

    @property
    def point(self) -> complex:
        return complex(self.x_um, self.y_um)

    @property
    def needs_no_fit(self) -> bool:
        """Whether the source states that its positions are exact and along the picture, and of what scale."""
        return self.error_um == 0 and self.um_per_px is not None


class KeyframeReading(NamedTuple):
    """That of a keyframe."""

    number: int
    x_um: float
    y_um: float
    epoch: int
    """Only readings of one epoch can be compared: a stage that was homed anew begins another."""


class KeyframeReadings:
    """Those of all keyframes that have one, by place."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._numbers = np.zeros(64, np.intp)
        self._points = np.zeros(64, np.complex128)
        self._epochs = np.zeros(64, np.intp)
        self._new: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, number: int, point: complex, epoch: int) -> None:
        """Of a new keyframe."""
        row = len(self._rows)
        if row == len(self._numbers):
            self._numbers, self._points, self._epochs = (
                np.concatenate([column, np.zeros_like(column)])
                for column in (self._numbers, self._points, self._epochs)
            )
        self._rows[number] = row
        self._numbers[row], self._points[row], self._epochs[row] = number, point, epoch
        self._new.append(number)

    def get(self, number: int, epoch: int) -> complex | None:
        """None for a keyframe without a reading of this epoch."""
        row = self._rows.get(number)
        return None if row is None or self._epochs[row] != epoch else complex(self._points[row])

    def first(self, epoch: int) -> int | None:
        """The keyframe that was the first to have a reading of this epoch; None: none has."""
        rows = np.nonzero(self._epochs[: len(self._rows)] == epoch)[0]
        return int(self._numbers[rows[0]]) if len(rows) else None

    def newest(self, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.complex128], npt.NDArray[np.intp]]:
        """(number, point, epoch) of the last `count`, oldest first."""
        rows = slice(max(0, len(self._rows) - count), len(self._rows))
        return self._numbers[rows], self._points[rows], self._epochs[rows]

    def nearest(self, point: complex, epoch: int, count: int) -> list[int]:
        """Numbers of the keyframes read nearest to a point, of one epoch."""
        size = len(self._rows)
        away = np.where(self._epochs[:size] == epoch, np.abs(self._points[:size] - point), np.inf)
        order = np.argsort(away, kind="stable")[:count] if size <= 4 * count else _least(away, count)
        return [int(self._numbers[row]) for row in order if math.isfinite(away[row])]

    def take_new(self) -> tuple[KeyframeReading, ...]:
        """Those added since the last call."""
        new, self._new = self._new, []
        points, epochs = self._points, self._epochs
        rows = [(number, self._rows[number]) for number in new]
        return tuple(
            KeyframeReading(number, float(points[row].real), float(points[row].imag), int(epochs[row]))
            for number, row in rows
        )

    def restore(self, readings: Iterable[KeyframeReading]) -> None:
        """Fill an empty table, in the order in which they were added."""
        for one in readings:
            self.add(one.number, complex(one.x_um, one.y_um), one.epoch)
        self._new.clear()


def _least(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    some = np.argpartition(values, count)[:count]
    return some[np.lexsort((some, values[some]))]
