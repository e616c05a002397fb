"""Start the processes that train together, by torchrun on this machine, and listen to the first.

The job goes to them as files, events come back as lines. They end with this process: at Ctrl-C,
at an error, and when it is killed. Ray does the same over machines (ray_launcher.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.events import Emit, Event, silent
from tutelage.training.job import TrainingJob, TrainResult
from tutelage.training.job_files import FOLDER, raise_error, read_result, write_job
from tutelage.training.recipe import Recipe
from tutelage.training.tracker import Tracker
from tutelage.training.worker import WATCH

LOG = "workers.log"
_PATIENCE = 10.0  # seconds between asking the processes to end and ending them


def run(
    job: TrainingJob,
    *,
    processes: int | None = None,
    launcher: str = "torchrun",
    emit: Emit = silent,
) -> TrainResult:
    """Train `job` in this process, or in as many as asked for, and return what came out.

    Without `processes` there is one for each GPU if the recipe's strategy shares the work, else
    one. Raises what session.train raises, and EnvironmentProblem if a process died.
    """
    done = read_result(job.run_dir)
    if done is not None:  # other machines have done it, see job_files.py
        return done
    count = processes or default_processes(job.recipe)
    if launcher == "ray":
        from tutelage.training.ray_launcher import run_on_ray

        return run_on_ray(job, count, emit=emit)
    if count > 1:
        return run_together(job, count, emit=emit)
    from tutelage.training.session import train

    return train(job, emit=emit)


def default_processes(recipe: Recipe) -> int:
    """Return one for each GPU of this machine where the recipe shares the work, else one."""
    import torch

    return max(1, torch.cuda.device_count()) if recipe.strategy != "none" else 1


def run_together(job: TrainingJob, processes: int, *, emit: Emit = silent) -> TrainResult:
    """Train `job` in `processes` processes of this machine and return what came out.

    Raises the error that a process ended with, or EnvironmentProblem if one died.
    """
    write_job(job)
    with relaying(job.tracker) as told, (job.run_dir / FOLDER / LOG).open("wb") as log:
        with _started(torchrun(job.run_dir, processes), processes, log) as agent:
            assert agent.stdout is not None
            for line in agent.stdout:
                told(line, emit)
            code = agent.wait()
        return outcome(job.run_dir, code)


def torchrun(run_dir: Path, processes: int) -> list[str]:
    """Return the command that starts `processes` processes for the job in `run_dir`."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", "-m", "tutelage.training.worker", str(run_dir),
    ]  # fmt: skip


def outcome(run_dir: Path, code: int) -> TrainResult:
    """Return the result that lies in `run_dir`, or raise why there is none."""
    raise_error(run_dir)
    result = read_result(run_dir)
    if result is None or code:
        raise EnvironmentProblem(
            f"a training process ended before its time (exit status {code})",
            where=str(run_dir / FOLDER / LOG),
            fix="Read the end of that file; start again and training goes on from its checkpoint",
        )
    return result


@contextlib.contextmanager
def relaying(tracker: Tracker) -> Iterator[Any]:
    """Yield what takes a line of the first process; the tracker learns of every ending."""
    ended: list[str] = []

    def told(line: str, emit: Emit) -> None:
        message = json.loads(line)
        if "event" in message:
            emit(Event(**message["event"]))
        elif "path" in message:
            tracker.log_artifact(Path(message["path"]))
        else:
            getattr(tracker, message["tracker"])(*message["with"])
            ended.extend(message["with"] if message["tracker"] == "finish" else ())

    try:
        yield told
    except BaseException as error:
        if not ended:
            tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


@contextlib.contextmanager
def _started(command: list[str], processes: int, log: Any) -> Iterator[subprocess.Popen[str]]:
    """Yield the running agent of torchrun; it and its processes are gone afterwards."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    env = {"OMP_NUM_THREADS": threads} | os.environ | {WATCH: "1"}
    agent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env
    )
    assert agent.stdin is not None and agent.stdout is not None
    try:
        yield agent
    finally:
        agent.stdin.close()  # the processes end themselves when their input does
        if agent.poll() is None:
            agent.terminate()
            try:
                agent.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
        agent.stdout.close()
