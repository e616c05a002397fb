"""What a release rests on: the card written from it, the way back to its rows, every hash."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.workflows.test_release import CONFIG, Bench, Registry
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import Artifact, describe, hash_files, utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, Origin
from tutelage.data.version import VersionDraft, write_version
from tutelage.release import card, mlflow, mlflow_runs
from tutelage.release.bundle import get_release, manifest_of
from tutelage.release.deployments import route
from tutelage.serving.state import load_entries
from tutelage.store.artifacts import StageRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import open_context, register
from tutelage.workflows.release import prompt as prompting
from tutelage.workflows.release import release as releasing
from tutelage.workflows.release import rollout as rollouts
from tutelage.workflows.release.release_lineage import trace
from tutelage.workflows.release.release_verify import verify

CHOICES = [
    {"name": "rank", "value": 8, "reason": "few rows | little to learn", "source": "/root/x/y.md"}
]
INTERVAL = {"estimate": 0.9, "low": 0.8, "high": 0.95, "n": 64}
DOCUMENT: dict[str, Any] = {
    "rows": 64,
    "verdict": {
        "outcome": "pass", "sentence": "The tuned model is better than the base model.",
        "criteria": [{"name": "better", "outcome": "pass", "sentence": "accuracy: +40 points"}],
    },
    "primary": {"metric": "accuracy", "against": "base", "confidence": 0.95},
    "candidates": [
        {"name": "base", "title": "base model, zero-shot",
         "metrics": {"accuracy": {"estimate": 0.5, "low": 0.4, "high": 0.6}}},
        {"name": "tuned", "title": "tuned model",
         "metrics": {"accuracy": INTERVAL, "valid_output": {"estimate": None}}},
    ],
    "comparisons": [{"other": "base", "n": 64, "detectable": 0.17}],
    "forgetting": {
        "base_chance": 0.765, "tuned_chance": 0.756,
        "chance_drop": {"estimate": 0.009, "low": -0.015, "high": 0.031},
        "base_perplexity": 52.7, "tuned_perplexity": 61.3,
        "perplexity_ratio": {"estimate": 1.163, "low": 1.095, "high": 1.239},
        "kl": {"estimate": 0.02, "low": 0.01, "high": 0.03},
        "own": [{"name": "law", "base_chance": None, "tuned_chance": None, "chance_drop": None}],
    },
    "notes": ["Base model: 62 of 64 answers ran into the limit of 17 tokens."],
}  # fmt: skip


def labelled(text: str, label: str, author: str | None) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=label))
    origin = Origin(kind="drafted" if author else "imported", source=f"{text}.csv:2", author=author)
    return Example(messages=turns, label=label, origin=origin)


@pytest.fixture
def bench(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Bench:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    registry = Registry()
    monkeypatch.setattr(mlflow, "register_version", registry.register)
    monkeypatch.setattr(mlflow, "set_aliases", registry.set_aliases)
    monkeypatch.setattr(mlflow_runs, "log_evaluation", lambda *_: "run")
    made = Bench(make_project(config=CONFIG))
    made.registry = registry
    return made


def story(bench: Bench, weights: bytes = b"weights") -> tuple[Artifact, Artifact, Artifact]:
    """Return a dataset that people worked on, an adapter with its plan, a real evaluation."""
    ctx = bench.ctx
    rows = {
        "train": [labelled("fire", "warm", "ann, bob"), labelled("ice", "cold", "ann"),
                  labelled("sky", "cold", None)],
        "validation": [], "test": [labelled("snow", "cold", None)],
    }  # fmt: skip
    leak = {"exact": 0, "near": 1, "semantic": None, "test_rows": 1, "threshold": 0.9}
    draft = VersionDraft(rows, {}, meta={"sources": {"data/a.csv": "0" * 64}, "leak": leak})  # type: ignore[arg-type]
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    meta = {"counts": version.manifest["counts"], "sources": version.manifest["sources"]}
    path = ctx.workspace.relative(version.directory)
    dataset = register(ctx.store, describe("dataset", version.hash, path, meta=meta))
    adapter = bench.adapter(dataset, weights)
    (ctx.path_of(adapter) / "plan.json").write_text(json.dumps({"choices": CHOICES}))
    folder = ctx.workspace.artifacts / "evaluations" / f"e{len(weights)}"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(DOCUMENT))
    (folder / "rows.jsonl").write_text(f"{len(weights)}\n")
    (folder / "golden.json").write_text("[]")
    digest = hash_files(folder, ("evaluation.json", "rows.jsonl", "golden.json"))
    evaluation = register(
        ctx.store,
        describe(
            "evaluation", digest, ctx.workspace.relative(folder),
            parents=[dataset.hash, adapter.hash], meta={"verdict": "pass"},
        ),
    )  # fmt: skip
    with ctx.store.begin() as session:
        session.merge(StageRow(stage="curate", input_hash="x", output=dataset.hash, seconds=0.0))
    return dataset, adapter, evaluation


def test_the_card_tells_the_evidence_and_no_path(bench: Bench) -> None:
    _, adapter, evaluation = story(bench)
    made = releasing.create(bench.ctx, adapter.hash[:8])
    text = (bench.ctx.path_of(made.artifact) / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "peft" and head["tags"] == [
        "tutelage",
        "classification",
        "tuned",
    ]
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.9}]
    for line in (
        "model, tuned for the project colours (classification). It passed its gate: "
        "The tuned model is better than the base model.",
        "> Name the colour family of the thing.",
        "| tuned model | 0.900 [0.800, 0.950] | – |",
        "- **pass**: accuracy: +40 points",
        "| general questions, chance of the right answer | 0.765 | 0.756 | "
        "drop of 0.009 [-0.015, 0.031] |",
        "| perplexity of general English | 52.7 | 61.3 | × 1.163 [1.095, 1.239] |",
        "- With 64 test rows, differences under 17 points can't be told from chance.",
        r"| rank | 8 | few rows \| little to learn | y.md |",
        "3 train, 0 validation, 1 test rows from 1 files.",
        "Train rows by origin: 2 drafted, 1 imported.",
        "2 people labelled or decided rows.",
        "Leak certificate: of 1 test rows 0 equal a train row and 1 nearly do "
        "(similarity 0.9 or more).",
        "Licence of the rows: not recorded.",
        f"| evaluation | `{evaluation.hash}` |",
    ):
        assert line in text.splitlines(), line
    assert str(bench.root) not in text and "/root" not in text


def test_the_head_of_a_card_is_what_hugging_face_reads(bench: Bench) -> None:
    hub = pytest.importorskip("huggingface_hub")
    facts = card.CardFacts(
        "colours-v1", "colours", "classification", "tuned",
        {"name": "base", "digest": "d" * 64, "hub": "some/base"}, evaluation=DOCUMENT,
    )  # fmt: skip
    read = hub.ModelCard(card.render(facts)).data
    assert (read.base_model, read.library_name) == ("some/base", "peft")
    (result,) = read.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.9)


def test_a_card_is_written_from_nothing_too() -> None:
    facts = card.CardFacts("x", "p", "qa", "imported", {"name": "b", "digest": "d"})
    text = card.render(facts)
    assert "It has not been evaluated." in text
    assert "Which rows it was trained on is not known." in text


def test_an_answer_leads_back_to_rows_people_prompt_plan_and_code(bench: Bench) -> None:
    ctx = bench.ctx
    dataset, adapter, evaluation = story(bench)
    release = releasing.create(ctx, adapter.hash[:8]).artifact
    with ctx.store.begin() as session:
        session.add(
            RecordRow(
                id="chatcmpl-1", deployment="colours", release=release.hash, rollout="r1", step=0,
                arm="canary", user=None, key_name=None, split="train", group_key="g", messages=[],
                response="x", finish_reason="stop", status=200, error=None, latency_ms=10.0,
                first_token_ms=None, prompt_tokens=1, completion_tokens=1, checks={},
                at=utc_now() - timedelta(seconds=1),
            )
        )  # fmt: skip
    data = trace(ctx, "chatcmpl-1", rows=True)
    lines = data["text"].splitlines()
    assert lines[0].startswith("record chatcmpl-1  ") and "colours (canary); 200" in lines[0]
    assert lines[1].startswith(f"└─ release {release.short}  colours-v1")
    plain = [line.lstrip(" │├└─") for line in lines]
    assert any(line.startswith("base model ") for line in plain)
    assert any(line.startswith("prompt ") and "version 1; published by" in line for line in plain)
    assert f"evaluation {evaluation.short}  pass" in plain
    assert f"adapter {adapter.short}" in plain
    assert any(line.startswith("code  python ") and "tutelage " in line for line in plain)
    assert "train rows  2 drafted, 1 imported" in plain
    assert "people  2 ann, 1 bob" in plain
    assert "file data/a.csv" in plain
    assert plain.count(f"dataset {dataset.short}  3 train, 0 validation, 1 test") == 1
    fire = next(row for row in data["rows"] if row["source"] == "fire.csv:2")
    assert (fire["kind"], fire["people"]) == ("drafted", ["ann", "bob"])
    assert trace(ctx, adapter.hash[:10])["tree"]["kind"] == "adapter"
    with pytest.raises(DataError, match="there is no record, release or output 'nothing'"):
        trace(ctx, "nothing")


def test_verify_names_what_was_changed(bench: Bench) -> None:
    ctx = bench.ctx
    dataset, adapter, evaluation = story(bench)
    release = releasing.create(ctx, adapter.hash[:8]).artifact
    (found,) = verify(ctx)
    assert found["ok"] and [check["part"] for check in found["checks"]] == [
        "manifest and adapter", "release folder", "base model", "prompt", "dataset", "evaluation",
    ]  # fmt: skip
    for artifact, name in (
        (adapter, "adapter_model.safetensors"), (release, "release.json"),
        (dataset, "train.jsonl"), (evaluation, "rows.jsonl"),
    ):  # fmt: skip
        with (ctx.path_of(artifact) / name).open("ab") as stream:
            stream.write(b" ")
    (bench.root / "model" / "model.safetensors").write_bytes(b"other")
    where = ["--project", str(bench.root)]
    done = CliRunner().invoke(app, ["release", "verify", "colours-v1", *where, "--json"])
    assert done.exit_code == 1
    wrong = {c["part"]: c["why"] for c in json.loads(done.stdout)["releases"][0]["checks"]}
    assert "was changed since it was released" in wrong["manifest and adapter"]
    assert wrong["release folder"] == ""  # white space after the JSON changes nothing
    assert "is another model than the one released" in wrong["base model"]
    assert "train.jsonl is missing or was changed" in wrong["dataset"]
    assert "was changed since it was evaluated" in wrong["evaluation"]
    (ctx.path_of(release) / "release.json").write_text('{"id": "x"}')
    shown = CliRunner().invoke(app, ["release", "verify", *where]).stdout
    assert shown.count("CHANGED") == 5


def test_one_command_brings_back_prompt_and_adapter(bench: Bench) -> None:
    _, first, _ = story(bench)
    releasing.create(bench.ctx, first.hash[:8])
    rollouts.switch(bench.ctx, "colours-v1")
    prompting.draft(bench.ctx, "Say warm or cold.")
    prompting.publish(bench.ctx, "2", note="shorter", force=True)
    ctx = bench.ctx = open_context(bench.root)
    _, second, _ = story(bench, b"other weights")
    releasing.create(ctx, second.hash[:8])
    rollouts.switch(ctx, "colours-v2")

    def served() -> tuple[str, str | None]:
        profile = load_entries(ctx.store, ctx.config, {})["colours"].stable
        return profile.prompt, profile.adapter

    assert served() == ("Say warm or cold.", second.path)
    done = CliRunner().invoke(app, ["release", "rollback", "--project", str(bench.root)])
    assert done.exit_code == 0 and "colours-v1 answers every request" in done.stdout
    assert served() == ("Name the colour family of the thing.", first.path)
    manifest = manifest_of(get_release(ctx.store, route(ctx.store, "colours").stable))
    assert manifest.adapter is not None and manifest.adapter.hash == first.hash
    assert bench.registry.aliases == {"stable": "1"}
