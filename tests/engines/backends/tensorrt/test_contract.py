"""What engines/backends/tensorrt calls, against NVIDIA's real Python bindings.

The chain: the code runs on the double, so what it uses is there, misspelt or not; here everything of the double is
looked up in the real binding, with its signature; and every `trt.X.Y` in the source is looked up directly.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engines.backends.tensorrt
from engines.backends.tensorrt.operators import MAX_TOP_K
from engines.graphs.graph import TOP_K

from ..tensorrt_double import ANSWERS, REFUSALS, World, trt_build, trt_rtx
from ..tensorrt_double.trt import ILogger, IProgressMonitor
from . import bindings

SOURCES = sorted(Path(engines.backends.tensorrt.__file__).parent.glob("*.py"))

pytestmark = pytest.mark.skipif(bindings.why_not() is not None, reason=bindings.why_not() or "")


RTX = bindings.rtx_folder()
FOLDERS = [*bindings.folders(), *([RTX] if RTX else [])]


@pytest.fixture(scope="module", params=FOLDERS or [None], ids=lambda path: path.name if path else "none")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return bindings.read(request.param, tmp_path_factory.mktemp("stubs"))


def is_rtx(real: dict[str, Any]) -> bool:
    return "ComputeCapability" in real["classes"]


def closure(function: Any, name: str) -> Any:
    """A class that the double defines inside a function."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return cells[name].cell_contents


def doubles(rtx: bool) -> dict[str, tuple[type, dict[str, bool]]]:
    """Real class -> (the double's, its attributes that are properties: whether we set them)."""
    trt = World(rtx=rtx).trt
    own: dict[str, tuple[type, dict[str, bool]]] = {}
    if rtx:
        own = {
            "IRuntimeConfig": (trt_rtx.RuntimeConfig, {"cuda_graph_strategy": True}),
            "IRuntimeCache": (trt_rtx.RuntimeCache, {}),
        }
    targets = {"num_compute_capabilities": True} if rtx else {}
    engine = closure(trt.Runtime.deserialize_cuda_engine, "Engine")
    context = closure(engine.create_execution_context, "Context")
    inspector = closure(engine.create_engine_inspector, "Inspector")
    return {
        **own,
        "Builder": (trt.Builder, {}),
        "OnnxParser": (trt.OnnxParser, {}),
        "Runtime": (trt.Runtime, {"engine_host_code_allowed": True}),
        "ICudaEngine": (engine, {"num_io_tensors": False, "device_memory_size_v2": False}),
        "IExecutionContext": (context, {}),
        "EngineInspector": (inspector, {}),
        "INetworkDefinition": (trt_build.Network, {}),
        "ITensor": (trt_build.Tensor, {"name": False, "shape": False}),
        "IOptimizationProfile": (trt_build.Profile, {}),
        "ITimingCache": (trt_build.TimingCache, {}),
        "ParserError": (trt_build.ParserError, {}),
        "IBuilderConfig": (
            trt.Config,
            {
                **targets,
                "builder_optimization_level": True,
                "hardware_compatibility_level": True,
                "plugins_to_serialize": True,
                "profiling_verbosity": True,
                "progress_monitor": True,
            },
        ),
    }


DOUBLES_OWN = {"make_kernels"}
"""Methods of the double's that stand for nothing real."""


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    inherited = vars(cls.__base__) if cls.__base__ is trt_build.Config else {}
    for name, value in {**inherited, **vars(cls)}.items():
        if name in DOUBLES_OWN:
            continue
        if not name.startswith("_") and inspect.isfunction(value):
            yield name, value


def fits(mine: inspect.Signature, real: list[tuple[str, bool]]) -> bool:
    """Whether a call that the double takes is one that the real overload takes, by the same names."""
    names = [name for name in mine.parameters if name != "self"]
    required = [name for name, has_default in real if not has_default]
    return names == [name for name, _ in real][: len(names)] and len(required) <= len(names)


def test_every_method_of_the_double_is_one_of_the_real_class(real: dict[str, Any]) -> None:
    problems = []
    for name, (double, _) in doubles(is_rtx(real)).items():
        for method, function in public_methods(double):
            entry = real["classes"].get(name, {}).get(method)
            if entry is None or entry["kind"] != "method":
                problems.append(f"{name}.{method}: no such method in {real['version']}")
                continue
            overloads = bindings.signatures(entry["doc"], method)
            if not any(fits(inspect.signature(function), overload) for overload in overloads):
                problems.append(f"{name}.{method}{inspect.signature(function)}: real ones are {overloads}")
    assert problems == []


def test_every_property_is_there_and_settable_where_we_set_it(real: dict[str, Any]) -> None:
    problems = []
    for name, (double, attributes) in doubles(is_rtx(real)).items():
        declared = {key for key, value in vars(double).items() if isinstance(value, property) and key[0] != "_"}
        for attribute, set_by_us in {**dict.fromkeys(declared, False), **attributes}.items():
            entry = real["classes"].get(name, {}).get(attribute, {"kind": "nothing"})
            if entry["kind"] != "property" or (set_by_us and not entry["settable"]):
                problems.append(f"{name}.{attribute}: got {entry}, expected a property")
    assert problems == []


def test_every_member_of_the_doubles_enums_is_real(real: dict[str, Any]) -> None:
    enums = {
        name: value
        for cls in type(World(rtx=is_rtx(real)).trt).__mro__
        for name, value in vars(cls).items()
        if inspect.isclass(value) and issubclass(value, enum.Enum)
    }
    assert len(enums) == (11 if is_rtx(real) else 9)
    problems = [
        f"{name}.{member.name}"
        for name, cls in enums.items()
        for member in cls
        if real["classes"].get(name, {}).get(member.name) is None
    ]
    assert problems == []
    assert set(ILogger.Severity.__members__) <= set(real["classes"]["ILogger.Severity"])


