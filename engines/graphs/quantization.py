"""int8 as explicit Q/DQ nodes: symmetric, weights per output channel, activations per tensor from real frames.

TensorRT 11 has no INT8 flag and no calibrator: what runs in int8 is what stands between QuantizeLinear and
DequantizeLinear in the graph. The scheme is NVIDIA's for post-training quantisation: the inputs of weighted
operators are quantised, biases and outputs are not, zero points are 0 (the parser takes no other).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from engines.base import Array, LeukostreamError, ModelFormatError, usable_cores
from engines.graphs.graph import NOVELTY
from engines.graphs.onnx_editing import checked, only_input
from engines.graphs.precision import WEIGHTED, Fp16Report, to_fp16

MIN_FRAMES = 8
_OPSET = 19
"""The first in which QuantizeLinear takes and DequantizeLinear gives float16."""
_NOISE_CORRELATION = 0.25
"""Below this correlation of neighbouring pixels a picture is noise: smears have above 0.8, random bytes 0."""


class CalibrationError(LeukostreamError):
    """The frames given can't calibrate: none, too few, or no pictures."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What real frames did to the tensors that are quantised."""

    largest: Mapping[str, float]
    """Largest absolute value of each input of a weighted operator."""
    frames: int

    def scale(self, name: str) -> float:
        """int8 value * scale = value. The largest value is never clipped: on the detector, thresholds of least mean
        squared error lost 2 % more boxes than this."""
        return (self.largest[name] or 127.0) / 127


@dataclass(frozen=True, slots=True)
class Int8Report:
    """What `to_int8` did."""

    quantized: tuple[str, ...]
    """Weighted operators whose inputs are int8."""
    left: tuple[str, ...]
    """Weighted operators left as they were, as "name: why"."""
    fp16: Fp16Report


def check_frames(frames: Sequence[npt.NDArray[np.uint8]]) -> None:
    """CalibrationError unless `frames` (each uint8 (H,W,3)) are enough, differ, and look like pictures."""
    if len(frames) < MIN_FRAMES:
        raise CalibrationError(
            f"calibration: got {len(frames)} pictures, expected at least {MIN_FRAMES} frames from the microscope; "
            "give --calibration a folder or video of real fields"
        )
    noise = [_neighbour_correlation(frame) for frame in frames]
    if float(np.median(noise)) < _NOISE_CORRELATION:
        raise CalibrationError(
            f"calibration: got pictures of noise (neighbouring pixels correlate by {np.median(noise):.2f}, pictures "
            "by 0.8 and more), expected real frames; scales made from noise would be wrong for cells"
        )
    if len({frame.tobytes() for frame in frames}) < MIN_FRAMES:
        raise CalibrationError(
            f"calibration: got the same picture several times, expected at least {MIN_FRAMES} different ones; "
            "give more fields of the slide"
        )


def _neighbour_correlation(frame: npt.NDArray[np.uint8]) -> float:
    grey = frame.astype(np.float32).mean(2)
    left, right = grey[:, :-1] - grey.mean(), grey[:, 1:] - grey.mean()
    power = float(np.sqrt((left**2).mean() * (right**2).mean()))
    return float((left * right).mean()) / power if power > 1e-6 else 0.0  # one colour all over is no picture


def calibrate(model: ModelProto, batches: Iterable[Array]) -> Calibration:
    """Run `model` (fp32) on batches of its input; the largest value of every input of a weighted operator."""
    names = sorted({node.input[0] for node in _quantizable(model)[0]})
    session, image = _probe(model, names), only_input(model).name
    largest = dict.fromkeys(names, 0.0)
    frames = 0
    for batch in batches:
        frames += len(batch)
        for name, value in zip(names, session.run(names, {image: batch}), strict=True):
            largest[name] = max(largest[name], float(np.abs(value).max(initial=0)))
    if not frames:
        raise CalibrationError("calibration: got no frames, expected real ones; give --calibration a folder or video")
    bad = [name for name in names if not np.isfinite(largest[name])]
    if bad:
        raise ModelFormatError(f"tensor {bad[0]!r}: got values that are not finite, expected numbers; train again")
    return Calibration(largest, frames)


def quantizable(model: ModelProto) -> list[str]:
    """Outputs of the weighted operators that `to_int8` would quantise, in order: their names for `leave`."""
    return [node.output[0] for node in _quantizable(model)[0]]


def rank_by_harm(model: ModelProto, calibration: Calibration, batches: Sequence[Array]) -> list[str]:
    """The operators of `quantizable`, worst first: how far quantising each alone moves what leads to the outputs.

    That is what the last weighted operators give, those of classes, subclasses and attributes alike, and the novelty
    before its sigmoid, which is almost flat at its threshold. Runs the model once for each of them and batch; two or
    three batches are enough.
    """
    last = [node.output[0] for node in model.graph.node if node.op_type in WEIGHTED]
    ends = [name for name in last if name not in set(quantizable(model))]
    ends += [node.input[0] for node in model.graph.node if NOVELTY in node.output and node.op_type == "Sigmoid"]
    image = only_input(model).name
    exact = [_probe(model, ends).run(ends, {image: batch}) for batch in batches]
    harm: dict[str, float] = {}
    for name in quantizable(model):
        session = _probe(_with_qdq(model, calibration, {name}), ends)
        harm[name] = 0.0
        for batch, wanted in zip(batches, exact, strict=True):
            for got, want in zip(session.run(ends, {image: batch}), wanted, strict=True):
                harm[name] += float(np.square(got - want).mean() / max(float(want.var()), 1e-12))
    return sorted(harm, key=lambda name: -harm[name])


