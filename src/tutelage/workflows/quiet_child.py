"""Child processes that work beside a gateway and give way to its requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_NICE = 15  # of 19: requests are answered first


async def run_quietly(
    arguments: Sequence[str],
    log: Path,
    *,
    keep_output: bool = True,
    environment: Mapping[str, str] | None = None,
    patient: bool = False,
) -> int:
    """Run this Python with arguments to its end, at a low priority; return the exit status.

    It gets what processors nobody else wants; a `patient` one, whose end people wait for, gets its
    small share always. What it says goes to the end of `log`, its standard output only with
    `keep_output`. Cancelled, it is killed, or asked to end and waited for if `patient`. Raises
    OSError if it can't be started.
    """
    with log.open("ab") as out:
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=subprocess.DEVNULL,
            stdout=out if keep_output else subprocess.DEVNULL, stderr=out,
            start_new_session=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    _give_way(child.pid, idle=not patient)
    try:
        return await child.wait()
    except asyncio.CancelledError:
        child.terminate() if patient else child.kill()
        await child.wait()
        raise


def _give_way(pid: int, *, idle: bool) -> None:
    """Lower a process's priority, where the system has such.

    Linux lets any other process take an idle one's place at once; a merely nice one keeps a
    processor for some milliseconds more, which requests would feel at every step.
    """
    with contextlib.suppress(OSError):  # it has ended already, or a policy forbids it
        if idle and sys.platform == "linux":
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, pid, _NICE)
