"""Where a run's numbers go besides the history file: MLflow in the project, or nowhere.

MLflow is imported only when it is used, never sends anything anywhere, and stays off the terminal.
A failing tracker must not cost a training run: its errors become one warning.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tutelage.core.workspace import atomic_write

_RUN_FILE = "mlflow.json"


class Tracker(Protocol):
    """Listens to a run. Values are numbers; `step` counts optimizer steps."""

    def log_params(self, values: Mapping[str, Any]) -> None: ...

    def log_metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def log_artifact(self, path: Path) -> None: ...

    def finish(self, status: str) -> None: ...


class NullTracker:
    """Keeps nothing."""

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path) -> None:
        """Do nothing."""

    def finish(self, status: str) -> None:
        """Do nothing."""


class MlflowTracker:
    """One MLflow run in a local database; a resumed job goes on in the same run.

    `uri` is the project's SQLite address, `experiment` its name. The run's id is kept in
    `run_dir`. `warn` gets one sentence if MLflow fails; the tracker is silent from then on.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_dir: Path,
        *,
        artifacts: Path | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._run_dir = run_dir
        self._artifacts = artifacts or run_dir / "mlflow"
        self._warn = warn
        self._client: Any = None
        self._run_id = ""
        self._dead = False

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, empty before anything was logged."""
        return self._run_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Keep `values` as text; a resumed run's stay as they were first logged."""

        def write(client: Any, run: str) -> None:
            known = client.get_run(run).data.params
            for name, value in values.items():
                if name not in known:
                    client.log_param(run, name, str(value)[:500])

        self._tell(write)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep one point of each curve."""

        def write(client: Any, run: str) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            points = [Metric(name, float(value), now, step) for name, value in values.items()]
            client.log_batch(run, metrics=points)

        self._tell(write)

    def log_artifact(self, path: Path) -> None:
        """Copy a file to the run."""
        self._tell(lambda client, run: client.log_artifact(run, str(path)))

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._tell(lambda client, run: client.set_terminated(run, status))

    def _tell(self, write: Callable[[Any, str], None]) -> None:
        """Call `write(client, run id)`; any failure of MLflow ends the tracking with a warning."""
        if self._dead:
            return
        try:
            with hushed():
                if self._client is None:
                    self._open()
                write(self._client, self._run_id)
        except Exception as error:
            self._dead = True
            reason = str(error).strip().splitlines()
            self._warn(f"MLflow tracking stopped ({reason[0][:160] if reason else 'no reason'})")

    def _open(self) -> None:
        from mlflow.tracking import MlflowClient

        self._client = client = MlflowClient(tracking_uri=self._uri)
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            self._artifacts.mkdir(parents=True, exist_ok=True)
            location = self._artifacts.resolve().as_uri()
            experiment = client.create_experiment(self._experiment, artifact_location=location)
        else:
            experiment = found.experiment_id
        note = self._run_dir / _RUN_FILE
        with contextlib.suppress(OSError, ValueError, KeyError):
            self._run_id = str(json.loads(note.read_bytes())["run_id"])
        if self._run_id:
            client.update_run(self._run_id, status="RUNNING")
            return
        self._run_id = client.create_run(experiment, run_name=self._run_dir.name).info.run_id
        atomic_write(note, json.dumps({"run_id": self._run_id}).encode())


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep MLflow and its migrations off the terminal, and its telemetry off."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    names = ("mlflow", "alembic", "sqlalchemy", "git")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
