"""For MLServer, in its own environment: an ONNX file behind the v2 protocol. Imported by MLServer alone."""

from pathlib import Path

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FP32", "tensor(int64)": "INT64"}


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(self.settings.parameters.uri)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [self._metadata(value) for value in self._session.get_inputs()]
        self.outputs = [self._metadata(value) for value in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [value.name for value in self._session.get_outputs()]
        outputs = [
            NumpyCodec.encode_output(name, array)
            for name, array in zip(names, self._session.run(names, feeds), strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    @staticmethod
    def _metadata(value: onnxruntime.NodeArg) -> MetadataTensor:
        shape = [size if isinstance(size, int) else -1 for size in value.shape]
        return MetadataTensor(name=value.name, datatype=TYPES[value.type], shape=shape)
