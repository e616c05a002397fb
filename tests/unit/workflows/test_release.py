"""Releasing and rolling out from a project: refused without evidence, the same inputs made once."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.artifact import Artifact, describe, hash_file
from tutelage.core.errors import Conflict, DataError, EnvironmentProblem, ModelError, ReleaseRefused
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.models import locate_model
from tutelage.release import mlflow, mlflow_runs
from tutelage.release.bundle import get_release, manifest_of
from tutelage.release.deployments import (
    active_rollout,
    apply_transition,
    ensure_deployment,
    state_of,
)
from tutelage.release.prompts import listing
from tutelage.release.rollout import begin
from tutelage.store.artifacts import ArtifactRow, StageRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation.evaluate_candidates import of_artifact
from tutelage.workflows.release import release as releasing
from tutelage.workflows.release import rollout as rollouts
from tutelage.workflows.release.release_overview import overview

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
deploy: {canary: [50, 100], min_requests: 4, min_total: 8}
"""


def row(text: str, label: str) -> Example:
    answer = json.dumps({"family": label})
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, label=label)


class Bench:
    """A project with a tiny model on disk, and helpers that make what earlier stages would."""

    registry: Registry

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        model = root / "model"
        model.mkdir()
        (model / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        header = b"{}"
        (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        special = {"content": "<|im_end|>", "special": True}
        plain = {"content": "hello", "special": False}
        text = json.dumps({"added_tokens": [special, plain]})
        (model / "tokenizer.json").write_text(text, encoding="utf-8")
        self.ctx = open_context(root, self.events.append)

    def dataset(self) -> Artifact:
        rows = {
            "train": [row("fire", "warm"), row("ice", "cold")],
            "validation": [row("sun", "warm")],
            "test": [row("snow", "cold"), row("lava", "warm")],
        }
        draft = VersionDraft(splits=rows, clusters={})  # type: ignore[arg-type]
        version = write_version(self.ctx.workspace.artifacts / "datasets", draft)
        path = self.ctx.workspace.relative(version.directory)
        return register(self.ctx.store, describe("dataset", version.hash, path))

    def adapter(self, dataset: Artifact, weights: bytes = b"weights") -> Artifact:
        folder = self.ctx.workspace.artifacts / "adapters" / f"a{len(weights)}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
        (folder / "adapter_model.safetensors").write_bytes(weights)
        digest = hash_file(folder / "adapter_model.safetensors")
        path = self.ctx.workspace.relative(folder)
        return register(self.ctx.store, describe("adapter", digest, path, parents=[dataset.hash]))

    def evaluation(self, dataset: Artifact, adapter: Artifact, verdict: str) -> Artifact:
        folder = self.ctx.workspace.artifacts / "evaluations" / verdict
        folder.mkdir(parents=True)
        snow = row("snow", "cold")
        golden = [
            {
                "id": snow.id,
                "messages": [{"role": "user", "content": "snow"}],
                "expected": '{"family": "cold"}',
            }
        ]
        (folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
        digest = (verdict.encode().hex() + "0" * 64)[:64]
        meta = {"verdict": verdict, "sentence": "The tuned model lost 4 points."}
        parents = [dataset.hash, adapter.hash]
        path = self.ctx.workspace.relative(folder)
        return register(
            self.ctx.store, describe("evaluation", digest, path, parents=parents, meta=meta)
        )


@pytest.fixture
def bench(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Bench:
    """The project, with a registry that is kept in memory: mlflow has its own test."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    registry = Registry()
    monkeypatch.setattr(mlflow, "register_version", registry.register)
    monkeypatch.setattr(mlflow, "set_aliases", registry.set_aliases)
    monkeypatch.setattr(mlflow_runs, "log_evaluation", lambda *_: "run")
    made = Bench(make_project(config=CONFIG))
    made.registry = registry
    return made


class Registry:
    """Counts versions and keeps aliases like the real one (test_registry.py asks that)."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self.aliases: dict[str, str] = {}

    def register(self, uri: str, version: mlflow.Version) -> str:
        assert version.source.is_dir()
        if version.tags["release"] not in self.known:
            self.known.append(version.tags["release"])
        return str(self.known.index(version.tags["release"]) + 1)

    def set_aliases(self, uri: str, model: str, wanted: dict[str, str]) -> None:
        self.aliases = dict(wanted)


def passed(bench: Bench) -> tuple[Artifact, Artifact, Artifact]:
    dataset = bench.dataset()
    adapter = bench.adapter(dataset)
    return dataset, adapter, bench.evaluation(dataset, adapter, "pass")


def test_a_passed_adapter_is_released_with_all_that_answers_need(bench: Bench) -> None:
    dataset, adapter, evaluation = passed(bench)
    outcome = releasing.release(bench.ctx, dataset, adapter, evaluation)
    assert outcome.artifact.kind == "release"
    assert outcome.artifact.meta["name"] == "colours-v1"
    assert outcome.artifact.meta["registry_version"] == "1"
    manifest = manifest_of(get_release(bench.ctx.store, "colours-v1"))
    assert manifest.prompt == "Name the colour family of the thing."
    assert (manifest.output.field, manifest.output.labels) == ("family", ("warm", "cold"))
    assert manifest.specials == ("<|im_end|>",)
    assert manifest.decoding.temperature == 0
    assert manifest.decoding.max_tokens == 32
    assert manifest.golden[0].expected == '{"family": "cold"}'
    assert manifest.golden[0].reference == '{"family": "cold"}'
    assert manifest.adapter is not None and set(manifest.adapter.files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert (manifest.dataset, manifest.evaluation) == (dataset.hash, evaluation.hash)
    assert [(p["number"], p["state"]) for p in listing(bench.ctx.store)] == [(1, "published")]
    assert bench.events[-1] == Event("release", "done", "release colours-v1")
    assert bench.registry.aliases == {"candidate": "1"}


def test_the_same_inputs_are_released_once(bench: Bench) -> None:
    made = passed(bench)
    first = releasing.release(bench.ctx, *made)
    again = releasing.release(bench.ctx, *made)
    assert (first.skipped, again.skipped) == (False, True)
    assert again.artifact.hash == first.artifact.hash


@pytest.mark.parametrize(
    ("verdict", "code", "says"),
    [
        ("fail", 1, "verdict is fail: The tuned model lost 4 points"),
        ("not_enough_evidence", 3, "verdict is not enough evidence"),
    ],
)
def test_without_a_pass_it_is_refused_unless_forced(
    bench: Bench, verdict: str, code: int, says: str
) -> None:
    dataset = bench.dataset()
    adapter = bench.adapter(dataset)
    evaluation = bench.evaluation(dataset, adapter, verdict)
    with pytest.raises(ReleaseRefused, match=says) as refused:
        releasing.release(bench.ctx, dataset, adapter, evaluation)
    assert refused.value.exit_code == code
    forced = releasing.release(bench.ctx, dataset, adapter, evaluation, force=True)
    assert forced.artifact.meta["verdict"] == verdict


def test_an_evaluation_of_another_adapter_proves_nothing(bench: Bench) -> None:
    dataset, _, evaluation = passed(bench)
    other = bench.adapter(dataset, b"other weights")
    for evidence in (evaluation, None):
        fix = f"has not been evaluated.*tutelage evaluate {other.short}"
        with pytest.raises(ReleaseRefused, match=fix) as refused:
            releasing.release(bench.ctx, dataset, other, evidence)
        assert refused.value.exit_code == 3
    forced = releasing.release(bench.ctx, dataset, other, evaluation, force=True)
    manifest = manifest_of(get_release(bench.ctx.store, forced.artifact.meta["name"]))
    assert (manifest.evaluation, manifest.golden) == (None, ())


def test_the_base_release_needs_no_dataset(bench: Bench) -> None:
    base = releasing.base_release(bench.ctx)
    assert base.artifact.meta["name"] == "colours-base"
    manifest = manifest_of(get_release(bench.ctx.store, "colours-base"))
    assert (manifest.kind, manifest.adapter, manifest.decoding.max_tokens) == ("base", None, 256)
    assert releasing.base_release(bench.ctx).skipped


def test_without_mlflow_the_release_exists_and_a_warning_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: Any, **values: Any) -> str:
        raise EnvironmentProblem("MLflow can't be imported (mlflow)", fix="Run pip")

    monkeypatch.setattr(mlflow, "register_version", missing)
    releasing.release(bench.ctx, *passed(bench))
    assert get_release(bench.ctx.store, "colours-v1").registry_version is None
    warnings = [event.message for event in bench.events if event.kind == "warning"]
    assert warnings == ["MLflow's registry is behind: MLflow can't be imported (mlflow). Run pip."]


def test_the_base_release_is_registered_beside_a_tuned_one(bench: Bench) -> None:
    """The gateway makes it at its start, and must not load mlflow."""
    releasing.base_release(bench.ctx)
    assert get_release(bench.ctx.store, "colours-base").registry_version is None
    releasing.release(bench.ctx, *passed(bench))
    rows = releasing.releases(bench.ctx)
    assert {r["name"]: r["registry_version"] for r in rows} == {
        "colours-base": "1",
        "colours-v1": "2",
    }


def test_evidence_for_another_prompt_is_none(bench: Bench) -> None:
    dataset, adapter, evaluation = passed(bench)
    with bench.ctx.store.begin() as session:
        row = session.get_one(ArtifactRow, evaluation.hash)
        row.meta = row.meta | {"candidate": {"key": "of another prompt"}}
    with pytest.raises(ReleaseRefused, match="evaluated with another prompt or base") as refused:
        releasing.release(bench.ctx, dataset, adapter, None)
    assert refused.value.exit_code == 3
    source = locate_model("model", bench.root)
    right = of_artifact(bench.ctx, adapter, source).key
    with bench.ctx.store.begin() as session:
        row = session.get_one(ArtifactRow, evaluation.hash)
        row.meta = row.meta | {"candidate": {"key": right}}
    assert releasing.release(bench.ctx, dataset, adapter, None).artifact.meta["verdict"] == "pass"


def test_the_newest_evaluation_of_an_adapter_is_found(bench: Bench) -> None:
    """Another adapter may have been evaluated since."""
    dataset, adapter, evaluation = passed(bench)
    other = bench.adapter(dataset, b"other weights")
    bench.evaluation(dataset, other, "fail")
    outcome = releasing.create(bench.ctx, adapter.hash[:8]) if _curated(bench, dataset) else None
    assert outcome is not None
    manifest = manifest_of(get_release(bench.ctx.store, "colours-v1"))
    assert (manifest.evaluation, manifest.adapter and manifest.adapter.hash) == (
        evaluation.hash, adapter.hash,
    )  # fmt: skip
    with pytest.raises(ReleaseRefused, match="verdict is fail"):
        releasing.create(bench.ctx, other.hash[:8])
    with pytest.raises(DataError, match="there is no adapter 'feed'"):
        releasing.create(bench.ctx, "feed")


def _curated(bench: Bench, dataset: Artifact) -> bool:
    with bench.ctx.store.begin() as session:
        session.add(StageRow(stage="curate", input_hash="x", output=dataset.hash, seconds=0.0))
    return True


def test_broken_golden_prompts_are_said(bench: Bench) -> None:
    dataset, adapter, evaluation = passed(bench)
    (bench.ctx.path_of(evaluation) / "golden.json").write_text("[{", encoding="utf-8")
    with pytest.raises(DataError, match=r"golden prompts can't be read.*tutelage evaluate"):
        releasing.release(bench.ctx, dataset, adapter, evaluation)


def test_releases_are_listed_and_described(bench: Bench) -> None:
    made = passed(bench)
    base = releasing.base_release(bench.ctx)
    releasing.release(bench.ctx, *made)
    ensure_deployment(bench.ctx.store, "colours", base.artifact.hash)
    rows = releasing.releases(bench.ctx)
    assert [(r["name"], r["serves"]) for r in rows] == [
        ("colours-v1", ""),
        ("colours-base", "colours: stable"),
    ]
    text = releasing.describe(bench.ctx, "colours-v1")["text"]
    assert "release   colours-v1" in text
    assert "golden    1 prompt\n" in text
    assert f"├─ adapter {made[1].short}" in text
    assert f"dataset {made[0].short}" in text


@pytest.mark.parametrize(
    ("answers", "limit"),
    [([], None), (["x"], 32), (["y" * 30], 48), (["風" * 100], 256), (["y" * 400], 320)],
)
def test_room_for_answers_comes_from_the_longest(answers: list[str], limit: int | None) -> None:
    assert releasing.answer_tokens(answers) == limit


def test_a_rollout_is_started_watched_and_promoted(bench: Bench) -> None:
    ctx = bench.ctx
    nothing = rollouts.status(ctx)
    assert (nothing["stable"], nothing["rollout"]) == (None, None)
    assert nothing["sentence"] == "nothing serves yet; `tutelage up` starts the gateway"
    releasing.release(ctx, *passed(bench))
    data = rollouts.start(ctx, "colours-v1")
    assert data["stable"] == "colours-base"
    assert data["sentence"] == "colours-v1 is being loaded; colours-base answers every request"
    assert (data["rollout"]["state"], data["rollout"]["progress"]) == ("pending", 0)
    with pytest.raises(Conflict, match="a rollout is under way"):
        rollouts.start(ctx, "colours-v1")
    _serve(ctx, canary=2)
    data = rollouts.status(ctx)
    assert data["sentence"] == (
        "colours-v1 gets 50 % of the requests (step 1 of 2, 2 seen, 4 needed), "
        "colours-base the rest"
    )
    assert (data["rollout"]["verdict"], data["rollout"]["progress"]) == ("pass", 0.25)
    assert bench.registry.aliases == {"stable": "2", "candidate": "1"}
    data = rollouts.promote(ctx)
    assert bench.registry.aliases == {"stable": "1"}
    assert (data["stable"], data["previous"]) == ("colours-v1", "colours-base")
    assert data["sentence"] == "colours-v1 answers every request (canary: promoted by hand)"
    assert [j["to_state"] for j in data["rollout"]["journal"]] == ["running", "promoted"]
    assert rollouts.rollback(ctx)["stable"] == "colours-base"
    assert bench.registry.aliases == {"stable": "2"}
    json.dumps(rollouts.status(ctx))  # plain data, for --json


def _serve(ctx: Context, canary: int) -> None:
    """Let the rollout run and log `canary` good requests to the canary."""
    row = active_rollout(ctx.store, "colours")
    assert row is not None
    move = begin(state_of(row))
    assert move is not None
    apply_transition(ctx.store, row.id, row.fence, move)
    with ctx.store.begin() as session:
        for number in range(canary):
            session.add(
                RecordRow(
                    id=f"rec_{number}", deployment="colours", release=row.candidate,
                    rollout=row.id, step=0, arm="canary", user=None, key_name=None, split="train",
                    group_key="g", messages=[], response="x", finish_reason="stop", status=200,
                    error=None, latency_ms=10.0, first_token_ms=None, prompt_tokens=1,
                    completion_tokens=1, checks={},
                    at=row.created_at + timedelta(seconds=number),
                )
            )  # fmt: skip


def test_an_abort_keeps_stable_and_says_so(bench: Bench) -> None:
    releasing.release(bench.ctx, *passed(bench))
    rollouts.start(bench.ctx, "colours-v1")
    data = rollouts.abort(bench.ctx)
    assert data["sentence"] == (
        "colours-base answers every request; colours-v1 was aborted: aborted by hand"
    )
    assert data["rollout"]["progress"] == 1


def test_a_changed_adapter_gets_no_traffic(bench: Bench) -> None:
    dataset, adapter, evaluation = passed(bench)
    releasing.release(bench.ctx, dataset, adapter, evaluation)
    (bench.ctx.path_of(adapter) / "adapter_model.safetensors").write_bytes(b"tampered")
    for move in (rollouts.start, rollouts.switch):
        with pytest.raises(ModelError, match="was changed since it was released"):
            move(bench.ctx, "colours-v1")
    assert rollouts.status(bench.ctx)["stable"] is None


def test_switching_makes_a_release_stable_at_once(bench: Bench) -> None:
    releasing.release(bench.ctx, *passed(bench))
    releasing.base_release(bench.ctx)
    assert rollouts.switch(bench.ctx, "colours-base")["stable"] == "colours-base"
    data = rollouts.switch(bench.ctx, "colours-v1")
    assert data["sentence"] == "colours-v1 answers every request (switch: made stable by hand)"
    assert data["rollout"]["strategy"] == "switch"


def test_the_overview_says_what_each_release_serves_and_served(bench: Bench) -> None:
    made = releasing.release(bench.ctx, *passed(bench)).artifact
    base = releasing.base_release(bench.ctx).artifact
    ensure_deployment(bench.ctx.store, "colours", base.hash)
    rollouts.switch(bench.ctx, "colours-v1")
    found = overview(bench.ctx)
    serves = {row["name"]: row["serves"] for row in found["releases"]}
    assert serves == {
        "colours-v1": [{"deployment": "colours", "role": "stable", "percent": 100.0}],
        "colours-base": [{"deployment": "colours", "role": "before", "percent": 0.0}],
    }
    told = {row["id"]: (row["verdict"], row["prompt"]) for row in found["releases"]}
    assert told == {made.hash: ("pass", 1), base.hash: ("none", 1)}
    (deployment,) = found["deployments"]
    assert (deployment["stable"], deployment["previous"]) == ("colours-v1", "colours-base")