def test_what_we_subclass_has_these_methods(real: dict[str, Any]) -> None:
    """`log` and the monitor's three callbacks are called by TensorRT, with the real parameters."""
    log = bindings.signatures(real["classes"]["ILogger"]["log"]["doc"], "log")
    assert log == [[("severity", False), ("msg", False)]]
    expected = {
        "phase_start": ["phase_name", "parent_phase", "num_steps"],
        "step_complete": ["phase_name", "step"],
        "phase_finish": ["phase_name"],
    }
    for name, parameters in expected.items():
        doc = real["classes"]["IProgressMonitor"][name]["doc"]
        assert [[parameter for parameter, _ in overload] for overload in bindings.signatures(doc, name)] == [parameters]
    overridden = {
        node.name
        for node in ast.walk(_tree("builder.py"))
        if isinstance(node, ast.FunctionDef) and node.name in expected
    }
    assert overridden == set(expected)
    assert "__init__" in real["classes"]["IProgressMonitor"]
    assert IProgressMonitor.__init__ is not object.__init__


def test_every_name_of_the_module_in_our_source_is_real(real: dict[str, Any]) -> None:
    chains = {chain for path in SOURCES for chain in module_chains(ast.parse(path.read_text("utf-8")))}
    assert ("MemoryPoolType", "WORKSPACE") in chains
    problems = []
    only_rtx = {"ComputeCapability", "CudaGraphStrategy"}
    assert {first for first, *_ in chains} >= only_rtx
    for first, *rest in chains:
        if first == "__version__" or (first in only_rtx and not is_rtx(real)):
            continue
        members = real["classes"].get(first)
        if members is None:
            problems.append(first)
        elif rest and rest[0] not in members and f"{first}.{rest[0]}" not in real["classes"]:
            problems.append(f"{first}.{rest[0]}")
    assert problems == []


def test_a_misspelt_name_is_found(real: dict[str, Any]) -> None:
    tree = ast.parse("trt.MemoryPoolType.WORKSPAC")
    assert module_chains(tree) == {("MemoryPoolType", "WORKSPAC"), ("MemoryPoolType",)}
    assert "WORKSPAC" not in real["classes"]["MemoryPoolType"]
    wrong = inspect.Signature([inspect.Parameter("shape", inspect.Parameter.POSITIONAL_OR_KEYWORD)])
    doc = real["classes"]["IExecutionContext"]["set_input_shape"]["doc"]
    overloads = bindings.signatures(doc, "set_input_shape")
    assert len(overloads) == 3
    assert not any(fits(wrong, overload) for overload in overloads)


def words(text: str) -> str:
    """Without markup and line breaks."""
    return " ".join(re.sub(r":\w+:`([^`]*)`|`", r"\1", text).split())


def test_the_doubles_sentences_are_the_real_ones(real: dict[str, Any]) -> None:
    """Those that the binding itself carries; its docstrings are NVIDIA's reference of the Python API."""
    cited = [*REFUSALS.values(), *((sentence, source) for _, sentence, source in ANSWERS.values())]
    prefix = "TensorRT Python API, "
    checked, problems = 0, []
    for sentence, source in cited:
        if not source.startswith(prefix):
            continue
        name, member = source.removeprefix(prefix).split(".")
        members = real["classes"][name]
        said = words(members["__doc__"]["doc"]) + " " + words(members[member]["doc"])
        checked += 1
        problems += [f"{source}: {part!r}" for part in sentence.split(" [...] ") if words(part) not in said]
    assert problems == []
    assert checked == 10


def test_the_limit_of_top_k_is_the_one_that_the_binding_names(real: dict[str, Any]) -> None:
    doc = real["classes"]["INetworkDefinition"]["add_topk"]["doc"]
    said = re.search(r"only values of K up to (\d+) are supported", doc)
    assert said is not None
    assert int(said[1]) == MAX_TOP_K
    assert TOP_K <= MAX_TOP_K


def test_no_removed_api_is_used(real: dict[str, Any]) -> None:
    """FP16, INT8 and the calibrators went with TensorRT 11; the bindings that still have them must not tempt us."""
    text = "".join(path.read_text("utf-8") for path in SOURCES)
    for removed in ("BuilderFlag.FP16", "BuilderFlag.INT8", "int8_calibrator", "platform_has_fast", "execute_async_v2"):
        assert removed not in text
    if is_rtx(real) or real["version"].startswith("11"):
        assert "FP16" not in real["classes"]["BuilderFlag"]


def _tree(name: str) -> ast.Module:
    return ast.parse(next(path for path in SOURCES if path.name == name).read_text("utf-8"))


def module_chains(tree: ast.AST) -> set[tuple[str, ...]]:
    """("MemoryPoolType", "WORKSPACE") for every `trt.MemoryPoolType.WORKSPACE`, also by `kinds = trt.DataType`."""
    aliases: dict[str, tuple[str, ...]] = {"trt": ()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            chain = _chain(node.value, {"trt": ()})
            if chain:
                aliases[node.targets[0].id] = chain
    chains = (_chain(node, aliases) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {chain[:2] for chain in chains if chain}


def _chain(node: ast.AST, aliases: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr == "trt":
            return tuple(reversed(names))
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in aliases:
        return (*aliases[node.id], *reversed(names))
    return None
