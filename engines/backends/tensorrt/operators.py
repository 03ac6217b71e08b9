"""Which ONNX operators TensorRT's parser takes: its documented table, checked before a build takes minutes.

Source: docs/operators.md of the ONNX parser, "TensorRT 10.15 supports operators in the inclusive range of opset 9 to
opset 24", with its restrictions. Only operators of that table are allowed here; those that leukostream's graphs could
not use on any account (recurrent networks, control flow, sequences) are left out, and so refused.

Beside the table, what the parser itself says, seen in that of TensorRT for RTX 1.7, which has the same source. What
holds for TensorRT for RTX alone stands under RTX. tests/engines/backends/tensorrt/test_rtx_operators.py runs ONNX's own
conformance nodes through this and through the real parser and builder, and lists every difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, TypeVar

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from engines.backends.tensorrt.flavour import TENSORRT, Flavour
from engines.base import ModelFormatError

OPSETS = range(9, 25)
MAX_TOP_K = 3840
"""Itself allowed. INetworkDefinition.add_topk, 10.12 to 11.4: "Currently only values of K up to 3840 are supported";
its builder: "K exceeds the maximum value allowed (3840)". Only the parser's table says "less than 3840".
tests/engines/backends/tensorrt/test_contract.py reads the sentence in the real binding."""

_T = TypeVar("_T")


def _each(names: str, value: _T) -> dict[str, _T]:
    return dict.fromkeys(names.split(), value)


_FLOAT = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_NUMBER = _FLOAT | {TensorProto.INT32, TensorProto.INT64}
_ANY = _NUMBER | {TensorProto.BOOL}
_CAST = _ANY | {TensorProto.UINT8}
_NO_TYPE = frozenset(
    {TensorProto.UINT16, TensorProto.INT16, TensorProto.UINT32, TensorProto.UINT64, TensorProto.STRING}
    | {TensorProto.COMPLEX64, TensorProto.COMPLEX128}
)
"""Types that TensorRT has no name for, whatever the tensor is for."""
_TYPES: Mapping[str, frozenset[int]] = {
    **_each(
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh "
        "CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample "
        "GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LayerNormalization LeakyRelu Log "
        "LogSoftmax LpNormalization LpPool LRN MatMul MaxPool MeanVarianceNormalization Mish NonMaxSuppression "
        "NonZero PRelu QuantizeLinear Reciprocal Resize RMSNormalization RoiAlign Round Selu Sigmoid Sin Sinh Softmax "
        "Softplus Softsign Sqrt Tan Tanh ThresholdedRelu",
        _FLOAT,
    ),
    **_each(
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min Mod "
        "Mul Neg Pad Pow ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum ReduceSumSquare ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum "
        "TopK",
        _NUMBER,
    ),
    **_each(
        "Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Reshape "
        "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
        _ANY,
    ),
    **_each("And Not Or Xor", frozenset({TensorProto.BOOL})),
    **_each("Cast CastLike", _CAST),
    "DequantizeLinear": frozenset({TensorProto.INT8}),
    "Range": frozenset({TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64}),
    "Relu": _FLOAT | {TensorProto.INT64},
}
SUPPORTED = frozenset(_TYPES)
_RESIZE_MODES = frozenset({"nearest", "linear"})
_FLOAT_ONLY_WITH: Mapping[str, tuple[str, int, str]] = {"Mod": ("fmod", 1, "on floats only with `fmod` 1")}
_RTX_REFUSES: Mapping[str, str] = {
    "RoiAlign": "a plugin, of which TensorRT for RTX has none",
    "NonMaxSuppression": "TensorRT for RTX has nothing that runs it",
}


def check_operators(model: ModelProto, flavour: Flavour = TENSORRT) -> None:
    """ModelFormatError that names every node that the library would refuse, and why."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    problems = problems_of(model, flavour)
    if opset not in OPSETS:
        problems.insert(0, f"opset {opset}, expected {OPSETS.start} to {OPSETS.stop - 1}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelFormatError(
            f"{flavour} can't take this graph: {'; '.join(problems[:5])}{more}; "
            "change these operators in the network, or run it with --backend onnxruntime"
        )


