"""The training loop, to be read from top to bottom: one optimizer step after the other.

It knows no files and no models by name: session.py builds its parts and keeps what it reports.
Every step depends on the recipe, the step number and the state alone, so a run that is stopped
and continued from a checkpoint ends in the same bits as one that was not.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from tutelage.core.events import Emit, Event
from tutelage.training.loss_scale import LossScaler
from tutelage.training.optim import rate_at, set_rate
from tutelage.training.recipe import Recipe
from tutelage.training.shared_step import StepResult
from tutelage.training.strategies.base import Strategy

STAGE = "train"
_WILD_STEPS = 3  # steps in a row with a wild loss that end a run
Weights = dict[str, torch.Tensor]


class Item(Protocol):
    """One row as the objective sees it; `weight` is its share in a step's mean loss."""

    @property
    def id(self) -> str: ...

    @property
    def weight(self) -> float: ...


class Step(Protocol):
    """Adds the gradients of the mean loss of `rows` to the parameters and returns that loss.

    `weight` is what the sum is divided by where `rows` are only a part of a step's rows.
    """

    def __call__(
        self,
        rows: Sequence[Any],
        micro_batch: int,
        *,
        backward: bool = True,
        weight: float | None = None,
    ) -> StepResult: ...


@dataclass
class State:
    """What changes during a run besides weights and optimizer; goes into checkpoints as JSON.

    `stale` counts evaluations without a gain, `wild` steps in a row with an outlandish loss.
    """

    step: int = 0
    best_step: int = 0
    best_score: list[float] = field(default_factory=list)  # compared left to right, higher wins
    stale: int = 0
    wild: int = 0
    first_loss: float | None = None
    stopped: str = ""
    scaler: dict[str, float] = field(default_factory=dict)  # of fp16's loss scale
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Parts:
    """What a run works with. `score` (higher is better) goes before the validation loss."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    step: Step
    train: Sequence[Item]
    validation: Sequence[Item]
    recipe: Recipe
    emit: Emit
    keep: Callable[[State, Weights], None]  # writes a checkpoint
    record: Callable[[dict[str, float], int], None]  # numbers for the tracker
    score: Callable[[torch.nn.Module], float] | None = None
    scaler: LossScaler | None = None  # with fp16; `step` is wrapped by it already
    strategy: Strategy = field(kw_only=True)  # how weights are kept and changed


def run_loop(parts: Parts, state: State, best: Weights) -> Weights:
    """Train until the last step, until validation stops gaining, or until the loss goes wild.

    Changes `state` and the model in place; returns the best weights, which are not put back.
    """
    recipe = parts.recipe
    total = recipe.total_steps(len(parts.train))
    clock = _Clock(state.step, total)
    if not best:
        best = parts.strategy.snapshot(parts.model)
        _evaluate(parts, state, best, total)
    while state.step < total and not state.stopped:
        rows = rows_of_step(parts.train, state.step, recipe)
        rate = rate_at(state.step, total, recipe)
        set_rate(parts.optimizer, rate)
        parts.model.train()
        result = parts.step(rows, recipe.micro_batch)
        norm = _gradient_norm(parts)
        skipped = parts.scaler is not None and parts.scaler.overflowed(norm)
        norm = 0.0 if skipped else norm
        state.stopped = _trouble(state, result.loss, norm)
        if state.stopped:
            break
        _update(parts, state)
        state.step += 1
        point = clock.point(state.step, result, rate, norm) | ({"skipped": 1.0} if skipped else {})
        state.history.append(point)
        parts.record({k: v for k, v in point.items() if k != "step"}, state.step)
        if state.step % recipe.eval_every == 0 or state.step == total:
            best = _evaluate(parts, state, best, total)
        _tell(parts, state, total, clock)
        if state.step % recipe.checkpoint_every == 0 or state.step == total or state.stopped:
            parts.keep(state, best)
    if not state.stopped:
        state.stopped = f"all {total} steps done" if total != 1 else "the only step done"
    return best


def rows_of_step(rows: Sequence[Item], step: int, recipe: Recipe) -> list[Item]:
    """Return the rows of 0-based `step`: each epoch is one permutation, drawn by seed and epoch."""
    per_epoch = recipe.steps_per_epoch(len(rows))
    epoch, place = divmod(step, per_epoch)
    order = list(range(len(rows)))
    random.Random(f"{recipe.seed}:{epoch}").shuffle(order)
    start = place * recipe.batch_size
    return [rows[index] for index in order[start : start + recipe.batch_size]]


def validation_values(parts: Parts) -> dict[str, float]:
    """Return validation_loss and the step's other metrics over all rows; empty without rows.

    All are means over the rows' weights.
    """
    if not parts.validation:
        return {}
    parts.model.eval()
    sums: dict[str, float] = {}
    weight = 0.0
    size = 4 * parts.recipe.batch_size  # no graph is kept, so more rows fit
    for start in range(0, len(parts.validation), size):
        rows = parts.validation[start : start + size]
        with torch.no_grad():
            result = parts.step(rows, parts.recipe.micro_batch, backward=False)
        for name, value in {"loss": result.loss, **result.metrics}.items():
            sums[name] = sums.get(name, 0.0) + value * result.weight
        weight += result.weight
    return {f"validation_{name}": value / weight for name, value in sums.items()} if weight else {}


def _evaluate(parts: Parts, state: State, best: Weights, total: int) -> Weights:
    """Measure the model as it is; return its weights if they are the best so far, else `best`."""
    values = validation_values(parts)
    standing = [-values["validation_loss"]] if values else []
    if parts.score is not None:
        parts.model.eval()
        values["validation_score"] = float(parts.score(parts.model))
        standing.insert(0, values["validation_score"])
    if not values:  # nothing to judge by: the newest is the best
        state.best_step = state.step
        return parts.strategy.snapshot(parts.model)
    state.history.append({"step": state.step, **values})
    parts.record(values, state.step)
    parts.emit(Event(STAGE, "metric", done=state.step, total=total, data=dict(values)))
    if all(map(math.isfinite, standing)) and (not state.best_score or standing > state.best_score):
        state.best_score, state.best_step, state.stale = standing, state.step, 0
        return parts.strategy.snapshot(parts.model)
    state.stale += 1
    if state.stale >= parts.recipe.patience and state.step < total:
        state.stopped = _no_gain(state)
    return best


def _no_gain(state: State) -> str:
    """Return why looks without a gain ended the run, and whether it was overfitting."""
    said = f"no gain in {state.stale} evaluations (best at step {state.best_step})"
    looks = [p["validation_loss"] for p in state.history if "validation_loss" in p]
    early = [p["loss"] for p in state.history if "loss" in p and p["step"] <= state.best_step]
    late = [p["loss"] for p in state.history if "loss" in p and p["step"] > state.best_step]
    if not (looks and early and late) or looks[-1] <= min(looks) or late[-1] >= early[-1]:
        return said
    return (
        f"{said}: overfitting, the validation loss rose from {min(looks):.3f} to {looks[-1]:.3f} "
        f"while the training loss fell from {early[-1]:.3f} to {late[-1]:.3f}"
    )


def _gradient_norm(parts: Parts) -> float:
    """Clip the step's gradients, at their true size; return the norm they had."""
    if parts.scaler is not None:
        parts.scaler.unscale(parts.optimizer)
    return parts.strategy.clip(parts.model, parts.recipe.max_grad_norm)


