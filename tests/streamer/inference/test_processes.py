"""The command as processes: what it prints, how it ends, and a slide counted while servers are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines.models.loading import load_classifier
from streamer.cli import main
from streamer.inference.client import InferenceClient
from tests.streamer.inference.processes import ServeProcess
from tests.streamer.inference.served import wait_for
from tests.streamer.inference.test_shelf import id_of, write_classifier
from tools.bench.journals_alike import first_difference, tables_of

SLIDE = "sim:seed=11,cells=10"


@pytest.mark.lengthy
def test_serve_says_where_and_what_measures_itself_and_ends_on_sigterm(tmp_path: Path, free_port: int) -> None:
    path = write_classifier(tmp_path)
    crops = np.zeros((3, 16, 16, 3), np.uint8)
    with ServeProcess("--model", str(path), "--metrics", str(free_port)) as served:
        assert served.line == f"serving on {served.endpoint}: small {id_of(path).sha256}\n"
        client = InferenceClient([served.endpoint], first_answer_s=20.0, give_up_ms=20_000.0)
        remote = load_classifier(str(path), elsewhere=client.engine)
        assert np.array_equal(
            remote.classify_batch(crops).probabilities, load_classifier(str(path)).classify_batch(crops).probabilities
        )
        wait_for(lambda: client.status().remote == 1)
        url = f"http://127.0.0.1:{free_port}"
        with urllib.request.urlopen(f"{url}/readyz") as answer:
            assert json.load(answer)["state"] == "ready"
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            families = {one.name: one for one in text_string_to_metric_families(answer.read().decode())}
        assert families["leukostream_inference_requests"].samples[0].value == 1
        assert families["leukostream_inference_images"].samples[0].value == 3
        assert families["leukostream_inference_queue_age_seconds"].samples[0].value == 0
        assert families["leukostream_inference_ran_seconds"].samples[0].value > 0
        status, out, err = served.end()
        client.close()
    assert status == 0
    assert out == "served 1 requests in 1 runs\n"
    assert "SIGTERM: takes no further work, answers what it has" in err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--bind", "tcp://0.0.0.0:5600"], 2, "got an address that other machines can reach"),
        (["--bind", "5600"], 2, "--bind 5600: got no transport"),
        (["--bind", "tcp://127.0.0.1:*", "--model", "yolov5n-blod"], 2, "did you mean 'yolov5n-blood'"),
        (["--bind", "tcp://127.0.0.1:*", "--keys", "/nowhere"], 2, "leukostream keys new /nowhere"),
        (["--bind", "tcp://127.0.0.1:*", "--max-batch", "0"], 2, "expected a whole number of at least 1"),
        ([], 2, "--bind"),
    ],
)
def test_serve_that_can_not_begin(words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == status
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_what_can_not_be_loaded_is_said_before_anybody_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bind", "tcp://127.0.0.1:*", "--backend", "onnxruntime", "--precision", "fp16"]
    assert main(["serve", *words, "--model", str(write_classifier(tmp_path))]) == 1
    assert "got an engine in fp32, expected fp16 as --precision says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inference", "gpu:5600"], "--inference gpu:5600: got no transport"),
        (["--inference", "tcp://192.0.2.1:5600"], "pictures would go unencrypted"),
        (["--inference", ","], "got no address"),
        (["--server-key", "x.key"], "--server-key: got no --inference"),
        (["--inference", "tcp://127.0.0.1:5600", "--server-key", "x.key"], "--server-key alone"),
    ],
)
def test_a_run_that_can_not_ask(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--source", "sim:", *words]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def start_run(journal: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "streamer", "run", "--source", SLIDE, "--mode", "analysis", "--jsonl", "-"]
    return subprocess.Popen(
        [*words, "--journal", str(journal), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


@pytest.mark.slow
def test_a_slide_counted_while_servers_are_killed_is_the_slide_counted_in_peace(tmp_path: Path) -> None:
    alone, disturbed = tmp_path / "alone.journal", tmp_path / "disturbed.journal"
    with start_run(alone) as run:
        run.communicate(timeout=300.0)
    frames = len(tables_of(alone)["sim"]["frames"])
    assert frames > 20
    with (
        ServeProcess() as first,
        ServeProcess() as second,
        start_run(disturbed, "--inference", f"{first.endpoint},{second.endpoint}") as run,
    ):
        assert run.stdout is not None
        assert run.stderr is not None
        seen, last = 0, {}
        for line in run.stdout:
            message = json.loads(line)
            seen += message["type"] == "frame"
            if message["type"] == "health":
                last = message["inference"]
            if seen == frames // 3:
                first.kill()
            if seen == 2 * frames // 3:
                second.kill()
        said = run.stderr.read()
        assert run.wait(60.0) == 0
    assert first_difference(alone, disturbed) is None
    assert last["remote"] > 0
    assert last["local"] > 0
    assert 0 < last["local_share"] < 1
    assert {one["state"] for one in last["servers"].values()} == {"connecting"}
    assert "no server answers; this machine goes on by itself" in said
