"""Real brokers of this machine, on ports of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.requirements import mosquitto_program, nats_server_program
from tests.streamer.network.service_cases import PATIENCE_S, wait_for


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not listens(port):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        wait_for(lambda: not listens(port))


@contextlib.contextmanager
def mosquitto(port: int, folder: Path, *lines: str) -> Iterator[subprocess.Popen[bytes]]:
    """With further lines of its configuration; without one about who comes in, everyone does. It keeps all for a client
    that is slow: by itself it drops what is beyond 1000 messages."""
    anonymous = () if any(line.startswith("password_file") for line in lines) else ("allow_anonymous true",)
    root = ("user root",) if os.geteuid() == 0 else ()
    config = folder / "mosquitto.conf"
    config.write_text(
        "\n".join([*root, f"listener {port} 127.0.0.1", *anonymous, "max_queued_messages 0", *lines]) + "\n"
    )
    with running([str(mosquitto_program()), "-c", str(config)], port, folder / "mosquitto.log") as process:
        yield process


@contextlib.contextmanager
def nats_server(port: int, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(nats_server_program()), "-a", "127.0.0.1", "-p", str(port), *options]
    with running(command, port, folder / "nats.log") as process:
        yield process


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate, and the certificate and key of a server of this machine that it vouches for."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "server.pem", "-days", "2", "-extfile", "names"),
    )
    return folder / "ca.pem", folder / "server.pem", folder / "server.key"
