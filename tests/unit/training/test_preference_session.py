"""Whole preference runs on a tiny model: they learn, start from an earlier stage, and go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.events import Event, silent
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, train

PROMPT = "Answer the question about the number in the voice of a polite clerk at a desk."
RECIPE = Recipe(
    method="dpo", rank=4, alpha=8.0, learning_rate=5e-3, epochs=3, batch_size=4, micro_batch=4,
    warmup=0.0, eval_every=3, patience=99, checkpoint_every=2, beta=0.5, dropout=0.1,
)  # fmt: skip


def pair(index: int) -> Example:
    return Example(
        messages=(
            Message(role="user", content=f"number {index}?"),
            Message(role="assistant", content=f"{index}, if you please"),
        ),
        meta={"rejected": f"what {index}"},
    )


def job_of(source: ModelSource, folder: Path, recipe: Recipe = RECIPE) -> TrainingJob:
    rows, held_out = [pair(i) for i in range(16)], [pair(i) for i in range(90, 96)]
    return TrainingJob(source, rows, held_out, PROMPT, recipe, folder)


@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_preferences_are_learned(
    tiny_source: ModelSource, tmp_path: Path, method: str, tune: str
) -> None:
    rate = 5e-3 if tune == "lora" else 5e-4
    recipe = RECIPE.model_copy(
        update={"method": method, "tune": tune, "learning_rate": rate, "dropout": 0.0}
    )
    result = train(job_of(tiny_source, tmp_path / "run", recipe))
    looks = [p for p in result.history if "validation_loss" in p]
    assert looks[0]["validation_preference_accuracy"] == 0.5
    assert looks[-1]["validation_preference_accuracy"] == 1.0
    assert looks[-1]["validation_reward_margin"] > looks[0]["validation_reward_margin"] + 0.5
    assert looks[-1]["validation_loss"] < 0.9 * looks[0]["validation_loss"]
    assert result.prefix["shared"] is True
    assert result.prefix["unique"] < 0.5 * result.prefix["total"]
    assert result.coverage["rows"] == (16 if method == "dpo" else 32)
    written = json.loads((tmp_path / "run" / "history.json").read_text())
    assert written["history"] == result.history
    if tune == "lora":
        names = {file.name for file in result.adapter_dir.iterdir()}
        assert names == {"adapter_model.safetensors", "adapter_config.json"}


def test_the_tracker_gets_accuracy_and_margin(tiny_source: ModelSource, tmp_path: Path) -> None:
    class Keep:
        points: list[tuple[int, dict[str, float]]]

        def __init__(self) -> None:
            self.points = []

        def log_metrics(self, values: dict[str, float], step: int) -> None:
            self.points.append((step, dict(values)))

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    tracker: Any = Keep()
    train(replace(job_of(tiny_source, tmp_path / "run"), tracker=tracker))
    named = {name for _, values in tracker.points for name in values}
    assert {
        "preference_accuracy", "reward_margin", "reward_chosen", "reward_rejected",
        "validation_preference_accuracy", "validation_reward_margin", "validation_loss",
    } <= named  # fmt: skip


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(
    tiny_source: ModelSource, tmp_path: Path, at: int
) -> None:
    def stop(event: Event) -> None:
        if event.stage == "train" and event.kind == "progress" and event.done == at:
            raise Killed

    whole = train(job_of(tiny_source, tmp_path / "whole"))
    with pytest.raises(Killed):
        train(job_of(tiny_source, tmp_path / "cut"), emit=stop)
    events: list[Event] = []
    again = train(job_of(tiny_source, tmp_path / "cut"), emit=events.append)
    assert not [e for e in events if e.stage == "reference"]  # it was kept
    weights = [
        (run.adapter_dir / "adapter_model.safetensors").read_bytes() for run in (whole, again)
    ]
    assert weights[0] == weights[1]


def test_the_reference_is_the_stage_that_the_run_starts_from(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    first = RECIPE.model_copy(update={"method": "lora", "dropout": 0.0})
    tuned = train(job_of(tiny_source, tmp_path / "sft", first)).adapter_dir
    recipe = RECIPE.model_copy(update={"dropout": 0.0})
    job = replace(job_of(tiny_source, tmp_path / "dpo", recipe), start=tuned)
    result = train(job)
    looks = [p for p in result.history if "validation_loss" in p]
    # Against the base alone the supervised stage would already prefer the chosen answers.
    assert looks[0]["validation_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert looks[0]["validation_reward_margin"] == pytest.approx(0.0, abs=1e-3)
    assert looks[-1]["validation_preference_accuracy"] == 1.0
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "dpo" / "reference.safetensors")["logprobs"]
    base = train(job_of(tiny_source, tmp_path / "base", recipe), emit=silent)
    of_base = load_file(tmp_path / "base" / "reference.safetensors")["logprobs"]
    assert base.steps == result.steps
    assert float((kept - of_base)[0::2].mean()) > 1.0  # nats that the first stage gained
    assert not torch.equal(kept, of_base)
