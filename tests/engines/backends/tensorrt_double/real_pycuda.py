"""Run by test_real_pycuda in a process of its own: the runtime on the real pycuda, over a driver in host memory.

The place of TensorRT is taken by ONNX Runtime's adapter of tools.bench gpu, on the CPU. Prints "all right" at its end.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engines.backends.tensorrt import runtime
from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import OutOfMemoryError
from engines.backends.tensorrt.libraries import Libraries, load_cuda
from engines.backends.tensorrt.runtime import TensorRTEngine
from engines.base import EngineError
from tests.engines.networks import run
from tests.engines.small_detector import detector, pictures
from tools.bench import onnxruntime_slots

FRAMES = pictures(9)
EXPECTED = dict(zip(("boxes", "scores", "classes"), run(detector(), {"images": FRAMES}), strict=True))


def execute(context: Any, stream_handle: int) -> bool:
    """As the adapter's, but on the memory that the addresses are of."""
    assert stream_handle
    if context._session is None:
        context._session = onnxruntime.InferenceSession(context._engine.model, providers=["CPUExecutionProvider"])

    def array(name: str) -> np.ndarray[Any, Any]:
        dtype, shape = context._numpy_type(name), context.get_tensor_shape(name)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(context._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)

    names = [name for name in context._engine.names if name not in context._shapes]
    results = context._session.run(names, {name: array(name).copy() for name in context._shapes})
    for name, result in zip(names, results, strict=True):
        array(name)[...] = result
    return True


def check(outputs: dict[str, Any], start: int, stop: int) -> None:
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(outputs[name], expected[start:stop])


def main() -> None:
    driver = ctypes.CDLL("libcuda.so.1")
    driver.host_driver_allocated.restype = driver.host_driver_streams.restype = ctypes.c_long
    driver.host_driver_events.restype = ctypes.c_long

    def nothing_left() -> None:
        gc.collect()
        left = (driver.host_driver_allocated(), driver.host_driver_streams(), driver.host_driver_events())
        assert left == (0, 0, 0), f"bytes, streams and events left: {left}"
        assert driver.host_driver_depth() == 0

    cuda = load_cuda()
    onnxruntime_slots._Context.execute_async_v3 = execute  # type: ignore[method-assign]
    libraries = onnxruntime_slots.libraries(cuda)
    environment = Device(libraries).environment()
    assert (environment.gpu, environment.compute_capability, environment.driver) == ("Host memory", "90", "13.0")
    plan = onnxruntime_slots.as_plan(detector(), 4)

    def load(**options: Any) -> TensorRTEngine:
        return TensorRTEngine(plan, libraries=libraries, **options)

    engine = load(slots=3, record_times=True)
    for rows in (1, 4, 9):
        check(engine.infer({"images": FRAMES[:rows]}), 0, rows)
    outputs, times = engine.collect_timed(engine.submit({"images": FRAMES[:2]}))
    check(outputs, 0, 2)
    marks = [*times.copy_in, *times.compute, *times.copy_out]
    assert marks == sorted(marks)
    assert marks[0] < marks[-1]
    threads = [
        threading.Thread(target=lambda i=i: check(engine.infer({"images": FRAMES[i : i + 3]}), i, i + 3))
        for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join()
    nothing_left()

    dropped = load()
    dropped.submit({"images": FRAMES[:1]})
    del dropped
    nothing_left()

    kept = load()
    check(kept.infer({"images": FRAMES[:1]}), 0, 1)
    runtime._close_all()
    with pytest.raises(EngineError, match="after close"):
        kept.infer({"images": FRAMES[:1]})
    del kept
    nothing_left()

    with pytest.raises(OutOfMemoryError, match="MiB are free"):
        TensorRTEngine(plan, libraries=libraries, slots=4000)
    nothing_left()
    assert isinstance(libraries, Libraries)
    print("all right")


if __name__ == "__main__":
    sys.exit(main())
