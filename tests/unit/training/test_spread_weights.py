"""Runs whose weights are spread over two processes end as one that is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.team import in_team, start_team
from tests.unit.training.test_several_processes import (
    RECIPE,
    Priced,
    assert_same_history,
    assert_same_weights,
    job,
    killed,
    told,
)

from tutelage.core.errors import ConfigError
from tutelage.inference.models import ModelSource
from tutelage.training.distributed import Team
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, TrainResult, train
from tutelage.training.strategies import make_strategy
from tutelage.training.strategies.lockstep import rounds

FULL: dict[str, Any] = {"method": "full", "tune": "full", "learning_rate": 1e-3}


def spread(
    source: ModelSource, tmp_path: Path, changes: dict[str, Any], strategy: dict[str, Any],
    train_spread: Callable[[TrainingJob], TrainResult] = train,
) -> list[Any]:  # fmt: skip
    """Train whole and spread, hold one to the other, return what the processes were told."""
    recipe = RECIPE.model_copy(update=changes | {"shared_prefix": False})
    whole = told(train(job(source, tmp_path / "whole", recipe)))
    made = job(source, tmp_path / "spread", recipe.model_copy(update=strategy))
    found = in_team(2, lambda rank: told(train_spread(made)), tmp_path)
    for one in found:
        assert_same_history(whole["history"], one["history"])
        assert one["best"] == whole["best"]
    assert_same_weights(tmp_path / "whole", tmp_path / "spread")
    return found


def test_rounds_give_every_process_as_many_passes() -> None:
    rows = [Priced(str(index), 1) for index in range(11)]
    for size in (1, 2, 3):
        for team_size in (1, 2, 3, 4):
            dealt = [list(rounds(rows, size, Team(rank, team_size))) for rank in range(team_size)]
            assert len({tuple(len(part) for part, _ in one) for one in dealt}) == 1
            own = [row.id for one in dealt for part, mine in one if mine for row in part]
            assert sorted(own) == sorted(row.id for row in rows)


@pytest.mark.parametrize(
    ("changes", "offload"),
    [({}, False), (FULL, False), (FULL, True), ({"method": "dpo"}, False)],
    ids=["lora", "full", "full-offload", "dpo"],
)
def test_fsdp2_equals_one_process(
    tiny_source: ModelSource, tmp_path: Path, changes: dict[str, Any], offload: bool
) -> None:
    found = spread(tiny_source, tmp_path, changes, {"strategy": "fsdp2", "offload": offload})
    assert found[0]["prefix"]["reason"] == "weights are spread over the processes"


def test_fsdp2_in_one_process(tiny_source: ModelSource, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"strategy": "fsdp2", "precision": "bf16", "epochs": 1})
    (result,) = in_team(
        1, lambda rank: told(train(job(tiny_source, tmp_path / "run", recipe))), tmp_path
    )
    assert result["stopped"] == "all 3 steps done"
    losses = [point["loss"] for point in result["history"] if "loss" in point]
    assert losses[-1] < losses[0]


def test_a_spread_run_that_was_killed_goes_on_to_the_same_bits(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update=FULL | {"strategy": "fsdp2"})
    whole, cut = (job(tiny_source, tmp_path / name, recipe) for name in ("whole", "cut"))
    in_team(2, lambda rank: told(train(whole)), tmp_path / "a")
    assert 0 not in start_team(2, lambda rank: train(cut, emit=killed(3, rank)), tmp_path / "b")
    in_team(2, lambda rank: told(train(cut)), tmp_path / "c")
    file = "adapter/model.safetensors"
    assert (cut.run_dir / file).read_bytes() == (whole.run_dir / file).read_bytes()


def test_a_score_needs_all_processes(tiny_source: ModelSource, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"strategy": "fsdp2", "epochs": 1})

    def work(rank: int) -> Any:
        def score(model: torch.nn.Module) -> float:
            with torch.no_grad():
                model(input_ids=torch.tensor([[1, 2, 3]]))
            return float(rank)

        return told(train(job(tiny_source, tmp_path / "run", recipe), score=score))

    for found in in_team(2, work, tmp_path):
        assert {p.get("validation_score", 0.0) for p in found["history"]} == {0.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "kto"}, "can't train with method 'kto'"),
        ({"method": "qlora", "tune": "qlora"}, "can't train with 4-bit weights"),
        ({"precision": "fp16"}, "can't train with precision fp16. Set train.precision: bf16"),
        ({"mixout": 0.1}, "can't train with Mixout. Set train.strategy: ddp"),
    ],
)
def test_what_can_not_be_spread_is_said(changes: dict[str, Any], said: str) -> None:
    recipe: Recipe = replace_fields(RECIPE, changes | {"strategy": "fsdp2"})
    with pytest.raises(ConfigError, match=said):
        make_strategy(recipe, Team())


def replace_fields(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return `recipe` with `changes`."""
    return recipe.model_copy(update=changes)
