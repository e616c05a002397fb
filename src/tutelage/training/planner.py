"""From data, model and machine to a plan: every choice with its reason, memory, time, or a refusal.

The rules are rows of planner_rules.py; what an expert would add stands in planner_advice.py.
Nothing is trained here; `measured` may come from a probe (probe.py), else time and memory are
computed from the model's size.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError
from tutelage.training.memory import MemoryEstimate, estimate_memory, trained_params
from tutelage.training.planner_advice import MEMORY_SHARE, headline, refusal, warnings
from tutelage.training.planner_idle import check_tune, idle
from tutelage.training.planner_rules import Situation, choices, decide
from tutelage.training.profile import DataProfile, Machine, Measured, ModelProfile
from tutelage.training.recipe import Recipe

_CPU_FLOPS = 6e10  # a second and core, sustained in training: the guess without a probe
_GPU_FLOPS = 1e14
_LOOKS_AN_EPOCH = 2  # evaluations on the validation split
_REPLAYED = 120  # tokens of a replayed row: a short request and up to 96 of an answer
_INTERPOLATED = 5  # looks at the validation rows on the way back towards the base
_START_S = 6.0  # imports, tokenizer, encoding, the self-check: measured, bench/plan.py
_KEPT_BYTES = 16  # a trained weight in a checkpoint: itself, the best one, two moments
_WRITTEN = 3e8  # bytes of a checkpoint a second, hashed and synced: measured, bench/plan.py
_UPDATED = 3e8  # weights that AdamW moves in a second: measured likewise
_OWN = "tutelage.yaml"


class Choice(BaseModel):
    """One setting: its value, why, and where the rule comes from."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: Any
    reason: str
    source: str


class Plan(BaseModel):
    """What training will do. `refusal` says why it should not.

    `seconds` is the whole run's without early stopping; `cost` is in the currency of
    train.hour_price, None without one; `trained` counts weights.
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    choices: list[Choice]
    memory: MemoryEstimate
    seconds: float
    steps: int
    headline: str = ""
    trained: int = 0
    cost: float | None = None
    warnings: list[str] = []
    refusal: str | None = None


def make_plan(
    data: DataProfile,
    model: ModelProfile,
    machine: Machine,
    overrides: Train,
    *,
    measured: Measured | None = None,
) -> Plan:
    """Return the plan. Fields set in `overrides` win and are shown as the user's own.

    Raises ConfigError if two of them contradict each other.
    """
    situation = Situation(data, model, machine)
    made = _choose_all(situation, overrides)
    check_tune(situation, overrides)
    values = situation.chosen
    _check_sizes(values, model, overrides)
    recipe = Recipe(seed=overrides.seed, **values)
    recipe, made = _fit(recipe, made, situation, overrides, measured)
    memory = _memory(situation, recipe, measured)
    seconds = _seconds(situation, recipe, measured)
    trained = (measured.trained if measured else 0) or trained_params(model, recipe)
    price = overrides.hour_price
    return Plan(
        recipe=recipe,
        choices=made,
        memory=memory,
        seconds=round(seconds, 1),
        steps=recipe.total_steps(recipe.all_rows(data.rows)),
        headline=headline(situation, recipe, memory, trained),
        trained=trained,
        cost=None if price is None else round(price * seconds / 3600, 4),
        warnings=[*warnings(situation, recipe, memory, overrides), *idle(situation, overrides)],
        refusal=refusal(situation, overrides),
    )


def _check_sizes(values: dict[str, Any], model: ModelProfile, overrides: Train) -> None:
    """Raise ConfigError for sizes that don't fit into each other."""
    if values["micro_batch"] > values["batch_size"]:
        raise ConfigError(
            f"train.micro_batch {values['micro_batch']} is larger than the batch of "
            f"{values['batch_size']} rows it is a part of",
            where=_OWN,
            fix="Lower train.micro_batch, or raise train.batch_size",
        )
    if (overrides.processes or 1) > values["batch_size"]:
        raise ConfigError(
            f"train.processes {overrides.processes} is more than the {values['batch_size']} rows "
            "of a step, of which each process takes a part",
            where=_OWN,
            fix=f"Set it to {values['batch_size']} at most, or raise train.batch_size",
        )
    if values["max_tokens"] > model.context:
        raise ConfigError(
            f"train.max_tokens {values['max_tokens']} is more than the {model.context} tokens that "
            "the model reads",
            where=_OWN,
            fix=f"Set train.max_tokens to {model.context} at most, or leave it unset",
        )


def _choose_all(situation: Situation, overrides: Train) -> list[Choice]:
    """Return every choice in the order of the table; `situation.chosen` fills up on the way."""
    made = []
    for name in choices():
        made.append(_choose(name, situation, overrides))
        situation.chosen[name] = made[-1].value
    for more in (_derived(situation, overrides), _own_settings(situation, overrides)):
        made += more
        situation.chosen.update({choice.name: choice.value for choice in more})
    return [choice for choice in made if _concerns(choice, situation, overrides)]


def _concerns(choice: Choice, situation: Situation, overrides: Train) -> bool:
    """Return whether a choice says anything about this run."""
    if getattr(overrides, choice.name, None) is not None:
        return True
    only_full, only_adapter = ("mixout", "layer_decay"), ("rank", "alpha", "dropout")
    if choice.name in ("offload", "strategy", "attention"):
        return situation.machine.gpu is not None
    if choice.name == "replay_loss":
        return bool(situation.chosen["replay"])
    if choice.name == "tune":
        return bool(choice.value != situation.method)
    return choice.name not in (only_adapter if situation.full else only_full)


