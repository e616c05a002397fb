"""What a gateway has looked at now and then by child processes: drift, and signals in the traffic.

The gateway only counts requests. What a look finds it writes into the store itself; if it is cut
off, the next one goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from tutelage.core.durations import seconds
from tutelage.core.errors import EXIT_NO
from tutelage.feedback.drift.watch import BLOCK, SPANS
from tutelage.serving.hooks import Ask, BackgroundHook, Hook, Outcome
from tutelage.workflows.context import Context
from tutelage.workflows.quiet_child import run_quietly

_ENV = {"OMP_NUM_THREADS": "1"}
_log = logging.getLogger(__name__)


class Looks(BackgroundHook):
    """Runs a command of the program every so often, if `least` requests have come since.

    With `linger_s` it also runs while the last request is not older than that: silence may tell
    something too. Looks that share a `turn` wait for each other. A look under way is cut off at
    the end.
    """

    def __init__(
        self, ctx: Context, command: Sequence[str], every_s: float, *, least: int = 1,
        linger_s: float = 0.0, turn: asyncio.Lock | None = None,
    ) -> None:  # fmt: skip
        self._ctx, self._command, self._every_s = ctx, tuple(command), every_s
        self._least, self._linger_s = least, linger_s
        self._turn = turn or asyncio.Lock()
        self._new = least  # what came while no gateway ran is looked at first
        self._last = time.monotonic()  # when a request ended

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Count a request."""
        self._new += 1
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether there may be something to see."""
        return self._new >= self._least or time.monotonic() - self._last <= self._linger_s

    async def look(self) -> None:
        """Run the command once."""
        log = self._ctx.workspace.logs / f"{self._command[0]}.log"
        where = ("--json", "--project", str(self._ctx.workspace.root))
        status = await run_quietly(
            ("-m", "tutelage", *self._command, *where), log, keep_output=False, environment=_ENV
        )
        if status not in (0, EXIT_NO):
            name = " ".join(self._command)
            _log.warning("`tutelage %s` failed (status %d), see %s", name, status, log)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            if not self.due():
                continue
            self._new = 0
            try:
                async with self._turn:
                    await self.look()
            except OSError:
                _log.exception("`tutelage %s` could not be started", " ".join(self._command))


def looks(ctx: Context) -> tuple[Hook, ...]:
    """Return the looks that the project wants; without texts in the log there is no drift."""
    found: list[Hook] = []
    turn = asyncio.Lock()
    drift, feedback = ctx.config.drift, ctx.config.feedback
    if drift.every is not None and ctx.config.deploy.log == "all":
        found.append(
            Looks(ctx, ("drift", "look"), seconds(drift.every), least=BLOCK * SPANS[0], turn=turn)
        )
    if feedback.from_traffic:
        every = seconds(feedback.every)
        linger = seconds(feedback.session) + 2 * every
        found.append(Looks(ctx, ("feedback", "traffic"), every, linger_s=linger, turn=turn))
    return tuple(found)
