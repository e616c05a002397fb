"""One training job from model and rows to an adapter folder; started again, it goes on.

Everything is kept in `run_dir`: checkpoints/, adapter/, history.json. The stage around it
(workflows/train.py) decides what to train and files the result.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tutelage.core import plugins
from tutelage.core.artifact import content_hash
from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.core.events import Emit, Event, silent
from tutelage.core.example import Example
from tutelage.core.workspace import atomic_write
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model, load_tokenizer
from tutelage.training.adapters import restore, snapshot, trained_parameters
from tutelage.training.checkpoint import (
    Checkpoint,
    load_newest,
    load_optimizer,
    optimizer_tensors,
    random_state,
    save_checkpoint,
    set_random_state,
)
from tutelage.training.encode import Encoded, encode
from tutelage.training.loop import STAGE, Parts, State, Step, Weights, run_loop
from tutelage.training.methods.base import Method
from tutelage.training.optim import make_optimizer
from tutelage.training.precision import autocast, halve_frozen
from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.recipe import Recipe
from tutelage.training.self_check import self_check
from tutelage.training.shared_step import SharedStep, StepResult, plain_step
from tutelage.training.tracker import NullTracker, Tracker

Score = Callable[[torch.nn.Module], float]


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, how, and where its files go."""

    model: ModelSource
    train: list[Example]
    validation: list[Example]
    prompt: str
    recipe: Recipe
    run_dir: Path
    tracker: Tracker = field(default_factory=NullTracker)


@dataclass(frozen=True)
class TrainResult:
    """What came out. `adapter_dir` holds the best weights, those of `best_step`.

    `trainable` counts trained parameters, `seconds` is of this process alone, `prefix` says
    whether prefixes were shared, why not, and how many tokens that saved.
    """

    adapter_dir: Path
    best_step: int
    steps: int
    stopped: str
    history: list[dict[str, Any]]
    seconds: float
    peak_memory_mb: float
    trainable: int
    coverage: dict[str, Any]
    prefix: dict[str, Any]


def train(job: TrainingJob, *, emit: Emit = silent, score: Score | None = None) -> TrainResult:
    """Train `job` to its end and return where the adapter lies.

    Continues from the newest sound checkpoint in `job.run_dir` of the same job. `score` measures
    the model in evaluation mode, higher is better; without it the validation loss decides which
    weights are best. Raises DataError before the first step if nothing is labelled.
    """
    started = time.monotonic()
    recipe = job.recipe
    _check_precision(recipe)
    tokenizer = load_tokenizer(job.model)
    rows, validation = _encode(job, tokenizer, emit)
    method: Method = plugins.load("methods", recipe.method)()
    model = method.attach(load_model(job.model, dtype="float32"), recipe)
    step, prefix = choose_step(model, rows.rows, recipe, emit)
    halve_frozen(model, recipe.precision)
    fresh = snapshot(model)
    optimizer = make_optimizer(trained_parameters(model).values(), recipe)
    key = job_key(job, rows.rows)
    state, best = _resume(job.run_dir, key, model, optimizer, emit)
    if not best:
        torch.manual_seed(recipe.seed)
    parts = Parts(
        model=model,
        optimizer=optimizer,
        step=step,
        train=rows.rows,
        validation=validation,
        recipe=recipe,
        emit=emit,
        keep=_keeper(job.run_dir, key, model, optimizer, emit),
        record=job.tracker.log_metrics,
        score=score,
    )
    best = _run(parts, state, best, job)
    _require_change(fresh, model, state)
    restore(model, best)
    adapter = job.run_dir / "adapter"
    method.save(model, adapter, job.model.name)
    result = TrainResult(
        adapter_dir=adapter,
        best_step=state.best_step,
        steps=state.step,
        stopped=state.stopped,
        history=state.history,
        seconds=round(time.monotonic() - started, 2),
        peak_memory_mb=peak_memory_mb(),
        trainable=sum(p.numel() for p in trained_parameters(model).values()),
        coverage=rows.coverage.as_dict(),
        prefix=prefix,
    )
    _finish(job, result, emit)
    return result


def job_key(job: TrainingJob, rows: list[Row]) -> str:
    """Return the hash of what decides a run's outcome: a checkpoint of another key is not used."""
    return content_hash(
        {
            "model": job.model.digest,
            "recipe": job.recipe.model_dump(),
            "rows": [[row.id, row.ids, row.answer_start] for row in rows],
            "validation": [example.id for example in job.validation],
        }
    )


