"""Servers that speak the v2 protocol: a scripted library for the faults, Triton and MLServer for the truth."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.base import BackendUnavailableError, EngineId, UsageError
from engines.models.loading import load_classifier
from streamer.cli import main
from streamer.inference.kserve import BINARY, KserveInference, model_name
from tests.streamer.inference.served import ENGINE, engine, images, totals, wait_for
from tests.streamer.inference.test_processes import start_run
from tests.streamer.inference.test_shelf import id_of, write_classifier
from tests.streamer.inference.v2_servers import Kind, V2Server, why_no_v2_server
from tools.bench.journals_alike import first_difference

ADDRESS = "kserve://127.0.0.1:8000"
METADATA = {
    "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 2, 2, 3]}],
    "outputs": [{"name": "totals", "datatype": "FP32", "shape": [-1, 1]}],
}


class Library:
    """What is used of tritonclient.http; tests change its fields."""

    def __init__(self) -> None:
        self.extensions = [BINARY]
        self.ready = True
        self.metadata: dict[str, Any] = METADATA
        self.answer: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda feeds: {
            "totals": totals(feeds)["totals"][:, None]
        }
        self.asked: list[tuple[str, bool]] = []

    class InferInput:
        def __init__(self, name: str, shape: list[int], datatype: str) -> None:
            assert datatype == "UINT8"
            self.name, self.shape = name, shape

        def set_data_from_numpy(self, array: np.ndarray, binary_data: bool) -> None:
            assert list(array.shape) == self.shape
            self.array, self.binary = array, binary_data

    class InferRequestedOutput:
        def __init__(self, name: str, binary_data: bool) -> None:
            self.name = name

    def InferenceServerClient(self, host: str, **_: float) -> Any:
        assert host == "127.0.0.1:8000"

        def infer(name: str, inputs: list[Any], outputs: list[Any]) -> Any:
            self.asked.append((name, inputs[0].binary))
            given = self.answer({one.name: one.array for one in inputs})
            return SimpleNamespace(as_numpy=given.get)

        return SimpleNamespace(
            infer=infer,
            close=lambda: None,
            get_server_metadata=lambda: {"extensions": self.extensions},
            is_model_ready=lambda name: self.ready,
            get_model_metadata=lambda name: self.metadata,
        )


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setitem(sys.modules, "tritonclient", SimpleNamespace(http=made))
    monkeypatch.setitem(sys.modules, "tritonclient.http", made)
    monkeypatch.setattr("streamer.inference.kserve.PROBE_EVERY_S", 0.01)
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def inference(library: Library, said: list[str]) -> Iterator[KserveInference]:
    made = KserveInference(ADDRESS, say=said.append)
    yield made
    made.close()


def test_models_are_named_by_their_hash() -> None:
    assert model_name(EngineId("ab" * 32)) == "leukostream-abababababababab"
    assert model_name(EngineId("ab" * 32, 320, 416)) == "leukostream-abababababababab-320x416"
    assert model_name(EngineId("ab" * 32, maps=True)) == "leukostream-abababababababab-maps"


@pytest.mark.parametrize("extensions", [[BINARY], []])
def test_what_the_server_answers_is_what_this_machine_would(
    library: Library, said: list[str], extensions: list[str]
) -> None:
    library.extensions = extensions
    inference = KserveInference(ADDRESS, say=said.append)
    local = engine()
    assert inference.engine(ENGINE, local).infer(images(3, 4))["totals"].tolist() == [36.0, 48.0]
    assert local.calls == []
    assert library.asked == [(model_name(ENGINE), bool(extensions))]
    assert (inference.status().remote, inference.status().local) == (1, 0)
    assert any("tensors go as JSON" in line for line in said) != bool(extensions)
    inference.close()


def fail(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    raise TimeoutError("timed out")


@pytest.mark.parametrize(
    ("answer", "reason", "line"),
    [
        (fail, "not answered", "TimeoutError: timed out"),
        (lambda feeds: {}, "wrong answer", r"got \[\], expected \['totals'\]"),
        (lambda feeds: {"totals": np.full(1, np.nan, np.float32)}, "wrong answer", "no numbers"),
        (lambda feeds: {"totals": np.zeros((1, 2), np.float32)}, "wrong answer", r"\(1, 2\), expected float32 \(1,\)"),
    ],
)
def test_a_fault_is_answered_here_and_said(
    inference: KserveInference, library: Library, said: list[str], answer: Any, reason: str, line: str
) -> None:
    remote = inference.engine(ENGINE, engine())
    library.answer = answer
    assert remote.infer(images(2))["totals"].tolist() == [24.0]
    one = inference.status().servers[ADDRESS]
    assert one.faults == {reason: 1}
    assert inference.status().local == 1
    assert any(re.search(line, text) for text in said)


def test_a_server_that_is_ready_again_is_asked_again(inference: KserveInference, library: Library) -> None:
    library.ready = False
    local = engine()
    remote = inference.engine(ENGINE, local)
    assert remote.infer(images(1))["totals"].tolist() == [12.0]
    assert len(local.calls) == 1
    library.ready = True
    wait_for(lambda: inference.status().servers[ADDRESS].state == "ready")
    assert remote.infer(images(1))["totals"].tolist() == [12.0]
    assert len(local.calls) == 1


def test_a_model_with_other_tensors_is_not_asked(inference: KserveInference, library: Library, said: list[str]) -> None:
    library.metadata = {**METADATA, "outputs": [{"name": "totals", "datatype": "FP32", "shape": [-1, 3]}]}
    assert inference.engine(ENGINE, engine()).infer(images(1))["totals"].tolist() == [12.0]
    assert library.asked == []
    assert any("has totals FP32 [-1, 3], expected FP32 [None]" in line for line in said)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("kserve://", "got what is no HOST:PORT"),
        ("kserve://triton", "got what is no HOST:PORT"),
        ("kserve://192.0.2.1:8000", "pictures would go unencrypted"),
    ],
)
def test_an_address_that_can_not_be_meant(address: str, line: str, library: Library) -> None:
    with pytest.raises(UsageError, match=line):
        KserveInference(address)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    monkeypatch.setitem(sys.modules, "tritonclient.http", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'leukostream\[kserve\]'"):
        KserveInference(ADDRESS)


def test_a_repository_is_as_triton_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository, path = tmp_path / "repository", write_classifier(tmp_path)
    words = ["models", "triton", str(repository), "--size", "640x480", "1280x720", "--max-batch", "4"]
    assert main([*words, "--model", str(path), "yolov5n-blood"]) == 0
    detector = "leukostream-60adf612c8d7571f"
    names = [model_name(id_of(path)), f"{detector}-320x416", f"{detector}-256x416"]
    assert [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == names
    files = {str(file.relative_to(repository)) for file in repository.rglob("*") if file.is_file()}
    assert files == {f"{name}/{file}" for name in names for file in ("config.pbtxt", "1/model.onnx")}
    configs = {name: _parsed(repository / name / "config.pbtxt") for name in names}
    for name, config in configs.items():
        assert (config.name, config.backend, config.max_batch_size) == (name, "onnxruntime", 4)
        assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert configs[names[0]].parameters["sha256"].string_value == id_of(path).sha256
    assert [list(one.dims) for one in configs[names[1]].input] == [[320, 416, 3]]
    assert [list(one.dims) for one in configs[names[1]].output] == [[-1, 4], [-1], [-1]]
    assert [one.name for one in configs[names[0]].output] == ["class_probabilities"]


def _parsed(path: Path) -> Any:
    """By Triton's own definition of the file, which refuses unknown fields."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("no module tritonclient")
    from google.protobuf import text_format

    definition = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", definition)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.get("model_config_pb2") or importlib.util.module_from_spec(spec)
    if "model_config_pb2" not in sys.modules:
        sys.modules["model_config_pb2"] = module
        spec.loader.exec_module(module)
    return text_format.Parse(path.read_text(), module.ModelConfig())


