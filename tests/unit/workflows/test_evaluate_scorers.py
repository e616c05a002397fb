"""Scorers of tutelage.yaml in a whole evaluation: scores are kept, and a changed file counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.scorer_rows import asked

from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import ConfigError
from tutelage.core.events import Event
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.models import ModelSource
from tutelage.store.scores import ScoreRow
from tutelage.workflows import doctor
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation import evaluate as workflow
from tutelage.workflows.run import run

TESTS = "def check(f):\n    assert f(3) == {}\n"
ROWS = [
    asked(
        f"def f(x):\n    return x + {i}\n", f"Add {i}.", test=TESTS.format(3 + i), entry_point="f"
    )
    for i in range(6)
]
RIGHT = {row.input_text: f"```python\n{row.answer}```" for row in ROWS}
WRONG = dict.fromkeys(RIGHT, "def f(x):\n    return None\n")
EVENTS: list[Event] = []
CONFIG = """\
name: adds
task: code
model: demo
evaluate:
  primary: works
  few_shot: 0
  samples: 2
  scorers:
    - {name: pass_at_k, as: works, k: 2}
    - {name: function, as: short, call: "rules.py:short"}
    - bleu
"""


def opened(make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Context:
    root = make_project(config=CONFIG)
    (root / "rules.py").write_text("def short(text):\n    return len(text) < 400\n")
    source = ModelSource("demo", "demo", "directory", root, "d" * 64)
    monkeypatch.setattr(workflow, "locate_model", lambda spec, place: source)
    return open_context(root, EVENTS.append)


def artifacts(ctx: Context) -> tuple[Artifact, Artifact]:
    splits = {"train": [asked("x = 1", "old")], "validation": [], "test": ROWS}
    clusters = {row.id: row.id for rows in splits.values() for row in rows}
    version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(splits, clusters))
    dataset = describe("dataset", version.hash, ctx.workspace.relative(version.directory))
    folder = ctx.workspace.artifacts / "adapters" / "aaa"
    folder.mkdir(parents=True)
    adapter = describe("adapter", "a" * 64, ctx.workspace.relative(folder))
    return register(ctx.store, dataset), register(ctx.store, adapter)


def open_engine(source: ModelSource, batch_size: int) -> workflow.LoadedEngine:
    return workflow.LoadedEngine(FakeEngine(WRONG, RIGHT), lambda text: 9 * len(text.split()))


def test_code_is_run_and_every_score_is_kept(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = opened(make_project, monkeypatch)
    dataset, adapter = artifacts(ctx)
    done = workflow.evaluate(ctx, dataset, adapter, open_engine=open_engine)
    assert any(e.message == "running code" and e.done == e.total for e in EVENTS)
    primary = done.artifact.meta["primary"]
    assert (primary["metric"], primary["base"], primary["tuned"]) == ("works", 0.0, 1.0)
    with ctx.store.session() as session:
        counted = session.execute(
            select(ScoreRow.candidate, ScoreRow.metric, func.avg(ScoreRow.value))
            .group_by(ScoreRow.candidate, ScoreRow.metric)
        ).all()  # fmt: skip
        sources = dict(session.execute(select(ScoreRow.metric, ScoreRow.source).distinct()).all())
        kept = session.scalars(select(ScoreRow).where(ScoreRow.metric == "works")).first()
    means = {(c, m): mean for c, m, mean in counted}
    assert means["tuned", "works"] == means["tuned", "short"] == 1.0
    assert sources == {
        "works": "metric", "short": "rule", "bleu": "metric", "chrf": "metric",
    }  # fmt: skip
    assert means["base", "works"] == 0.0 and ("tuned", "bleu") in means
    assert (
        kept is not None and kept.evidence["answers"] == 2 and "rlimits" in kept.evidence["sandbox"]
    )
    document = json.loads((ctx.path_of(done.artifact) / "evaluation.json").read_text())
    extra = {c["name"]: c["extra"] for c in document["candidates"]}
    assert extra["tuned"]["works.pass@1"] == 1.0 and "bleu.corpus" in extra["base"]
    assert workflow.evaluate(ctx, dataset, adapter, open_engine=open_engine).skipped
    (ctx.workspace.root / "rules.py").write_text("def short(text):\n    return len(text) < 5\n")
    again = workflow.evaluate(ctx, dataset, adapter, open_engine=open_engine)
    assert not again.skipped


def test_a_wrong_option_stops_before_anything_is_trained(
    make_project: Callable[..., Path],
) -> None:
    root = make_project(config=CONFIG.replace("k: 2", "k: 3").replace("rules.py:short", "no.py:f"))
    with pytest.raises(ConfigError, match=r"entry 1: pass_at_k: k is 3 and evaluate.samples is 2"):
        run(open_context(root))


def test_doctor_says_what_holds_code_back() -> None:
    check = next(c for c in doctor.examine() if c["name"] == "code sandbox")
    assert "rlimits" in check["what"] and check["state"] in ("ok", "optional")
