"""Settings beside a method that has no use for them: said in the plan, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.training.test_planner import DATA, LAPTOP, SMALL

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError
from tutelage.training.adapter_config import make_config, refuse, sizes
from tutelage.training.planner import make_plan
from tutelage.training.recipe import Recipe


def idle(**settings: Any) -> list[str]:
    """Return what the plan says is not used."""
    found = make_plan(DATA, SMALL, LAPTOP, Train(**settings)).warnings
    return [text.split(" is not used")[0] for text in found if "is not used" in text]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"method": "lora", "class_weights": "balanced", "beta": 0.2}, ["class_weights", "beta"]),
        ({"method": "cloze", "class_weights": "balanced", "cloze": {"calibrate": "always"}}, []),
        ({"method": "cloze", "prompt_loss_weight": 0.5}, ["prompt_loss_weight"]),
        ({"method": "dpo", "preference_loss": "ipo", "desirable_weight": 2}, ["desirable_weight"]),
        ({"method": "kto", "sft_weight": 1, "label_smoothing": 0.1, "undesirable_weight": 2},
         ["label_smoothing", "sft_weight"]),
        ({"method": "lora", "offload": True}, ["offload"]),
        ({"method": "ia3", "rank": 8, "dropout": 0.1}, ["rank", "dropout"]),
        ({"method": "oft", "rank": 8}, ["rank"]),
        ({"method": "full", "rank": 8, "alpha": 16}, ["rank", "alpha"]),
        ({"method": "dora", "rank": 8, "alpha": 16, "dropout": 0.1}, []),
        ({"method": "loha", "rank": 8, "alpha": 16, "dropout": 0.1}, []),
    ],
)  # fmt: skip
def test_what_is_not_used_is_said(settings: dict[str, Any], names: list[str]) -> None:
    assert idle(**settings) == [f"train.{name}" for name in names]


@pytest.mark.parametrize(("method", "tune"), [("lora", "full"), ("dora", "lora"), ("auto", "full")])
def test_two_words_on_what_is_trained_are_one_too_many(method: str, tune: str) -> None:
    with pytest.raises(ConfigError, match=f"Set train.method: {tune}, or leave train.tune unset"):
        make_plan(DATA, SMALL, LAPTOP, Train(method=method, tune=tune))


@pytest.mark.parametrize(("method", "tune"), [("dpo", "full"), ("lora", "lora"), ("cloze", "dora")])
def test_an_objective_takes_any_tuning(method: str, tune: str) -> None:
    assert make_plan(DATA, SMALL, LAPTOP, Train(method=method, tune=tune)).recipe.tune == tune


def test_more_processes_than_rows_of_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match="processes 9 is more than the 8 rows of a step"):
        make_plan(DATA, SMALL, LAPTOP, Train(processes=9))
    assert make_plan(DATA, SMALL, LAPTOP, Train(processes=8)).recipe.batch_size == 8


def test_a_modules_name_alone_is_no_pattern() -> None:
    made = make_config("lora", Recipe(target_modules="q_proj"))
    assert made.target_modules == {"q_proj"}
    made = make_config("lora", Recipe(target_modules=r".*\.[qv]_proj"))
    assert made.target_modules == r".*\.[qv]_proj"
    assert make_config("lora", Recipe()).target_modules == "all-linear"


def test_what_an_adapter_takes() -> None:
    assert sizes("lora") == {"rank", "alpha", "dropout"}
    assert sizes("IA3") == set()
    with pytest.raises(ConfigError, match="a checkpoint holds whole tensors"):
        refuse("shira")
