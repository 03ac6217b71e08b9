"""MLServer as a process of its own, in an environment of its own (`make mlserver`): it wants older packages than ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PROGRAM = Path(
    os.environ.get("LEUKOSTREAM_MLSERVER") or Path(__file__).parents[3] / "build" / "mlserver" / "bin" / "mlserver"
)
"""What LEUKOSTREAM_MLSERVER names, else where `make mlserver` puts it."""

PATIENCE_S = 90.0


def why_no_mlserver() -> str | None:
    return None if PROGRAM.is_file() else f"no program {PROGRAM}"


class MlServer:
    """Serves the models of a repository that `leukostream models triton` wrote, for a `with` block."""

    def __init__(self, repository: Path, port: int) -> None:
        self.address = f"kserve://127.0.0.1:{port}"
        self._url = f"http://127.0.0.1:{port}"
        self._folder = Path(tempfile.mkdtemp())
        shutil.copy(Path(__file__).with_name("mlserver_runtime.py"), self._folder)
        settings = {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": port + 1,
            "metrics_port": port + 2,
            "parallel_workers": 0,
        }
        (self._folder / "settings.json").write_text(json.dumps(settings))
        self.names = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
        for name in self.names:
            folder = self._folder / name
            folder.mkdir()
            model = {
                "name": name,
                "implementation": "mlserver_runtime.OnnxModel",
                "parameters": {"uri": str(repository / name / "1" / "model.onnx")},
            }
            (folder / "model-settings.json").write_text(json.dumps(model))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Until every model is ready."""
        self._process = subprocess.Popen(
            [str(PROGRAM), "start", "."],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(self._folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not all(self._is_ready(name) for name in self.names):
            assert self._process.poll() is None, "MLServer ended"
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for MLServer"
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(20.0)

    def __enter__(self) -> MlServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def _is_ready(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/v2/models/{name}/ready", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
