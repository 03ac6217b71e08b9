"""A double of the parts of TensorRT and pycuda that our backend uses, strict where the real ones are lenient.

It runs ONNX with ONNX Runtime over host memory. Work on a stream is done as late as possible: when something waits for
it. So what reads a buffer too early, or writes it too late, gets wrong numbers here, and a `Refused` that cites the
sentence of the documentation that was broken. What can't raise (destructors) is collected in `World.violations`.
"""

from .refusals import ANSWERS, REFUSALS, Refused
from .world import World

__all__ = ["ANSWERS", "REFUSALS", "Refused", "World"]
