"""Every shipped graph through NVIDIA's own parser and builder, which need no GPU: those of TensorRT for RTX."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from engines.backends.tensorrt import builder
from engines.backends.tensorrt.builder import BuildOptions, build, check_options
from engines.backends.tensorrt.compiler import compile_model
from engines.backends.tensorrt.device import Environment
from engines.backends.tensorrt.errors import BuildError, DamagedPlanError, PlanError
from engines.backends.tensorrt.flavour import PORTABLE, TENSORRT, TENSORRT_RTX, targets_of
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.log import LogLines, make_logger
from engines.backends.tensorrt.manifest import PlanStore
from engines.backends.tensorrt.plan import deserialize
from engines.base import ModelFormatError, UsageError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.graphs.precision import to_fp16
from engines.graphs.quantization import calibrate, to_int8
from tests.engines.networks import ANCHORS, model_of
from tests.engines.small_detector import detector, raw_body
from tools.bench import rtx as rtx_table
from tools.bench.rtx import FRAME_SIZES, PROFILES, REFUSALS, Refusal, Row, build_row, expected_refusal, graphs, shipped

from . import bindings
from .test_compiler import CARD

pytestmark = pytest.mark.skipif(bindings.why_no_rtx() is not None, reason=bindings.why_no_rtx() or "")

CI_TARGETS = ("8.6", "12.0")
"""GeForce RTX 30 and 50; `make rtx-table` builds for all."""
value = helper.make_tensor_value_info


@pytest.fixture
def rtx() -> Libraries:
    return Libraries(bindings.rtx_module(), None, TENSORRT_RTX)


# What ships -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", [card.name for card in shipped()])
def test_every_shipped_graph_is_built(name: str, precision: str, rtx: Libraries, builds: list[str]) -> None:
    """Or refused as it is known to be. A graph that NVIDIA's builder does not take can't be shipped unnoticed."""
    card = next(card for card in shipped() if card.name == name)
    graph = next(graphs(card, FRAME_SIZES[0], [precision]))
    rows = [build_row(graph, PROFILES[card.task][0], capability, rtx) for capability in CI_TARGETS]
    builds += map(str, rows)
    assert [line for line in map(rtx_table.surprise, rows) if line is not None] == []
    smallest = sum(len(tensor.raw_data) for tensor in graph.model.graph.initializer) // 4
    assert all(row.plan_bytes is None or row.plan_bytes > smallest for row in rows)


@pytest.mark.parametrize("refusal", [one for one in REFUSALS if one.capability is not None], ids=str)
def test_what_a_card_does_not_take_is_known_by_name(refusal: Refusal, rtx: Libraries, builds: list[str]) -> None:
    card = next(card for card in shipped() if card.name == refusal.graph)
    assert refusal.precision is not None
    assert refusal.capability is not None
    graph = next(graphs(card, FRAME_SIZES[0], [refusal.precision]))
    row = build_row(graph, PROFILES[card.task][0], refusal.capability, rtx)
    builds.append(str(row))
    assert expected_refusal(row) == refusal
    assert rtx_table.surprise(row) is None


def one_node(kind: str, inputs: dict[str, tuple[int, list[int]]], output: int, **attributes: Any) -> ModelProto:
    """A graph of one operator, each of its inputs from the image through a Cast that shape inference can follow."""
    node = helper.make_node(kind, list(inputs), ["y"], name=f"the {kind}", **attributes)
    ends = [value(name, number, shape) for name, (number, shape) in inputs.items()]
    return model_of([node], ends, [value("y", output, None)])


def parse_and_build(model: ModelProto, rtx: Libraries) -> None:
    """Without our own look at operators, and with no profile: all sizes are numbers."""
    options = BuildOptions((1, 1, 1), compute_capabilities=("8.6",))
    builder._build(model, options, rtx, b"", None, builder.Event())


def test_roi_align_is_a_plugin_and_there_are_none(rtx: Libraries) -> None:
    inputs = {"x": (1, [1, 8, 32, 32]), "rois": (1, [10, 4]), "indices": (7, [10])}
    model = one_node("RoiAlign", inputs, 1, output_height=7, output_width=7)
    with pytest.raises(ModelFormatError, match=r"node 'the RoiAlign' \(RoiAlign\): .*plugin was not found"):
        parse_and_build(model, rtx)


def test_non_max_suppression_has_no_runners(rtx: Libraries) -> None:
    inputs = {"boxes": (1, [1, 100, 4]), "scores": (1, [1, 3, 100])}
    model = one_node("NonMaxSuppression", inputs, 7)
    with pytest.raises(BuildError, match=r"has no runners that implement it"):
        parse_and_build(model, rtx)


# What is broken -------------------------------------------------------------------------------------------------


def test_a_graph_broken_on_purpose_is_refused_with_its_nodes_name(rtx: Libraries) -> None:
    """Of the default detector: a Concat along another axis, which our table of operators can't see."""
    card = next(card for card in shipped() if card.name == "yolov5n-blood")
    model = next(graphs(card, FRAME_SIZES[0], ["fp32"])).model
    node = [node for node in model.graph.node if node.op_type == "Concat"][1]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", 3))
    del model.graph.value_info[:]
    with pytest.raises(ModelFormatError, match=r"can't take this graph: node '([^']+)' \((\w+)\)") as caught:
        build(model, BuildOptions((1, 2, 4)), rtx)
    named = re.search(r"node '([^']+)'", str(caught.value))
    assert named is not None
    assert named[1] in {one.name for one in model.graph.node}


