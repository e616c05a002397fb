"""One of the processes that train together: `python -m tutelage.training.worker RUN_DIR`.

torchrun or Ray starts it and says which one it is; the job lies in RUN_DIR (job_files.py). The
first process writes what happens to its standard output, one JSON document a line; all else that
is printed goes to standard error. It ends when the process that reads from it does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from tutelage.core.errors import ModelError, TutelageError
from tutelage.core.events import Event
from tutelage.training.job import TrainResult
from tutelage.training.job_files import read_job, write_error, write_result

WATCH = "TUTELAGE_WATCH_STDIN"  # "1": standard input ends with the process that started this


class Wire:
    """Writes events and tracked numbers as JSON lines; it is the first process's tracker too."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def emit(self, event: Event) -> None:
        """Send an event."""
        self._send({"event": asdict(event)})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Send the run's settings."""
        self._send({"tracker": "log_params", "with": [dict(params)]})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send a step's numbers."""
        self._send({"tracker": "log_metrics", "with": [dict(metrics), step]})

    def log_artifact(self, path: Path) -> None:
        """Send the path of a file to keep."""
        self._send({"tracker": "log_artifact", "path": str(path)})

    def finish(self, status: str) -> None:
        """Send how the run ended."""
        self._send({"tracker": "finish", "with": [status]})

    def _send(self, message: dict[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(message, default=str) + "\n")
            self._stream.flush()


def work(run_dir: Path, wire: Wire) -> TrainResult:
    """Do this process's part of the job in `run_dir`; leave result.json or error.json there."""
    from tutelage.training.session import train

    try:
        result = train(replace(read_job(run_dir), tracker=wire), emit=wire.emit)
    except TutelageError as error:
        write_error(run_dir, error)
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error).lower():
            raise
        full = ModelError(
            "it does not fit into memory",
            fix="Lower train.micro_batch, or set train.checkpointing: true",
        )
        write_error(run_dir, full)
        raise full from error
    if os.environ.get("RANK", "0") == "0":
        write_result(run_dir, result)
    return result


def main(run_dir: str) -> int:
    """Work as one of the processes of torchrun; return the exit status."""
    if os.environ.get(WATCH) == "1":
        threading.Thread(target=_end_with_parent, daemon=True).start()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    first = os.environ.get("RANK", "0") == "0"
    try:
        work(Path(run_dir), Wire(stream if first else None))
    except TutelageError as error:
        sys.stderr.write(f"error: {error.sentence()}\n")
        return error.exit_code
    return 0


def _end_with_parent() -> None:
    """End this process, at once, when its standard input ends."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
