"""Every graph that leukostream makes against the operator table of TensorRT's parser, and the table's restrictions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.backends.tensorrt.compiler import sized
from engines.backends.tensorrt.flavour import TENSORRT_RTX
from engines.backends.tensorrt.operators import MAX_TOP_K, check_operators, problems_of
from engines.backends.tensorrt.sizes import with_sizes
from engines.base import ModelFormatError
from engines.graphs.graph import adapt_ultralytics, add_uint8_input, add_yolov5_head
from engines.graphs.onnx_editing import dims_of, only_input
from engines.graphs.precision import to_fp16
from engines.graphs.quantization import calibrate, to_int8
from engines.zoo.registry import find, models, place
from tests.engines.networks import ANCHORS, classifier_file, model_of, ultralytics_file
from tests.engines.small_detector import detector, pictures, raw_body

value = helper.make_tensor_value_info


def test_all_precisions_of_a_detector_are_accepted() -> None:
    model = detector()
    check_operators(model)
    check_operators(to_fp16(model)[0])
    check_operators(to_int8(model, calibrate(model, [pictures(8)]))[0])


def test_adapted_files_are_accepted() -> None:
    check_operators(with_sizes(adapt_ultralytics(ultralytics_file()), 1, 64, 96))
    check_operators(classifier_file())


SHIPPED = [card.name for card in models() if place(card) in ("shipped", "in the clone")]
FRAME_SIZES = [(640, 480), (1920, 1080), (1024, 1024), (480, 640)]


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.lengthy
def test_every_operator_of_a_shipped_model_is_in_the_table_in_every_precision(name: str, batch: int | None) -> None:
    """The very graphs that a build parses, the batch open, and of one frame as the CPU runs them."""
    card = next(card for card in models() if card.name == name)
    model = find(name, card.task).proto
    for frame_size in FRAME_SIZES if card.task == "detector" and batch is None else FRAME_SIZES[:1]:
        graph = sized(card, model, frame_size)
        if batch is not None:
            graph = with_sizes(graph, batch, None, None)
        assert problems_of(graph) == []
        check_operators(graph)
        check_operators(to_fp16(graph)[0])
        assert all(k <= MAX_TOP_K for k in top_ks(graph))
        assert card.task != "detector" or top_ks(graph)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.lengthy
def test_every_operator_of_a_shipped_model_in_int8_is_in_the_table(name: str) -> None:
    card = next(card for card in models() if card.name == name)
    graph = sized(card, find(name, card.task).proto, (320, 256))
    height, width = (size or 0 for size in dims_of(only_input(graph))[1:3])
    int8, report = to_int8(graph, calibrate(graph, [pictures(2, height=height, width=width)]))
    assert len(report.quantized) >= 8  # all but what becomes confidences; the smallest network has nine convolutions
    check_operators(int8)


def top_ks(model: ModelProto) -> list[int]:
    """The K of every TopK of a graph."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [int(constants[node.input[1]].item()) for node in model.graph.node if node.op_type == "TopK"]


def one(kind: str, inputs: list[str], *, number: int = 1, constants: object = (), **attributes: object) -> ModelProto:
    node = helper.make_node(kind, inputs, ["y"], name="n", **attributes)
    return model_of([node], [value("x", number, [1, 4, 8, 8])], [value("y", number, None)], constants)  # type: ignore[arg-type]


def array(name: str, values: object, dtype: str = "int64") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def top_k(constants: object = (), **attributes: object) -> ModelProto:
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], name="n", **attributes)
    ends = [value("x", 1, [1, 5000])], [value("y", 1, None), value("i", 7, None)]
    return model_of([node], *ends, constants)  # type: ignore[arg-type]


def two_outputs(kind: str) -> ModelProto:
    node = helper.make_node(kind, ["x", "s"], ["y", "mean"], name="n")
    return model_of([node], [value("x", 1, [1, 4])], [value("y", 1, None), value("mean", 1, None)])


def of_another_set() -> ModelProto:
    model = one("Softmax", ["x"], domain="com.example")
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def test_an_open_height_is_refused() -> None:
    model = add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS)
    with pytest.raises(ModelFormatError, match=r"got uint8 \(\?,\?,96,3\), expected height and width as numbers"):
        with_sizes(model, None, None, 96)


