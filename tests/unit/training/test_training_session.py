"""A whole job on a tiny model: what it writes, how it stops, what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.errors import DataError, ModelError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.training import loop
from tutelage.training.methods.sft import Supervised
from tutelage.training.optim import rate_at
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, TrainResult, train
from tutelage.training.shared_step import StepResult

RECIPE = Recipe(
    rank=4, alpha=8.0, learning_rate=1e-2, epochs=4, batch_size=4, micro_batch=4,
    eval_every=3, patience=99, checkpoint_every=50,
)  # fmt: skip
PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."


class Run:
    """Runs jobs on the tiny model and keeps the events."""

    def __init__(self, source: ModelSource, rows: list[Example], folder: Path) -> None:
        self.source, self.rows, self.folder = source, rows, folder
        self.events: list[Event] = []

    def __call__(self, recipe: Recipe = RECIPE, **options: Any) -> TrainResult:
        job = TrainingJob(
            self.source, self.rows[:8], self.rows[8:], PROMPT, recipe, self.folder / "run"
        )
        return train(job, emit=self.events.append, **options)


@pytest.fixture
def run(tiny_source: ModelSource, colours: list[Example], tmp_path: Path) -> Run:
    return Run(tiny_source, colours, tmp_path)


def test_a_job_learns_and_writes_a_clean_adapter(run: Run) -> None:
    result = run()
    losses = [point["loss"] for point in result.history if "loss" in point]
    validation = [p["validation_loss"] for p in result.history if "validation_loss" in p]
    assert len(losses) == result.steps == 8
    assert losses[-1] < 0.75 * losses[0]
    assert min(validation) < validation[0]
    assert result.stopped == "all 8 steps done"
    assert result.prefix["shared"] is True
    assert result.prefix["unique"] < 0.5 * result.prefix["total"]
    assert result.coverage["rows"] == 8
    names = {file.name for file in result.adapter_dir.iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}
    config = (result.adapter_dir / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == "tiny"
    assert str(run.source.path) not in config
    assert str(run.folder) not in config
    history = json.loads((run.folder / "run" / "history.json").read_text())
    assert history["history"] == result.history


def test_the_adapter_loads_and_gives_the_best_validation_loss(run: Run) -> None:
    from tutelage.inference.transformers import load_model, load_tokenizer
    from tutelage.training.encode import encode
    from tutelage.training.shared_step import plain_step

    result = run()
    model = load_model(run.source, adapter=result.adapter_dir)
    tokenizer = load_tokenizer(run.source)
    rows = encode(run.rows[8:], tokenizer, PROMPT, max_tokens=1024).rows
    with torch.no_grad():
        loss = plain_step(model, rows, 4, backward=False).loss
    best = min(p["validation_loss"] for p in result.history if "validation_loss" in p)
    assert loss == pytest.approx(best, abs=1e-5)


def test_sharing_changes_nothing_but_the_cost(run: Run, tmp_path: Path) -> None:
    shared = run()
    run.folder = tmp_path / "plain"
    plain = run(RECIPE.model_copy(update={"shared_prefix": False}))
    assert plain.prefix["reason"] == "the recipe turns it off"
    for one, other in zip(shared.history, plain.history, strict=True):
        name = "loss" if "loss" in one else "validation_loss"
        assert one[name] == pytest.approx(other[name], abs=1e-4)


def test_progress_says_how_far_and_how_long(run: Run) -> None:
    run()
    steps = [event for event in run.events if event.kind == "progress"]
    assert [(event.done, event.total) for event in steps] == [(i, 8) for i in range(1, 9)]
    assert {event.stage for event in run.events} == {"train"}
    assert set(steps[2].data) >= {
        "loss", "validation_loss", "learning_rate", "tokens_per_s", "eta_s",
    }  # fmt: skip
    assert run.events[0].message.endswith("tokens in 8 rows")
    assert run.events[-1].kind == "done"


def test_it_stops_when_nothing_is_gained_and_keeps_the_best(run: Run) -> None:
    scores = iter([0.2, 0.9, 0.5, 0.5, 0.4])
    recipe = RECIPE.model_copy(update={"epochs": 20, "eval_every": 2, "patience": 2})
    result = run(recipe, score=lambda model: next(scores))
    assert result.stopped == "no gain in 2 evaluations (best at step 2)"
    assert (result.best_step, result.steps) == (2, 6)


@pytest.mark.parametrize(
    ("losses", "remedy"),
    [
        ([1.0, 1.0, 1.001, 1.0], "Raise train.learning_rate or train.epochs"),
        ([1.0, 1.2, 1.3, 1.4], "Lower train.learning_rate"),
    ],
)
def test_a_run_that_gains_nothing_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, losses: list[float], remedy: str
) -> None:
    looks = iter(losses)
    monkeypatch.setattr(loop, "validation_values", lambda parts: {"validation_loss": next(looks)})
    assert run().best_step == 0
    (warned,) = [event.message for event in run.events if event.kind == "warning"]
    assert warned.startswith("Nothing was gained: no evaluation was better than the start")
    assert remedy in warned
    assert run.events[-1].message == "Nothing gained; all 8 steps done"


def test_equal_scores_are_decided_by_the_validation_loss(run: Run) -> None:
    result = run(score=lambda model: 0.5)
    losses = {p["step"]: p["validation_loss"] for p in result.history if "validation_loss" in p}
    assert result.best_step == min(losses, key=lambda step: losses[step])


@pytest.mark.parametrize(
    ("bad_loss", "reason", "steps"),
    [
        (math.nan, "diverged: the loss is not a number at step 5", 4),
        (100.0, "diverged: the loss is 100.00 at step 7, it began at 5.81", 6),
    ],
)
def test_a_run_that_diverges_stops_and_keeps_the_best(
    run: Run, monkeypatch: pytest.MonkeyPatch, bad_loss: float, reason: str, steps: int
) -> None:
    real = Supervised.step

    def breaking(objective: Supervised, *given: Any) -> Any:
        step, report = real(objective, *given)
        calls = 0

        def wrapped(rows: Any, micro_batch: int, *, backward: bool = True) -> StepResult:
            nonlocal calls
            calls += backward
            result: StepResult = step(rows, micro_batch, backward=backward)
            return StepResult(bad_loss, 1.0, 1, 1) if backward and calls > 4 else result

        return wrapped, report

    monkeypatch.setattr(Supervised, "step", breaking)
    result = run()
    assert (result.stopped, result.steps) == (reason, steps)
    scored = {p["step"]: p["validation_loss"] for p in result.history if "validation_loss" in p}
    assert result.best_step == min(scored, key=lambda step: scored[step]) > 0
    assert (result.adapter_dir / "adapter_model.safetensors").exists()


def test_parameters_that_do_not_learn_are_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "set_rate", lambda optimizer, rate: _no_rate(optimizer))
    with pytest.raises(ModelError) as caught:
        run()
    assert "trained parameters did not change" in caught.value.what


def _no_rate(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.0


def test_rows_without_answers_stop_before_the_first_step(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    rows = [Example(messages=(Message(role="user", content="amber"),))]
    job = TrainingJob(tiny_source, rows, [], PROMPT, RECIPE, tmp_path)
    with pytest.raises(DataError, match=rows[0].id):
        train(job)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_the_bits_learn_too(run: Run, precision: str) -> None:
    result = run(RECIPE.model_copy(update={"precision": precision}))
    losses = [point["loss"] for point in result.history if "loss" in point]
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule: str, expected: list[float]) -> None:
    recipe = Recipe(learning_rate=1.0, warmup=0.375, schedule=schedule)
    assert [rate_at(step, 8, recipe) for step in range(8)] == pytest.approx(expected)


def test_every_epoch_sees_every_row_once(run: Run) -> None:
    from tutelage.training.encode import make_row

    rows = [make_row(str(i), [1, 2], [3], 0.0) for i in range(10)]
    recipe = RECIPE.model_copy(update={"batch_size": 4})
    for epoch in range(2):
        seen = [r.id for s in range(3) for r in loop.rows_of_step(rows, 3 * epoch + s, recipe)]
        assert sorted(seen) == sorted(row.id for row in rows)
        assert seen != sorted(seen)


def test_overfitting_stops_the_run_and_is_named(run: Run) -> None:
    rows = [row for row in run.rows if row.label == "warm"]
    cold = [row for row in run.rows if row.label == "cold"]
    run.rows = rows[:4] + rows[:4] + cold[:4]  # what is learned is wrong for what is judged
    recipe = RECIPE.model_copy(update={"epochs": 40, "eval_every": 2, "patience": 3})
    result = run(recipe)
    assert result.stopped.startswith("no gain in 3 evaluations (best at step ")
    assert ": overfitting, the validation loss rose from " in result.stopped
    assert result.steps < 80
    scored = {p["step"]: p["validation_loss"] for p in result.history if "validation_loss" in p}
    assert result.best_step == min(scored, key=lambda step: scored[step])