def to_int8(
    model: ModelProto, calibration: Calibration, *, leave: Collection[str] = ()
) -> tuple[ModelProto, Int8Report]:
    """`model` (fp32) with int8 convolutions and matrix products, everything between them in fp16, the rest in fp32.

    The last weighted operators before an output are left in fp16: their results become confidences and box sizes
    through steep functions, which 255 levels are too coarse for. So are those of `leave` (names of their outputs).
    ModelFormatError where nothing is left to quantise.
    """
    chosen, left = _quantizable(model)
    left += tuple(f"{_name(node)}: harms the results most" for node in chosen if node.output[0] in leave)
    chosen = [node for node in chosen if node.output[0] not in leave]
    if not chosen:
        raise ModelFormatError(f"int8: got no operator that can be quantised ({'; '.join(left)}); use fp16")
    half, report = to_fp16(_with_qdq(model, calibration, {node.output[0] for node in chosen}))
    return half, Int8Report(tuple(_name(node) for node in chosen), left, report)


def _with_qdq(model: ModelProto, calibration: Calibration, outputs: set[str]) -> ModelProto:
    """`model` with Q/DQ before the weighted operators that give `outputs`, everything else in float32."""
    copy = ModelProto()
    copy.CopyFrom(onnx.version_converter.convert_version(model, _OPSET) if _opset(model) < _OPSET else model)
    del copy.graph.value_info[:]
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    emitted: list[NodeProto] = []
    new: dict[str, TensorProto] = {}
    for node in copy.graph.node:
        if node.output and node.output[0] in outputs:
            if node.input[0] not in calibration.largest:
                raise ModelFormatError(
                    f"tensor {node.input[0]!r}: got no range, expected a calibration of this very graph"
                )
            emitted += _quantize_input(node, calibration.scale(node.input[0]), new)
            emitted += _quantize_weight(node, constants[node.input[1]], new)
        emitted.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(emitted)
    read = {name for node in emitted for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in read]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*kept, *new.values()])
    return checked(copy)


def _probe(model: ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session that gives inner tensors."""
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(4, usable_cores())
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _name(node: NodeProto) -> str:
    return str(node.name or node.output[0])


def _opset(model: ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _quantizable(model: ModelProto) -> tuple[list[NodeProto], tuple[str, ...]]:
    """Weighted nodes to be quantised, and why the others are not."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    feeds_weighted: set[str] = set()
    chosen, left = [], []
    for node in reversed(model.graph.node):
        leads_on = any(name in feeds_weighted for name in node.output)
        if node.op_type not in WEIGHTED:
            if leads_on:
                feeds_weighted.update(node.input)
            continue
        feeds_weighted.update(node.input)
        name = _name(node)
        weight = constants.get(node.input[1])
        if not leads_on:
            left.append(f"{name}: its results become confidences")
        elif weight is None or weight.data_type != TensorProto.FLOAT:
            left.append(f"{name}: its weights are no float32 constants")
        elif node.op_type == "ConvTranspose" or (node.op_type == "MatMul" and len(weight.dims) != 2):
            left.append(f"{name}: {node.op_type} of this kind is not quantised")
        else:
            chosen.append(node)
    return chosen[::-1], tuple(left[::-1])


def _quantize_input(node: NodeProto, scale: float, new: dict[str, TensorProto]) -> list[NodeProto]:
    source = node.input[0]
    names = [f"{source}/{part}" for part in ("scale", "zero", "int8", "dequantized")]
    node.input[0] = names[3]
    if names[0] in new:  # another operator reads the same tensor
        return []
    new[names[0]] = numpy_helper.from_array(np.asarray(_as_fp16(scale), np.float32), names[0])
    new[names[1]] = numpy_helper.from_array(np.asarray(0, np.int8), names[1])
    return [
        helper.make_node("QuantizeLinear", [source, names[0], names[1]], [names[2]], name=names[2]),
        helper.make_node("DequantizeLinear", [names[2], names[0], names[1]], [names[3]], name=names[3]),
    ]


def _quantize_weight(node: NodeProto, weight: TensorProto, new: dict[str, TensorProto]) -> list[NodeProto]:
    """Weights stored as int8 with a scale for each output channel."""
    values = numpy_helper.to_array(weight)
    transposed = node.op_type == "Gemm" and any(entry.name == "transB" and entry.i for entry in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else 1
    others = tuple(i for i in range(values.ndim) if i != axis)
    peak = np.abs(values).max(others)
    scales = _as_fp16(np.where(peak > 0, peak, 127.0) / 127)
    spread = scales.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    stored = np.clip(np.rint(values / spread), -127, 127).astype(np.int8)
    out = node.output[0]
    names = [f"{out}/weight_{part}" for part in ("int8", "scale", "zero", "dequantized")]
    new[names[0]] = numpy_helper.from_array(stored, names[0])
    new[names[1]] = numpy_helper.from_array(scales.astype(np.float32), names[1])
    new[names[2]] = numpy_helper.from_array(np.zeros(len(scales), np.int8), names[2])
    node.input[1] = names[3]
    return [helper.make_node("DequantizeLinear", names[:3], [names[3]], name=names[3], axis=axis)]


def _as_fp16(scale: Array | float) -> npt.NDArray[np.float64]:
    """Scales that fp16 holds exactly, so that weights are rounded with the very scale that the engine multiplies by."""
    smallest = float(np.finfo(np.float16).smallest_subnormal)
    return np.maximum(np.asarray(scale, np.float64), 64 * smallest).astype(np.float16).astype(np.float64)
