"""A search of training settings on a tiny model: resumable, blind to the test split, honest."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import ConfigError, Conflict, DataError, PlanRefused
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, load_version, write_version
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.search import Limits, search

pytest.importorskip("optuna")

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing. It is warm or cold, nothing else.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*]}
train: {tracker: none, epochs: 1, rank: 4%s}
"""
Opened = tuple[Context, Artifact, list[Event]]


def row(index: int) -> Example:
    label = "warm" if index % 2 else "cold"
    turns = (
        Message(role="user", content=f"thing number {index}"),
        Message(role="assistant", content=json.dumps({"family": label})),
    )
    return Example(messages=turns, label=label)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Return a function that opens a project with a frozen dataset version of `rows` rows."""
    torch.set_num_threads(1)
    contexts: list[Context] = []

    def make(rows: int = 24, validation: int = 4, settings: str = "", place: str = "p") -> Opened:
        root = tmp_path / place
        root.mkdir(exist_ok=True)
        if not (root / "model").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                build_tiny_model(root / "model")
        (root / "tutelage.yaml").write_text(CONFIG % settings, encoding="utf-8")
        events: list[Event] = []
        ctx = open_context(root, events.append)
        contexts.append(ctx)
        splits = {
            "train": [row(n) for n in range(rows)],
            "validation": [row(n) for n in range(100, 100 + validation)],
            "test": [row(n) for n in range(200, 204)],
        }
        version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(splits, {}))  # type: ignore[arg-type]
        home = ctx.workspace.relative(version.directory)
        return ctx, register(ctx.store, describe("dataset", version.hash, home)), events

    yield make
    for ctx in contexts:
        ctx.store.close()


class Killed(BaseException):
    """Stands in for the end of the process."""


def test_the_rate_is_swept_first_then_the_rest(opened: Callable[..., Opened]) -> None:
    ctx, dataset, events = opened()
    found = search(ctx, dataset, Limits(trials=7, seeds=0), ["rank", "learning_rate"])
    trials = found.data["trials"]
    assert [t["phase"] for t in trials][:5] == ["sweep"] * 5
    assert trials[-1]["phase"] == "rest" or trials[-1]["settings"]["learning_rate"] > 3e-3
    planned = found.data["planned"]
    assert list(planned) == ["learning_rate", "rank"]
    assert trials[0]["settings"] == planned
    rates = sorted(t["settings"]["learning_rate"] for t in trials[:5])
    assert rates == pytest.approx(
        [planned["learning_rate"] * 3 ** (k / 2) for k in range(-2, 3)], rel=0.03
    )
    assert {t["settings"]["rank"] for t in trials[:5]} == {4}
    assert found.data["best_loss"] == min(t["loss"] for t in trials if t["loss"] is not None)
    assert not found.take  # not repeated with other seeds
    assert found.overrides == {} and found.fragment == ""
    assert "may be luck" in found.data["reason"] or "it stays" in found.data["reason"]
    assert found.artifact.kind == "search" and found.artifact.parents == (dataset.hash,)
    page = found.report.read_text()
    assert "<script" not in page and "Keep the plan" in page
    bar = [event for event in events if event.stage == "search" and event.kind == "progress"]
    assert bar[0].total == 7 and bar[-1].done == 7
    assert list(ctx.workspace.runs.iterdir()) == []
