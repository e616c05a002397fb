"""Forgetting in an evaluation: own probes, the divergence, a text-only model, judged again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import FORMAT, examples

from tutelage.core.artifact import Artifact, describe
from tutelage.core.config import Project
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event
from tutelage.data.version import VersionDraft, write_version
from tutelage.evaluation import report_text
from tutelage.inference.models import ModelSource
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation import evaluate as workflow

SPLITS = {
    "train": examples("old", 12),
    "validation": examples("middle", 4),
    "test": examples("new", 16),
}
RIGHT = {row.input_text: row.answer or "" for row in SPLITS["test"]}
ALL_WARM = dict.fromkeys(RIGHT, FORMAT.render("warm"))
LAW = [
    {"question": f"Case {i}?", "choices": ["won", "lost in the end"], "answer": 0}
    for i in range(20)
] + [{"text": f"Clause {i} binds the tenant of the house."} for i in range(10)]  # fmt: skip


class Opener:
    """Opens one fake engine whose tuned side moved by `nats` a token."""

    def __init__(self, *, nats: float | None = None, only_text: bool = False) -> None:
        self.engine, self.nats, self.only_text = FakeEngine(ALL_WARM, RIGHT), nats, only_text
        self.times = 0

    def __call__(self, source: ModelSource, batch_size: int) -> workflow.LoadedEngine:
        self.times += 1
        moved = None if self.nats is None else self._moved
        return workflow.LoadedEngine(
            self.engine, lambda text: len(text.split()), only_text=self.only_text, divergence=moved
        )

    def _moved(self, texts: Sequence[str], tuned: Path) -> list[tuple[float, int]]:
        return [((self.nats or 0.0) * len(text), len(text)) for text in texts]


@pytest.fixture
def project(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Context, Artifact, Artifact, list[Event]]:
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


def with_settings(ctx: Context, **evaluate: Any) -> Context:
    values = ctx.config.model_dump() | {"evaluate": evaluate}
    return Context(ctx.workspace, Project.model_validate(values), ctx.store, ctx.emit)


def write_law(ctx: Context, rows: Sequence[object] = LAW) -> None:
    (ctx.workspace.root / "law.jsonl").write_text("\n".join(json.dumps(r) for r in rows))


def evaluated(ctx: Context, opened: Opened, opener: Opener) -> dict[str, Any]:
    outcome = workflow.evaluate(ctx, opened[1], opened[2], open_engine=opener)
    found: dict[str, Any] = json.loads(
        (ctx.path_of(outcome.artifact) / "evaluation.json").read_text()
    )
    return found


def names(document: dict[str, Any]) -> dict[str, str]:
    return {c["name"]: c["outcome"] for c in document["verdict"]["criteria"]}


def test_own_probes_and_the_divergence_are_measured_reported_and_guarded(project: Opened) -> None:
    ctx = with_settings(project[0], probes=["law.jsonl"], guards={"kl": 0.05})
    write_law(ctx)
    found = evaluated(ctx, project, Opener(nats=0.01))
    assert found["forgetting"]["kl"]["estimate"] == pytest.approx(0.01)
    assert found["forgetting"]["own"][0]["name"] == "law"
    assert {f["name"] for f in found["forgetting"]["further"]} == {
        "law: loss of the chance of the right answer", "law: loss of right answers",
        "law: perplexity over the base's",
    }  # fmt: skip
    assert "KL divergence from the base: 0.0100 nats a token" in "\n".join(report_text.lines(found))
    outcomes = names(found)
    assert outcomes["stays close to the base"] == "pass"
    assert outcomes["keeps law"] == outcomes["keeps the texts of law"] == "pass"
    far = evaluated(with_settings(project[0], guards={"kl": 0.05}), project, Opener(nats=0.2))
    assert names(far)["stays close to the base"] == "fail"
    assert "limit 0.05" in str(far["verdict"]["criteria"])


def test_changed_limits_judge_the_same_marks_again_and_again(project: Opened) -> None:
    write_law(project[0])
    opener = Opener(nats=0.01)
    for limit in (0.05, 0.005, 0.04):
        ctx = with_settings(project[0], probes=["law.jsonl"], guards={"kl": limit})
        found = evaluated(ctx, project, opener)
        assert found["forgetting"]["own"][0]["chance_drop"]["n"] == 20
        assert names(found)["stays close to the base"] == ("pass" if limit > 0.01 else "fail")
    assert opener.times == 1
    write_law(project[0], LAW[:-1])
    evaluated(ctx, project, opener)
    assert opener.times == 2  # other probes are another question


def test_an_engine_that_can_not_tell_leaves_the_guard_open(project: Opened) -> None:
    found = evaluated(with_settings(project[0], guards={"kl": 0.05}), project, Opener())
    assert found["forgetting"]["kl"] is None
    assert names(found)["stays close to the base"] == "not_enough_evidence"
    assert "not measured by this engine" in str(found["verdict"]["criteria"])


def test_a_model_that_only_writes_text_says_why_nothing_is_measured(project: Opened) -> None:
    found = evaluated(project[0], project, Opener(only_text=True))
    assert found["forgetting"] is None
    assert any("shows no likelihoods" in event.message for event in project[3])
    assert "what it forgot is not known" in "\n".join(report_text.lines(found))


def test_probes_that_can_not_be_read_stop_before_a_model_is_loaded(project: Opened) -> None:
    ctx, opener = with_settings(project[0], probes=["law.jsonl"]), Opener()
    with pytest.raises(ConfigError, match=r"there is no file law\.jsonl"):
        evaluated(ctx, project, opener)
    write_law(ctx, [{"question": "Who?", "choices": ["a"], "answer": 0}])
    with pytest.raises(DataError, match="two or more different texts"):
        evaluated(ctx, project, opener)
    assert opener.times == 0
