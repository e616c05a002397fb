"""A judge's score in the gate: it decides nothing until experts agree with the judge."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.fakes.judge_server import JudgeServer
from tests.unit.evaluation.evaluation_rows import FORMAT, examples

from tutelage.core.artifact import describe
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.models import ModelSource
from tutelage.workflows.context import open_context, register
from tutelage.workflows.evaluation import evaluate as workflow
from tutelage.workflows.evaluation.human import Order
from tutelage.workflows.evaluation.human_answer import Given
from tutelage.workflows.evaluation.human_desk import HumanDesk
from tutelage.workflows.evaluation.judge_desk import JudgeDesk

ROWS = examples("new", 64)
SPLITS = {"train": examples("old", 24), "validation": examples("middle", 4), "test": ROWS}
RIGHT = {row.input_text: row.answer or "" for row in ROWS}
ALL_WARM = dict.fromkeys(RIGHT, FORMAT.render("warm"))
CONFIG = """\
name: colours
task: classification
model: demo
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
judge: {base_url: %s, model: judge}
evaluate:
  few_shot: 0
  judge: {}
  criteria:
    - better: {than: base, metric: judge_correctness}
"""


def test_a_judge_decides_only_once_experts_agree_with_it(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = ModelSource("demo", "demo", "directory", tmp_path, "d" * 64)
    monkeypatch.setattr(workflow, "locate_model", lambda spec, root: source)
    engine = FakeEngine(ALL_WARM, RIGHT)

    def opened(source: ModelSource, batch_size: int) -> workflow.LoadedEngine:
        return workflow.LoadedEngine(engine, lambda text: len(text.split()))

    with JudgeServer() as server:
        server.judge.opinion = lambda question, pieces, levels: (
            levels if pieces["ANSWER"] == pieces["REFERENCE"] else 1
        )
        ctx = open_context(make_project(config=CONFIG % server.url))
        clusters = {row.id: row.id for rows in SPLITS.values() for row in rows}
        version = write_version(
            ctx.workspace.artifacts / "datasets", VersionDraft(SPLITS, clusters)
        )
        place = ctx.workspace.relative(version.directory)
        dataset = register(ctx.store, describe("dataset", version.hash, place))
        folder = ctx.workspace.artifacts / "adapters" / "aaa"
        folder.mkdir(parents=True)
        adapter = register(ctx.store, describe("adapter", "a" * 64, ctx.workspace.relative(folder)))
        first = workflow.evaluate(ctx, dataset, adapter, open_engine=opened).artifact
        why = next(c for c in first.meta["criteria"] if "judge" in c["name"])
        assert first.meta["verdict"] == why["outcome"] == "not_enough_evidence"
        assert "has not been measured against experts" in why["sentence"]
        asked, written = len(server.judge.asked), len(engine.calls)
        desk = JudgeDesk(ctx)
        measured = desk.agreement(_experts(tmp_path, right=60))
        assert measured["may_gate"] and len(server.judge.asked) == asked
        second = workflow.evaluate(ctx, dataset, adapter, open_engine=opened)
        assert not second.skipped and second.artifact.meta["verdict"] == "pass"
        assert (len(server.judge.asked), len(engine.calls)) == (asked, written)
        desk.agreement(_experts(tmp_path, right=35))
        third = workflow.evaluate(ctx, dataset, adapter, open_engine=opened).artifact
        assert third.meta["verdict"] == "not_enough_evidence"
        _people_agree(HumanDesk(ctx), desk, tmp_path)
        fourth = workflow.evaluate(ctx, dataset, adapter, open_engine=opened).artifact
        assert fourth.meta["verdict"] == "pass"
        assert len(server.judge.asked) == asked
        ctx.store.close()


def _experts(folder: Path, right: int) -> Path:
    """Write experts' verdicts on the base's answers; the first `right` are what the judge says."""
    path = folder / "experts.csv"
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["item", "candidate", "verdict"])
        for number, row in enumerate(ROWS[:60]):
            good = (RIGHT[row.input_text] == FORMAT.render("warm")) == (number < right)
            table.writerow([row.id, "base", "pass" if good else "fail"])
    return path


def _people_agree(people: HumanDesk, judge: JudgeDesk, folder: Path) -> None:
    """Have a person judge the base's answers by the judge's own rubric."""
    rubric = folder / "rubric.yaml"
    rubric.write_text(judge.rubric())
    people.new(Order(("anna",), ("base",), rubric, rows=56))
    while (shown := people.next("anna")) is not None:
        good = RIGHT[shown.messages[-1]["content"]] == shown.left
        people.submit(Given(shown.assignment, "anna", levels={"correctness": int(good)}))
    found = judge.agreement()
    (entry,) = found["judges"][0]["criteria"]
    assert (found["source"], entry["kappa"], entry["rows"]) == ("human studies", 1.0, 56)
