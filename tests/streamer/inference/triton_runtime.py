"""Triton itself, through nvidia-pytriton, in an environment of its own: `python triton_runtime.py REPOSITORY PORT`.

The package has Triton and no ONNX Runtime backend, so the models run behind its Python one.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}


def tensor(value: onnxruntime.NodeArg) -> Tensor:
    """Without its first dimension; of a tensor of one, Triton wants a second."""
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape[1:])
    return Tensor(name=value.name, dtype=TYPES[value.type], shape=shape or (1,))


def bind(triton: Triton, folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(folder / "1" / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]

    @batch
    def infer(**feeds: np.ndarray) -> dict[str, np.ndarray]:
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        return {name: array if array.ndim > 1 else array[:, None] for name, array in outputs.items()}

    triton.bind(
        model_name=folder.name,
        infer_func=infer,
        inputs=[tensor(value) for value in session.get_inputs()],
        outputs=[tensor(value) for value in session.get_outputs()],
        config=ModelConfig(max_batch_size=8),
    )


def main(repository: Path, port: int) -> None:
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, grpc_address="127.0.0.1", grpc_port=port + 1, allow_metrics=False
    )
    with Triton(config=config) as triton:
        for path in sorted(repository.glob("*/config.pbtxt")):
            bind(triton, path.parent)
        triton.serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
