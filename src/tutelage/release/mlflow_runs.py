"""Show evaluations as runs in MLflow: metrics, the report as an artifact, the data as inputs.

A run is made once an evaluation, found again by its tag, and stands under the run that trained
the candidate if that is known. Nothing is computed here.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.release.mlflow import client

_PARENT, _CONTEXT = "mlflow.parentRunId", "mlflow.data.context"
_DIGEST = 36  # characters that MLflow keeps of a dataset's digest


@dataclass(frozen=True)
class Data:
    """One side of a dataset version: where it lies, how many rows, and what it was used for."""

    name: str
    digest: str
    file: Path
    rows: int
    context: str  # training, validation or evaluation


@dataclass(frozen=True)
class EvaluationRun:
    """One evaluation as a run. `metrics` that are no number are left out."""

    experiment: str
    folder: Path  # where the experiment's artifacts lie, if it has to be made
    name: str
    evaluation: str  # its hash, the tag it is found by
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    files: Sequence[Path] = ()
    data: Sequence[Data] = ()


def find_run(uri: str, experiment: str, name: str) -> str | None:
    """Return the id of the newest run of this name in a project's experiment, or None."""
    with client(uri) as tracking:
        found = tracking.get_experiment_by_name(experiment)
        if found is None:
            return None
        return _search(tracking, found.experiment_id, f"attributes.run_name = '{name}'")


def log_data(uri: str, run: str, data: Sequence[Data]) -> None:
    """Show `data` as inputs of a run; those it has already stay one entry."""
    with client(uri) as tracking:
        _log_data(tracking, run, data)


def log_evaluation(uri: str, run: EvaluationRun, parent: str | None) -> str:
    """Return the id of the evaluation's run, made if there is none yet.

    Raises EnvironmentProblem if mlflow is missing or its database can't be used.
    """
    with client(uri) as tracking:
        experiment = _experiment(tracking, run)
        known = _search(tracking, experiment, f"tags.evaluation = '{run.evaluation}'")
        if known is not None and tracking.get_run(known).info.status == "FINISHED":
            return known
        tags = {**run.tags, **({_PARENT: parent} if parent else {})}
        run_id = known or _make(tracking, experiment, run, tags)
        _fill(tracking, run_id, run)
        tracking.set_terminated(run_id, "FINISHED")
        return run_id


def _make(tracking: Any, experiment: str, run: EvaluationRun, tags: Mapping[str, str]) -> str:
    made = tracking.create_run(
        experiment, run_name=run.name, tags={"evaluation": run.evaluation, **tags}
    )
    return str(made.info.run_id)


def _fill(tracking: Any, run_id: str, run: EvaluationRun) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [
        Metric(name, float(value), now, 0)
        for name, value in run.metrics.items()
        if value is not None and math.isfinite(value)
    ]
    tracking.log_batch(run_id, metrics=points)
    _log_data(tracking, run_id, run.data)
    for file in run.files:
        if file.is_file():
            tracking.log_artifact(run_id, str(file))


def _log_data(tracking: Any, run_id: str, data: Sequence[Data]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=f"{item.name}-{item.file.stem}",
                digest=item.digest[:_DIGEST],
                source_type="local",
                source=json.dumps({"uri": str(item.file)}),
                profile=json.dumps({"num_rows": item.rows}),
            ),
            [InputTag(_CONTEXT, item.context)],
        )
        for item in data
    ]
    if inputs:
        tracking.log_inputs(run_id, datasets=inputs)


def _search(tracking: Any, experiment: str, query: str) -> str | None:
    found = tracking.search_runs(
        [experiment], filter_string=query, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return str(found[0].info.run_id) if found else None


def _experiment(tracking: Any, run: EvaluationRun) -> str:
    found = tracking.get_experiment_by_name(run.experiment)
    if found is not None:
        return str(found.experiment_id)
    run.folder.mkdir(parents=True, exist_ok=True)
    where = run.folder.resolve().as_uri()
    return str(tracking.create_experiment(run.experiment, artifact_location=where))
