"""MLflow in the project's own database; nothing is sent anywhere."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.training.trackers.base import TrackedRun, keep, kept

_NOTE = "mlflow"
_LONGEST = 500  # characters of a parameter
_PARENT = "mlflow.parentRunId"


class MlflowTracker:
    """MLflow, in `.tutelage/mlflow.db`: the default. A resumed job goes on in the same run."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._client: Any = None
        self._run_id = ""

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, empty before anything was logged."""
        return self._run_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Keep `values` as text; a resumed run's stay as they were first logged."""
        client = self._opened()
        known = client.get_run(self._run_id).data.params
        for name, value in values.items():
            if name not in known:
                client.log_param(self._run_id, name, str(value)[:_LONGEST])

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep one point of each curve."""
        from mlflow.entities import Metric

        client = self._opened()
        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, step) for name, value in values.items()]
        client.log_batch(self._run_id, metrics=points)

    def log_artifact(self, path: Path) -> None:
        """Copy a file to the run."""
        self._opened().log_artifact(self._run_id, str(path))

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._opened().set_terminated(self._run_id, status)

    def _opened(self) -> Any:
        if self._client is None:
            self._client = self._open()
        return self._client

    def _open(self) -> Any:
        from mlflow.tracking import MlflowClient

        run = self._run
        _check(run.workspace.home / "mlflow.db")
        client = MlflowClient(tracking_uri=run.workspace.mlflow_uri)
        self._run_id = kept(run.run_dir, _NOTE)
        if self._run_id:
            client.update_run(self._run_id, status="RUNNING")
            return client
        parent = kept(run.parent, _NOTE) if run.parent else ""
        made = client.create_run(
            self._experiment(client),
            run_name=run.name,
            tags={_PARENT: parent} if parent else None,
        )
        self._run_id = made.info.run_id
        keep(run.run_dir, _NOTE, self._run_id)
        return client

    def _experiment(self, client: Any) -> str:
        """Return the id of the project's experiment, made if there is none yet."""
        found = client.get_experiment_by_name(self._run.project)
        if found is not None:
            return str(found.experiment_id)
        files = self._run.workspace.home / "mlflow"
        files.mkdir(parents=True, exist_ok=True)
        return str(
            client.create_experiment(self._run.project, artifact_location=files.resolve().as_uri())
        )


def _check(database: Path) -> None:
    """Make the database if there is none, whole or not at all: half a schema is no use for ever.

    Raises sqlite3.Error if the one that is there can't be opened: MLflow would try for minutes.
    """
    from mlflow.tracking import MlflowClient

    if not database.exists():
        fresh = database.with_name(f".{database.name}.{os.urandom(6).hex()}")
        try:
            MlflowClient(tracking_uri=f"sqlite:///{fresh}").search_experiments(max_results=1)
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(fresh, database)
        finally:
            fresh.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
