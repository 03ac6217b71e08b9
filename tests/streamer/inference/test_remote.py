"""Client and server over real sockets: what is answered, by whom, and what happens when a server goes away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engines.base import EngineClosedError, TensorMismatchError, UsageError
from streamer.inference.client import InferenceClient
from streamer.inference.server import InferenceServer
from streamer.network.auth import new_pair
from streamer.network.keys import write_key_folder
from tests.streamer.inference.served import (
    ENGINE,
    OTHER,
    Asking,
    ScriptedShelf,
    Served,
    engine,
    images,
    totals,
    wait_for,
)


def test_a_server_answers_what_this_machine_would() -> None:
    with Served() as served, Asking(served.endpoint) as asking:
        assert asking.infer(1) == [12.0]
        assert asking.infer(3, 5, 7) == [36.0, 60.0, 84.0]
        assert asking.local.calls == []
        status = asking.client.status()
        assert (status.remote, status.local, status.local_share) == (2, 0, 0.0)
        wait_for(lambda: asking.client.status().servers[served.endpoint].answered == 2)
        assert asking.state_of(served.endpoint) == "ready"
        assert status.sent_bytes > 4 * 12
    assert served.server.figures().requests == {ENGINE.sha256: 2}


def test_the_engine_is_checked_and_closed_as_one_of_this_machine() -> None:
    with Served() as served, Asking(served.endpoint) as asking:
        with pytest.raises(TensorMismatchError):
            asking.engine.infer({"images": np.zeros((1, 3, 3, 3), np.uint8)})
        asking.engine.close()
        with pytest.raises(EngineClosedError):
            asking.engine.infer(images(1))
        assert asking.local.closed


def test_without_a_server_this_machine_goes_on_and_says_so_until_one_comes(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with Asking(endpoint, first_answer_s=0.0) as asking:
        assert asking.infer(2) == [24.0]
        wait_for(lambda: any("no server answers; this machine goes on by itself" in line for line in asking.said))
        assert asking.client.status().local_share == 1.0
        with Served(endpoint=endpoint):
            wait_for(lambda: asking.state_of(endpoint) == "ready")
            wait_for(lambda: asking.infer(2) == [24.0] and asking.client.status().remote)
            wait_for(lambda: any("servers answer for every model" in line for line in asking.said))


def test_a_server_that_starts_again_at_its_address_is_used_again(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    served = Served(endpoint=endpoint)
    with served, Asking(endpoint) as asking:
        assert asking.infer(1) == [12.0]
        served.stop()
        wait_for(lambda: asking.state_of(endpoint) != "ready")
        assert asking.infer(1) == [12.0]
        assert len(asking.local.calls) == 1
        with Served(endpoint=endpoint) as again:
            wait_for(lambda: asking.infer(4) == [48.0] and again.shelf.engines[ENGINE].calls)


def test_what_one_server_does_not_answer_another_does() -> None:
    hangs = threading.Event()

    def hang(feeds: object) -> dict[str, np.ndarray]:
        hangs.wait(20.0)
        return {"totals": np.zeros(1, np.float32)}

    stuck = Served(ScriptedShelf({ENGINE: engine(hang)}))
    with stuck, Served() as good, Asking(stuck.endpoint, good.endpoint) as asking:
        wait_for(lambda: asking.infer(1) == [12.0] and asking.client.status().resent >= 1, "the one stuck to be asked")
        for value in range(8):
            assert asking.infer(value) == [12.0 * value]
        assert asking.local.calls == []
        hangs.set()
        wait_for(lambda: asking.client.status().late >= 1, "the late answer, which changes nothing")
        assert asking.infer(9) == [108.0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"totals": np.array([np.nan], np.float32)}, "no numbers"),
        ({"totals": np.zeros(2, np.float32)}, "2"),
        ({"totals": np.zeros(1, np.float64)}, "float64"),
        ({"sums": np.zeros(1, np.float32)}, "sums"),
    ],
)
def test_a_wrong_answer_is_not_used(answer: dict[str, np.ndarray], said: str) -> None:
    wrong = Served(ScriptedShelf({ENGINE: engine(lambda feeds: answer)}))
    with wrong, Asking(wrong.endpoint) as asking:
        assert asking.infer(5) == [60.0]
        wait_for(lambda: asking.client.status().servers[wrong.endpoint].faults)
        assert sum(asking.client.status().servers[wrong.endpoint].faults.values()) == 1
        wait_for(lambda: any(said in line for line in asking.said), said)
        assert asking.infer(6) == [72.0]
        assert len(wrong.shelf.engines[ENGINE].calls) == 1, "it is left alone for a while"


def test_a_model_is_matched_by_its_hash_alone() -> None:
    with (
        Served(ScriptedShelf({OTHER: engine()})) as old,
        Served(ScriptedShelf({ENGINE: engine(), OTHER: engine()})) as new,
        Asking(old.endpoint, new.endpoint) as asking,
    ):
        assert [asking.infer(value) for value in (1, 2, 3)] == [[12.0], [24.0], [36.0]]
        assert old.shelf.engines[OTHER].calls == []
        assert len(new.shelf.engines[ENGINE].calls) == 3
    with Served(ScriptedShelf({OTHER: engine()})) as old, Asking(old.endpoint, first_answer_s=0.0) as asking:
        assert asking.infer(1) == [12.0]
        assert len(asking.local.calls) == 1


def test_an_engine_with_other_outputs_is_not_used() -> None:
    from engines.backends.scripted import ScriptedEngine
    from engines.base import TensorSpec
    from tests.streamer.inference.served import INPUTS

    other = ScriptedEngine(INPUTS, [TensorSpec("totals", (None, 3), np.dtype(np.float32))], totals)
    with Served(ScriptedShelf({ENGINE: other})) as served, Asking(served.endpoint, first_answer_s=0.2) as asking:
        assert asking.infer(1) == [12.0]
        assert other.calls == []
        wait_for(lambda: any("its engine has totals float32" in line for line in asking.said))


def test_an_engine_that_fails_is_one_line_and_nothing_is_lost() -> None:
    broken = Served(ScriptedShelf({ENGINE: engine(lambda feeds: RuntimeError("out of memory"))}))
    with broken, Asking(broken.endpoint) as asking:
        assert asking.infer(1) == [12.0]
        assert broken.server.figures().faults == {"engine failed": 1}
        wait_for(lambda: any("out of memory" in line for line in asking.said))


def test_many_threads_get_each_their_own_answer() -> None:
    with Served(workers=3) as one, Served(workers=3) as other, Asking(one.endpoint, other.endpoint) as asking:
        engines = [served.shelf.engines[ENGINE] for served in (one, other)]
        wait_for(lambda: asking.infer(1) and all(engine.calls for engine in engines), "both to be asked")
        asked = asking.client.status().remote
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda value: asking.infer(value % 251), range(400)))
        assert answers == [[12.0 * (value % 251)] for value in range(400)]
        assert asking.client.status().remote == asked + 400


def test_requests_are_joined_where_the_engine_wants_it() -> None:
    held, release = threading.Event(), threading.Event()

    def answer(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not held.is_set():
            held.set()
            release.wait(20.0)
        return totals(feeds)

    shelf = ScriptedShelf({ENGINE: engine(answer)}, rows=4)
    served = Served(shelf, workers=1, max_wait_ms=1.0)
    with served, Asking(served.endpoint) as asking, ThreadPoolExecutor(5) as threads:
        first = threads.submit(asking.infer, 1)
        assert held.wait(20.0)
        others = [threads.submit(asking.infer, value) for value in (2, 3, 4)]
        wait_for(lambda: served.server.status().waiting == 3)
        release.set()
        assert [one.result() for one in (first, *others)] == [[12.0], [24.0], [36.0], [48.0]]
    assert served.server.figures().batch_sizes == {1: 1, 3: 1}


def test_a_server_told_to_end_answers_what_it_has_and_refuses_the_rest() -> None:
    held, release = threading.Event(), threading.Event()

    def answer(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        held.set()
        release.wait(1.0)
        return totals(feeds)

    served = Served(ScriptedShelf({ENGINE: engine(answer)}))
    with served, Asking(served.endpoint) as asking, ThreadPoolExecutor(2) as threads:
        taken = threads.submit(asking.infer, 7)
        assert held.wait(20.0)
        served.server.drain()
        wait_for(lambda: asking.infer(8) == [96.0] and asking.state_of(served.endpoint) == "draining")
        assert asking.local.calls
        release.set()
        assert taken.result() == [84.0]
    assert asking.local.calls[0]["images"][0, 0, 0, 0] == 8, "what was taken was answered by the server"


def test_servers_may_be_exchanged_while_it_runs() -> None:
    with Served() as old, Served() as new, Asking(old.endpoint) as asking:
        assert asking.infer(1) == [12.0]
        asking.client.use([new.endpoint])
        wait_for(lambda: asking.infer(2) == [24.0] and new.shelf.engines[ENGINE].calls)
        assert list(asking.client.status().servers) == [new.endpoint]


def test_only_those_whose_keys_are_known_are_served(tmp_path) -> None:
    server, friend, stranger = tmp_path / "server", tmp_path / "friend", tmp_path / "stranger"
    for folder in (server, friend, stranger):
        write_key_folder(folder, new_pair())
    (server / "authorised" / "friend.key").write_text((friend / "leukostream.key").read_text())
    public = server / "leukostream.key"
    with Served(keys=server) as served:
        with Asking(served.endpoint, keys=friend, server_key=public) as asking:
            assert asking.infer(1) == [12.0]
            assert asking.client.status().remote == 1
        with Asking(served.endpoint, keys=stranger, server_key=public, first_answer_s=0.0) as asking:
            assert asking.infer(1) == [12.0]
            wait_for(lambda: asking.state_of(served.endpoint) == "refused")
            wait_for(lambda: any("our key is not among its authorised ones" in line for line in asking.said))
            assert asking.client.status().remote == 0
        with Asking(served.endpoint, first_answer_s=0.0) as asking:
            wait_for(lambda: asking.state_of(served.endpoint) == "refused")
            assert asking.infer(1) == [12.0]


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("tcp://0.0.0.0:5600", r"--bind tcp://0\.0\.0\.0:5600: got an address that other machines can reach"),
        ("5600", "--bind 5600: got no transport"),
        ("inproc://x", "got inproc"),
    ],
)
def test_an_address_that_can_not_be_served(endpoint: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        InferenceServer(endpoint, ScriptedShelf())


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("tcp://192.0.2.1:5600", "to which pictures would go unencrypted; expected --keys DIR and --server-key FILE"),
        ("tcp://127.0.0.1:*", "a wildcard"),
        ("gpu-server:5600", "no transport"),
    ],
)
def test_an_address_that_can_not_be_asked(endpoint: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        InferenceClient([endpoint])