def _update(parts: Parts, state: State) -> None:
    """Change the weights; with fp16 not where a gradient overflowed."""
    if parts.scaler is None:
        parts.strategy.update(parts.optimizer)
    else:
        parts.scaler.step(parts.optimizer)
        state.scaler = parts.scaler.state()
    parts.optimizer.zero_grad(set_to_none=True)


def _trouble(state: State, loss: float, norm: float) -> str:
    """Return why training must stop before this update, or an empty string.

    A loss counts as wild above twice the first one and at least 2 nats above it.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        what = "the loss" if not math.isfinite(loss) else "a gradient"
        return f"diverged: {what} is not a number at step {state.step + 1}"
    if state.first_loss is None:
        state.first_loss = loss
    wild = loss > max(2 * state.first_loss, state.first_loss + 2)
    state.wild = state.wild + 1 if wild else 0
    if state.wild >= _WILD_STEPS:
        return (
            f"diverged: the loss is {loss:.2f} at step {state.step + 1}, "
            f"it began at {state.first_loss:.2f}"
        )
    return ""


def _tell(parts: Parts, state: State, total: int, clock: _Clock) -> None:
    """Report progress, with the newest value of everything measured."""
    data: dict[str, Any] = {}
    for point in state.history[-2:]:
        data |= {k: v for k, v in point.items() if k != "step"}
    data["eta_s"] = clock.remaining(state.step)
    message = f"step {state.step} of {total}"
    parts.emit(Event(STAGE, "progress", message, done=state.step, total=total, data=data))


class _Clock:
    """Seconds a step and what is left, measured over this process's own steps."""

    def __init__(self, first: int, total: int) -> None:
        self._began = self._last = time.monotonic()
        self._first, self._total = first, total

    def point(self, step: int, result: StepResult, rate: float, norm: float) -> dict[str, Any]:
        """Return the history entry of a step; tokens count as without sharing."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return {
            "step": step,
            "loss": result.loss,
            **result.metrics,
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens_per_s": round(result.total / max(seconds, 1e-9), 1),
            "seconds": round(seconds, 4),
        }

    def remaining(self, step: int) -> float:
        """Return the seconds that the remaining steps should take."""
        done = max(1, step - self._first)
        return round((time.monotonic() - self._began) / done * (self._total - step), 1)