def test_an_open_batch_leaves_no_other_size_open() -> None:
    model = detector()
    assert dims_of(only_input(model)) == [None, 64, 96, 3]
    assert [node.op_type for node in model.graph.node if node.op_type in ("Shape", "Min")] == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one("Det", ["x"]), r"node 'n' \(Det\): no such operator in TensorRT's table"),
        (of_another_set(), "operator set 'com.example' is not ONNX's own"),
        (one("Transpose", ["x"], number=2), "input 'x' is uint8"),
        (one("Sigmoid", ["x"], number=7), "input 'x' is int64"),
        (top_k(constants=[array("k", [4])], sorted=0), "`sorted` must be 1"),
        (top_k(constants=[array("k", [3841])]), "K is 3841, at most 3840"),
        (top_k(), "K must be a number by now: fix the sizes"),
        (one("MaxPool", ["x"], kernel_shape=[2, 2], dilations=[2, 2]), "`dilations` must be empty or all ones"),
        (one("MaxPool", ["x"], kernel_shape=[2]), "2D or 3D pooling only"),
        (one("Resize", ["x", "", "s"], mode="cubic"), "mode 'cubic' is unsupported"),
        (one("ReduceSum", ["x", "axes"]), "`axes` must be a constant"),
        (one("Squeeze", ["x", "axes"]), "`axes` must be a constant"),
        (one("ScatterND", ["x", "i", "u"], reduction="add"), "`reduction` other than none"),
        (one("QuantizeLinear", ["x", "s"]), "no zero point of int8"),
        (one("QuantizeLinear", ["x", "s", "z"], constants=[array("z", 3, "int8")]), "the zero point must be 0"),
        (
            one("QuantizeLinear", ["x", "s", "z"], constants=[array("z", 0, "uint8")]),
            "tensor .z. is uint8",
        ),
        (one("QuantizeLinear", ["x", "s", "z"]), "the zero point must be a constant"),
        (one("CumSum", ["x", "axis"]), "input 'axis' must be a build-time constant"),
        (one("Relu", ["x"], number=6), "input 'x' is int32"),
        (one("Range", ["x", "x", "x"], number=10), "input 'x' is float16"),
        (one("ScatterElements", ["x", "i", "u"], reduction="max"), "`reduction` other than none"),
        (one("BatchNormalization", ["x", "s", "b", "m", "v"], training_mode=1), "`training_mode` must be 0"),
        (one("LpPool", ["x"], kernel_shape=[2, 2], p=3), "`p` must be 1 or 2"),
        (one("LpPool", ["x"], kernel_shape=[2, 2], dilations=[2, 2]), "`dilations` must be empty or all ones"),
        (one("Pow", ["x", "x"], number=13), "tensor 'x' is uint64"),
        (one("Mod", ["x", "x"]), "on floats only with `fmod` 1"),
        (one("Cast", ["x"], to=TensorProto.FLOAT8E4M3FN), "to float8e4m3fn"),
        (one("Cast", ["x"], to=TensorProto.INT4), "to int4"),
        (one("Dropout", ["x", "r", "training"]), "training mode must be a constant"),
        (two_outputs("LayerNormalization"), "only the first output is given"),
    ],
)
def test_refusals_name_the_node_and_the_reason(model: ModelProto, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        check_operators(model)


@pytest.mark.parametrize(
    "model",
    [
        one("Resize", ["x", "", "s"], mode="cubic"),
        one("MaxPool", ["x"], kernel_shape=[2]),
        top_k(constants=[array("k", [4])], sorted=0),
        one("QuantizeLinear", ["x", "s"]),
    ],
    ids=["cubic", "1-D pooling", "unsorted TopK", "no zero point"],
)
def test_what_only_the_parser_for_rtx_takes(model: ModelProto) -> None:
    """test_rtx_operators tries each on the real one."""
    check_operators(model, TENSORRT_RTX)
    with pytest.raises(ModelFormatError, match=r"^TensorRT can't take this graph"):
        check_operators(model)


@pytest.mark.parametrize("kind", ["RoiAlign", "NonMaxSuppression"])
def test_what_only_rtx_refuses(kind: str) -> None:
    model = one(kind, ["x", "a", "b"])
    check_operators(model)
    with pytest.raises(ModelFormatError, match=rf"TensorRT for RTX can't take this graph: node 'n' \({kind}\)"):
        check_operators(model, TENSORRT_RTX)


def test_uint8_inside_the_graph_is_refused() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["a"], to=TensorProto.UINT8), helper.make_node("Cast", ["a"], ["y"], to=1)]
    model = model_of(nodes, [value("x", 1, [2])], [value("y", 1, [2])])
    assert problems_of(model) == [
        "node 'a' (Cast): tensor 'a' is uint8, which is only supported as network input or output",
        "node 'y' (Cast): tensor 'a' is uint8, which is only supported as network input or output",
    ]


def test_an_opset_beyond_the_table_is_refused() -> None:
    model = one("Relu", ["x"])
    model.opset_import[0].version = 25
    with pytest.raises(ModelFormatError, match="opset 25, expected 9 to 24"):
        check_operators(model)


def test_many_problems_are_counted() -> None:
    nodes = [helper.make_node("Det", ["x"], [f"y{i}"], name=f"n{i}") for i in range(8)]
    model = model_of(nodes, [value("x", 1, [1, 2, 2])], [value(f"y{i}", 1, [1]) for i in range(8)])
    with pytest.raises(ModelFormatError, match=r"n4' \(Det\): no such operator in TensorRT's table and 3 more; change"):
        check_operators(model)
