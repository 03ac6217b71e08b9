"""One image in a thousand also runs on the CPU: does the fast backend still say the same?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.base import Array, Engine, EngineError
from engines.graphs.parity import Parity

Compare = Callable[[Engine, Engine, Sequence[Array]], Parity]
"""(reference, candidate, batches (1,H,W,3)) -> how far they agree; EngineError where there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """What the checks found so far."""

    checked: int
    """Images compared."""
    compared: int
    """Boxes or crops of the reference in them."""
    agreed: int
    """Of these, those found again with the same class."""
    extra: int
    """Boxes that the reference has not."""
    failed: int
    """Checks that gave nothing to count: an empty field, or a reference that failed."""


class ShadowTally:
    """The count of one model, over all of its engines. Safe from several threads at once."""

    def __init__(self, images_per_check: int = 1000) -> None:
        """`images_per_check`: one image of so many is checked, the first of all among them."""
        if images_per_check < 1:
            raise ValueError(f"images_per_check: got {images_per_check}, expected 1 or more")
        self._images_per_check = images_per_check
        self._lock = threading.Lock()
        self._seen = 0
        self._counts = ShadowCounts(0, 0, 0, 0, 0)

    @property
    def counts(self) -> ShadowCounts:
        with self._lock:
            return self._counts

    def next_row(self, images: int) -> int | None:
        """Which of the next so many images is to be checked; None for none of them."""
        with self._lock:
            row = -self._seen % self._images_per_check
            self._seen += images
        return row if row < images else None

    def add(self, parity: Parity | None) -> None:
        """Count a check; None for one that gave nothing."""
        with self._lock:
            old = self._counts
            if parity is None:
                self._counts = ShadowCounts(old.checked, old.compared, old.agreed, old.extra, old.failed + 1)
                return
            matched = 1.0 if parity.matched is None else parity.matched
            self._counts = ShadowCounts(
                old.checked + 1,
                old.compared + parity.compared,
                old.agreed + round(parity.same_class * matched * parity.compared),
                old.extra + round((parity.extra or 0.0) * parity.compared),
                old.failed,
            )


class ShadowedEngine:
    """An Engine that now and then asks another one the same question, and counts how often they disagree.

    The check runs in the thread of the call, on one image of the batch, before the outputs are given back: at one in a
    thousand it costs a CPU run of one frame every half minute of one camera. Safe from several threads at once.
    """

    def __init__(self, engine: Engine, reference: Engine, compare: Compare, tally: ShadowTally) -> None:
        self._engine, self._reference = engine, reference
        self._compare, self._tally = compare, tally
        self.backend, self.inputs, self.outputs = engine.backend, engine.inputs, engine.outputs
        self.concurrency, self.max_batch = engine.concurrency, engine.max_batch

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._engine.infer(feeds)
        images = next(iter(feeds.values()))
        row = self._tally.next_row(len(images))
        if row is not None:
            answered = _Answered(self._engine, {name: array[row : row + 1] for name, array in outputs.items()})
            self._check(answered, np.ascontiguousarray(images[row : row + 1]))
        return outputs

    def close(self) -> None:
        self._engine.close()
        self._reference.close()

    def _check(self, answered: Engine, image: Array) -> None:
        try:
            self._tally.add(self._compare(self._reference, answered, [image]))
        except EngineError:  # neither an empty field nor a broken reference may stop the stream
            self._tally.add(None)


class _Answered:
    """An Engine that was asked already."""

    def __init__(self, engine: Engine, outputs: dict[str, Array]) -> None:
        self._engine, self._outputs = engine, outputs
        self.backend, self.inputs, self.outputs = engine.backend, engine.inputs, engine.outputs
        self.concurrency, self.max_batch = 1, 1

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._outputs

    def close(self) -> None:
        """Nothing of its own to free."""
