"""The real MLflow registry follows the store: runs, metrics, report, data, versions, aliases."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.unit.workflows.test_release import CONFIG, Bench, passed

from tutelage.release import deployments, mlflow
from tutelage.release.deployments import ensure_deployment
from tutelage.store.artifacts import ArtifactRow, StageRow
from tutelage.workflows.release import registry, registry_child
from tutelage.workflows.release import release as releasing
from tutelage.workflows.release import rollout as rollouts

pytestmark = pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")

DOCUMENT = {
    "candidates": [
        {"name": "base", "metrics": {"accuracy": {"estimate": 0.5}}},
        {"name": "tuned", "metrics": {"accuracy": {"estimate": 0.9}, "f1": {"estimate": None}}},
    ]
}


@pytest.fixture
def bench(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Bench:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return Bench(make_project(config=CONFIG))


def evaluated(bench: Bench) -> tuple[Any, Any, Any]:
    """Return what earlier stages made, a training run in MLflow and a report among it."""
    made = passed(bench)
    folder = bench.ctx.path_of(made[2])
    (folder / "evaluation.json").write_text(json.dumps(DOCUMENT))
    (folder / "report.html").write_text("<p>report</p>")
    with bench.ctx.store.begin() as session:
        for stage, output in (("curate", made[0]), ("train", made[1])):
            session.add(StageRow(stage=stage, input_hash="x", output=output.hash, seconds=0.0))
        adapter = session.get_one(ArtifactRow, made[1].hash)
        adapter.meta = adapter.meta | {"run": "train-abc"}
        row = session.get_one(ArtifactRow, made[2].hash)
        row.meta = row.meta | {"forgetting": 0.01, "primary": {"difference_low": 0.3}}
    with mlflow.client(bench.ctx.workspace.mlflow_uri) as client:
        where = (bench.ctx.workspace.home / "mlflow").as_uri()
        experiment = client.create_experiment("colours", artifact_location=where)
        client.create_run(experiment, run_name="train-abc")
    return made


def test_mlflow_shows_what_its_users_expect(bench: Bench) -> None:
    dataset, _, evaluation = evaluated(bench)
    releasing.base_release(bench.ctx)
    assert registry.behind(bench.ctx), "the evaluation has no run yet"
    releasing.create(bench.ctx)
    uri = bench.ctx.workspace.mlflow_uri
    view = mlflow.describe_model(uri, "colours")
    assert view["aliases"] == {"candidate": "2"}
    version = view["versions"]["2"]
    assert version["description"].startswith("model, tuned for the project colours")
    assert version["tags"]["verdict"] == "pass" and version["tags"]["evaluation"] == evaluation.hash
    with mlflow.client(uri) as client:
        trained = client.get_run(version["run"])
        assert trained.info.run_name == "train-abc"
        sides = {d.dataset.name: d.tags[0].value for d in trained.inputs.dataset_inputs}
        assert sides == {"colours-train": "training", "colours-validation": "validation"}
        run = client.get_run(version["tags"]["evaluation_run"])
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {
            "base/accuracy": 0.5, "tuned/accuracy": 0.9, "forgetting": 0.01, "difference_low": 0.3,
        }  # fmt: skip
        assert run.data.tags["mlflow.parentRunId"] == version["run"]
        names = {f.path for f in client.list_artifacts(run.info.run_id)}
        assert names == {"report.html", "evaluation.json"}
        (data,) = run.inputs.dataset_inputs
        assert (data.dataset.digest, data.tags[0].value) == (dataset.hash[:36], "evaluation")


def test_an_evaluation_that_leads_to_no_release_is_a_run_too(bench: Bench) -> None:
    _, _, evaluation = evaluated(bench)
    assert registry.behind(bench.ctx)
    registry.catch_up(bench.ctx)
    assert not registry.behind(bench.ctx)
    with mlflow.client(bench.ctx.workspace.mlflow_uri) as client:
        experiment = client.get_experiment_by_name("colours")
        runs = client.search_runs([experiment.experiment_id], "tags.evaluation != ''")
        assert [run.data.tags["evaluation"] for run in runs] == [evaluation.hash]
        trained = client.get_run(runs[0].data.tags["mlflow.parentRunId"])
        assert trained.info.run_name == "train-abc"


def test_aliases_move_with_promote_rollback_and_without_a_command(bench: Bench) -> None:
    """What the gateway moves by itself, the next command or a child process registers."""
    evaluated(bench)
    ctx = bench.ctx
    releasing.create(ctx)

    def aliases() -> dict[str, str]:
        found: dict[str, str] = mlflow.describe_model(ctx.workspace.mlflow_uri, "colours")[
            "aliases"
        ]
        return found

    rollouts.start(ctx, "colours-v1")
    assert aliases() == {"stable": "2", "candidate": "1"}
    deployments.promote(ctx.store, "colours", reason="held every limit")  # as the controller does
    assert aliases() == {"stable": "2", "candidate": "1"} and registry.behind(ctx)
    registry.catch_up(ctx)
    assert aliases() == {"stable": "1"} and not registry.behind(ctx)
    rollouts.rollback(ctx)
    assert aliases() == {"stable": "2"}
    deployments.switch(ctx.store, "colours", ctx_release(ctx))

    async def child() -> None:
        follower = registry_child.RegistryChild(ctx, wait_s=0.0)
        follower.wanted()
        follower.wanted()
        assert follower._task is not None
        await follower._task

    asyncio.run(child())
    assert aliases() == {"stable": "1"}
    assert (ctx.workspace.logs / "registry.log").read_text() == ""


def ctx_release(ctx: Any) -> str:
    from tutelage.release.bundle import get_release

    return get_release(ctx.store, "colours-v1").id


def test_a_second_deployment_has_aliases_of_its_own(bench: Bench) -> None:
    evaluated(bench)
    made = releasing.create(bench.ctx).artifact.hash
    base = releasing.base_release(bench.ctx).artifact.hash
    ensure_deployment(bench.ctx.store, "colours", base)
    ensure_deployment(bench.ctx.store, "eu", made)
    assert registry.wanted_aliases(bench.ctx.store, "colours") == {
        "stable": base, "eu-stable": made, "candidate": made,
    }  # fmt: skip


def test_nothing_to_do_imports_no_mlflow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    releasing.base_release(bench.ctx)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    registry.catch_up(bench.ctx)
    assert bench.events == [] and not registry.worth_a_child(bench.ctx)
