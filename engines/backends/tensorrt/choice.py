"""Whether TensorRT can run a model here, and if not, why: what `--backend auto` asks."""

from __future__ import annotations

from onnx import ModelProto

from engines.backends.tensorrt.compiler import load_plan
from engines.backends.tensorrt.errors import PlanError
from engines.backends.tensorrt.libraries import Libraries, load
from engines.backends.tensorrt.manifest import PlanStore, default_folder
from engines.backends.tensorrt.runtime import TensorRTEngine
from engines.base import BackendUnavailableError
from engines.zoo.card import Card

SLOTS = 2
"""Enough to hide copies behind work; more cost memory, and help only where batches are very small."""


def largest_batch(name: str, *, store: PlanStore | None = None) -> int | None:
    """The largest batch of the newest plan of a model; None where TensorRT can't run here or has no plan of it."""
    plans = (store or PlanStore(default_folder())).of_model(name)
    if not plans:
        return None
    try:
        load()
    except BackendUnavailableError:
        return None
    return plans[0].spec.batch[2]


def tensorrt_engine(
    card: Card,
    proto: ModelProto,
    height: int,
    width: int,
    *,
    slots: int = SLOTS,
    libraries: Libraries | None = None,
    store: PlanStore | None = None,
) -> TensorRTEngine:
    """The newest plan of this model and size, on the first GPU.

    BackendUnavailableError: a package, the driver, a GPU or a plan is missing; it says which, and what to type.
    """
    store = store or PlanStore(default_folder())
    libraries = libraries or load()
    try:
        return load_plan(card, proto, libraries=libraries, store=store, height=height, width=width, slots=slots)[0]
    except PlanError as error:
        raise BackendUnavailableError(f"backend 'tensorrt': {error}") from error