def choose_step(
    model: torch.nn.Module, rows: list[Row], recipe: Recipe, emit: Emit
) -> tuple[Step, dict[str, Any]]:
    """Return the function that runs a step's rows, and the report on prefix sharing."""
    forest = build_forest(rows[: recipe.batch_size])
    report: dict[str, Any] = {"shared": False, "unique": forest.unique, "total": forest.total}
    if not recipe.shared_prefix:
        report["reason"] = "the recipe turns it off"
    elif not forest.pays:
        report["reason"] = f"{forest.unique} of {forest.total} tokens are unique: little to share"
    else:
        reason = self_check(model, rows)
        if reason is None:
            report |= {"shared": True, "reason": "agrees with the plain path"}
        else:
            report["reason"] = reason
            emit(Event(STAGE, "warning", f"Prefixes are not shared: {reason}"))
    shared = SharedStep(model) if report["shared"] else None

    def step(rows: Sequence[Row], micro_batch: int, *, backward: bool = True) -> StepResult:
        with autocast(model, recipe.precision):
            if shared is not None:
                return shared(rows, micro_batch, backward=backward)
            return plain_step(model, rows, micro_batch, backward=backward)

    return step, report


def peak_memory_mb() -> float:
    """Return this process's highest resident memory so far in MB (2**20 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 1024, 1)


def _encode(job: TrainingJob, tokenizer: Any, emit: Emit) -> tuple[Encoded, list[Row]]:
    limit, weight = job.recipe.max_tokens, job.recipe.prompt_loss_weight
    rows = encode(job.train, tokenizer, job.prompt, max_tokens=limit, prompt_loss_weight=weight)
    lost = bool(rows.coverage.rejected or rows.coverage.shortened)
    text = rows.coverage.sentence()
    emit(Event(STAGE, "warning" if lost else "note", text, data=rows.coverage.as_dict()))
    validation: list[Row] = []
    if job.validation:  # judged on answers alone
        validation = encode(job.validation, tokenizer, job.prompt, max_tokens=limit).rows
    return rows, validation


def _check_precision(recipe: Recipe) -> None:
    if recipe.precision == "fp16":
        raise EnvironmentProblem(
            "fp16 training needs loss scaling, which is not there yet",
            fix="Set train.precision to bf16 or fp32",
        )


def _resume(
    run_dir: Path,
    key: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    emit: Emit,
) -> tuple[State, Weights]:
    """Put the newest sound checkpoint back; return its state and best weights, or fresh ones."""
    found, skipped = load_newest(run_dir / "checkpoints", key)
    for problem in skipped:
        emit(Event(STAGE, "warning", f"A checkpoint was skipped: {problem}"))
    if found is None:
        return State(), {}
    restore(model, found.weights)
    load_optimizer(optimizer, found.optimizer)
    set_random_state(found.random)
    state = State(**found.counters)
    emit(Event(STAGE, "note", f"Continuing from step {state.step}", done=state.step))
    return state, found.best


def _keeper(
    run_dir: Path,
    key: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    emit: Emit,
) -> Callable[[State, Weights], None]:
    """Return the function that writes a checkpoint of the run as it is now."""

    def keep(state: State, best: Weights) -> None:
        def seam(name: str) -> None:
            emit(Event(STAGE, "metric", data={"checkpoint": name, "step": state.step}))

        checkpoint = Checkpoint(
            step=state.step,
            key=key,
            weights=snapshot(model),
            best=best,
            optimizer=optimizer_tensors(optimizer),
            counters=dict(vars(state)),
            random=random_state(),
        )
        save_checkpoint(run_dir / "checkpoints", checkpoint, seam)

    return keep


def _run(parts: Parts, state: State, best: Weights, job: TrainingJob) -> Weights:
    """Run the loop; the tracker learns how it ended, whatever happens."""
    parts.emit(Event(STAGE, "start", total=parts.recipe.total_steps(len(parts.train))))
    job.tracker.log_params({**job.recipe.model_dump(), "model": job.model.name})
    with _ending(job.tracker):
        return run_loop(parts, state, best)


@contextlib.contextmanager
def _ending(tracker: Tracker) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def _require_change(fresh: Weights, model: torch.nn.Module, state: State) -> None:
    """Raise ModelError if a finished run left a trained parameter as it was."""
    if state.step == 0:
        raise ModelError(
            f"training {state.stopped or 'made no step'}",
            fix="Lower train.learning_rate, or set train.precision to fp32",
        )
    same = [n for n, p in trained_parameters(model).items() if torch.equal(p.cpu(), fresh[n])]
    # A LoRA's A learns only once its B has moved: one step can't change every parameter.
    if same and state.step > 1:
        raise ModelError(
            f"{len(same)} of {len(fresh)} trained parameters did not change, {same[0]} among them",
            fix="Report this: the model's layers do not pass gradients on to the adapter",
        )


def _finish(job: TrainingJob, result: TrainResult, emit: Emit) -> None:
    history = {
        "steps": result.steps,
        "best_step": result.best_step,
        "stopped": result.stopped,
        "coverage": result.coverage,
        "prefix": result.prefix,
        "history": result.history,
    }
    path = job.run_dir / "history.json"
    atomic_write(path, (json.dumps(history, indent=1) + "\n").encode())
    job.tracker.log_artifact(path)
    job.tracker.finish("FINISHED")
    emit(
        Event(
            STAGE,
            "done",
            f"Best at step {result.best_step} of {result.steps}; {result.stopped}",
            done=result.steps,
            total=result.steps,
            data={"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb},
        )
    )
