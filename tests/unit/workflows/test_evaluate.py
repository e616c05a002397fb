"""The evaluate stage from a frozen data set to a verdict, its files, its scores, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import FORMAT, examples

from tutelage.core.artifact import Artifact, describe
from tutelage.core.config import Project
from tutelage.core.errors import ConfigError
from tutelage.core.events import Event
from tutelage.data.version import VersionDraft, write_version
from tutelage.evaluation.forgetting import probes
from tutelage.inference.models import ModelSource
from tutelage.store.scores import EvaluationRow, ScoreRow
from tutelage.workflows.context import Context, find_artifact, open_context, register
from tutelage.workflows.evaluation import evaluate as workflow

SPLITS = {
    "train": examples("old", 24),
    "validation": examples("middle", 4),
    "test": examples("new", 30),
}
RIGHT = {row.input_text: row.answer or "" for row in SPLITS["test"]}
ALL_WARM = dict.fromkeys(RIGHT, FORMAT.render("warm"))


class Open:
    """Opens one fake engine and counts how often it was asked to."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.times = engine, 0

    def __call__(self, source: ModelSource, batch_size: int) -> workflow.LoadedEngine:
        self.times += 1
        return workflow.LoadedEngine(self.engine, lambda text: len(text.split()))


@pytest.fixture
def project(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Context, Artifact, Artifact, list[Event]]:
    """An opened project with a data set and an adapter; the model is never loaded."""
    source = ModelSource("demo", "demo", "directory", tmp_path, "d" * 64)
    monkeypatch.setattr(workflow, "locate_model", lambda spec, root: source)
    events: list[Event] = []
    ctx = open_context(make_project(), events.append)
    clusters = {row.id: row.id for rows in SPLITS.values() for row in rows}
    version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(SPLITS, clusters))
    dataset = describe("dataset", version.hash, ctx.workspace.relative(version.directory))
    folder = ctx.workspace.artifacts / "adapters" / "aaa"
    folder.mkdir(parents=True)
    adapter = describe("adapter", "a" * 64, ctx.workspace.relative(folder))
    return ctx, register(ctx.store, dataset), register(ctx.store, adapter), events


Opened = tuple[Context, Artifact, Artifact, list[Event]]


def test_a_better_model_passes_and_leaves_all_its_evidence(project: Opened) -> None:
    ctx, dataset, adapter, events = project
    engine = FakeEngine(ALL_WARM, RIGHT)
    outcome = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(engine))
    meta = outcome.artifact.meta
    assert meta["verdict"] == "pass"
    assert (meta["primary"]["base"], meta["primary"]["tuned"]) == (0.5, 1.0)
    assert meta["primary"]["difference_low"] > 0
    assert meta["forgetting"] == 0.0
    folder = ctx.path_of(outcome.artifact)
    assert {p.name for p in folder.iterdir()} == {
        "evaluation.json", "rows.jsonl", "golden.json", "report.html", "report.txt",
        "manifest.json", "probes-base.json", "probes-tuned.json",
    }  # fmt: skip
    assert (ctx.workspace.home / meta["report"]).is_file()
    assert outcome.artifact.parents == (dataset.hash, adapter.hash)
    lineage = json.loads((folder / "evaluation.json").read_text())["lineage"]
    assert lineage["dataset version"] == dataset.short
    assert lineage["tuned model"] == adapter.short
    assert engine.closed and not list(ctx.workspace.runs.iterdir())
    assert events[-1].message.startswith("The tuned model is better")
    assert any(e.kind == "progress" for e in events)


def test_every_score_is_a_row_of_the_store(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    engine = FakeEngine(ALL_WARM, RIGHT)
    outcome = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(engine))
    with ctx.store.session() as session:
        row = session.scalars(select(EvaluationRow)).one()
        counted = session.execute(
            select(ScoreRow.candidate, ScoreRow.metric, func.count(), func.avg(ScoreRow.value))
            .group_by(ScoreRow.candidate, ScoreRow.metric)
        ).all()  # fmt: skip
    assert (row.id, row.verdict, row.candidate) == (outcome.artifact.hash, "pass", adapter.hash)
    table = {(c, m): (n, avg) for c, m, n, avg in counted}
    assert table["tuned", "accuracy"] == (30, 1.0)
    assert table["base", "accuracy"] == (30, 0.5)
    assert len({c for c, _ in table}) == 7


