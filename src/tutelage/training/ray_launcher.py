"""Train a job in Ray's processes, over as many machines as its cluster has.

Ray places the processes, joins them into one group and ends them together; what each does is the
same as under torchrun (worker.py). The run's folder must be storage that all machines share: the
job, the checkpoints and the outcome lie there. Without a cluster Ray starts one on this machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.events import Emit, silent
from tutelage.training.job import TrainingJob, TrainResult
from tutelage.training.job_files import FOLDER, write_job
from tutelage.training.launch import outcome, relaying

_LINES = "events.jsonl"
_STORE = 100 * 2**20  # bytes of Ray's object store on this machine: nothing large goes through it
_LOOK = 0.2  # seconds between looks at what the first process wrote


def run_on_ray(job: TrainingJob, processes: int, *, emit: Emit = silent) -> TrainResult:
    """Train `job` in `processes` processes of a Ray cluster and return what came out.

    The cluster is the one that RAY_ADDRESS names, or a new one on this machine. Raises the error
    that a process ended with, EnvironmentProblem if Ray is missing or a process died.
    """
    require_ray()
    run_dir = write_job(job).resolve()
    lines = run_dir / FOLDER / _LINES
    lines.unlink(missing_ok=True)
    with relaying(job.tracker) as told, _cluster(processes):
        failed = _fit(run_dir, processes, lambda line: told(line, emit))
        if failed is not None:
            outcome(run_dir, 1)
        return outcome(run_dir, 0)


def require_ray() -> None:
    """Raise EnvironmentProblem if Ray Train is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise EnvironmentProblem(
            "train.launcher: ray needs the package ray, which is not installed",
            fix="Run `pip install 'tutelage[ray]'`, or remove train.launcher",
        )


@contextlib.contextmanager
def _cluster(processes: int) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start one here; leave it at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():  # the caller's own: it stays
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        quiet |= {"num_cpus": processes, "include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address=address or "local", **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"Ray can't be reached or started ({_first_line(error)})",
            where=address,
            fix="Start the cluster with `ray start --head`, or unset RAY_ADDRESS",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _fit(run_dir: Path, processes: int, told: Callable[[str], None]) -> BaseException | None:
    """Run the processes and pass their lines on; return what Ray says went wrong, if anything."""
    import ray

    failed: list[BaseException] = []

    def fit() -> None:
        try:
            _trainer(run_dir, processes).fit()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    lines = Lines(run_dir / FOLDER / _LINES)
    try:
        while thread.is_alive():
            thread.join(_LOOK)
            for line in lines.new():
                told(line)
    except BaseException:
        ray.shutdown()  # nothing else ends the processes
        raise
    for line in lines.new():
        told(line)
    return failed[0] if failed else None


def _trainer(run_dir: Path, processes: int) -> Any:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = ray.cluster_resources().get("GPU", 0) >= processes
    return TorchTrainer(
        _work,
        train_loop_config={"run_dir": str(run_dir)},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpu),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        run_config=RunConfig(name="ray", storage_path=str(run_dir / FOLDER)),
    )


def _work(config: dict[str, Any]) -> None:
    """Do one process's part, in a process of Ray's."""
    from tutelage.training.worker import Wire, work

    run_dir = Path(config["run_dir"])
    with contextlib.ExitStack() as stack:
        stream = None
        if os.environ.get("RANK", "0") == "0":
            stream = stack.enter_context((run_dir / FOLDER / _LINES).open("a", encoding="utf-8"))
        work(run_dir, Wire(stream))


class Lines:
    """Whole lines that are added to a file, which may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def new(self) -> list[str]:
        """Return the lines that were added since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._place)
            found = stream.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._place += len(whole)
        return whole.decode("utf-8").splitlines()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