def problems_of(model: ModelProto, flavour: Flavour = TENSORRT) -> list[str]:
    """What the library would refuse, a line for each node, in the order of the graph."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    io = {value.name for value in (*graph.input, *graph.output)}
    problems = []
    for node in graph.node:
        why = _problem(node, types, constants, io, flavour)
        if why is not None:
            problems.append(f"node {node.name or node.output[0]!r} ({node.op_type}): {why}")
    return problems


def _problem(
    node: NodeProto,
    types: Mapping[str, int],
    constants: Mapping[str, TensorProto],
    io: set[str],
    flavour: Flavour,
) -> str | None:
    if node.domain not in ("", "ai.onnx"):
        return f"operator set {node.domain!r} is not ONNX's own"
    allowed = _TYPES.get(node.op_type)
    if allowed is None:
        return "no such operator in TensorRT's table"
    for name in (*node.input, *node.output):
        if types.get(name) == TensorProto.UINT8 and name not in io:
            return f"tensor {name!r} is uint8, which is only supported as network input or output"
    strange = [name for name in (*node.input, *node.output) if types.get(name) in _NO_TYPE]
    if strange:
        return f"tensor {strange[0]!r} is {TensorProto.DataType.Name(types[strange[0]]).lower()}"
    main = node.input[1] if node.op_type == "Where" else next(iter(node.input), node.output[0])
    kind = types.get(main, TensorProto.UNDEFINED)
    if kind not in (TensorProto.UNDEFINED, TensorProto.DOUBLE) and kind not in allowed:
        return f"input {main!r} is {TensorProto.DataType.Name(kind).lower()}"
    if flavour.portable and node.op_type in _RTX_REFUSES:
        return _RTX_REFUSES[node.op_type]
    if node.op_type in _FLOAT_ONLY_WITH and kind in _FLOAT:
        name, value, said = _FLOAT_ONLY_WITH[node.op_type]
        if _attribute(node, name, 0) != value:
            return said
    restriction = _RESTRICTIONS.get(node.op_type)
    if flavour.portable and node.op_type in _RTX_RESTRICTIONS:
        restriction = _RTX_RESTRICTIONS[node.op_type]
    return restriction(node, constants) if restriction is not None else None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _zero_point(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    if len(node.input) < 3 or not node.input[2]:
        return None if node.op_type == "DequantizeLinear" else "no zero point of int8, hence uint8 values"
    zero = constants.get(node.input[2])
    if zero is None:
        return "the zero point must be a constant"
    if zero.data_type != TensorProto.INT8:
        return f"the zero point is {TensorProto.DataType.Name(zero.data_type).lower()}, expected int8"
    return "the zero point must be 0" if numpy_helper.to_array(zero).any() else None


def _top_k(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return "`sorted` must be 1" if _attribute(node, "sorted", 1) != 1 else _k(node, constants)


def _k(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    k = constants.get(node.input[1])
    if k is None:
        return "K must be a number by now: fix the sizes of the input"
    value = int(numpy_helper.to_array(k).reshape(-1)[0])
    return f"K is {value}, at most {MAX_TOP_K}" if value > MAX_TOP_K else None


def _pool(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    if len(_attribute(node, "kernel_shape", [])) not in (2, 3):
        return "2D or 3D pooling only"
    return _rtx_pool(node, constants)


def _rtx_pool(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    if any(step != 1 for step in _attribute(node, "dilations", [])):
        return "`dilations` must be empty or all ones"
    return "output `Indices` is unsupported" if len(node.output) > 1 else None


def _axes(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    if len(node.input) > 1 and node.input[1] and node.input[1] not in constants:
        return "`axes` must be a constant"
    return None


def _lp_pool(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    if _attribute(node, "p", 2) not in (1, 2):
        return "`p` must be 1 or 2"
    return "`dilations` must be empty or all ones" if any(i != 1 for i in _attribute(node, "dilations", [])) else None


def _batch_normalization(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return "`training_mode` must be 0" if _attribute(node, "training_mode", 0) else None


def _layer_normalization(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return "only the first output is given" if len([name for name in node.output if name]) > 1 else None


def _cast(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    to = _attribute(node, "to", TensorProto.FLOAT)
    return None if to in _CAST or to == TensorProto.DOUBLE else f"to {TensorProto.DataType.Name(to).lower()}"


def _resize(node: NodeProto, constants: Mapping[str, TensorProto], modes: Set[str] = _RESIZE_MODES) -> str | None:
    allowed: Mapping[str, Set[Any]] = {
        "coordinate_transformation_mode": {
            "half_pixel",
            "pytorch_half_pixel",
            "tf_half_pixel_for_nn",
            "asymmetric",
            "align_corners",
        },
        "mode": modes,
        "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
        "keep_aspect_ratio_policy": {"stretch"},
        "antialias": {0},
    }
    for name, values in allowed.items():
        got = _attribute(node, name, None)
        if got is not None and got not in values:
            return f"{name} {got!r} is unsupported"
    return None


def _scatter(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return "`reduction` other than none" if _attribute(node, "reduction", "none") != "none" else None


def _constant_second(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return None if node.input[1] in constants else f"input {node.input[1]!r} must be a build-time constant"


def _inference_only(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    training = constants.get(node.input[2]) if len(node.input) > 2 else None
    if training is None and len(node.input) > 2 and node.input[2]:
        return "training mode must be a constant"
    on = training is not None and bool(np.any(numpy_helper.to_array(training)))
    return "training mode must be off" if on else None


def _rtx_zero_point(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return _zero_point(node, constants) if len(node.input) > 2 and node.input[2] else None


def _rtx_resize(node: NodeProto, constants: Mapping[str, TensorProto]) -> str | None:
    return _resize(node, constants, _RESIZE_MODES | {"cubic"})


_Restriction = Callable[[NodeProto, Mapping[str, TensorProto]], "str | None"]
_RESTRICTIONS: Mapping[str, _Restriction] = {
    "QuantizeLinear": _zero_point,
    "DequantizeLinear": _zero_point,
    "TopK": _top_k,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "LayerNormalization": _layer_normalization,
    "LpPool": _lp_pool,
    "Resize": _resize,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "CumSum": _constant_second,
    "OneHot": _constant_second,
    "Dropout": _inference_only,
    "Squeeze": _axes,
    "Unsqueeze": _axes,
    **{name: _axes for name in _TYPES if name.startswith("Reduce")},
}
_RTX_RESTRICTIONS: Mapping[str, _Restriction] = {
    "TopK": _k,
    "MaxPool": _rtx_pool,
    "AveragePool": _rtx_pool,
    "QuantizeLinear": _rtx_zero_point,
    "Resize": _rtx_resize,
}
"""In the place of those above: TensorRT for RTX 1.7 takes what TensorRT's table excludes."""
