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

import cloudpickle
import torch

# Processes are forked from a server that has imported these and run nothing: the tests' own
# process has run torch, and a fork of its threads may die anywhere.
PRELOADED = [
    "tests.unit.training.test_several_processes",
    "tutelage.training.strategies.fsdp2",
    "transformers.models.llama.modeling_llama",
    "peft",
]


def in_team(size: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Call `work(rank)` in `size` fresh processes; return what each gave back, as JSON."""
    codes = start_team(size, work, folder)
    files = [folder / f"rank-{rank}.txt" for rank in range(size)]
    told = [file.read_text() if file.exists() else "(died without a word)" for file in files]
    assert codes == [0] * size, "\n".join([f"exit codes {codes}", *told])
    return [json.loads(text) for text in told]


def start_team(size: int, work: Callable[[int], Any], folder: Path) -> list[int | None]:
    """Do the same and return the exit codes; a process that fails leaves its traceback."""
    folder.mkdir(parents=True, exist_ok=True)
    port, packed = free_port(), cloudpickle.dumps(work)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    processes = [
        context.Process(target=_child, args=(_environment(rank, size, port), packed, folder))
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


def _environment(rank: int, size: int, port: int) -> dict[str, str]:
    """Return the tests' environment of now, and what torch.distributed reads."""
    return dict(os.environ) | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def _child(environment: dict[str, str], packed: bytes, folder: Path) -> None:
    os.environ |= environment
    torch.set_num_threads(1)  # as the tests' own process
    output = folder / f"rank-{environment['RANK']}.txt"
    try:
        work = cloudpickle.loads(packed)
        output.write_text(json.dumps(work(int(environment["RANK"]))))
    except BaseException:
        output.write_text(traceback.format_exc())
        raise
