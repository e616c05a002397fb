"""Curation says which sides stay empty and why, and freezes nothing that can't be trained on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.inference.transformers_prepare import quiet
from tutelage.workflows.context import open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.training.plan import plan

MakeProject = Callable[..., Path]
CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*], columns: {input: text, output: label}, splits: {SPLITS}}
"""


def table(texts: list[str]) -> str:
    lines = [f"{text},{'warm' if n % 2 else 'cold'}" for n, text in enumerate(texts)]
    return "\n".join(["text,label", *lines]) + "\n"


def words(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(6))


def test_rows_of_one_cluster_leave_the_other_sides_empty(make_project: MakeProject) -> None:
    alike = [f"the colour of the long and narrow thing with number {n}" for n in range(24)]
    root = make_project({"rows.csv": table(alike)}, CONFIG.replace("SPLITS", ""))
    with quiet():
        build_tiny_model(root / "model")
    events: list[Event] = []
    ctx = open_context(root, events.append)
    dataset = curate(ctx).artifact
    why = "all 24 rows are in one cluster (near-duplicates of each other, or one group)"
    warned = [event.message for event in events if event.kind == "warning"]
    assert any(text.startswith(f"validation and test are empty: {why}") for text in warned)
    told = [w for w in plan(ctx, dataset, probe=False).warnings if "no validation rows" in w]
    ctx.store.close()
    assert len(told) == 1
    assert why in told[0]
    assert "data.splits.validation" not in told[0]


def test_a_split_without_training_rows_is_refused_before_it_is_kept(
    make_project: MakeProject,
) -> None:
    rows = table([words(n) for n in range(24)])
    none = CONFIG.replace("SPLITS", "train: 0, validation: 0.5, test: 0.5")
    ctx = open_context(make_project({"rows.csv": rows}, none))
    with pytest.raises(DataError, match=r"data\.splits\.train: no row would be left to train on"):
        curate(ctx)
    ctx.store.close()
    ctx = open_context(make_project({}, CONFIG.replace("SPLITS", "")))
    counts = curate(ctx).artifact.meta["counts"]
    ctx.store.close()
    assert counts["train"] > counts["test"]
