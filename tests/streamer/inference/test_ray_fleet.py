"""Real Ray, on this machine: shards whose workers die, servers that are killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="needs Ray: the extra fleet")

from engines.base import EngineId  # noqa: E402
from engines.models.loading import load_classifier  # noqa: E402
from streamer.commands.fleet.metrics import serve_metrics  # noqa: E402
from streamer.inference import ray_fleet  # noqa: E402
from streamer.inference.client import InferenceClient  # noqa: E402
from streamer.inference.fleet_plan import FleetSpec, FleetState  # noqa: E402
from streamer.inference.fleet_watch import FleetInference, FleetWatch  # noqa: E402
from tests.streamer.commands.test_reanalyse import QUICK, SLIDES, tables  # noqa: E402

pytestmark = pytest.mark.slow

WITHIN_S = 120.0
"""Ray starts processes, which takes seconds where the machine is idle."""

SPEC = FleetSpec(
    generation="1",
    kind="cpu",
    least=2,
    most=2,
    models=("efficientnet-lite0",),
    host="127.0.0.1",
    metrics=serve_metrics,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address. Nothing of it is left in the home folder, and nobody else's cluster is met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]))
        # Four cores by name: old and new servers side by side.
        ray.init("local", namespace=ray_fleet.NAMESPACE, num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield ray_fleet.own_address()
        ray.shutdown()


def awaited(what: Callable[[], object]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < until_s, ray_fleet.state()
        time.sleep(0.2)


def state() -> FleetState:
    found = ray_fleet.state()
    assert found is not None
    return found


def dies_once(marks: str) -> int:
    path = Path(marks)
    calls = len(list(path.iterdir()))
    (path / str(calls)).touch()
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return calls


def fails(text: str) -> int:
    raise ValueError(text)


def test_a_shard_whose_worker_dies_is_tried_again(cluster, tmp_path):
    assert list(ray_fleet.on_cluster(dies_once, [str(tmp_path)])) == [(str(tmp_path), 1)]
    ((_, fault),) = ray_fleet.on_cluster(fails, ["no such thing"])
    assert "no such thing" in fault
    assert "\n" not in fault


FULL_STORE = """
import os, numpy, ray
from streamer.inference.ray_fleet import NAMESPACE, on_cluster
ray.init("local", namespace=NAMESPACE, num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
held = [ray.put(numpy.zeros(30 << 20, numpy.uint8)) for _ in range(5)]  # of others, and more than there is room for
views = [ray.get(held[-1])]
print(sorted(on_cluster(os.path.basename, ["x/a", "x/b"])))
"""


def test_shards_are_done_while_the_store_of_a_cluster_is_full(cluster):
    """Of what the shards return there is little; Ray moves what others have there to its disk."""
    done = subprocess.run([sys.executable, "-c", FULL_STORE], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[('x/a', 'a'), ('x/b', 'b')]"], done.stderr[-2000:]


def test_an_archive_over_a_cluster_equals_one_on_this_machine(cluster, tmp_path):
    words = ["reanalyse", f"s={SLIDES[0]}", *QUICK]
    there, here = tmp_path / "there", tmp_path / "here"
    for out, more in ((there, ("--ray", cluster)), (here, ())):
        subprocess.run([sys.executable, "-m", "streamer", *words, "-o", str(out), *more], check=True)
    assert tables(there, "s") == tables(here, "s")


def test_servers_are_started_again_replaced_and_ended(cluster):
    ray_fleet.bring_up(SPEC)
    awaited(lambda: len(state().endpoints) == 2)
    first = state().members[0]
    killed = first.report
    assert killed is not None
    with urllib.request.urlopen(f"http://{killed.metrics}/metrics", timeout=20) as answer:
        assert b"leukostream_inference_queue_age_seconds" in answer.read()
    os.kill(killed.process, signal.SIGKILL)
    awaited(lambda: killed.endpoint not in state().endpoints and len(state().endpoints) == 2)
    assert {one.name for one in state().members} >= {first.name}, "the same server, in another process"

    said: list[str] = []
    classifier = load_classifier("efficientnet-lite0", backend="onnxruntime")
    crops = np.random.default_rng(3).integers(0, 255, (2, *classifier.engine.inputs[0].shape[1:]), np.uint8)
    feeds = {classifier.engine.inputs[0].name: crops}
    expected = classifier.engine.infer(feeds)
    inference = FleetInference(InferenceClient((), say=said.append), cluster, said.append)
    try:
        engine = inference.engine(EngineId(classifier.card.sha256), classifier.engine)
        awaited(lambda: engine.infer(feeds) is not None and inference.status().remote > 0)
        before = set(state().endpoints)
        ray_fleet.bring_up(replace(SPEC, generation="2"))
        asked = inference.status()

        def is_updated() -> bool:
            answer = engine.infer(feeds)  # all the time: none may be lost
            assert all(np.array_equal(answer[name], expected[name]) for name in expected)
            members = state().members
            return len(members) == 2 and {one.generation for one in members} == {"2"}

        awaited(is_updated)
        awaited(lambda: set(inference.status().servers) == set(state().endpoints))
        assert not before & set(state().endpoints)
        awaited(lambda: engine.infer(feeds) is not None and inference.status().remote > asked.remote)
    finally:
        inference.close()
    assert not [line for line in said if line.startswith("--inference ray")]

    ray_fleet.tell_all_to_end()
    awaited(lambda: not state().members)
    ray_fleet.forget()
    awaited(lambda: ray_fleet.state() is None)


def test_a_fleet_that_has_too_much_to_do_gets_another_server(cluster):
    awaited(lambda: ray_fleet.state() is None)
    ray_fleet.bring_up(replace(SPEC, generation="5", least=1, most=2))
    awaited(lambda: len(state().endpoints) == 1)
    classifier = load_classifier("efficientnet-lite0", backend="onnxruntime")
    feeds = {"images": np.zeros((8, *classifier.engine.inputs[0].shape[1:]), np.uint8)}
    client = InferenceClient((), first_answer_s=WITHIN_S, give_up_ms=20_000.0)
    inference = FleetInference(client, cluster, print)
    id_ = EngineId(classifier.card.sha256)
    enough = threading.Event()

    def ask_always() -> None:
        while not enough.is_set():
            client.ask(id_, feeds)

    askers = [threading.Thread(target=ask_always) for _ in range(16)]
    try:
        inference.engine(id_, classifier.engine)
        for asker in askers:
            asker.start()
        awaited(lambda: len(state().endpoints) == 2)
        awaited(lambda: len(client.status().servers) == 2)
        awaited(lambda: all(one.answered for one in client.status().servers.values()))
    finally:
        enough.set()
        for asker in askers:
            asker.join()
        inference.close()
    assert state().wanted == 2
    ray_fleet.tell_all_to_end()
    awaited(lambda: not state().members)
    ray_fleet.forget()


def test_no_answer_of_the_fleets_actor_is_one_line(cluster, monkeypatch):
    monkeypatch.setattr(ray_fleet, "BEGUN_WITHIN_S", 0.0)
    awaited(lambda: ray_fleet.state() is None)
    with pytest.raises(ray_fleet.LeukostreamError, match="fleet up: got no answer of the fleet's actor") as caught:
        ray_fleet.bring_up(replace(SPEC, generation="6"))
    assert "\n" not in str(caught.value)
    awaited(lambda: ray_fleet.state() is not None)
    ray_fleet.tell_all_to_end()
    awaited(lambda: not state().members)
    ray_fleet.forget()


def test_a_server_that_cannot_begin_says_why(cluster):
    ray_fleet.bring_up(replace(SPEC, generation="3", models=("no-such-model",)))
    awaited(lambda: state().fault)
    assert "no-such-model" in str(state().fault)
    ray_fleet.tell_all_to_end()
    ray_fleet.forget()


def test_the_fleet_actor_knows_its_servers_again_after_it_was_killed(cluster):
    awaited(lambda: ray_fleet.state() is None)
    ray_fleet.bring_up(replace(SPEC, generation="4"))
    awaited(lambda: len(state().endpoints) == 2)
    before = set(state().endpoints)
    ray.kill(ray.get_actor(ray_fleet.FLEET, ray_fleet.NAMESPACE), no_restart=False)

    def is_back() -> bool:
        try:
            return set(state().endpoints) == before
        except ray_fleet.LeukostreamError:
            return False

    awaited(is_back)
    ray_fleet.tell_all_to_end()
    awaited(lambda: not state().members)
    ray_fleet.forget()


def test_a_watch_says_why_there_is_nothing():
    faults: list[str] = []
    watch = FleetWatch("127.0.0.1:1", "--inference ray", on_fault=faults.append)
    try:
        assert watch.wait(WITHIN_S) is None
        assert faults[0].startswith("--inference ray 127.0.0.1:1: got no cluster")
    finally:
        watch.close()
