"""The double of ONNX Runtime's CUDA provider: sessions over the double's device memory, on its streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from .refusals import Refused
from .world import Block, Work, World

_RealSession = onnxruntime.InferenceSession


class _Binding:
    """IOBinding: where each tensor lies."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.inputs: dict[str, tuple[Block, npt.DTypeLike, tuple[int, ...]]] = {}
        self.outputs: dict[str, tuple[Block, npt.DTypeLike, tuple[int, ...]]] = {}

    def bind_input(
        self, name: str, device: str, number: int, dtype: npt.DTypeLike, shape: Sequence[int], address: int
    ) -> None:
        self.inputs[name] = self._place(name, device, dtype, shape, address)

    def bind_output(
        self, name: str, device: str, number: int, dtype: npt.DTypeLike, shape: Sequence[int], address: int
    ) -> None:
        self.outputs[name] = self._place(name, device, dtype, shape, address)

    def _place(
        self, name: str, device: str, dtype: npt.DTypeLike, shape: Sequence[int], address: int
    ) -> tuple[Block, npt.DTypeLike, tuple[int, ...]]:
        assert device == "cuda", f"{name} was bound to {device}"
        block = self._world.block_of(address)
        needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if block.data.nbytes < needed:
            raise Refused("size", f"{name!r} needs {needed} bytes, got {block.data.nbytes}")
        return block, dtype, tuple(shape)


def session_class(world: World) -> type:
    """What to put in the place of `onnxruntime.InferenceSession`: CUDA sessions work on `world`, others are real."""

    class Session:
        def __new__(cls, model: bytes, options: Any = None, providers: Sequence[Any] = ()) -> Any:
            first = providers[0] if providers else "CPUExecutionProvider"
            if not isinstance(first, tuple):
                return _RealSession(model, options, providers=["CPUExecutionProvider"])
            return super().__new__(cls)

        def __init__(self, model: bytes, options: Any = None, providers: Sequence[Any] = ()) -> None:
            self._session = _RealSession(model, options, providers=["CPUExecutionProvider"])
            self._queue = world.queue_of(int(providers[0][1]["user_compute_stream"]))

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def io_binding(self) -> _Binding:
            return _Binding(world)

        def run_with_iobinding(self, binding: _Binding, options: Any = None) -> None:
            def run() -> None:
                feeds = {
                    name: block.data[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
                    for name, (block, dtype, shape) in binding.inputs.items()
                }
                for name, result in zip(binding.outputs, self._session.run(list(binding.outputs), feeds), strict=True):
                    block, dtype, shape = binding.outputs[name]
                    assert (result.dtype, result.shape) == (np.dtype(dtype), shape), name
                    block.data[: result.nbytes] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)

            blocks = [block for block, _, _ in (*binding.inputs.values(), *binding.outputs.values())]
            world.enqueue(self._queue, Work(run, blocks, "onnxruntime"))

    return Session
