"""One training job from model and rows to an adapter folder; started again, it goes on.

Everything is kept in `run_dir`: checkpoints/, adapter/, history.json. The stage around it
(workflows/training/train.py) decides what to train and files the result.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tutelage.core.artifact import content_hash, hash_files
from tutelage.core.errors import ModelError
from tutelage.core.events import Emit, Event, silent
from tutelage.core.workspace import atomic_write
from tutelage.inference.transformers import load_tokenizer
from tutelage.inference.tuned import read_tuned, tuned_files, write_info
from tutelage.training.adapters import continue_from, digests, snapshot, trained_parameters
from tutelage.training.checkpoint import (
    Checkpoint,
    load_newest,
    random_state,
    save_checkpoint,
    set_random_state,
)
from tutelage.training.distributed import open_team
from tutelage.training.interpolate import interpolate
from tutelage.training.job import TrainingJob, TrainResult
from tutelage.training.kernels import prepare_compute
from tutelage.training.loop import STAGE, Parts, State, Step, Weights, run_loop
from tutelage.training.loss_scale import make_scaler
from tutelage.training.methods import resolve
from tutelage.training.methods.base import Objective, Prepared, Tuning
from tutelage.training.strategies import SPREAD, make_strategy
from tutelage.training.strategies.base import Strategy
from tutelage.training.tracker import NullTracker, Tracker
from tutelage.training.tunings.full import save_tokenizer

__all__ = ["TrainResult", "TrainingJob", "job_key", "peak_memory_mb", "train"]

Score = Callable[[torch.nn.Module], float]
_RESULT = "adapter"  # the folder in run_dir that takes what was trained
_ROSE = 1.01  # a validation loss this many times the first one has risen


def train(job: TrainingJob, *, emit: Emit = silent, score: Score | None = None) -> TrainResult:
    """Train `job` to its end and return where the weights lie.

    Continues from the newest sound checkpoint in `job.run_dir` of the same job. `score` measures
    the model in evaluation mode, higher is better; without it the validation loss decides which
    weights are best. Raises DataError before the first step if nothing is labelled. Started by
    torchrun or Ray, the processes share the work; the first one speaks and writes.
    """
    with open_team(alone=job.recipe.strategy in SPREAD) as team:
        if not team.first:
            job, emit = replace(job, tracker=NullTracker()), silent
        return _train(job, make_strategy(job.recipe, team), emit, score)


def _train(job: TrainingJob, strategy: Strategy, emit: Emit, score: Score | None) -> TrainResult:
    started = time.monotonic()
    recipe, team = job.recipe, strategy.team
    method = resolve(recipe.method)
    objective, tuning = method.objective(recipe), method.tuning(recipe)
    tokenizer = load_tokenizer(job.model)
    rows = objective.prepare(job, tokenizer, emit)
    load = partial(_load, job, objective, tuning)
    whole = load()
    trainable = sum(p.numel() for p in trained_parameters(whole).values())
    model = strategy.place(whole)
    step, prefix = _step(strategy, model, objective, rows, emit)
    fresh = digests(strategy.snapshot(model))
    optimizer = strategy.optimizer(model)
    key = job_key(job, rows)
    state, best = _resume(job.run_dir, key, model, optimizer, emit, strategy)
    team.agree(state.step, "the step to go on from")
    if not best:
        torch.manual_seed(recipe.seed)
    scaler = make_scaler(model, recipe, state.scaler)
    parts = Parts(
        model=model,
        optimizer=optimizer,
        step=strategy.share(step if scaler is None else scaler.wrap(step), model),
        train=rows.train,
        validation=rows.validation,
        recipe=recipe,
        emit=emit,
        keep=_keeper(job.run_dir, key, model, optimizer, emit, strategy),
        record=job.tracker.log_metrics,
        score=strategy.score(score),
        scaler=scaler,
        strategy=strategy,
    )
    best = _run(parts, state, best, job)
    _require_change(fresh, digests(strategy.snapshot(model)), state)
    adapter = hasattr(model, "peft_config")
    best, kept = interpolate(parts, best, None if adapter else lambda: snapshot(load()))
    made = strategy.finished(model, best, load)
    if team.first:
        tuning.save(made, job.run_dir / _RESULT, job.model.name)
        _complete(job, tokenizer, objective.describe(job, made))
    team.wait()
    result = TrainResult(
        adapter_dir=job.run_dir / _RESULT,
        best_step=state.best_step,
        steps=state.step,
        stopped=state.stopped,
        history=state.history,
        seconds=round(time.monotonic() - started, 2),
        peak_memory_mb=peak_memory_mb(),
        trainable=trainable,
        coverage=rows.coverage.as_dict(),
        prefix=prefix,
        interpolation=kept,
    )
    if team.first:
        _finish(job, result, emit)
    return result


def _load(job: TrainingJob, objective: Objective, tuning: Tuning) -> Any:
    """Return the model as the run starts from it, whole."""
    model = tuning.attach(objective.load(job), job.recipe)
    prepare_compute(model, job.recipe)
    if job.start is not None:
        continue_from(model, job.start)
    return model


def _step(
    strategy: Strategy, model: Any, objective: Objective, rows: Prepared, emit: Emit
) -> tuple[Step, dict[str, Any]]:
    """Return the objective's step on this process's rows, and the report on prefix sharing."""
    recipe = strategy.recipe
    if strategy.reason:
        recipe = recipe.model_copy(update={"shared_prefix": False})
    step, prefix = objective.step(model, rows.train, recipe, emit)
    strategy.narrow(model)
    return step, prefix | ({"reason": strategy.reason} if strategy.reason else {})


def _complete(job: TrainingJob, tokenizer: Any, info: dict[str, Any]) -> None:
    """Put beside the weights what is needed to answer with them."""
    folder = job.run_dir / _RESULT
    if read_tuned(folder).kind == "model":
        save_tokenizer(tokenizer, folder)
    write_info(folder, info)


def job_key(job: TrainingJob, rows: Prepared) -> str:
    """Return the hash of what decides a run's outcome: a checkpoint of another key is not used."""
    return content_hash(
        {
            "model": job.model.digest,
            "recipe": job.recipe.model_dump(mode="json"),
            "start": hash_files(job.start, tuned_files(job.start)) if job.start else None,
            "train": [asdict(item) for item in rows.train],  # type: ignore[call-overload]
            "validation": [item.id for item in rows.validation],
        }
    )