def test_the_same_inputs_are_not_evaluated_twice(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    opened = Open(FakeEngine(ALL_WARM, RIGHT))
    first = workflow.evaluate(ctx, dataset, adapter, open_engine=opened)
    again = workflow.evaluate(ctx, dataset, adapter, open_engine=opened)
    assert again.skipped and again.artifact.hash == first.artifact.hash and opened.times == 1
    assert find_artifact(ctx.store, first.artifact.hash).meta == first.artifact.meta


def test_a_killed_evaluation_goes_on(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    values = ctx.config.model_dump() | {"evaluate": {"batch_size": 8, "latency_rows": 3}}
    ctx = Context(ctx.workspace, Project.model_validate(values), ctx.store)
    with pytest.raises(KeyboardInterrupt):
        workflow.evaluate(
            ctx, dataset, adapter, open_engine=Open(FakeEngine(ALL_WARM, RIGHT, dies_after=9))
        )
    second = FakeEngine(ALL_WARM, RIGHT)
    outcome = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(second))
    batches = [asked for _, asked in second.calls if len(asked) > 1]  # the rest is timed alone
    assert len(batches) == 12 - 8  # three candidates write 4 batches of 8 each
    assert outcome.artifact.meta["primary"]["tuned"] == 1.0


def test_without_an_adapter_the_base_is_measured_and_nothing_decided(project: Opened) -> None:
    ctx, dataset, _, _ = project
    outcome = workflow.evaluate(ctx, dataset, None, open_engine=Open(FakeEngine(ALL_WARM, {})))
    meta = outcome.artifact.meta
    assert meta["verdict"] == "not_enough_evidence" and meta["criteria"] == []
    assert meta["primary"]["tuned"] is None and meta["forgetting"] is None


def test_a_model_that_lost_its_english_fails(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    engine = FakeEngine(ALL_WARM, RIGHT, tuned_nll=1.5)
    meta = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(engine)).artifact.meta
    assert meta["verdict"] == "fail"
    assert "fails" in meta["sentence"] and "keeps general English" in meta["sentence"]


def test_golden_answers_are_kept_for_the_release(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    engine = FakeEngine(ALL_WARM, RIGHT)
    outcome = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(engine))
    kept = json.loads((ctx.path_of(outcome.artifact) / "golden.json").read_text())
    assert len(kept) == 5
    assert all(RIGHT[k["messages"][-1]["content"]] == k["expected"] for k in kept)


def test_an_unknown_must_pass_id_stops_before_any_answer(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    values = ctx.config.model_dump() | {"evaluate": {"must_pass": ["0000000000"]}}
    ctx = Context(ctx.workspace, Project.model_validate(values), ctx.store)
    opened = Open(FakeEngine(ALL_WARM, RIGHT))
    with pytest.raises(ConfigError, match="must_pass: '0000000000'"):
        workflow.evaluate(ctx, dataset, adapter, open_engine=opened)
    assert opened.times == 0


def test_probe_sentences_are_all_asked(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    engine = FakeEngine(ALL_WARM, RIGHT)
    outcome = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(engine))
    document = json.loads((ctx.path_of(outcome.artifact) / "evaluation.json").read_text())
    assert document["forgetting"]["accuracy_drop"]["n"] == len(probes())


def test_answers_are_timed_alone_and_priced(project: Opened) -> None:
    ctx, dataset, adapter, _ = project
    values = ctx.config.model_dump() | {
        "evaluate": {"latency_rows": 3, "criteria": [{"at_most": {"metric": "cost", "value": 1}}]},
        "prices": {"currency": "EUR", "tokens": {"tuned": {"prompt": 2, "completion": 8}}},
    }
    ctx = Context(ctx.workspace, Project.model_validate(values), ctx.store)
    engine = FakeEngine(ALL_WARM, RIGHT)
    outcome = workflow.evaluate(ctx, dataset, adapter, open_engine=Open(engine))
    document = json.loads((ctx.path_of(outcome.artifact) / "evaluation.json").read_text())
    found = {c["name"]: c for c in document["candidates"]}
    assert found["tuned"]["usage"]["alone"]["rows"] == 3
    assert found["base_constrained"]["usage"] is None
    assert outcome.artifact.meta["usage"]["tuned"] == found["tuned"]["usage"]
    assert outcome.artifact.meta["cost"] == document["cost"]
    (priced,) = document["cost"]["candidates"]
    assert priced["name"] == "tuned" and priced["EUR_for_1000_answers"] > 0
    assert "cost" not in found["tuned"]["metrics"]
    assert any("cost" in c["sentence"] for c in outcome.artifact.meta["criteria"])
    html = (ctx.path_of(outcome.artifact) / "report.html").read_text()
    assert "What answers cost" in html and "EUR for 1000 answers" in html
    with ctx.store.session() as session:
        sources = set(session.scalars(select(ScoreRow.source).where(ScoreRow.metric == "cost")))
    assert sources == {"metric"}
    cheaper = values | {"prices": values["prices"] | {"tokens": {}, "hour": 1.0}}
    again = Context(ctx.workspace, Project.model_validate(cheaper), ctx.store)
    asked = len(engine.calls)
    judged = workflow.evaluate(again, dataset, adapter, open_engine=Open(engine)).artifact
    assert len(engine.calls) == asked and judged.hash != outcome.artifact.hash
    document = json.loads((ctx.path_of(judged) / "evaluation.json").read_text())
    assert {c["by"] for c in document["cost"]["candidates"]} == {"time"}
