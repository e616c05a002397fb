"""Runs the embedded engine as a supervised child process on this machine.

A crashed engine is started again with growing, jittered pauses on the same port, and every release
that was ensured is checked and loaded again; one that lives but no longer answers is killed first.
It does not route: callers ask `ensure` before they send traffic.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tutelage.core import errors
from tutelage.core.config import Project
from tutelage.core.errors import EnvironmentProblem, ModelError, TutelageError
from tutelage.core.workspace import Workspace, disk_errors
from tutelage.serving.launchers.base import Check, Engine, unchecked

_READY_S = 300.0  # a large model read from a slow disk
_STOP_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0
_LONGEST_AFTER_CRASH_S = 0.5  # an engine that was ready is worth a quick new try
_HEALTHY_S = 60.0  # running this long makes the next crash a first one again
_LOOK_S, _LOOK_TIMEOUT_S = 5.0, 5.0
_SILENT_S = 20.0  # without an answer: it hangs
_LOADING_S = 300.0  # the same while it loads or unloads, which may keep it from answering
_SHARE = 10  # of the time that a try took, until the next
_TAIL_BYTES = 2000

OnRestart = Callable[[Engine], None]


class EmbeddedLauncher:
    """One engine child. Use from one event loop: start, ensure/remove as releases come, stop."""

    def __init__(
        self,
        model_spec: str,
        workspace: Workspace,
        threads: int | None = None,
        *,
        backend: str = "auto",
        options: tuple[str, ...] = (),
        on_restart: OnRestart = lambda engine: None,
    ) -> None:
        self.model_spec = model_spec
        self._root = workspace.root
        self.log = workspace.logs / "engine.log"
        self.engine: Engine | None = None
        self.restarts = 0
        self.on_restart = on_restart
        self.check: Check = unchecked  # asked before a release is loaded again
        self.arguments = [*_threads(threads), "--backend", backend, *options]
        self._process: Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0  # loads under way: they may hold the engine for long
        self._session: aiohttp.ClientSession | None = None
        self._wanted: dict[str, Path | None] = {}
        # Wanted, and not loaded again after a restart: when to try it again (monotonic seconds).
        self._lost: dict[str, float] = {}
        self._up = asyncio.Event()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._launches = 0

    @classmethod
    def from_project(cls, project: Project, workspace: Workspace) -> EmbeddedLauncher:
        """Return the launcher of a project."""
        deploy = project.deploy
        options = ("--slots", str(deploy.slots), "--context", str(deploy.context))
        return cls(
            project.model, workspace, deploy.threads, backend=deploy.backend, options=options
        )

    async def start(self) -> Engine:
        """Start the engine and return where it is; raise ModelError or EnvironmentProblem."""
        if self.engine is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tutelage-")
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
            try:
                self.engine = await self._launch(port=0)
            except BaseException:
                await self.stop()
                raise
            self._up.set()
            self._tasks = [asyncio.create_task(task) for task in (self._supervise(), self._watch())]
        return self.engine

    async def stop(self) -> None:
        """End the engine and wait until its process is gone; safe to call twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._process:
            await _end(self._process)
        if self._session:
            await self._session.close()
        if self._folder:
            self._folder.cleanup()
        self._tasks = []
        self._process = self._session = self.engine = self._folder = None
        self._up.clear()

    async def ensure(self, release_id: str, adapter: Path | None) -> None:
        """Return when the engine answers for `release_id` (base model, or with this adapter).

        Kept across restarts until removed. Raise ModelError if it can't be loaded.
        """
        self._wanted[release_id] = adapter
        try:
            await self._load(release_id, adapter)
        except TutelageError:
            self._wanted.pop(release_id, None)
            raise

    async def remove(self, release_id: str) -> None:
        """Return when `release_id` is gone: its running requests have ended."""
        self._wanted.pop(release_id, None)
        await self._ask("POST", "/admin/unload", {"release": release_id}, missing_ok=True)

    async def health(self) -> bool:
        """Return whether the engine answers now."""
        if self.engine is None or self._session is None or not self._up.is_set():
            return False
        try:
            url = f"{self.engine.base_url}/health"
            limit = aiohttp.ClientTimeout(total=_LOOK_TIMEOUT_S)
            async with self._session.get(url, timeout=limit) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def answers(self, release_id: str) -> bool:
        """Return whether the engine runs and has not lost a release; asks nobody."""
        return self._up.is_set() and release_id not in self._lost

    async def stats(self) -> dict[str, Any]:
        """Return the engine's releases, memory in MB and queue."""
        return await self._ask("GET", "/admin/stats")

    async def _load(self, release_id: str, adapter: Path | None) -> None:
        folder = str(adapter.resolve()) if adapter else None
        await self._ask("POST", "/admin/load", {"release": release_id, "adapter": folder})

    async def _ask(
        self, method: str, path: str, body: Any = None, *, missing_ok: bool = False
    ) -> dict[str, Any]:
        """Call the engine, once more after a restart if it crashes meanwhile."""
        self._busy += 1
        try:
            return await self._asked(method, path, body, missing_ok=missing_ok)
        finally:
            self._busy -= 1

    async def _asked(
        self, method: str, path: str, body: Any = None, *, missing_ok: bool = False
    ) -> dict[str, Any]:
        for _ in range(3):
            await self._up.wait()
            if self.engine is None or self._session is None:
                break
            try:
                url = f"{self.engine.base_url}{path}"
                async with self._session.request(method, url, json=body) as response:
                    answer: dict[str, Any] = await response.json()
                    if response.status < 400 or (missing_ok and response.status == 404):
                        return answer
                    raise _problem(answer)
            except aiohttp.ClientError:
                await asyncio.sleep(_FIRST_PAUSE_S)
        raise EnvironmentProblem(
            "the engine does not answer", where=str(self.log), fix="Look at the end of that file"
        )

    async def _launch(self, port: int) -> Engine:
        """Start a child and wait until it is ready, or raise what it said."""
        if self._folder is None:
            raise EnvironmentProblem("the launcher was not started")
        self._launches += 1
        ready = Path(self._folder.name) / f"ready-{self._launches}.json"
        command = [
            sys.executable, "-P", "-m", "tutelage.inference.engine",
            "--model", self.model_spec, "--port", str(port), "--ready-file", str(ready),
            "--parent", str(os.getpid()), *self.arguments,
        ]  # fmt: skip
        own = {"OMP_WAIT_POLICY": "passive", "TMPDIR": self._folder.name}
        with disk_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._root,  # a model given as a relative path counts from the project
                    env={**os.environ, **own},
                    start_new_session=True,  # Ctrl-C is for the gateway, which drains first
                )
        try:
            answer = await self._wait_ready(process, ready)
        except BaseException:
            await _end(process)
            raise
        self._process = process
        return Engine(f"http://127.0.0.1:{answer['port']}", process.pid)

    async def _wait_ready(self, process: Process, ready: Path) -> dict[str, Any]:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            ended = process.returncode is not None
            if ready.is_file():
                answer: dict[str, Any] = json.loads(ready.read_bytes())
                if "error" in answer:
                    raise _told(answer["error"])
                return answer
            if ended:
                raise EnvironmentProblem(
                    f"the engine ended before it was ready: {self._tail()}",
                    where=str(self.log),
                    fix="Look at the end of that file",
                )
            await asyncio.sleep(0.02)
        raise EnvironmentProblem(
            f"the engine was not ready after {_READY_S:.0f} seconds", where=str(self.log)
        )

    def _tail(self) -> str:
        """Return the last line the engine wrote."""
        with contextlib.suppress(OSError):
            lines = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return "no output"

    async def _supervise(self) -> None:
        crashes, started = 0, time.monotonic()
        while self._process is not None and self.engine is not None:
            await self._process.wait()
            self._up.clear()
            crashes = 0 if time.monotonic() - started > _HEALTHY_S else crashes + 1
            await asyncio.sleep(pause_s(crashes, _LONGEST_AFTER_CRASH_S))
            engine, failures = await self._restart(port_of(self.engine)), 0
            while engine is None:
                await asyncio.sleep(pause_s(failures))
                failures += 1
                engine = await self._restart(port_of(self.engine) if failures < 3 else 0)
            self.engine, started = engine, time.monotonic()
            self.restarts += 1
            self._up.set()
            self.on_restart(engine)

    async def _watch(self) -> None:
        """Kill an engine that no longer answers: the supervisor starts it again."""
        heard = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            idle = self._up.is_set() and not self._busy
            if not self._up.is_set() or await self.health():
                heard = time.monotonic()
                if idle:
                    await self._find_lost()
                continue
            patience = _LOADING_S if self._busy else _SILENT_S
            silent = time.monotonic() - heard
            if silent >= patience and self._process is not None and self._up.is_set():
                heard = time.monotonic()  # the next engine's time begins
                self._note("the engine did not answer any more and was killed")
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()

    async def _find_lost(self) -> None:
        """Load what could not be loaded after a restart, if it can be by now."""
        for release_id, again_at in list(self._lost.items()):
            started = time.monotonic()
            if release_id not in self._wanted or started < again_at:
                continue
            with contextlib.suppress(TutelageError):  # why not was noted
                await self.check(release_id)
                await self._load(release_id, self._wanted[release_id])
                self._lost.pop(release_id, None)
                self._note(f"release {release_id} is loaded again")
            if release_id in self._lost:  # checking takes its time
                self._lost[release_id] = time.monotonic() + _SHARE * (time.monotonic() - started)

    async def _restart(self, port: int) -> Engine | None:
        """Return a new engine with the wanted releases loaded, or None if that failed."""
        if self._folder is not None:
            for left in Path(self._folder.name).glob("tutelage-*"):  # a killed engine's files
                shutil.rmtree(left, ignore_errors=True)
        try:
            engine = await self._launch(port)
        except TutelageError as error:
            self._note(f"restart failed: {error}")
            return None
        self._lost.clear()
        for release_id, adapter in list(self._wanted.items()):
            try:
                await self.check(release_id)
                await self._reload(engine, release_id, adapter)
            except (TutelageError, aiohttp.ClientError) as error:
                self._lost[release_id] = 0.0
                self._note(f"release {release_id} was not loaded again: {error}")
        return engine

    async def _reload(self, engine: Engine, release_id: str, adapter: Path | None) -> None:
        body = {"release": release_id, "adapter": str(adapter.resolve()) if adapter else None}
        if self._session is None:
            return
        async with self._session.post(f"{engine.base_url}/admin/load", json=body) as response:
            if response.status >= 400:
                raise _problem(await response.json())

    def _note(self, text: str) -> None:
        with contextlib.suppress(OSError), self.log.open("a") as log:
            log.write(f"launcher: {text}\n")


def pause_s(crashes: int, most: float = _LONGEST_PAUSE_S) -> float:
    """Return how long to wait before a restart: doubling up to `most`, spread by half."""
    longest: float = min(most, _FIRST_PAUSE_S * 2.0 ** min(crashes, 16))
    return longest * random.uniform(0.5, 1.0)


def port_of(engine: Engine) -> int:
    """Return the port an engine listens on."""
    return int(engine.base_url.rsplit(":", 1)[1])


def _threads(threads: int | None) -> list[str]:
    return ["--threads", str(threads)] if threads else []


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _told(error: dict[str, Any]) -> TutelageError:
    """Return the error a child described, as the same class."""
    kind: type[TutelageError] = getattr(errors, str(error.get("error")), ModelError)
    return kind(error["what"], where=error.get("where"), fix=error.get("fix"))


def _problem(answer: dict[str, Any]) -> TutelageError:
    if answer.get("tutelage"):
        return _told(answer["tutelage"])
    return ModelError(str((answer.get("error") or {}).get("message", "the engine refused")))
