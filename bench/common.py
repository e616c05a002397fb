"""What the benchmark scripts share: the machine in words, child processes, one JSON object."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
    "OMP_WAIT_POLICY": "passive",
}


def cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return the machine in words: processor, cores that may be used, memory, versions."""
    import psutil

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        processor = lines[0].split(":", 1)[1].strip() if lines else processor
    return {
        "processor": processor,
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.system(),
    }


class Clock:
    """Seconds and processor seconds of each step between `start` and `stop`."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds.append(time.perf_counter() - self._began[0])
        self.processor.append(time.process_time() - self._began[1])

    def steps(self) -> dict[str, list[float]]:
        """Return all steps but the first, which warms up."""
        return {"seconds": self.seconds[1:], "processor": self.processor[1:]}


def child(
    script: str, arguments: Sequence[str], *, threads: int, python: str = sys.executable
) -> dict[str, Any]:
    """Run `script` as a worker and return the JSON object on its last line of output.

    Raises RuntimeError with the end of its error output if it fails.
    """
    environment = os.environ | QUIET | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [python, script, *arguments], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def peak_memory_mb() -> float:
    """Return this process's highest resident memory so far, in MB (2**20 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 2**20


def median(values: Sequence[float]) -> float:
    """Return the median, rounded to three decimals."""
    return round(statistics.median(values), 3)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return `rows` as a plain text table; the first row gives the columns."""
    columns = list(rows[0])
    cells = [columns, *[[str(row.get(name, "")) for name in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
