"""operators.py against NVIDIA's real parser and builder, on ONNX's own conformance nodes: every difference is listed.

The parser is that of TensorRT for RTX 1.7. What a network has as constants is made a constant here, too: indices, axes,
sizes, scales, which the conformance cases give as inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from engines.backends.tensorrt.flavour import TENSORRT_RTX
from engines.backends.tensorrt.log import LogLines, make_logger
from engines.backends.tensorrt.operators import OPSETS, problems_of
from engines.backends.tensorrt.plan import init_plugins

from . import bindings

pytestmark = pytest.mark.skipif(bindings.why_no_rtx() is not None, reason=bindings.why_no_rtx() or "")

TOO_LAX: Mapping[str, str] = {
    "Identity": "of an optional value, which has no type of its own",
    "MatMul": "of a vector by a batch of matrices",
}
"""Operator -> which of its nodes we take and NVIDIA does not."""
_ARITHMETIC = "of int8 tensors: in our graphs they stand between QuantizeLinear and DequantizeLinear alone"
_LEFT_OUT = "none of our graphs could use it: left out of the table on purpose"
TOO_STRICT: Mapping[str, str] = {
    **dict.fromkeys(("Add", "Div", "Identity", "Max", "Min", "Mul", "Sub"), _ARITHMETIC),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _ARITHMETIC),
    **dict.fromkeys(("Attention", "Gelu", "GRU", "If", "LSTM", "RNN", "RotaryEmbedding", "Scan"), _LEFT_OUT),
    **dict.fromkeys(("Scatter", "STFT", "Swish", "TensorScatter", "Upsample"), _LEFT_OUT),
}
"""Operator -> which of its nodes NVIDIA takes and we don't, and why we don't."""


@dataclass
class Differences:
    cases: int = 0
    agreed: int = 0
    lax: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    strict: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def single_nodes() -> Iterator[tuple[str, ModelProto]]:
    """The conformance cases of one node, with what a network has as constants turned into constants."""
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        if (
            case.model is None
            or len(case.model.graph.node) != 1
            or case.model.graph.node[0].domain not in ("", "ai.onnx")
        ):
            continue
        if max(entry.version for entry in case.model.opset_import) not in OPSETS:
            continue
        yield case.name, with_constants(case.model, case.data_sets[0][0] if case.data_sets else [])


def with_constants(model: ModelProto, values: Any) -> ModelProto:
    """A copy in which all but the first input are constants where they are whole numbers or truths, or settings."""
    copy = ModelProto()
    copy.CopyFrom(model)
    kind = copy.graph.node[0].op_type
    kept = []
    for index, (value, given) in enumerate(zip(copy.graph.input, values, strict=False)):
        number = value.type.tensor_type.elem_type
        setting = number in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL) or kind in SETTINGS
        if ((index and setting) or kind in ALL_SETTINGS) and isinstance(given, np.ndarray):
            copy.graph.initializer.append(numpy_helper.from_array(given, value.name))
        else:
            kept.append(value)
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    return copy


SETTINGS = {
    "Resize",
    "Upsample",
    "QuantizeLinear",
    "DequantizeLinear",
    "Pad",
    "Clip",
    "OneHot",
    "NonMaxSuppression",
    "Dropout",
}
ALL_SETTINGS = {"Range", "ConstantOfShape", "EyeLike"}


def refusal(model: ModelProto, trt: Any, logger: Any, log: LogLines) -> str | None:
    """Why NVIDIA's parser or builder does not take it; None where it does."""
    log.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        return "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors)) or log.errors()
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    return None if builder.build_serialized_network(network, config) is not None else log.errors()


def compare() -> Differences:
    trt, log = bindings.rtx_module(), LogLines()
    logger = make_logger(trt, log)
    init_plugins(trt, logger)
    keeps_the_logger = trt.Runtime(logger)
    found = Differences()
    for name, model in single_nodes():
        node = model.graph.node[0]
        found.cases += 1
        ours = problems_of(model, TENSORRT_RTX)
        theirs = refusal(model, trt, logger, log)
        if bool(ours) == (theirs is not None):
            found.agreed += 1
        elif ours:
            found.strict[node.op_type].append(f"{name}: {ours[0]}")
        else:
            found.lax[node.op_type].append(f"{name}: {theirs}")
    del keeps_the_logger
    return found


@pytest.mark.slow
def test_every_difference_from_the_real_parser_is_listed() -> None:
    found = compare()
    assert found.cases > 900
    unlisted = {kind: cases[:3] for kind, cases in found.lax.items() if kind not in TOO_LAX}
    unlisted |= {kind: cases[:3] for kind, cases in found.strict.items() if kind not in TOO_STRICT}
    assert unlisted == {}
    assert set(TOO_LAX) - set(found.lax) == set(), "these differences are gone: take them out of TOO_LAX"
    assert set(TOO_STRICT) - set(found.strict) == set(), "these differences are gone: take them out of TOO_STRICT"
