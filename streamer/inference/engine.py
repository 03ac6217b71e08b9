"""An engine that runs on another machine while it can: what it asks, and whether the answer may be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engines.base import Array, Engine, EngineClosedError, TensorSpec, check_feeds
from streamer.inference.wire import InvalidMessageError, Spec

Ask = Callable[[Mapping[str, Array]], dict[str, Array] | None]
"""Named inputs -> the outputs that another machine gave, checked; None where none did."""


class RemoteEngine:
    """An Engine on other machines, and on this one where none of them answers."""

    def __init__(self, ask: Ask, local: Engine, where: str) -> None:
        """`where`, for people, is who is asked."""
        self._ask, self._local = ask, local
        self._closed = False
        self.backend = f"{where}, else {local.backend}"
        self.inputs, self.outputs = local.inputs, local.outputs
        # Batches are cut as on this machine, so that results do not depend on where they come from.
        self.concurrency, self.max_batch = local.concurrency, local.max_batch

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._closed:
            raise EngineClosedError
        check_feeds(self.inputs, feeds)
        outputs = self._ask(feeds)
        return self._local.infer(feeds) if outputs is None else outputs

    def close(self) -> None:
        self._closed = True
        self._local.close()


def checked(arrays: Mapping[str, Array], specs: Sequence[TensorSpec], rows: int) -> dict[str, Array]:
    """The outputs of `rows` inputs, copied. InvalidMessageError for another name, shape or type, and for what is no
    number."""
    if arrays.keys() != {spec.name for spec in specs}:
        raise InvalidMessageError(f"outputs: got {sorted(arrays)}, expected {sorted(spec.name for spec in specs)}")
    for spec in specs:
        array = arrays[spec.name]
        shape = (rows, *spec.shape[1:])
        fits = array.ndim == len(shape) and all(
            want is None or got == want for got, want in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype != spec.dtype:
            raise InvalidMessageError(
                f"output {spec.name!r}: got {array.dtype} {array.shape}, expected {spec.dtype} {shape}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidMessageError(f"output {spec.name!r}: got values that are no numbers, expected finite ones")
    return {name: array.copy() for name, array in arrays.items()}


def difference(got: Sequence[Spec], expected: Sequence[Spec]) -> str | None:
    """How the tensors of a server's engine differ from ours, in words; the number of rows may."""
    theirs = {spec.name: spec for spec in got}
    if theirs.keys() != {spec.name for spec in expected}:
        return f"has the tensors {', '.join(sorted(theirs))}, expected {', '.join(sorted(s.name for s in expected))}"
    for spec in expected:
        other = theirs[spec.name]
        same = len(other.shape) == len(spec.shape) and all(
            None in pair or pair[0] == pair[1] for pair in zip(other.shape[1:], spec.shape[1:], strict=True)
        )
        if not same or other.dtype != spec.dtype:
            return f"has {spec.name} {other.dtype} {other.shape}, expected {spec.dtype} {spec.shape}"
    return None