def _choose(name: str, situation: Situation, overrides: Train) -> Choice:
    value, reason, source = decide(name, situation)
    own = getattr(overrides, name, None)
    if own is not None and own != "auto":
        return Choice(name=name, value=own, reason=f"your setting (planned: {value})", source=_OWN)
    return Choice(name=name, value=value, reason=reason, source=source)


def _derived(situation: Situation, overrides: Train) -> list[Choice]:
    """Return the choices that follow from others: alpha, micro-batch, how often to look."""
    rank, batch = int(situation.chosen["rank"]), int(situation.chosen["batch_size"])
    per_epoch = max(1, math.ceil(situation.data.rows / batch))
    every = max(1, per_epoch // _LOOKS_AN_EPOCH)
    found = {
        "alpha": (2.0 * rank, "twice the rank: one rate holds for any rank", "LoRA practice"),
        "micro_batch": (batch, "the whole batch fits in one pass", "the memory estimate"),
        "checkpointing": (False, "activations fit: none is computed twice", "the memory estimate"),
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


def _own_settings(situation: Situation, overrides: Train) -> list[Choice]:
    """Return what the user set and no rule decides."""
    names = [n for n in Recipe.model_fields if n not in {*situation.chosen, "seed"}]
    found = {name: getattr(overrides, name, None) for name in names}
    return [
        Choice(name=name, value=value, reason="your setting", source=_OWN)
        for name, value in found.items()
        if value is not None
    ]


def _fit(
    recipe: Recipe,
    made: list[Choice],
    situation: Situation,
    overrides: Train,
    measured: Measured | None,
) -> tuple[Recipe, list[Choice]]:
    """Halve the micro-batch, then recompute activations, until the estimate fits."""
    budget = MEMORY_SHARE * situation.machine.free_mb

    def fits(trial: Recipe) -> bool:
        return _memory(situation, trial, measured).total_mb <= budget

    micro = recipe.micro_batch
    while overrides.micro_batch is None and micro > 1:
        if fits(recipe.model_copy(update={"micro_batch": micro})):
            break
        micro = max(1, micro // 2)
    changes: dict[str, tuple[Any, str]] = {}
    if micro != recipe.micro_batch:
        steps = -(-recipe.batch_size // micro)
        why = f"{recipe.batch_size} rows at once would not fit into {budget:,.0f} MB"
        changes["micro_batch"] = (micro, f"{why}: {steps} passes add up to one step")
    recipe = recipe.model_copy(update={"micro_batch": micro})
    if overrides.checkpointing is None and not fits(recipe):
        why = "still too large: activations are computed again, for 20–30 % more time"
        changes["checkpointing"] = (True, why)
        recipe = recipe.model_copy(update={"checkpointing": True})
    return recipe, [_changed(choice, changes) for choice in made]


def _changed(choice: Choice, changes: dict[str, tuple[Any, str]]) -> Choice:
    if choice.name not in changes:
        return choice
    value, reason = changes[choice.name]
    return choice.model_copy(
        update={"value": value, "reason": reason, "source": "the memory estimate"}
    )


def _memory(situation: Situation, recipe: Recipe, measured: Measured | None) -> MemoryEstimate:
    kept = measured.bytes_per_token if measured else None
    return estimate_memory(situation.data, situation.model, recipe, bytes_per_token=kept)


def step_tokens(data: DataProfile, recipe: Recipe) -> int:
    """Return the tokens that one optimizer step computes."""
    whole = recipe.batch_size * min(data.prompt_p50 + data.answer_p50, recipe.max_tokens)
    return round(whole * (1 - data.shared)) if recipe.shared_prefix else whole


def _seconds(situation: Situation, recipe: Recipe, measured: Measured | None) -> float:
    """Return the time of all steps and of the looks at the validation rows (a third a token)."""
    data = situation.data
    pace = measured.seconds_per_token if measured else _pace(situation)
    whole = recipe.all_rows(data.rows)
    steps = recipe.total_steps(whole)
    train = steps * step_tokens(data, recipe) * data.rows / max(1, whole)
    train += _replayed_tokens(recipe) * (whole - data.rows)
    looks = 1 + steps // recipe.eval_every + _INTERPOLATED * recipe.interpolate
    share = step_tokens(data, recipe) / recipe.batch_size
    slower = 1.25 if recipe.checkpointing else 1.0
    start = _START_S + measured.load_seconds if measured else 0.0
    return (
        start
        + _upkeep(situation, recipe)
        + pace * (slower * train + looks * data.validation_rows * share / 3)
    )


def _replayed_tokens(recipe: Recipe) -> float:
    """Return what a replayed row costs in all epochs, as tokens of a step."""
    passes = 4 / 3 if recipe.replay_loss == "base" else 1.0  # the base's forward besides
    return recipe.epochs * passes * min(_REPLAYED, recipe.max_tokens)


def _upkeep(situation: Situation, recipe: Recipe) -> float:
    """Return the seconds of moving the weights and of writing checkpoints and the result."""
    trained = trained_params(situation.model, recipe)
    steps = recipe.total_steps(situation.data.rows)
    writes = 1 + steps // recipe.checkpoint_every
    return trained * (steps / _UPDATED + writes * _KEPT_BYTES / _WRITTEN)


def _pace(situation: Situation) -> float:
    """Return seconds a token: 4 FLOPs a weight for LoRA's forward and input gradients, 2 more."""
    flops = _GPU_FLOPS if situation.machine.gpu else _CPU_FLOPS * situation.machine.cores
    return 6 * situation.model.params / flops
