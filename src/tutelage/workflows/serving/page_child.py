"""The web page beside a gateway: a process of its own, started again when it falls over.

It says where the page is and what it tells at its start. The page's own work is in web/.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from tutelage.core.errors import EXIT_USER
from tutelage.core.events import Event
from tutelage.workflows.context import Context

_WAITS_S = (1.0, 5.0, 30.0)  # before the first, second and every later start anew
_STOP_S = 5.0
_log = logging.getLogger(__name__)


class PageChild:
    """`async with PageChild(ctx, ready=…)`: the page runs while the gateway does.

    `ready(url, notes)` is called at each start. What keeps the page from starting is a warning:
    the gateway goes on without it.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        port: int | None = None,
        ready: Callable[[str, list[str]], None] | None = None,
    ) -> None:
        self._ctx, self._port, self._ready = ctx, port, ready
        self._task: asyncio.Task[None] | None = None
        self.url: str | None = None

    async def __aenter__(self) -> PageChild:
        if find_spec("nicegui") is None:
            self._warn("the web page is not installed; run: pip install 'tutelage[web]'", "note")
        else:
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        fallen = 0
        while True:
            status = await self._once()
            self.url = None
            if status == EXIT_USER:
                return
            wait = _WAITS_S[min(fallen, len(_WAITS_S) - 1)]
            self._warn(f"the web page ended (status {status}) and starts again in {wait:.0f} s")
            fallen += 1
            await asyncio.sleep(wait)

    async def _once(self) -> int:
        """Run one child to its end; return its exit status."""
        with (self._ctx.workspace.logs / "web.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        assert child.stdout is not None
        try:
            self._heard(await child.stdout.readline())
            return await child.wait()
        finally:
            await _end(child)

    def _command(self) -> list[str]:
        found = [sys.executable, "-m", "tutelage", "web", "--json", "--parent", str(os.getpid()),
                 "-p", str(self._ctx.workspace.root)]  # fmt: skip
        return found if self._port is None else [*found, "--port", str(self._port)]

    def _heard(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:  # it ended before it said anything: its log knows more
            return
        if "url" in said:
            self.url = str(said["url"])
            if self._ready is not None:
                self._ready(self.url, list(said["notes"]))
        else:
            fix = f". {said['fix']}" if said.get("fix") else ""
            self._warn(f"the web page does not run: {said.get('what')}{fix}")

    def _warn(self, text: str, kind: Any = "warning") -> None:
        self._ctx.emit(Event("web", kind, text))


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(child.wait()), _STOP_S)
    except TimeoutError:
        _log.warning("the web page did not end in %.0f s", _STOP_S)
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
