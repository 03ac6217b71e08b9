"""`leukostream review` as a person calls it: its first line, its end, and what it refuses."""

import builtins
import os
import re
import signal
import subprocess
import sys

import pytest

from streamer.cli import main
from tests.streamer.report.report_cases import Slide, write_journal

pytest.importorskip("fastapi", reason="the review's server needs the package fastapi")
httpx = pytest.importorskip("httpx", reason="the review's server is asked by the package httpx")


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return write_journal(tmp_path_factory.mktemp("review") / "slide.db", [Slide(cells=20)])


@pytest.mark.lengthy
def test_the_first_line_is_the_address_and_ctrl_c_ends_it(journal):
    command = [sys.executable, "-m", "streamer", "review", str(journal), "--reviewer", "AB"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's `&` ignores it
    ) as process:
        address = process.stdout.readline().strip()
        match = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]{43})", address)
        assert match is not None, address
        base, token = match.groups()
        assert httpx.get(f"{base}/api/v1/sessions").status_code == 401
        with httpx.Client(base_url=base, params={"token": token}, timeout=60) as client:
            before = client.get("/api/v1/differential").json()["classes"]["monocyte"]["count"]
            cell = next(one for one in client.get("/api/v1/cells").json() if one["class"] not in ("monocyte",))
            answer = client.post(f"/api/v1/cells/{cell['cell_id']}/class", json={"class": "monocyte"})
            assert answer.json() == {"done": True}
            assert client.get("/api/v1/differential").json()["classes"]["monocyte"]["count"] == before + 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert token not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--bind", "0.0.0.0:0"], 2, "--tls-cert and --tls-key"),
        (["--bind", "8080"], 2, "--bind: got '8080', expected HOST:PORT"),
        (["--reviewer", "<b>"], 2, "--reviewer: got '<b>', expected initials"),
        (["--tls-cert", "cert.pem"], 2, "--tls-cert: got no --tls-key, expected both"),
        (["--tls-cert", "no.pem", "--tls-key", "no.pem"], 2, "expected a certificate and its key"),
        (["--bind", "203.0.113.7:80", "--insecure"], 1, "--bind 203.0.113.7:80: got"),
    ],
)
def test_what_is_refused_is_one_line(journal, capsys, words, status, line):
    assert main(["review", str(journal), *words]) == status
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["missing.db"], "journal missing.db: got 'No such file or directory'"),
        (["tcp://127.0.0.1:1", "--publish", "tcp://127.0.0.1:2"], "got --publish, expected it with a journal only"),
        (["tcp://127.0.0.1:1", "slide.rec"], "got a recording, expected it with a journal only"),
    ],
)
def test_what_is_no_slide_is_one_line(capsys, words, line):
    assert main(["review", *words]) in (1, 2)
    assert line in capsys.readouterr().err


def test_without_its_packages_it_says_how_to_get_them(journal, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith(("fastapi", "streamer.review.server"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["review", str(journal)]) == 1
    assert "pip install 'leukostream[review]'" in capsys.readouterr().err
