"""Two processes train as one does: the same losses, the same weights, the same decisions."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.training.team import in_team, start_team

from tutelage.core.config import Cloze
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.inference.models import ModelSource
from tutelage.training.distributed import Team
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, TrainResult, train

RECIPE = Recipe(
    rank=4,
    alpha=8.0,
    learning_rate=5e-3,
    epochs=2,
    batch_size=4,
    micro_batch=2,
    eval_every=2,
    patience=50,
    checkpoint_every=2,
)
PROMPT = "Say whether the number is odd or even, in one word."


def rows(first: int, count: int, **meta: Any) -> list[Example]:
    """Return rows whose answer is the parity of a number."""
    return [
        Example(
            messages=(
                Message(role="user", content=f"number {index}"),
                Message(role="assistant", content="odd" if index % 2 else "even"),
            ),
            label="odd" if index % 2 else "even",
            meta=meta,
        )
        for index in range(first, first + count)
    ]


def job(source: ModelSource, run_dir: Path, recipe: Recipe, count: int = 9) -> TrainingJob:
    """Return a job with `count` rows; what preferences need is in them too."""
    output = OutputFormat(None, ("odd", "even"))
    wrong = {"rejected": "neither, I would say"}
    looked_at = rows(50, 3, **wrong)
    return TrainingJob(
        source, rows(0, count, **wrong), looked_at, PROMPT, recipe, run_dir, output=output
    )


def told(result: TrainResult) -> dict[str, Any]:
    """Return what a process knows in the end, without what depends on time."""
    timed = ("seconds", "tokens_per_s")
    history = [{k: v for k, v in p.items() if k not in timed} for p in result.history]
    return {"history": history, "stopped": result.stopped, "best": result.best_step,
            "prefix": result.prefix}  # fmt: skip


def both(made: TrainingJob, tmp_path: Path, size: int = 2) -> tuple[dict[str, Any], list[Any]]:
    """Train alone and in a team; hold the weights to each other; return what all were told."""
    alone = told(train(replace(made, run_dir=tmp_path / "alone")))
    shared = in_team(
        size, lambda rank: told(train(replace(made, run_dir=tmp_path / "team"))), tmp_path
    )
    assert_same_weights(tmp_path / "alone", tmp_path / "team")
    return alone, shared


def assert_same_weights(one: Path, other: Path, limit: float = 2e-5) -> None:
    """Hold two runs' trained weights to each other."""
    (name,) = (path.name for path in (one / "adapter").glob("*model*.safetensors"))
    first, second = load_file(one / "adapter" / name), load_file(other / "adapter" / name)
    assert set(first) == set(second)
    for key, tensor in first.items():
        torch.testing.assert_close(tensor, second[key], rtol=1e-3, atol=limit)


def assert_same_history(one: Sequence[Any], other: Sequence[Any], limit: float = 1e-5) -> None:
    """Hold every number of two histories to each other."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert theirs[name] == pytest.approx(value, rel=2e-3, abs=limit), name


@dataclass(frozen=True)
class Priced:
    """An item with a cost."""

    id: str
    cost: int
    weight: float = 1.0


def test_parts_are_whole_in_order_and_fair() -> None:
    rows = [Priced(str(index), cost) for index, cost in enumerate([9, 1, 1, 1, 3, 3])]
    parts = [Team(rank, 2).part(rows, lambda row: row.cost) for rank in range(2)]
    assert [row.id for part in parts for row in part] == list("012345")
    assert [sum(row.cost for row in part) for part in parts] == [9, 9]
    assert [len(Team(rank, 4).part(rows[:1])) for rank in range(4)] == [0, 0, 1, 0]


@pytest.mark.parametrize("size", [2, 3])
def test_lora_over_shared_prefixes(tiny_source: ModelSource, tmp_path: Path, size: int) -> None:
    alone, shared = both(job(tiny_source, tmp_path, RECIPE), tmp_path, size)
    assert alone["prefix"]["shared"]
    for found in shared:
        assert_same_history(alone["history"], found["history"])
    assert {found["stopped"] for found in shared} == {alone["stopped"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full", "tune": "full", "learning_rate": 1e-3, "shared_prefix": False},
        {"method": "dpo", "learning_rate": 1e-3},
        {"method": "kto", "learning_rate": 1e-3},
        {"method": "cloze", "cloze": Cloze()},
        {"method": "classify"},
    ],
    ids=lambda changes: changes["method"],
)
def test_other_methods(tiny_source: ModelSource, tmp_path: Path, changes: dict[str, Any]) -> None:
    # 5 rows in steps of 4: the last step leaves a process without rows
    made = job(tiny_source, tmp_path, RECIPE.model_copy(update=changes), count=5)
    alone, shared = both(made, tmp_path)
    for found in shared:
        assert_same_history(alone["history"], found["history"], 1e-4)


def test_all_stop_early_at_the_same_step(tiny_source: ModelSource, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"eval_every": 1, "patience": 1, "learning_rate": 0.5})
    alone, shared = both(job(tiny_source, tmp_path, recipe), tmp_path)
    assert "no gain" in alone["stopped"] or "diverged" in alone["stopped"]
    assert {found["stopped"] for found in shared} == {alone["stopped"]}
    assert {found["best"] for found in shared} == {alone["best"]}


def test_a_score_is_measured_by_the_first_and_told_to_all(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    def work(rank: int) -> Any:
        scores = iter([0.1, 0.9, 0.2, 0.3, 0.2, 0.1])

        def score(model: torch.nn.Module) -> float:
            assert rank == 0
            return next(scores)

        made = job(tiny_source, tmp_path / "team", RECIPE)
        return told(train(made, score=score))

    first, second = in_team(2, work, tmp_path)
    assert first["best"] == second["best"] == 2
    assert [p["validation_score"] for p in second["history"] if "validation_score" in p] == [
        0.1, 0.9, 0.2, 0.3
    ]  # fmt: skip


def killed(at: int, rank: int) -> Callable[[Event], None]:
    """Return a listener that kills its process after step `at`."""

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def test_a_killed_process_ends_the_other_and_the_run_goes_on_to_the_same_bits(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"dropout": 0.1})
    whole, cut = (job(tiny_source, tmp_path / name, recipe) for name in ("whole", "cut"))
    in_team(2, lambda rank: told(train(whole)), tmp_path / "a")
    codes = start_team(2, lambda rank: train(cut, emit=killed(5, rank)), tmp_path / "b")
    assert codes == [-signal.SIGKILL, 1]
    again = in_team(2, lambda rank: told(train(cut)), tmp_path / "c")
    assert again[0]["stopped"] == "all 6 steps done"
    file = "adapter/adapter_model.safetensors"
    assert (cut.run_dir / file).read_bytes() == (whole.run_dir / file).read_bytes()
