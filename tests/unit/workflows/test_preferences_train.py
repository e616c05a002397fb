"""The train stage on preferences: the plan, an adapter, its lineage, a supervised stage before."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.data.version import load_version
from tutelage.release.lineage import lineage
from tutelage.workflows.context import Context, find_artifact, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.training.plan import plan
from tutelage.workflows.training.train import train

CONFIG = """\
name: desk
task: generation
model: model
prompt: Answer as a polite clerk would who sits at a desk in the town hall all day.
data:
  sources: [data/pairs.jsonl]
  quality: {embedder: tfidf, outliers: false, label_errors: false}
train: {tracker: none, epochs: 1%s}
"""
SYLLABLES = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu")
Opened = Callable[[str], Context]


def rows(first: int = 0) -> list[tuple[str, str, str]]:
    """Return fifty inputs that don't resemble each other, with a better and a worse answer."""
    found = []
    for index in range(first, first + 50):
        draw = random.Random(index)
        words = ["".join(draw.choices(SYLLABLES, k=3)) for _ in range(5)]
        found.append(
            (f"{' '.join(words)}?", f"With pleasure: the {words[0]} desk.", f"No {words[1]}.")
        )
    return found


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Callable[[str], Path]:
    torch.set_num_threads(1)
    pairs = "".join(
        json.dumps({"prompt": q, "chosen": better, "rejected": worse}) + "\n"
        for q, better, worse in rows()
    )
    asked = "".join(
        json.dumps({"prompt": q, "completion": better}) + "\n"
        for q, better, _ in rows(500) + rows(600) + rows(700)
    )

    def make(settings: str) -> Path:
        root = make_project({"pairs.jsonl": pairs, "plain.jsonl": asked}, CONFIG % settings)
        if not (root / "model").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                build_tiny_model(root / "model")
        return root

    return make


@pytest.fixture
def opened(project: Callable[[str], Path]) -> Iterator[Opened]:
    contexts: list[Context] = []

    def make(settings: str) -> Context:
        contexts.append(open_context(project(settings)))
        return contexts[-1]

    yield make
    for ctx in contexts:
        ctx.store.close()


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_an_adapter_is_trained_on_preferences(opened: Opened, method: str) -> None:
    ctx = opened(f", method: {method}")
    dataset = curate(ctx).artifact
    made = train(ctx, dataset).artifact
    assert train(ctx, dataset).skipped
    parent = find_artifact(ctx.store, made.parents[0])
    assert parent is not None and parent.kind == "preferences"
    assert parent.parents == (dataset.hash,)
    assert lineage(ctx.store, made.hash).parents[0].parents[0].kind == "dataset"
    folder = ctx.path_of(made)
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "reference.safetensors").exists()
    history = json.loads((folder / "history.json").read_text())["history"]
    assert any("validation_preference_accuracy" in point for point in history)
    assert made.meta["prefix"]["shared"] is True
    assert made.meta["prefix"]["unique"] < 0.5 * made.meta["prefix"]["total"]
    pairs = len(load_version(ctx.path_of(parent)).rows("train"))
    assert made.meta["coverage"]["rows"] == pairs


def test_the_plan_is_of_pairs_and_warns_of_their_lengths(
    opened: Opened,
) -> None:
    ctx = opened(", method: dpo")
    dataset = curate(ctx).artifact
    made = plan(ctx, dataset)
    pairs = sum(row.meta["rejected"] != "" for row in load_version(
        ctx.path_of(dataset)).rows("train"))  # fmt: skip
    assert made.steps == -(-pairs // made.recipe.batch_size)
    assert any("the model may learn to be long instead of good" in text for text in made.warnings)
    assert not any("no rejected answer" in text for text in made.warnings)
    assert made.recipe.max_tokens >= max(len(q) + len(b) for q, b, _ in rows())
    assert not list(ctx.workspace.runs.glob("reference*"))


def test_a_pair_shares_its_prompt_where_rows_share_nothing(opened: Opened) -> None:
    ctx = opened(", method: dpo, batch_size: 4")
    bare = Context(ctx.workspace, ctx.config.model_copy(update={"prompt": ""}), ctx.store, ctx.emit)
    made = plan(bare, curate(bare).artifact, probe=False)
    (choice,) = [one for one in made.choices if one.name == "shared_prefix"]
    assert choice.value is True and choice.reason.startswith("both answers of a pair")


def test_dpo_goes_on_from_a_supervised_stage(
    opened: Opened,
) -> None:
    ctx = opened(", method: dpo, before: [{sources: [data/plain.jsonl], epochs: 1}]")
    dataset = curate(ctx).artifact
    made = train(ctx, dataset).artifact
    parents = [find_artifact(ctx.store, digest) for digest in made.parents]
    kinds = sorted(parent.kind for parent in parents if parent is not None)
    assert kinds == ["adapter", "preferences"]
    ranks = [parent.meta.get("recipe", made.meta["recipe"])["rank"] for parent in parents if parent]
    assert ranks == [made.meta["recipe"]["rank"]] * 2 == [16, 16]  # 8 is planned for so few pairs
    history = json.loads((ctx.path_of(made) / "history.json").read_text())["history"]
    first = next(point for point in history if "validation_loss" in point)
    assert first["validation_loss"] == pytest.approx(0.6931, abs=1e-3)


def test_the_command_trains(project: Callable[[str], Path]) -> None:
    root = project(", method: dpo")
    done = CliRunner().invoke(app, ["train", "-p", str(root), "--json"])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["recipe"]["method"] == "dpo"
    wrong = project(", method: dpo, preference_loss: ipo, label_smoothing: 0.1")
    done = CliRunner().invoke(app, ["train", "-p", str(wrong)])
    assert done.exit_code == 2
    assert "train.label_smoothing has no meaning for IPO's loss" in " ".join(done.stderr.split())
