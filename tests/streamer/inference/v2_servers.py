"""Triton and MLServer as processes, each in an environment of its own (`make triton mlserver`): they want older
packages than leukostream."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

Kind = Literal["triton", "mlserver"]

PATIENCE_S = 120.0
_HERE = Path(__file__).parent
_BUILD = Path(__file__).parents[3] / "build"


def python_of(kind: Kind) -> Path:
    """The interpreter of its environment: that of LEUKOSTREAM_TRITON or LEUKOSTREAM_MLSERVER, a folder, else where
    `make` puts it."""
    folder = os.environ.get(f"LEUKOSTREAM_{kind.upper()}")
    return Path(folder or _BUILD / kind) / "bin" / "python"


def why_no_v2_server(kind: Kind) -> str | None:
    return None if python_of(kind).is_file() else f"no {python_of(kind)}"


class V2Server:
    """Serves the models of a repository that `leukostream models triton` wrote, for a `with` block."""

    def __init__(self, kind: Kind, repository: Path, port: int, folder: Path) -> None:
        """`folder`: where it may write."""
        self.address = f"kserve://127.0.0.1:{port}"
        self._url = f"http://127.0.0.1:{port}"
        self._names = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
        self._folder = folder
        python = str(python_of(kind))
        if kind == "triton":
            self._words = [python, str(_HERE / "triton_runtime.py"), str(repository), str(port)]
        else:
            self._words = [str(python_of(kind).with_name("mlserver")), "start", "."]
            self._configure_mlserver(repository, port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until every model is ready."""
        # Triton's Python must find the library of the very interpreter that it has the packages of.
        library = sysconfig.get_config_var("LIBDIR") or ""
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._words,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(self._folder), "LD_LIBRARY_PATH": library},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not all(self._is_ready(name) for name in self._names):
            assert self._process.poll() is None, (self._folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {self._words}"
            time.sleep(0.1)

    def kill(self) -> None:
        """With the processes that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20.0)

    def __enter__(self) -> V2Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _configure_mlserver(self, repository: Path, port: int) -> None:
        shutil.copy(_HERE / "mlserver_runtime.py", self._folder)
        ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
        settings = {"host": "127.0.0.1", "parallel_workers": 0, **ports}
        (self._folder / "settings.json").write_text(json.dumps(settings))
        for name in self._names:
            (self._folder / name).mkdir()
            model = {
                "name": name,
                "implementation": "mlserver_runtime.OnnxModel",
                "parameters": {"uri": str(repository / name / "1" / "model.onnx")},
            }
            (self._folder / name / "model-settings.json").write_text(json.dumps(model))

    def _is_ready(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/v2/models/{name}/ready", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
