"""MLflow gets the run's numbers, quietly, in one run however often the job is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.training.tracker import MlflowTracker


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_resumed_job_goes_on_in_the_same_run(
    uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = MlflowTracker(uri, "icd-coder", tmp_path / "run")
    first.log_params({"rank": 16})
    first.log_metrics({"loss": 3.0}, 1)
    first.finish("KILLED")
    second = MlflowTracker(uri, "icd-coder", tmp_path / "run")
    second.log_params({"rank": 16, "model": "demo"})
    second.log_metrics({"loss": 2.0}, 2)
    (tmp_path / "history.json").write_text("{}")
    second.log_artifact(tmp_path / "history.json")
    second.finish("FINISHED")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("icd-coder")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == first.run_id == second.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rank": "16", "model": "demo"}
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["history.json"]
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")


def test_a_broken_tracker_costs_one_warning_and_no_run(tmp_path: Path) -> None:
    warnings: list[str] = []
    nowhere = f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'x.db'}"
    (tmp_path / "no").write_text("a file where a folder should be")
    tracker = MlflowTracker(nowhere, "icd-coder", tmp_path / "run", warn=warnings.append)
    tracker.log_params({"rank": 16})
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.finish("FINISHED")
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow tracking stopped (")
