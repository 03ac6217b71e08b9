"""Whether TensorRT, or that for RTX, can run a model here, and if not, why: what `--backend auto` asks."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto

from engines.backends.tensorrt.compiler import load_plan
from engines.backends.tensorrt.errors import FlavourUnavailableError, PlanError
from engines.backends.tensorrt.flavour import FLAVOURS, TENSORRT, Flavour, Name
from engines.backends.tensorrt.libraries import Libraries, load
from engines.backends.tensorrt.manifest import PlanStore, default_folder
from engines.backends.tensorrt.runtime import TensorRTEngine
from engines.base import BackendUnavailableError
from engines.zoo.card import Card

SLOTS = 2
"""Enough to hide copies behind work; more cost memory, and help only where batches are very small."""


def largest_batch(name: str, flavours: Sequence[Name], *, store: PlanStore | None = None) -> int | None:
    """The largest batch of the newest plan of a model, of the first of `flavours` that has one and can run here; None
    where there is none."""
    plans = (store or PlanStore(default_folder())).of_model(name)
    for flavour in flavours:
        own = [plan for plan in plans if plan.spec.backend == flavour]
        if not own:
            continue
        try:
            load(FLAVOURS[flavour])
        except BackendUnavailableError:
            continue
        return own[0].spec.batch[2]
    return None


def tensorrt_engine(
    card: Card,
    proto: ModelProto,
    height: int,
    width: int,
    *,
    flavour: Flavour = TENSORRT,
    slots: int = SLOTS,
    libraries: Libraries | None = None,
    store: PlanStore | None = None,
) -> TensorRTEngine:
    """The newest plan of this model and size, on the first GPU.

    BackendUnavailableError: a package, the driver, a GPU or a plan is missing; it says which, and what to type.
    """
    store = store or PlanStore(default_folder())
    libraries = libraries or load(flavour)
    try:
        return load_plan(card, proto, libraries=libraries, store=store, height=height, width=width, slots=slots)[0]
    except PlanError as error:
        raise FlavourUnavailableError(flavour, str(error)) from error
