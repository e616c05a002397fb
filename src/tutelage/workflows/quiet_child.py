"""Child processes that work beside a gateway and give way to its requests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_NICE = 15  # of 19: requests are answered first, what nobody waits for takes the rest


async def run_quietly(
    arguments: Sequence[str],
    log: Path,
    *,
    keep_output: bool = True,
    environment: Mapping[str, str] | None = None,
    patient: bool = False,
) -> int:
    """Run this Python with arguments to its end, at a low priority; return the exit status.

    What it says goes to the end of `log`, its standard output only with `keep_output`. Cancelled,
    the child is killed, or asked to end and waited for if `patient`. Raises OSError if it can't
    be started.
    """
    with log.open("ab") as out:
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=subprocess.DEVNULL,
            stdout=out if keep_output else subprocess.DEVNULL, stderr=out,
            start_new_session=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    _give_way(child.pid)
    try:
        return await child.wait()
    except asyncio.CancelledError:
        child.terminate() if patient else child.kill()
        await child.wait()
        raise


def _give_way(pid: int) -> None:
    """Lower a process's priority, where the system has such."""
    if not hasattr(os, "setpriority"):
        return
    try:
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
    except OSError:  # it has ended already, or a policy forbids it: it runs as it is
        return
