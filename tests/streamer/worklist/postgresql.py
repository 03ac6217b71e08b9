"""A PostgreSQL server of one's own, with a password, on this machine alone."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.requirements import postgresql_program

PASSWORD = "p4ss/w:rd@é%"
"""With all that an address takes for its own."""
QUOTED = "p4ss%2Fw%3Ard%40%C3%A9%25"


@dataclass(frozen=True)
class Server:
    port: int

    def address(self, schema: str, *, user: str = "lab", password: str = QUOTED) -> str:
        """Of a schema, which is quicker made than a database."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{schema}"

    def execute(self, *statements: str) -> None:
        options = {"host": "127.0.0.1", "port": self.port, "user": "lab", "password": PASSWORD}
        with psycopg.connect(dbname="postgres", autocommit=True, **options) as connection:
            for statement in statements:
                connection.execute(statement)


@contextlib.contextmanager
def running(port: int) -> Iterator[Server]:
    """PostgreSQL refuses to run as root: it then runs as `postgres`, or as `nobody`."""
    folder = Path(tempfile.mkdtemp(prefix="leukostream-postgresql-", dir="/tmp"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        names = {one.pw_name for one in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o644)
    data = folder / "data"

    def do(program: str, *arguments: str) -> None:
        command = [str(postgresql_program(program)), *arguments]
        with open(folder / "log", "ab") as log:
            done = subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=120, check=False, **who)
        assert done.returncode == 0, (folder / "log").read_text(errors="replace")

    (folder / "log").touch()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    try:
        do(
            *("initdb", "-D", str(data), "-U", "lab", "-A", "scram-sha-256", "--pwfile", str(secret)),
            *("-E", "UTF8", "--no-locale", "--no-sync"),
        )
        do("pg_ctl", "-D", str(data), "-o", options, "-w", "-l", str(data / "server.log"), "start")
        try:
            yield Server(port)
        finally:
            do("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)
