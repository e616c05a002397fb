"""Trackers get the run's numbers, quietly, in one run however often the job is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.errors import ConfigError, EnvironmentProblem
from tutelage.core.workspace import Workspace
from tutelage.training.tracker import NullTracker, TrackedRun, Tracker, make_tracker

Make = Callable[..., Tracker]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.create()
    return made


@pytest.fixture
def make(workspace: Workspace) -> Make:
    """Return a function that makes a tracker of the run called train-1."""

    def tracker(names: str | list[str], **fields: Any) -> Tracker:
        fields.setdefault("run_dir", workspace.runs / "train-1")
        return make_tracker(names, TrackedRun(workspace, "icd-coder", **fields))

    return tracker


def killed_and_resumed(make: Make, names: str | list[str], workspace: Workspace) -> None:
    """Track a run that is cut off at step 3, and goes on from its checkpoint at step 2."""
    first = make(names)
    first.log_params({"rank": 16})
    for step, loss in ((1, 3.0), (2, 2.5), (3, 9.0)):
        first.log_metrics({"loss": loss}, step)
    first.finish("KILLED")
    second = make(names)
    second.log_params({"rank": 16, "model": "demo"})
    for step, loss in ((3, 2.0), (4, 1.5)):
        second.log_metrics({"loss": loss}, step)
    history = workspace.home / "history.json"
    history.write_text("{}")
    second.log_artifact(history)
    second.finish("FINISHED")


def test_mlflow_goes_on_in_the_same_run(
    make: Make, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    killed_and_resumed(make, "mlflow", workspace)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=workspace.mlflow_uri)
    experiment = client.get_experiment_by_name("icd-coder")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "train-1"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rank": "16", "model": "demo"}
    points = client.get_metric_history(run.info.run_id, "loss")
    assert {point.step: point.value for point in points} == {1: 3.0, 2: 2.5, 3: 2.0, 4: 1.5}
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["history.json"]
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")


def test_mlflow_nests_a_part_under_its_whole(make: Make, workspace: Workspace) -> None:
    whole = workspace.runs / "search-1"
    make("mlflow", run_dir=whole).log_params({"trials": 2})
    make("mlflow", run_dir=whole / "trial-0", parent=whole).log_metrics({"loss": 1.0}, 1)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=workspace.mlflow_uri)
    experiment = client.get_experiment_by_name("icd-coder")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs["trial-0"].data.tags["mlflow.parentRunId"]
    assert parent == runs["search-1"].info.run_id


def test_tensorboard_shows_one_curve_of_a_resumed_run(
    make: Make, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    killed_and_resumed(make, "tensorboard", workspace)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(workspace.home / "tensorboard" / "train-1"))
    shown.Reload()
    assert {e.step: e.value for e in shown.Scalars("loss")} == {1: 3.0, 2: 2.5, 3: 2.0, 4: 1.5}
    assert "params/text_summary" in shown.Tags()["tensors"]
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")


_WANDB = """
import sys
from pathlib import Path
from tests.unit.training.test_training_tracker import killed_and_resumed
from tutelage.core.workspace import Workspace
from tutelage.training.tracker import TrackedRun, make_tracker
workspace = Workspace(Path(sys.argv[1]))
run = TrackedRun(workspace, "icd-coder", workspace.runs / "train-1", warn=print)
killed_and_resumed(lambda names: make_tracker(names, run), "wandb", workspace)
"""


def test_wandb_is_offline_and_keeps_the_id_of_a_resumed_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", _WANDB, str(workspace.root)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    folders = sorted((workspace.home / "wandb").glob("offline-run-*"))
    ids = {file.stem.removeprefix("run-") for folder in folders for file in folder.glob("*.wandb")}
    assert len(folders) == 2
    assert len(ids) == 1
    assert next(iter(ids)).startswith("train-1-")
    assert list((workspace.home / "wandb").glob("run-*")) == []  # what is synced is called so


def test_trackio_keeps_one_run_in_the_project(make: Make, workspace: Workspace) -> None:
    # Its pillow and ours exclude each other, so it is not in the pinned set.
    pytest.importorskip("trackio", reason="trackio can't be installed beside our pinned pillow")
    killed_and_resumed(make, "trackio", workspace)
    assert (workspace.home / "trackio" / "icd-coder.db").is_file()


def test_several_trackers_get_the_same(make: Make, workspace: Workspace) -> None:
    pytest.importorskip("tensorboard")
    both = make(["mlflow", "tensorboard"])
    both.log_metrics({"loss": 1.0}, 1)
    both.finish("FINISHED")
    assert (workspace.home / "mlflow.db").is_file()
    assert any((workspace.home / "tensorboard" / "train-1").glob("events.*"))


def test_none_keeps_nothing(make: Make, workspace: Workspace) -> None:
    before = sorted(workspace.home.rglob("*"))
    assert isinstance(make("none"), NullTracker)
    assert sorted(workspace.home.rglob("*")) == before


def test_nothing_is_opened_before_the_first_value(make: Make, workspace: Workspace) -> None:
    make("mlflow")
    assert not (workspace.home / "mlflow.db").exists()


def test_an_unknown_tracker_names_the_known_ones(make: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        make("mlfow")
    assert caught.value.sentence() == (
        "'mlfow' is not one of tutelage's trackers. Did you mean 'mlflow'? Known: mlflow, "
        "tensorboard, trackio, wandb."
    )


def test_none_stands_alone(make: Make) -> None:
    with pytest.raises(ConfigError, match="names none beside others"):
        make(["none", "mlflow"])


def test_a_tracker_that_is_not_installed_is_said_before_training(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.training.trackers.base.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem) as caught:
        make("wandb")
    assert caught.value.sentence() == (
        "train.tracker names Weights & Biases, which is not installed. Run `pip install "
        "'tutelage[wandb]'`, or name another tracker."
    )


def test_a_broken_tracker_costs_one_warning_and_no_run(make: Make, workspace: Workspace) -> None:
    warnings: list[str] = []
    (workspace.home / "mlflow.db").mkdir()  # a folder where the database should be
    tracker = make("mlflow", warn=warnings.append)
    tracker.log_params({"rank": 16})
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.finish("FINISHED")
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow tracking stopped (")


def test_a_database_that_was_cut_off_while_it_was_made_is_none(
    make: Make, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    class Killed(BaseException):
        pass

    def cut_off(client: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", cut_off)
        with pytest.raises(Killed):
            make("mlflow").log_params({"rank": 16})
    assert not (workspace.home / "mlflow.db").exists()
    warnings: list[str] = []
    make("mlflow", warn=warnings.append).log_params({"rank": 16})
    assert warnings == []
    assert not list(workspace.home.glob(".mlflow*"))


def test_no_tracker_is_told_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.training.trackers.base import Guard

    monkeypatch.setenv("TEACHER_API_KEY", "correct-horse-battery")
    told: dict[str, Any] = {}

    class Ear(NullTracker):
        def log_params(self, values: Mapping[str, Any]) -> None:
            told.update(values)

    Guard("Ear", Ear(), print).log_params(
        {
            "max_tokens": 1024,
            "target_modules": ("q_proj", "v_proj"),
            "api_key": "abc",
            "api_key_env": "TEACHER_API_KEY",
            "note": "called with correct-horse-battery today",
            "teacher": {"base_url": "https://me:pw12@host/v1", "token": "t"},
            "command": "curl -H 'Authorization: Bearer abcdefghijk' sk-proj-0123456789abcdef",
        }
    )
    assert told == {
        "max_tokens": 1024,
        "target_modules": ["q_proj", "v_proj"],
        "api_key": "[redacted]",
        "api_key_env": "TEACHER_API_KEY",
        "note": "called with [redacted] today",
        "teacher": {"base_url": "https://[redacted]@host/v1", "token": "[redacted]"},
        "command": "curl -H 'Authorization: Bearer [redacted] [redacted]",
    }
