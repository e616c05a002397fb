"""Have MLflow's registry follow a running gateway, which must not import mlflow itself.

A child process catches up (registry.py) a few seconds after the releases that serve
have changed, unless a command has done so meanwhile. If it is cut off, the next one does it.
"""

from __future__ import annotations

import asyncio
import logging

from tutelage.workflows.context import Context
from tutelage.workflows.quiet_child import run_quietly
from tutelage.workflows.release.registry import worth_a_child

WAIT_S = 3.0  # a command that moved the releases itself needs no help
_log = logging.getLogger(__name__)


class RegistryChild:
    """Starts at most one child at a time; what changes while it works is seen by the next one."""

    def __init__(self, ctx: Context, *, wait_s: float = WAIT_S) -> None:
        self._ctx, self._wait_s = ctx, wait_s
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def wanted(self) -> None:
        """Catch up soon. Call it from the event loop's thread."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            self._again = False
            await asyncio.sleep(self._wait_s)
            if await asyncio.to_thread(worth_a_child, self._ctx):
                await self._run()
            if not self._again:
                return

    async def _run(self) -> None:
        command = ("-m", "tutelage.workflows.release.registry", str(self._ctx.workspace.root))
        log = self._ctx.workspace.logs / "registry.log"
        status = await run_quietly(command, log)  # cut off, the next one does what is missing
        if status != 0:
            _log.warning("MLflow's registry did not follow (status %d), see %s", status, log)