def test_an_operator_that_no_table_has_is_refused_with_its_nodes_name(rtx: Libraries) -> None:
    model = detector()
    model.graph.node[4].op_type = "Det"
    model.graph.node[4].name = "body/broken"
    with pytest.raises(ModelFormatError, match=r"node 'body/broken' \(Det\): no such operator in TensorRT's table"):
        build(model, BuildOptions((1, 2, 4)), rtx)


# The faults, on the real library ----------------------------------------------------------------------------------


def test_only_bad_bytes_count_as_damage(rtx: Libraries) -> None:
    """Without a driver a good plan can't be loaded either, and must not be thrown away for that."""
    plan = build(detector(), BuildOptions((1, 2, 4), compute_capabilities=("8.6",)), rtx).plan
    log = LogLines()
    logger = make_logger(rtx.trt, log)
    damaged = {"garbage": b"garbage" * 1000, "empty": b"", "zeros": bytes(9999), "half": plan[: len(plan) // 2]}
    damaged["end"] = plan[:-64] + bytes(64)
    for what, data in damaged.items():
        with pytest.raises(DamagedPlanError, match="build it again"):
            deserialize(data, rtx, None, logger, log, host_code_allowed=False)  # type: ignore[arg-type]
        assert what
    with pytest.raises(PlanError, match="cudaError 35") as caught:
        deserialize(plan, rtx, None, logger, log, host_code_allowed=False)  # type: ignore[arg-type]
    assert not isinstance(caught.value, DamagedPlanError)


def test_tf32_is_on_by_default_and_off_in_what_we_build(rtx: Libraries, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, flags = rtx.trt, []
    real = trt.Builder.build_serialized_network

    def look(self: Any, network: Any, config: Any) -> Any:
        flags.append(config.get_flag(trt.BuilderFlag.TF32))
        return real(self, network, config)

    monkeypatch.setattr(trt.Builder, "build_serialized_network", look)
    logger = make_logger(trt, LogLines())
    assert trt.Builder(logger).create_builder_config().get_flag(trt.BuilderFlag.TF32)
    assert len(build(detector(), BuildOptions((1, 2, 4), compute_capabilities=("8.6",)), rtx).plan) > 1000
    assert flags == [False]


def test_every_engine_hears_of_its_failures(rtx: Libraries) -> None:
    """The library keeps the first logger it is given while anything made with it lives."""
    first, second = LogLines(), LogLines()
    keeps_it = rtx.trt.Builder(make_logger(rtx.trt, first))
    runtime = rtx.trt.Runtime(make_logger(rtx.trt, second))
    assert runtime.deserialize_cuda_engine(b"garbage" * 100) is None
    assert "magicTag" in second.errors()
    assert "differs from one already registered" not in str(first.warnings() + second.warnings())
    del keeps_it


def test_version_compatible_needs_the_lean_library_at_build_time(rtx: Libraries) -> None:
    """Of TensorRT, whose check it is; this library says the same, after minutes."""
    as_tensorrt = Libraries(rtx.trt, None, TENSORRT)
    with pytest.raises(BuildError, match=r"got no lean runtime \(libnvinfer_lean.so.1: .*expected it, since the plan"):
        check_options(BuildOptions(version_compatible=True), as_tensorrt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions(version_compatible=True), "got one of them with TensorRT for RTX, expected neither"),
        (BuildOptions(hardware_compatible=True), "got one of them with TensorRT for RTX, expected neither"),
        (BuildOptions(compute_capabilities=("9.0",)), r"got '9.0', expected of 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
    ],
)
def test_options_that_rtx_does_not_have(rtx: Libraries, options: BuildOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(options, rtx)


# A plan of one's own --------------------------------------------------------------------------------------------


def test_a_portable_plan_is_compiled_without_a_gpu(rtx: Libraries, tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    proto = add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50)

    def compile_small() -> Any:
        options = BuildOptions((1, 2, 4))
        return compile_model(CARD, proto, "fp32", [], libraries=rtx, store=store, options=options, frame_size=(96, 64))

    result = compile_small()
    assert (result.reused, result.layers) == (False, None)
    assert result.plan_path.name == "small-fp32-96x64-b1-2-4-rtx.plan"
    assert result.manifest.spec.compute_capabilities == PORTABLE
    assert result.manifest.spec.backend == "tensorrt-rtx"
    assert result.manifest.environment == Environment(str(rtx.trt.__version__), "any", "any", "", "")
    assert compile_small().reused


def test_the_targets_are_the_librarys(rtx: Libraries) -> None:
    assert targets_of(rtx.trt) == ("7.5", *PORTABLE)


def chain(widths: list[int]) -> ModelProto:
    """Convolutions of these numbers of channels, one after the other, with a last one that is never quantised."""
    rng = np.random.default_rng(0)
    nodes, constants, last, channels = [], [], "x", 16
    for index, width in enumerate([*widths, 4]):
        kernel = rng.normal(0, 0.1, (width, channels, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4, name=f"conv{index}"))
        nodes.append(helper.make_node("Relu", [f"c{index}"], ["y" if index == len(widths) else f"r{index}"]))
        last, channels = f"r{index}", width
    ends = value("x", 1, ["N", 16, 48, 48]), value("y", 1, ["N", 4, 48, 48])
    return model_of(nodes, [ends[0]], [ends[1]], constants)


def test_an_int8_plan_holds_code_for_every_shape_of_convolution(rtx: Libraries, builds: list[str]) -> None:
    """Why the int8 plan of a small network is larger than its fp16 one, though its weights are half the size."""
    frame = np.random.default_rng(1).normal(size=(1, 16, 48, 48)).astype(np.float32)
    beside_weights: dict[str, list[int]] = {"fp16": [], "int8": []}
    for widths in ([16] * 8, [16, 24, 32, 40, 48, 56, 64, 72]):
        model = chain(widths)
        graphs_ = {"fp16": to_fp16(model)[0], "int8": to_int8(model, calibrate(model, [frame]))[0]}
        for precision, graph in graphs_.items():
            weights = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
            plan = build(graph, BuildOptions((1, 1, 1), compute_capabilities=("8.6",)), rtx).plan
            beside_weights[precision].append(len(plan) - weights)
    grown = {precision: different - same for precision, (same, different) in beside_weights.items()}
    builds.append(f"rtx build: eight convolutions of eight shapes instead of one: plans larger by {grown} bytes")
    assert grown["int8"] > 8 * 10_000
    assert grown["int8"] > 10 * abs(grown["fp16"])


# The table ------------------------------------------------------------------------------------------------------


def test_the_table_is_made_by_a_command(rtx: Libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(card: Any, frame_size: tuple[int, int]) -> Any:
        yield rtx_table.Graph(card.name, "detector", "fp32", 96, 64, detector())

    monkeypatch.setattr(rtx_table, "graphs", small)
    monkeypatch.setattr(rtx_table, "load_rtx", lambda: rtx)
    monkeypatch.setattr(rtx_table, "targets_of", lambda trt: ("8.6", "12.0"))
    page, document = tmp_path / "page.md", tmp_path / "builds.json"
    page.write_text(f"before\n{rtx_table.BEGIN}\nold\n{rtx_table.END}\nafter\n")
    arguments = ["--models", "yolov5n-blood", "--sizes", "1", "--json", str(document), "--markdown", str(page)]
    assert rtx_table.main(arguments) == 0
    text = page.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    assert "old" not in text
    assert re.search(r"\| `yolov5n-blood` \| fp32 \| 96x64, 1,4,8 \| \d+\.\d \| \d+\.\d \| \d+\.\d \(", text)
    rows = json.loads(document.read_text())["builds"]
    assert [(row["capability"], row["batch"]) for row in rows] == [
        (capability, batch) for batch in ([1, 4, 8], [8, 8, 8]) for capability in ("8.6", "12.0")
    ]
    assert all(row["plan_bytes"] > 1000 for row in rows)
    again = tmp_path / "again.md"
    again.write_text(f"before\n{rtx_table.BEGIN}\n{rtx_table.END}\nafter\n")
    assert rtx_table.main(["--from", str(document), "--markdown", str(again)]) == 0
    assert again.read_text() == text


def test_a_surprise_is_a_failure_either_way() -> None:
    def row(size: int | None, reason: str = "", name: str = "ml-cnn", capability: str = "7.5") -> Row:
        return Row(name, "fp32", "128x128", (1, 16, 32), capability, size, 1.0, reason)

    known = "Cannot compile operation: FP32 GEMM is not supported"
    cases: list[tuple[Row, str | None]] = [
        (row(None, known), None),
        (row(1 << 20, name="yolov2-onnx"), None),
        (row(1 << 20), "take it out of REFUSALS"),
        (row(None, "another reason"), "expected it to be refused for"),
        (row(None, known, capability="8.6"), "refused: Cannot compile"),
    ]
    for built, expected in cases:
        said = rtx_table.surprise(built)
        assert said is None if expected is None else expected in str(said)
