"""Several candidates, the stable release beside them, criteria, the gate on earlier answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import FORMAT, examples

from tutelage.core.artifact import Artifact, describe
from tutelage.core.config import Project
from tutelage.core.errors import ConfigError, DataError
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.models import ModelSource
from tutelage.release import bundle
from tutelage.release.deployments import ensure_deployment
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation import compare, evaluate, evaluate_candidates, gate

SPLITS = {
    "train": examples("old", 24),
    "validation": examples("middle", 4),
    "test": examples("new", 60),
}
TEST = SPLITS["test"]
RIGHT = {row.input_text: row.answer or "" for row in TEST}
ALL_WARM = dict.fromkeys(RIGHT, FORMAT.render("warm"))
SOURCE = ModelSource("demo", "demo", "directory", Path("demo"), "d" * 64)


def right_on(count: int) -> dict[str, str]:
    """Answers of which the first `count` are right."""
    wrong = {"warm": "cold", "cold": "warm"}
    return {
        row.input_text: FORMAT.render(row.label if i < count else wrong[row.label or ""])
        for i, row in enumerate(TEST)
    }


@dataclass
class Bench:
    """A project with two adapters, `aaa` and `bbb`, and an engine that counts its calls."""

    ctx: Context
    dataset: Artifact
    adapters: dict[str, Artifact]
    engine: FakeEngine
    opened: int = 0

    def open(self, source: ModelSource, batch_size: int) -> evaluate.LoadedEngine:
        self.opened += 1
        self.engine.closed = False
        return evaluate.LoadedEngine(self.engine, lambda text: len(text.split()))

    def named(self, *names: str, against: list[str] | None = None) -> list[Artifact]:
        found = evaluate.evaluate_named(self.ctx, names, against=against, open_engine=self.open)
        return [outcome.artifact for outcome in found]

    def with_settings(self, **settings: Any) -> None:
        values = self.ctx.config.model_dump() | {"evaluate": settings}
        config = Project.model_validate(values)
        self.ctx = Context(self.ctx.workspace, config, self.ctx.store)

    def release(self, name: str, adapter: str | None, prompt: str | None = None) -> ReleaseRow:
        config, reference = self.ctx.config, None
        if adapter:
            made = self.adapters[adapter]
            folder = self.ctx.path_of(made)
            reference = bundle.AdapterRef(
                hash=made.hash, path=made.path, files=bundle.adapter_files(folder)
            )
        manifest = bundle.ReleaseManifest(
            name=name,
            kind="tuned" if adapter else "base",
            base=bundle.BaseRef(spec="demo", name="demo", digest=SOURCE.digest),
            adapter=reference,
            prompt=config.prompt if prompt is None else prompt,
        )
        return bundle.create_release(self.ctx.store, self.ctx.workspace, manifest)

    def serve(self, release: ReleaseRow) -> None:
        ensure_deployment(self.ctx.store, self.ctx.config.name, release.id)

    def answers(self, evaluation: Artifact) -> dict[str, list[dict[str, Any]]]:
        text = (self.ctx.path_of(evaluation) / "rows.jsonl").read_text()
        found: dict[str, list[dict[str, Any]]] = {}
        for line in text.splitlines():
            row = json.loads(line)
            found.setdefault(row["candidate"], []).append(row)
        return found

    def document(self, evaluation: Artifact) -> dict[str, Any]:
        text = (self.ctx.path_of(evaluation) / "evaluation.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found


@pytest.fixture
def make_bench(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Bench]:
    for module in (evaluate, evaluate_candidates):
        monkeypatch.setattr(module, "locate_model", lambda spec, root: SOURCE)

    def make(aaa: Mapping[str, str] = RIGHT, bbb: Mapping[str, str] | None = None) -> Bench:
        ctx = open_context(make_project())
        clusters = {row.id: row.id for rows in SPLITS.values() for row in rows}
        version = write_version(
            ctx.workspace.artifacts / "datasets", VersionDraft(SPLITS, clusters)
        )
        made = describe("dataset", version.hash, ctx.workspace.relative(version.directory))
        dataset = register(ctx.store, made)
        adapters = {}
        for name in ("aaa", "bbb"):
            folder = ctx.workspace.artifacts / "adapters" / name
            folder.mkdir(parents=True)
            (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
            (folder / "adapter_model.safetensors").write_bytes(name.encode())
            found = describe("adapter", name[0] * 64, ctx.workspace.relative(folder))
            adapters[name] = register(ctx.store, found)
        _finished(ctx, dataset, adapters["aaa"])
        engine = FakeEngine(
            ALL_WARM, aaa, others={"aaa": aaa, "bbb": right_on(58) if bbb is None else bbb}
        )
        return Bench(ctx, dataset, adapters, engine)

    return make


def _finished(ctx: Context, dataset: Artifact, adapter: Artifact) -> None:
    from tutelage.store.artifacts import StageRow

    with ctx.store.begin() as session:
        for stage, made in (("curate", dataset), ("train", adapter)):
            session.merge(StageRow(stage=stage, input_hash="", output=made.hash, seconds=0.0))


def test_several_candidates_share_the_model_and_the_base_answers(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    first, second = bench.named("aaaa", "bbbb")
    assert bench.opened == 1 and bench.engine.closed
    said = [bench.answers(evaluation) for evaluation in (first, second)]
    for name in ("base", "few_shot"):
        assert said[0][name] == said[1][name]  # the very same, times and all
    assert said[0]["tuned"] != said[1]["tuned"]
    assert first.parents == (bench.dataset.hash, "a" * 64)
    assert second.parents == (bench.dataset.hash, "b" * 64)
    assert first.meta["primary"]["tuned"] == 1.0
    assert second.meta["primary"]["tuned"] == pytest.approx(58 / 60)
    assert not list(bench.ctx.workspace.runs.iterdir())


def test_the_stable_release_stands_beside_and_must_not_be_lost_to(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(bbb=right_on(40))
    bench.serve(bench.release("colours-v1", "aaa"))
    (worse,) = bench.named("bbbb")
    names = [c["name"] for c in bench.document(worse)["candidates"]]
    assert names[:4] == ["base", "few_shot", "tuned", "stable"]
    assert worse.meta["verdict"] == "fail"
    said = {c["name"]: c for c in worse.meta["criteria"]}["not worse than stable"]
    assert said["outcome"] == "fail" and "stable 100.0 %" in said["sentence"]


def test_a_base_that_serves_is_not_asked_twice(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.serve(bench.release("colours-base", None))
    (found,) = bench.named()
    names = [c["name"] for c in bench.document(found)["candidates"]]
    assert "stable" not in names and found.meta["verdict"] == "pass"


def test_the_stable_release_itself_is_not_compared_with_itself(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.with_settings(criteria=[{"not_worse": {"than": "stable", "by": 0.02}}])
    bench.serve(bench.release("colours-v1", "aaa"))
    (found,) = bench.named("colours-v1")
    assert found.meta["candidate"]["name"] == "colours-v1"
    assert all("stable" not in c["name"] for c in found.meta["criteria"])


def test_a_release_is_asked_with_its_own_prompt(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.release("colours-v1", "aaa", prompt="Say warm or cold, as JSON.")
    bench.named("colours-v1")
    prompts = iter(bench.engine.prompts)
    systems: dict[str, set[str]] = {}
    for who, rows in bench.engine.calls:
        systems.setdefault(who, set()).update(next(prompts).messages[0].content for _ in rows)
    assert systems["base"] == {bench.ctx.config.prompt}
    assert systems["tuned"] == {"Say warm or cold, as JSON."}


def test_against_names_who_must_be_beaten(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(bbb=right_on(20))
    bench.release("colours-v1", "bbb")
    (found,) = bench.named("aaaa", against=["colours-v1"])
    assert found.meta["criteria"][0]["name"] == "better than colours-v1"
    assert found.meta["verdict"] == "pass"
    with pytest.raises(DataError, match="is the candidate itself"):
        bench.named("bbbb", against=["colours-v1"])


@pytest.mark.parametrize("name", ["nobody", "cccc"])
def test_a_name_that_nobody_has_is_told_with_those_there_are(
    make_bench: Callable[..., Bench], name: str
) -> None:
    bench = make_bench()
    bench.release("colours-v1", "aaa")
    with pytest.raises(DataError, match=f"no candidate '{name}'.*colours-v1.*aaaaaaaaaaaa"):
        bench.named(name)


def test_a_folder_is_a_candidate(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make_bench()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (found,) = bench.named(str(folder))
    assert found.meta["candidate"]["title"] == "folder elsewhere"
    assert found.meta["primary"]["tuned"] == 1.0


def test_changed_criteria_are_judged_without_asking_again(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(aaa=right_on(57))
    (before,) = bench.named()
    asked = len(bench.engine.calls)
    bench.with_settings(criteria=[{"at_least": {"metric": "accuracy", "value": 0.99}}])
    (after,) = bench.named()
    assert len(bench.engine.calls) == asked and bench.opened == 1
    assert (before.meta["verdict"], after.meta["verdict"]) == ("pass", "fail")
    assert after.hash != before.hash
    old, new = bench.document(before), bench.document(after)
    assert old["candidates"][2]["metrics"] == new["candidates"][2]["metrics"]
    assert old["forgetting"] == new["forgetting"]


def test_the_gate_judges_an_old_evaluation_by_todays_settings(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(aaa=right_on(57))
    (evaluation,) = bench.named()
    assert gate.gate(bench.ctx, gate.find_evaluation(bench.ctx, evaluation.short)).outcome == "pass"
    bench.with_settings(must_pass=[TEST[-1].id])
    verdict = gate.gate(bench.ctx, evaluation)
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)
    assert bench.opened == 1
    with pytest.raises(DataError, match="there is no evaluation 'abcd'"):
        gate.find_evaluation(bench.ctx, "abcd")


def test_somebody_who_was_not_asked_leaves_it_open(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    (evaluation,) = bench.named()
    verdict = gate.gate(bench.ctx, evaluation, against=["bbbb"])
    assert verdict.outcome == "not_enough_evidence"
    assert verdict.criteria[0].sentence == "bbbb was not asked in this evaluation"


def test_a_golden_set_is_asked_and_every_row_must_pass(
    make_bench: Callable[..., Bench],
) -> None:
    rows = [{"input": row.input_text, "expected": row.label} for row in TEST[:10]]
    bench = make_bench(aaa=right_on(59))
    path = bench.ctx.workspace.root / "golden.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench.with_settings(criteria=[{"better": {"than": "base"}}, {"golden": "golden.jsonl"}])
    (good,) = bench.named()
    said = good.meta["criteria"][1]
    assert said["outcome"] == "pass"
    assert "all 10 rows pass (hard asserts; a 10-row golden set can only gate" in said["sentence"]
    path.write_text(path.read_text() + json.dumps({"input": TEST[59].input_text,
                                                   "expected": TEST[59].label}))  # fmt: skip
    assert gate.gate(bench.ctx, good).criteria[1].outcome == "not_enough_evidence"
    (bad,) = bench.named()
    assert bad.meta["verdict"] == "fail" and "1 of 11 rows fail" in bad.meta["criteria"][1][
        "sentence"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "golden.jsonl:1: the golden row can't be used"),
        ('{"input": "a", "expected": "green"}', "'green' is not one of the labels"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "has no expected answer"),
        ("", "the golden set is empty"),
        (json.dumps({"input": "old thing number 3", "expected": "cold"}), "is in the train split"),
    ],
)
def test_a_golden_set_that_cannot_be_used_stops_before_any_answer(
    make_bench: Callable[..., Bench], line: str, message: str
) -> None:
    bench = make_bench()
    (bench.ctx.workspace.root / "golden.jsonl").write_text(line)
    bench.with_settings(criteria=[{"golden": "golden.jsonl"}])
    with pytest.raises(DataError, match=message):
        bench.named()
    assert bench.opened == 0


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ({"better": {"metric": "acuracy"}}, "no metric 'acuracy'.*Did you mean 'accuracy'"),
        ({"better": {"than": "v9"}}, "no candidate 'v9'"),
        ({"not_worse": {"metric": "latency_p95", "by": 3}}, "compared by its ratio"),
        ({"not_worse": {"metric": "accuracy", "times": 1.2}}, "compared by its difference"),
    ],
)
def test_a_criterion_that_cannot_be_stops_before_any_answer(
    make_bench: Callable[..., Bench], criterion: dict[str, Any], message: str
) -> None:
    bench = make_bench()
    bench.with_settings(criteria=[criterion])
    with pytest.raises(ConfigError, match=message):
        bench.named()
    assert bench.opened == 0


def test_two_candidates_are_compared_over_the_same_rows(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(aaa=right_on(60), bbb=right_on(30))
    bench.named("aaaa", "bbbb")
    found = compare.compare(bench.ctx, "aaaa", "bbbb")
    accuracy = found["metrics"][0]
    assert (accuracy["a"], accuracy["b"], accuracy["estimate"]) == (1.0, 0.5, 0.5)
    assert accuracy["outcome"] == "a is better" and accuracy["p_holm"] >= accuracy["p"]
    assert (len(found["changed"]["a_better"]), found["changed"]["b_better"]) == (30, [])
    back = compare.compare(bench.ctx, "bbbb", "aaaa")["metrics"][0]
    assert (back["estimate"], back["outcome"]) == (-0.5, "b is better")
    with_base = compare.compare(bench.ctx, "aaaa", "few_shot")
    assert with_base["evaluations"]["a"] == with_base["evaluations"]["b"]


def test_a_comparison_says_what_is_missing(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    bench.named("aaaa")
    with pytest.raises(DataError, match=r"'bbbb' was not evaluated yet.*tutelage evaluate bbbb"):
        compare.compare(bench.ctx, "aaaa", "bbbb")
    with pytest.raises(DataError, match="no candidate 'nobody'"):
        compare.compare(bench.ctx, "aaaa", "nobody")
    with pytest.raises(DataError, match="are the same answers"):
        compare.compare(bench.ctx, "aaaa", "aaaa")


def test_different_rows_are_not_compared(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    (first,) = bench.named("aaaa")
    fewer = {**SPLITS, "test": TEST[:50]}
    clusters = {row.id: row.id for rows in fewer.values() for row in rows}
    ctx = bench.ctx
    version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(fewer, clusters))
    dataset = register(
        ctx.store, describe("dataset", version.hash, ctx.workspace.relative(version.directory))
    )
    second = evaluate.evaluate(ctx, dataset, bench.adapters["bbb"], open_engine=bench.open).artifact
    with pytest.raises(DataError, match=f"50 in both, 10 only for {first.short}, 0 only for"):
        compare.compare(ctx, first.short, second.short)
