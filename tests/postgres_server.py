"""A real PostgreSQL server for one test session, on a socket in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None if it isn't installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class Postgres:
    """A server over one data folder; `start` and `stop` as often as a test likes."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
            self._as = {"user": "postgres", "group": "postgres"}
        self._run("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N")

    def start(self) -> None:
        """Start it and return when it answers."""
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        options = ["-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            [*map(str, command), *options], cwd="/", stderr=subprocess.DEVNULL, **self._as
        )
        deadline = time.monotonic() + 60
        while subprocess.run([self.programs / "pg_isready", "-q", "-h", self.folder]).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once; every connection breaks."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)

    def database(self, name: str) -> str:
        """Return the URL of a new, empty database."""
        self._run("createdb", "-h", str(self.folder), "-U", "postgres", name)
        return self.url.replace("/postgres?", f"/{name}?")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yield a running server; skip the test where PostgreSQL or its driver is missing."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the `postgres` extra)")
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o711)
    server = Postgres(programs, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