def peak_memory_mb() -> float:
    """Return this process's highest resident memory so far in MB (2**20 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 1024, 1)


def _resume(
    run_dir: Path,
    key: str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    emit: Emit,
    strategy: Strategy,
) -> tuple[State, Weights]:
    """Put the newest sound checkpoint back; return its state and best weights, or fresh ones."""
    found, skipped = load_newest(run_dir / "checkpoints", key)
    for problem in skipped:
        emit(Event(STAGE, "warning", f"A checkpoint was skipped: {problem}"))
    if found is None:
        return State(), {}
    strategy.restore(model, found.weights)
    strategy.load(optimizer, found.optimizer)
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
    strategy: Strategy,
) -> Callable[[State, Weights], None]:
    """Return the function that writes a checkpoint of the run as it is now."""

    team = strategy.team

    def keep(state: State, best: Weights) -> None:
        weights, kept = strategy.snapshot(model), strategy.state(optimizer)
        if not team.first:
            team.wait()
            return

        def seam(name: str) -> None:
            emit(Event(STAGE, "metric", data={"checkpoint": name, "step": state.step}))

        checkpoint = Checkpoint(
            step=state.step,
            key=key,
            weights=weights,
            best=best,
            optimizer=kept,
            counters=dict(vars(state)),
            random=random_state(),
        )
        save_checkpoint(run_dir / "checkpoints", checkpoint, seam)
        team.wait()

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


def _require_change(fresh: dict[str, str], now: dict[str, str], state: State) -> None:
    """Raise ModelError if a finished run left a trained parameter as it was."""
    if state.step == 0:
        raise ModelError(
            f"training {state.stopped or 'made no step'}",
            fix="Lower train.learning_rate, or set train.precision to fp32",
        )
    taken = state.step - sum(bool(point.get("skipped")) for point in state.history)
    if taken == 0:
        raise ModelError(
            "every gradient overflowed in fp16, so no step was taken",
            fix="Set train.precision to bf16 or fp32",
        )
    same = [name for name, digest in fresh.items() if now[name] == digest]
    # A LoRA's A learns only once its B has moved: one step can't change every parameter.
    if same and taken > 1:
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
        "interpolation": result.interpolation,
        "history": result.history,
    }
    path = job.run_dir / "history.json"
    atomic_write(path, (json.dumps(history, indent=1) + "\n").encode())
    job.tracker.log_artifact(path)
    job.tracker.finish("FINISHED")
    lost = _nothing_gained(result)
    if lost:
        emit(Event(STAGE, "warning", lost))
    best = f"Best at step {result.best_step} of {result.steps}"
    emit(
        Event(
            STAGE,
            "done",
            f"{'Nothing gained' if lost else best}; {result.stopped}",
            done=result.steps,
            total=result.steps,
            data={"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb},
        )
    )


def _nothing_gained(result: TrainResult) -> str | None:
    """Return what to change if the weights the run started from were never bettered, or None."""
    if result.best_step:
        return None
    looks = [p["validation_loss"] for p in result.history if "validation_loss" in p]
    wild = result.stopped.startswith("diverged")
    rose = wild or (bool(looks) and not looks[-1] <= _ROSE * looks[0])
    told = f" (validation loss {looks[0]:.3f} at first, {looks[-1]:.3f} at last)" if looks else ""
    change = "Lower train.learning_rate" if rose else "Raise train.learning_rate or train.epochs"
    return (
        f"Nothing was gained: no evaluation was better than the start{told}, so the weights kept "
        f"are those of the start. {change}, and train again"
    )
