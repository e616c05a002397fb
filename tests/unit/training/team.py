"""Runs a function in several processes that can talk to each other, as torchrun would."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_team(size: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Call `work(rank)` in `size` forked processes; return what each gave back, as JSON."""
    codes = start_team(size, work, folder)
    told = [(folder / f"rank-{rank}.txt").read_text() for rank in range(size)]
    assert codes == [0] * size, "\n".join(told)
    return [json.loads(text) for text in told]


def start_team(size: int, work: Callable[[int], Any], folder: Path) -> list[int | None]:
    """Do the same and return the exit codes; a process that fails leaves its traceback."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_child, args=(rank, size, port, work, folder))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _child(rank: int, size: int, port: int, work: Callable[[int], Any], folder: Path) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    output = folder / f"rank-{rank}.txt"
    try:
        output.write_text(json.dumps(work(rank)))
    except BaseException:
        output.write_text(traceback.format_exc())
        raise
