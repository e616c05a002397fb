"""From data, model and machine to a plan: every choice with its reason, memory, time, or a refusal.

The rules are rows of planner_rules.py. Nothing is trained here; `seconds_per_token` may come from
a timed probe (probe.py), else the time is computed from the model's size.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError
from tutelage.training.memory import MemoryEstimate, estimate_memory
from tutelage.training.planner_rules import FEW_ROWS, LEAST_ROWS, Situation, choices, decide
from tutelage.training.profile import DataProfile, Machine, ModelProfile
from tutelage.training.recipe import Recipe

_CPU_FLOPS = 6e10  # a second and core, sustained in training: the guess without a probe
_GPU_FLOPS = 1e14
_LOOKS_AN_EPOCH = 2  # evaluations on the validation split
_MEMORY_SHARE = 0.8  # of what is free may be planned for
_OWN = "tutelage.yaml"


class Choice(BaseModel):
    """One setting: its value, why, and where the rule comes from."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: Any
    reason: str
    source: str


class Plan(BaseModel):
    """What training will do. `refusal` says why it should not; `seconds` is the whole run's."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    choices: list[Choice]
    memory: MemoryEstimate
    seconds: float
    steps: int
    warnings: list[str] = []
    refusal: str | None = None


def make_plan(
    data: DataProfile,
    model: ModelProfile,
    machine: Machine,
    overrides: Train,
    *,
    seconds_per_token: float | None = None,
) -> Plan:
    """Return the plan. Fields set in `overrides` win and are shown as the user's own.

    Raises ConfigError if two of them contradict each other.
    """
    situation = Situation(data, model, machine)
    made = [_choose(name, situation, overrides) for name in choices()]
    values = {choice.name: choice.value for choice in made}
    made += _derived(values, data, overrides)
    made += _own_settings({choice.name for choice in made}, overrides)
    values |= {choice.name: choice.value for choice in made}
    if values["micro_batch"] > values["batch_size"]:
        raise ConfigError(
            f"train.micro_batch {values['micro_batch']} is larger than the batch of "
            f"{values['batch_size']} rows it is a part of",
            where=_OWN,
            fix="Lower train.micro_batch, or raise train.batch_size",
        )
    recipe = Recipe(seed=overrides.seed, **values)
    recipe, made = _fit(recipe, made, situation, overrides)
    steps = recipe.total_steps(data.rows)
    memory = estimate_memory(data, model, recipe)
    pace = seconds_per_token or _pace(situation)
    return Plan(
        recipe=recipe,
        choices=made,
        memory=memory,
        seconds=round(_seconds(data, recipe, pace), 1),
        steps=steps,
        warnings=_warnings(situation, memory, overrides),
        refusal=_refusal(data, overrides),
    )


def _choose(name: str, situation: Situation, overrides: Train) -> Choice:
    value, reason, source = decide(name, situation)
    own = getattr(overrides, name, None)
    if own is not None and own != "auto":
        return Choice(name=name, value=own, reason=f"your setting (planned: {value})", source=_OWN)
    return Choice(name=name, value=value, reason=reason, source=source)


def _derived(values: dict[str, Any], data: DataProfile, overrides: Train) -> list[Choice]:
    """Return the choices that follow from others: alpha, micro-batch, how often to look."""
    rank, batch = int(values["rank"]), int(values["batch_size"])
    per_epoch = max(1, math.ceil(data.rows / batch))
    every = max(1, per_epoch // _LOOKS_AN_EPOCH)
    found = {
        "alpha": (2.0 * rank, "twice the rank: one rate holds for any rank", "LoRA practice"),
        "micro_batch": (batch, "the whole batch fits in one pass", "the memory estimate"),
        "eval_every": (
            every,
            f"{_LOOKS_AN_EPOCH} looks at the validation rows an epoch",
            "Prechelt 1998",
        ),
        "checkpoint_every": (every, "a kill loses at most half an epoch", "crash safety"),
    }
    made = []
    for name, (value, reason, source) in found.items():
        own = getattr(overrides, name, None)
        if own is not None:
            reason, source, value = f"your setting (planned: {value})", _OWN, own
        made.append(Choice(name=name, value=value, reason=reason, source=source))
    return made


def _own_settings(decided: set[str], overrides: Train) -> list[Choice]:
    """Return what the user set and no rule decides."""
    names = [n for n in Recipe.model_fields if n not in decided | {"seed"}]
    found = {name: getattr(overrides, name, None) for name in names}
    return [
        Choice(name=name, value=value, reason="your setting", source=_OWN)
        for name, value in found.items()
        if value is not None
    ]


def _fit(
    recipe: Recipe, made: list[Choice], situation: Situation, overrides: Train
) -> tuple[Recipe, list[Choice]]:
    """Halve the micro-batch until the estimate fits into the free memory."""
    if overrides.micro_batch is not None:
        return recipe, made
    budget = _budget_mb(situation.machine)
    micro = min(recipe.micro_batch, recipe.batch_size)
    while micro > 1:
        trial = recipe.model_copy(update={"micro_batch": micro})
        if estimate_memory(situation.data, situation.model, trial).total_mb <= budget:
            break
        micro = max(1, micro // 2)
    if micro == recipe.micro_batch:
        return recipe, made
    reason = f"{recipe.batch_size} rows at once would not fit into {budget:,.0f} MB"
    changed = Choice(name="micro_batch", value=micro, reason=reason, source="the memory estimate")
    made = [changed if choice.name == "micro_batch" else choice for choice in made]
    return recipe.model_copy(update={"micro_batch": micro}), made


def _budget_mb(machine: Machine) -> float:
    return _MEMORY_SHARE * (machine.gpu_memory_mb if machine.gpu else machine.memory_mb)


def step_tokens(data: DataProfile, recipe: Recipe) -> int:
    """Return the tokens that one optimizer step computes."""
    whole = recipe.batch_size * min(data.prompt_p50 + data.answer_p50, recipe.max_tokens)
    return round(whole * (1 - data.shared)) if recipe.shared_prefix else whole


def _seconds(data: DataProfile, recipe: Recipe, pace: float) -> float:
    """Return the time of all steps and of the looks at the validation rows (a third a token)."""
    train = recipe.total_steps(data.rows) * step_tokens(data, recipe)
    looks = recipe.total_steps(data.rows) // recipe.eval_every
    share = step_tokens(data, recipe) / recipe.batch_size
    return pace * (train + looks * data.validation_rows * share / 3)


def _pace(situation: Situation) -> float:
    """Return seconds a token: 4 FLOPs a weight for LoRA's forward and input gradients, 2 more."""
    flops = _GPU_FLOPS if situation.machine.gpu else _CPU_FLOPS * situation.machine.cores
    return 6 * situation.model.params / flops


def _warnings(situation: Situation, memory: MemoryEstimate, overrides: Train) -> list[str]:
    data, machine = situation.data, situation.machine
    found = []
    if data.rows < FEW_ROWS:
        found.append(
            f"{data.rows} training rows, fewer than {FEW_ROWS}: the system instructions stay in "
            "every row, and the result depends much on which rows these are"
        )
    if data.labels and data.rows / data.labels < 5:
        found.append(
            f"{data.rows / data.labels:.1f} rows a label: rare labels will be guessed; five or "
            "more of each help most"
        )
    if memory.total_mb > _budget_mb(machine):
        found.append(
            f"{memory.total_mb:,.0f} MB are needed and {_budget_mb(machine):,.0f} MB are safe to "
            "use: close other programs, or choose a smaller model"
        )
    if overrides.epochs is not None and overrides.epochs > 10:
        found.append("more than 10 epochs on few rows learn them by heart")
    return found


def _refusal(data: DataProfile, overrides: Train) -> str | None:
    if data.rows >= LEAST_ROWS or overrides.force:
        return None
    return (
        f"{data.rows} training rows are too few to tune on (at least {LEAST_ROWS}): tuning would "
        "learn them by heart; put them into the prompt as examples instead"
    )
