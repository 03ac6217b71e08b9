"""What can go wrong on a GPU, as errors that say what to do."""

from __future__ import annotations

from engines.backends.tensorrt.flavour import Flavour
from engines.base import BackendUnavailableError, EngineError


class FlavourUnavailableError(BackendUnavailableError):
    """TensorRT, or that for RTX, can't work on this machine."""

    def __init__(self, flavour: Flavour, why: str, remedy: str = "") -> None:
        self.why = why
        """What was got and expected."""
        self.remedy = remedy
        """What to type or to look at; empty where `why` says it."""
        self.reason = f"{why}; {remedy}" if remedy else why
        super().__init__(f"backend '{flavour.name}': {self.reason}")


class NoDriverError(FlavourUnavailableError):
    """This machine has no NVIDIA driver, and so nothing to run on."""


class OutOfMemoryError(EngineError):
    """The GPU, or the host's page-locked memory, has no room left."""


class DeviceLostError(EngineError):
    """The GPU failed or was reset: nothing runs on it any more in this process."""


class PlanError(EngineError):
    """A plan can't be used here: of another TensorRT or another GPU, or no runtime starts to load it."""


class DamagedPlanError(PlanError):
    """The bytes are no plan, or not all of one: nothing but building it again helps."""


class BuildError(EngineError):
    """TensorRT could not build a plan from the graph."""


class BuildCancelledError(EngineError):
    """The build was cancelled; nothing was written."""
