"""Lets the watch over drift look while a gateway runs, in a child process beside it.

The gateway only counts requests. What a look finds it writes into the store itself, as reports
and events; if it is cut off, the next one goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys

from tutelage.core.durations import seconds
from tutelage.core.errors import EXIT_NO
from tutelage.feedback.drift.watch import BATCHES
from tutelage.serving.hooks import Ask, BackgroundHook, Hook, Outcome
from tutelage.workflows.context import Context

_log = logging.getLogger(__name__)


class DriftLooks(BackgroundHook):
    """Starts a look every so often, if enough requests have come since the last one.

    A look under way is cut off at the end.
    """

    def __init__(self, ctx: Context, every_s: float) -> None:
        self._ctx, self._every_s = ctx, every_s
        self._new = BATCHES[0]  # what came while no gateway ran is looked at first

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Count an answered request."""
        self._new += outcome.status == 200

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            if self._new < BATCHES[0]:
                continue
            self._new = 0
            try:
                await self._look()
            except OSError:
                _log.exception("a look for drift could not be started")

    async def _look(self) -> None:
        command = ("-m", "tutelage", "drift", "look", "--json", "--project")
        log = self._ctx.workspace.logs / "drift.log"
        with log.open("ab") as out:
            child = await asyncio.create_subprocess_exec(
                sys.executable, *command, str(self._ctx.workspace.root), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=out, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        try:
            status = await child.wait()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if status not in (0, EXIT_NO):
            _log.warning("a look for drift failed (status %d), see %s", status, log)


def drift_looks(ctx: Context) -> tuple[Hook, ...]:
    """Return what lets the watch look, unless the project turned it off or keeps no texts."""
    every = ctx.config.drift.every
    if every is None or ctx.config.deploy.log != "all":
        return ()
    return (DriftLooks(ctx, seconds(every)),)
