"""DeepSpeed's ZeRO in two processes on a processor; skipped where deepspeed is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.unit.training.team import in_team, start_team
from tests.unit.training.test_several_processes import RECIPE, job, killed, told
from tests.unit.training.test_spread_weights import FULL, spread

from tutelage.core.errors import EnvironmentProblem
from tutelage.inference.models import ModelSource
from tutelage.training.distributed import Team
from tutelage.training.session import TrainingJob, TrainResult, train
from tutelage.training.strategies import zero
from tutelage.training.strategies.zero import deepspeed_config

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)


def train_now(made: TrainingJob, **options: Any) -> TrainResult:
    """Train without DeepSpeed's shared-memory exchange, which it would compile for minutes."""
    ops = importlib.import_module("deepspeed.ops")
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return train(made, **options)


@pytest.mark.parametrize(
    ("strategy", "offload", "stage", "places"),
    [
        ("zero2", False, 2, set()),
        ("zero2", True, 2, {"offload_optimizer"}),
        ("zero3", True, 3, {"offload_optimizer", "offload_param"}),
    ],
)
def test_the_configuration_says_what_the_recipe_says(
    strategy: str, offload: bool, stage: int, places: set[str]
) -> None:
    changes = {"strategy": strategy, "offload": offload, "precision": "bf16", "max_grad_norm": 0.5}
    made = deepspeed_config(RECIPE.model_copy(update=changes), Team(0, 2, "cuda:0"))
    found = made["zero_optimization"]
    assert found["stage"] == stage
    assert {key for key in found if key.startswith("offload")} == places
    assert all(found[place] == {"device": "cpu", "pin_memory": True} for place in places)
    assert made["bf16"] == {"enabled": True}
    assert made["gradient_clipping"] == 0.5


def test_a_missing_deepspeed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'tutelage\[gpu\]'"):
        zero.require_deepspeed()


@needs_deepspeed
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
@pytest.mark.parametrize(
    ("changes", "offload"), [({}, False), (FULL, True), ({"method": "dpo"}, False)],
    ids=["lora", "full-offload", "dpo"],
)  # fmt: skip
def test_zero_equals_one_process(
    tiny_source: ModelSource, tmp_path: Path, strategy: str, changes: dict[str, Any], offload: bool
) -> None:
    spread(tiny_source, tmp_path, changes, {"strategy": strategy, "offload": offload}, train_now)


@needs_deepspeed
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_a_killed_run_goes_on_to_the_same_bits(
    tiny_source: ModelSource, tmp_path: Path, strategy: str
) -> None:
    recipe = RECIPE.model_copy(update=FULL | {"strategy": strategy})
    whole, cut = (job(tiny_source, tmp_path / name, recipe) for name in ("whole", "cut"))
    in_team(2, lambda rank: told(train_now(whole)), tmp_path / "a")
    assert 0 not in start_team(2, lambda rank: train_now(cut, emit=killed(3, rank)), tmp_path / "b")
    in_team(2, lambda rank: told(train_now(cut)), tmp_path / "c")
    file = "adapter/model.safetensors"
    assert (cut.run_dir / file).read_bytes() == (whole.run_dir / file).read_bytes()


@needs_deepspeed
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_bf16_learns(tiny_source: ModelSource, tmp_path: Path, strategy: str) -> None:
    recipe = RECIPE.model_copy(update={"strategy": strategy, "precision": "bf16"})
    made = job(tiny_source, tmp_path / "run", recipe)
    found, _ = in_team(2, lambda rank: told(train_now(made)), tmp_path)
    losses = [point["loss"] for point in found["history"] if "loss" in point]
    assert losses[-1] < losses[0]