def test_an_output_of_one_number_a_row_is_reshaped_for_triton(tmp_path: Path) -> None:
    assert main(["models", "triton", str(tmp_path), "--model", "efficientnet-lite0"]) == 0
    (path,) = tmp_path.glob("*/config.pbtxt")
    novelty = next(one for one in _parsed(path).output if one.name == "novelty")
    assert (list(novelty.dims), list(novelty.reshape.shape), novelty.HasField("reshape")) == ([1], [], True)


@pytest.fixture(params=["triton", "mlserver"])
def kind(request: pytest.FixtureRequest) -> Kind:
    reason = why_no_v2_server(request.param)
    if reason is not None:
        pytest.skip(f"no server {request.param} of the v2 protocol: {reason}")
    pytest.importorskip("tritonclient.http", reason="no module tritonclient")
    found: Kind = request.param
    return found


@pytest.mark.slow
def test_a_real_server_answers_goes_and_comes_again(kind: Kind, tmp_path: Path, free_port: int) -> None:
    path, repository = write_classifier(tmp_path), tmp_path / "repository"
    assert main(["models", "triton", str(repository), "--model", str(path)]) == 0
    crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    expected = load_classifier(str(path)).classify_batch(crops).probabilities
    folder = tmp_path / "server"
    folder.mkdir()
    with V2Server(kind, repository, free_port, folder) as server:
        inference = KserveInference(server.address, give_up_ms=20_000.0)
        remote = load_classifier(str(path), elsewhere=inference.engine)
        assert np.array_equal(remote.classify_batch(crops).probabilities, expected)
        assert (inference.status().remote, inference.status().local) == (1, 0)
        server.kill()
        assert np.array_equal(remote.classify_batch(crops).probabilities, expected)
        assert (inference.status().remote, inference.status().local) == (1, 1)
        server.start()
        wait_for(lambda: inference.status().servers[server.address].state == "ready")
        assert np.array_equal(remote.classify_batch(crops).probabilities, expected)
        assert (inference.status().remote, inference.status().local) == (2, 1)
        inference.close()


@pytest.mark.slow
def test_a_slide_counted_through_a_real_server_is_the_slide_counted_here(
    kind: Kind, tmp_path: Path, free_port: int
) -> None:
    repository, folder = tmp_path / "repository", tmp_path / "server"
    folder.mkdir()
    assert main(["models", "triton", str(repository)]) == 0
    alone, remote = tmp_path / "alone.journal", tmp_path / "remote.journal"
    size = ("--long-side-px", "416")
    with start_run(alone, *size) as run:
        run.communicate(timeout=300.0)
    with (
        V2Server(kind, repository, free_port, folder) as server,
        start_run(remote, *size, "--inference", server.address) as run,
    ):
        out, _ = run.communicate(timeout=300.0)
    assert first_difference(alone, remote) is None
    health = [line for line in map(json.loads, out.splitlines()) if line["type"] == "health"]
    assert health[-1]["inference"]["remote"] > 0
